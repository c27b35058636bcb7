"""OpenVINO: files without functions, run on the CPU."""
