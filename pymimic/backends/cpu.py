"""The compiled CPU kernels (csrc/cpu): allocates results and scratch, calls `pymimic._core`.

Three backends differ in how float32 arrays are multiplied; sums are float32 in all of them.

    "cpu"         as float32, by fused multiply-adds
    "cpu-bf16x3"  each number as the sum of three bfloat16 that hold all of its 24 bits, six of the nine products being made: as exact, and
                  faster on processors that multiply tiles of bfloat16 (Intel AMX); on others, and for a few rows, the same as "cpu".
                  An infinite operand makes NaN.
    "cpu-bf16"    rounded to bfloat16; h and da too, and h is made again in the backward pass. Layers are rounded only where there are tiles

In the shallow ops bfloat16 arrays, and handles of that dtype, are multiplied as bfloat16 by any of the three.

The environment variable PYMIMIC_ISA names the instruction set to use ("baseline", "avx2", "avx512", "avx512_bf16", "amx") in place
of the best that the machine can run.
"""

from __future__ import annotations

import os

import numpy as np
from ml_dtypes import bfloat16

from .. import _core
from ..plan import PANEL, Plan
from . import reference
from .interface import ACTIVATIONS, Activation, Array, LinearGrads, Mask, ShallowGrads, Update, gradient_arrays, memory_for

if os.environ.get("PYMIMIC_ISA"):
    _core.set_isa(os.environ["PYMIMIC_ISA"])


_FEW = 8  # rows for which making tiles of the weights takes longer than the products


class Cpu:
    """A `Backend` of NumPy arrays, by name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def keeps_h(self, k: int, C: int) -> bool:
        """Whether the forward pass can leave h for the backward pass."""
        return self.name != "cpu-bf16"

    def _terms(self, array: Array, plan: Plan | None = None) -> int:
        """How many bfloat16 stand for a number of these arrays, (rows, any), in a product: 0, 1 or 3."""
        if plan is not None and (plan.dtype == "bfloat16" or (plan.dtype == "float32" and self.name == "cpu-bf16")):
            return 1
        if self.name == "cpu" or array.dtype != np.float32 or not _core.has_tiles():
            return 0
        return 1 if self.name == "cpu-bf16" else 3 if len(array) > _FEW else 0

    mimic_loss = staticmethod(reference.mimic_loss)
    cross_entropy = staticmethod(reference.cross_entropy)
    distillation_loss = staticmethod(reference.distillation_loss)

    def shallow_forward(
        self, z: Array, U: Array, b: Array, W: Array, c: Array, activation: Activation, mask: Mask,
        plan: Plan, save: bool, room: Array | None, out: Array | None,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        terms = self._terms(z, plan)
        y = np.empty((len(z), W.shape[1]), b.dtype) if out is None else out
        kind = np.uint16 if plan.rounds_h else z.dtype
        saved = memory_for((_padded(len(z)) * len(U),), kind, room) if save else None
        if terms:
            operands = _bits(z), _bits(U), b, _bits(W), c
            _core.shallow_forward_bf16(*operands, _code(activation), mask, plan.slab, plan.row_block, terms, y, saved)
            return y, saved
        _core.shallow_forward(z, U, b, W, c, _code(activation), mask, plan.slab, plan.row_block, y, saved)
        return y, saved

    def shallow_backward(
        self, dy: Array, z: Array, U: Array, b: Array, W: Array, activation: Activation, mask: Mask,
        plan: Plan, saved: Array | None, needs: frozenset[str], out: ShallowGrads,
    ) -> ShallowGrads:  # fmt: skip
        if len(z) == 0:
            return reference.shallow_backward(dy, z, U, b, W, activation, mask, plan, None, needs, out)
        grads = gradient_arrays(needs, out, z, U, W, lambda shape: np.empty(shape, b.dtype))
        terms = self._terms(z, plan)
        if terms:
            operands = _bits(dy), _bits(z), _bits(U), b, _bits(W)
            _core.shallow_backward_bf16(*operands, _code(activation), mask, plan.slab, plan.row_block, terms, saved, *grads)
            return grads
        _core.shallow_backward(dy, z, U, b, W, _code(activation), mask, plan.slab, plan.row_block, saved, *grads)
        return grads

    def shallow_step(
        self, dy: Array, z: Array, params: dict[str, Array], slots: dict[str, tuple[Array, ...]], updates: dict[str, Update],
        activation: Activation, mask: Mask, plan: Plan, saved: Array | None, need_dz: bool,
    ) -> Array | None:  # fmt: skip
        if len(z) == 0:
            return reference.shallow_step(dy, z, params, slots, updates, activation, mask, plan, None, need_dz)
        dtype = params["U"].dtype
        dz, dc = np.empty(z.shape, dtype) if need_dz else None, np.empty(dy.shape[1], dtype)
        U, b, W, c = ((params[key], slots[key], _rule(updates[key])) for key in ("U", "b", "W", "c"))
        terms, how = self._terms(z, plan), (_code(activation), mask, plan.slab, plan.row_block)
        if terms:
            _core.shallow_step_bf16(_bits(dy), _bits(z), U, b, W, c, *how, terms, saved, dz, dc)
        else:
            _core.shallow_step(dy, z, U, b, W, c, *how, saved, dz, dc)
        return dz

    def linear_dropout(self, x: Array, weight: Array, bias: Array | None, activation: Activation, mask: Mask, out: Array | None) -> Array:
        out = np.empty((len(x), len(weight)), x.dtype) if out is None else out
        _core.linear(x, weight, bias, _code(activation), mask, self._terms(x), out)
        return out

    def linear_dropout_backward(
        self, dout: Array, x: Array, weight: Array, bias: Array | None, out: Array, activation: Activation,
        mask: Mask, needs: frozenset[str],
    ) -> LinearGrads:  # fmt: skip
        plain = activation == "identity" and mask.keep == 256
        da = None if plain else np.empty_like(dout)
        dx = np.empty_like(x) if "x" in needs else None
        dweight = np.empty_like(weight) if "weight" in needs else None
        dbias = np.empty(len(weight), x.dtype) if "bias" in needs else None
        _core.linear_backward(dout, x, weight, bias, out, _code(activation), mask, self._terms(x), da, dx, dweight, dbias)
        return LinearGrads(dx, dweight, dbias)

    def dropout(self, x: Array, mask: Mask, out: Array | None) -> Array:
        out = np.empty_like(x) if out is None else out
        _core.dropout(x, out, mask)
        return out

    def optimizer_update(self, param: Array, grad: Array, slots: tuple[Array, ...], update: Update) -> None:
        _core.update(param, grad, slots, _rule(update))


def _code(activation: Activation) -> int:
    return ACTIVATIONS.index(activation)


def _bits(array: Array) -> Array:
    """bfloat16 as uint16, which is how the core takes it; float32 as it is."""
    return array.view(np.uint16) if array.dtype == bfloat16 else array


def _rule(update: Update) -> _core._Update:
    """What the core takes: all but the last field, which is for devices."""
    return update[:-1]


def _padded(rows: int) -> int:
    return -(-rows // PANEL) * PANEL
