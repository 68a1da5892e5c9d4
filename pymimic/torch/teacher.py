"""Any module of torch as a teacher."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import _check
from ..backends.interface import Array
from ..data.answers import on_host
from ..data.classes import distinct
from ..data.fingerprint import digest, text

_ASKING = threading.RLock()  # modes are a module's, not a thread's


class ModuleTeacher:
    """What `teacher` returns: it has `logits` and `describe`, as `pymimic.Teacher` demands. It pickles if the module does."""

    def __init__(
        self, module: nn.Module, batch_size: int, device: torch.device | None, dtype: torch.dtype | None,
        input_shape: tuple[int, ...] | None, classes: list[Any] | None,
    ) -> None:  # fmt: skip
        self.module, self.batch_size, self.device, self.dtype = module, batch_size, device, dtype
        self.input_shape, self.classes = input_shape, classes

    def logits(self, x: Array) -> Array:
        """Logits (B, C) float32 of rows x (B, D)."""
        rows = _check.contiguous(_check.host_array("x", x))
        if rows.dtype.kind not in "fiub":
            raise TypeError(f"x: expected rows of real numbers, got {rows.dtype}")
        if rows.ndim < 2:
            raise ValueError(f"x: expected shape (B, D), got {_check.shape_text(rows.shape)}")
        first = next((given for given in self.module.parameters() if given.is_floating_point()), torch.empty(0))
        device, dtype = self.device or first.device, self.dtype or first.dtype
        if self.input_shape is not None:
            if math.prod(self.input_shape) != math.prod(rows.shape[1:]):
                raise ValueError(
                    f"input_shape: expected one of {math.prod(rows.shape[1:])} numbers, as x's rows have, got {self.input_shape}"
                )
            rows = rows.reshape(len(rows), *self.input_shape)
        name = type(self.module).__qualname__
        with _ASKING, torch.no_grad(), _evaluating(self.module):
            parts = []  # of copies: a module may write to what it gets, and give the same memory again
            for start in range(0, max(len(rows), 1), self.batch_size):
                part = torch.tensor(rows[start : start + self.batch_size])
                parts.append(on_host("logits", self.module(part.to(device, dtype)), name).astype(np.float32))
        return np.concatenate(parts)

    def describe(self) -> dict[str, Any]:
        """The module's class, and digests of its `state_dict` and of what it prints as."""
        kind = f"{type(self.module).__module__}.{type(self.module).__qualname__}"
        state = {name: given for name, given in self.module.state_dict().items() if isinstance(given, torch.Tensor)}
        settings = {"dtype": None if self.dtype is None else str(self.dtype), "input_shape": self.input_shape and list(self.input_shape)}
        return {"kind": "torch", "module": kind, "state_dict": digest(state), "layers": digest(text(self.module)), **settings}


def teacher(
    module: nn.Module, *, batch_size: int = 1024, device: str | torch.device | None = None, dtype: torch.dtype | None = None,
    input_shape: Sequence[int] | None = None, classes: Sequence[Any] | None = None,
) -> ModuleTeacher:  # fmt: skip
    """A teacher from any module of torch that gives logits (B, C) for rows: `TransferSet.create` and `from_teacher` take it.

    It is asked in evaluation mode and without gradients. Each of its parts has its own mode again afterwards, whatever happens.

    Parameters
    ----------
    module : takes a tensor (B, D), or (B, *input_shape), a copy of rows, and returns one; the module itself is not copied
    batch_size : rows that the module gets at a time
    device : where the module is, or None for where its first parameter is; it is not moved
    dtype : what rows become before the module gets them, or None for its first parameter's
    input_shape : of a row as the module takes it, such as (1, 28, 28), or None for (D,)
    classes : the labels that the columns stand for, where `Ensemble` and `out_of_fold` shall compare them
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype: expected a torch.dtype or None, got {type(dtype).__name__}")
    rows = _check.integer("batch_size", batch_size, 1, 1 << 62)
    shape = None if input_shape is None else tuple(_check.integers("input_shape", input_shape, 1, 1 << 31))
    place = None if device is None else torch.device(device)
    return ModuleTeacher(module, rows, place, dtype, shape, None if classes is None else distinct(classes))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and each part's own mode again afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    except BaseException:
        _restore(modes)
        raise
    if (error := _restore(modes)) is not None:
        raise error


def _restore(modes: list[tuple[nn.Module, bool]]) -> Exception | None:
    """Set all modes, parents first, by `train`, which may be a module's own; the first error that one raised."""
    first = None
    for part, training in modes:
        if part.training != training:
            try:
                part.train(training)
            except Exception as error:  # the module's own
                first = first or error
    for part, training in modes:
        if part.training != training:
            part.training = training
    return first
