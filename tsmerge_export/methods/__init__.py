"""The merging methods, one folder each, and beside them what several of them share.

A folder's ``__init__`` is the method's description (:class:`~tsmerge_export.settings.method.MethodSpec`) as ``METHOD``,
with its options; ``reference`` is the algorithm in eager PyTorch, ``operator`` the same in ONNX. Nothing outside names
a method: settings, flags, plans, operators, the search and the report are filled from
:mod:`tsmerge_export.settings.registry`.
"""
