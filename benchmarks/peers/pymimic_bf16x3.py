"""This library: float32 products as six of bfloat16, h made again in the backward pass; without AMX the same as "pymimic"."""

from functools import partial

from peers import pymimic

TITLE, RECOMPUTES = "pymimic, bf16x3", True
versions = pymimic.versions
forward, step, adamw = (partial(run, backend="cpu-bf16x3") for run in (pymimic.forward, pymimic.step, pymimic.adamw))
