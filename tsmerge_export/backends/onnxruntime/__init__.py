"""ONNX Runtime: the portable file, its sessions, its providers and the native operators."""
