"""This library: h is kept in float32 from the forward pass to the backward pass."""

from functools import partial

from peers import pymimic

TITLE = "pymimic, h kept"
versions = pymimic.versions
step = partial(pymimic.step, h="keep")
adamw = partial(pymimic.adamw, keep="float32")
