"""TensorRT: the plugin form, and engines built and run where a GPU is."""
