"""This library: as bf16x3, but h is kept in bfloat16 from the forward pass to the backward pass."""

from functools import partial

from peers import pymimic

TITLE, PRECISION, TOLERANCE = "pymimic, bf16 h", "mixed", 4e-3
versions = pymimic.versions
step = partial(pymimic.step, h="keep-bf16", backend="cpu-bf16x3")
adamw = partial(pymimic.adamw, keep="bfloat16", backend="cpu-bf16x3")
