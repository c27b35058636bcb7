"""The operator domain of merging in ONNX files; here, where what runs a bundle reads it without onnx."""

from __future__ import annotations

DOMAIN = "tsmerge"
#: Of its operators.
VERSION = 1
