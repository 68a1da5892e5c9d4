"""This library on a GPU in bfloat16, the step captured into a CUDA graph: the host launches it at once."""

from functools import partial

from peers import pymimic_cuda, pymimic_cuda_bf16
from peers.pymimic_cuda_bf16 import DEVICE, PRECISION, TOLERANCE, WEIGHT_BYTES, peak_bytes, versions

__all__ = ["DEVICE", "PRECISION", "TITLE", "TOLERANCE", "WEIGHT_BYTES", "adamw", "forward", "peak_bytes", "step", "versions"]
TITLE = "pymimic, bf16, CUDA graph"
forward, step = pymimic_cuda_bf16.forward, pymimic_cuda_bf16.step
adamw = partial(pymimic_cuda.adamw, dtype="bfloat16", backend="cuda-tf32", graph=True)
