"""Weights below float32: ONNX Runtime's own quantiser on a merged file, and a look at what it wrote.

Only products with a constant weight are touched. Merge decisions, sizes, normalisation and softmax are other operators,
or products of two values that both depend on the input, and stay float32.
"""
