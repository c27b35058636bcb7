"""``tsmerge triton`` without its flags: a bundle as a model of Triton Inference Server."""

from tsmerge_export.tools.triton.config import Serving
from tsmerge_export.tools.triton.repository import write

__all__ = ["Serving", "write"]
