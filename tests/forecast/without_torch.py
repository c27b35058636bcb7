"""A forecast in a process that cannot import torch."""

from __future__ import annotations

SCRIPT = """
import sys

import numpy as np
import tsmerge_export as tsm

for folder in sys.argv[1:]:
    model = tsm.pipeline(folder, threads=1)
    quantiles, mean = model.predict_quantiles(np.arange(30.0), 4, seed=0)
    assert quantiles.shape == (1, 4, 9), quantiles.shape
    tsm.load(folder)
heavy = {"torch", "transformers", "chronos", "onnx", "onnxscript", "onnx_ir", "pandas", "matplotlib"} & set(sys.modules)
sys.exit(f"imported: {sorted(heavy)}" if heavy else 0)
"""
