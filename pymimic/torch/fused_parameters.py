"""What a fused optimizer demands of its parameters, and what stands for their gradients."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

ONCE = (
    "step() must follow each backward pass; gradients cannot be accumulated, clipped, scaled or reduced by DistributedDataParallel: call "
    "release() and train net.parameters() with an optimizer of torch.optim for that"
)


def demand_plain(name: str, param: Tensor) -> None:
    """Demand what torch would train without asking anybody else."""
    if not (param.requires_grad and param.is_leaf):
        raise RuntimeError(
            f"{name}: expected a parameter that requires gradients, got one that is {'frozen' if param.is_leaf else 'computed'}"
        )
    if param._backward_hooks or getattr(param, "_post_accumulate_grad_hooks", None):
        raise RuntimeError(f"{name}: expected no hooks on a parameter whose gradient is never stored; {ONCE}")


def reached(leaf: Tensor) -> bool:
    """Whether the backward pass that runs accumulates a gradient of the leaf."""
    return bool(torch._C._will_engine_execute_node(get_gradient_edge(leaf).node))


class NeverStored(torch.Tensor):
    """What stands for a gradient between the backward pass and `step()`, without memory: whoever reads it is told."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        raise RuntimeError(f"grad: expected nobody to read a gradient that fused_optimizer has used and not stored; {ONCE}")

    __torch_dispatch__ = __torch_function__  # type: ignore[assignment]

    def __repr__(self) -> str:  # type: ignore[override]
        return "a gradient that fused_optimizer has used and not stored"
