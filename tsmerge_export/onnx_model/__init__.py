"""ONNX models: weights in and beside the file."""
