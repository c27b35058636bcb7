"""ONNX models: weights in and beside the file, floating-point operations."""
