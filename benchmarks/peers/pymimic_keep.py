"""This library as a `Trainer` takes it: products as in bf16x3, and h kept from the forward pass to the backward pass."""

from functools import partial

from peers import pymimic

TITLE = "pymimic, h kept"
versions = pymimic.versions
step = partial(pymimic.step, h="keep", backend="cpu-bf16x3")
adamw = partial(pymimic.adamw, keep="float32", backend="cpu-bf16x3")
