"""PyTorch, eager, with weights, activations and gradients all in bfloat16."""

from functools import partial

import torch
from peers import torch as eager

TITLE, PRECISION, WEIGHT_BYTES, TOLERANCE = "torch, bf16", "bfloat16", 2, 0.1
versions = eager.versions
forward = partial(eager.forward, dtype=torch.bfloat16)


def step(a):
    in_bf16 = eager.step(a, dtype=torch.bfloat16)

    def run():
        gradients = in_bf16()
        return lambda: {name: gradient.float() for name, gradient in gradients.items()}

    return run
