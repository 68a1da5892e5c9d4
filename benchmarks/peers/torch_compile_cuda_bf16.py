"""PyTorch on a GPU with torch.compile, tuned as far as it goes (minutes); bfloat16 as in torch_cuda_bf16."""

from functools import partial

import torch
from peers import torch_cuda

TITLE, PRECISION, WEIGHT_BYTES, TOLERANCE, DEVICE = "torch.compile, bf16", "bfloat16", 2, 0.1, "cuda"
versions, peak_bytes = torch_cuda.versions, torch_cuda.peak_bytes
_compiled = partial(torch.compile, mode="max-autotune", dynamic=False)
forward, step = (partial(work, compiled=_compiled, dtype=torch.bfloat16) for work in (torch_cuda.forward, torch_cuda.step))
adamw = partial(torch_cuda.adamw, compiled=_compiled, autocast=True)
