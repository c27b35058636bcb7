"""How the plugin is called, in files and in TensorRT's registry. Importing this needs nothing."""

from __future__ import annotations

from tsmerge_export.backends.base import PluginNode

#: Domain in which ONNX Runtime's TensorRT provider looks for plugins; TensorRT's own parser takes any.
PLUGIN_DOMAIN = "trt.plugins"
PLUGIN = "LocalMerge"
PLUGIN_VERSION = "1"
PLUGIN_NAMESPACE = ""
#: As a file has it.
NODE = PluginNode(PLUGIN_DOMAIN, PLUGIN, ("plugin_version", "plugin_namespace"))
