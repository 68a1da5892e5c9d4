"""PyTorch with torch.compile: forward and loss, and so the backward pass; for the forward pass alone, weights are frozen and packed."""

from functools import partial

import torch
from peers import torch as eager

TITLE = "torch.compile"
versions = eager.versions
compiled = partial(torch.compile, dynamic=False)
forward = partial(eager.forward, compiled=partial(compiled, options={"freezing": True}))
step = partial(eager.step, compiled=compiled)
adamw = partial(eager.adamw, compiled=compiled)
