"""This library on a GPU: bfloat16 in the wide layer, tf32 in the bottleneck, float32 sums and weights."""

from functools import partial

from peers import pymimic_cuda

TITLE, PRECISION, WEIGHT_BYTES, TOLERANCE = "pymimic, bf16", "bfloat16", 2, 0.1
DEVICE = "cuda"
versions, peak_bytes = pymimic_cuda.versions, pymimic_cuda.peak_bytes
forward, step, adamw = (
    partial(work, dtype="bfloat16", backend="cuda-tf32") for work in (pymimic_cuda.forward, pymimic_cuda.step, pymimic_cuda.adamw)
)
