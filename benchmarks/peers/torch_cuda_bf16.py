"""PyTorch on a GPU, eager: forward and step all in bfloat16, AdamW with autocast and float32 weights."""

from functools import partial

import torch
from peers import torch_cuda

TITLE, PRECISION, WEIGHT_BYTES, TOLERANCE, DEVICE = "torch, bf16", "bfloat16", 2, 0.1, "cuda"
versions, peak_bytes = torch_cuda.versions, torch_cuda.peak_bytes
forward, step = (partial(work, dtype=torch.bfloat16) for work in (torch_cuda.forward, torch_cuda.step))
adamw = partial(torch_cuda.adamw, autocast=True)
