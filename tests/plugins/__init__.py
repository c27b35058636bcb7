"""Tests of the TensorRT plugin."""
