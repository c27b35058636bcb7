"""Models of no known family: an ONNX file or an exported program in, a verified bundle out."""
