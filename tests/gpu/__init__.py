"""What only a GPU can prove. One command, on a machine with CUDA, onnxruntime-gpu and this package's tests::

    TSMERGE_ORT_CUDA_PLUGIN=build/ort_cuda/libtsmerge_ort_cuda.so python -m pytest tests/gpu -m gpu

Elsewhere these tests are skipped. On a machine without the whole package's dependencies, give ``TSMERGE_GPU_FILES`` a
folder that ``python -m tests.gpu.files FOLDER`` has made on another.
"""
