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
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from .. import _core
from ..plan import FEW_ROWS, PANEL, Plan
from .cpu_serving import Served
from .interface import ACTIVATIONS, Activation, Array, LinearGrads, Mask, Shallow, ShallowGrads, Slots, Update, gradient_arrays, memory_for
from .reference import Reference

if os.environ.get("PYMIMIC_ISA"):
    _core.set_isa(os.environ["PYMIMIC_ISA"])


class Cpu(Reference):
    """The ops in the compiled core; losses, and batches without rows, as the definition has them."""

    writes_h = False

    def keeps_h(self, k: int, C: int) -> bool:
        """Whether the forward pass can save h for the backward pass."""
        return self.name != "cpu-bf16"

    def passes(self, plan: Plan) -> dict[str, str]:
        saves = plan.h != "recompute" and self.keeps_h(plan.k, plan.C)
        terms = self._terms(plan.B, np.dtype(np.float64 if plan.dtype == "float64" else np.float32), plan)
        sizes = (plan.B, plan.k, plan.H, plan.C, plan.slab, plan.row_block, plan.dtype != "float64", terms)
        return {
            name: _in_words(_core.shallow_plan(*sizes, backward, backward, saves and not backward, False), plan.dtype)
            for name, backward in (("forward", False), ("backward", True))
        }

    def _terms(self, rows: int, dtype: np.dtype[Any], plan: Plan | None = None) -> int:
        """How many bfloat16 stand for a number in a product of so many rows of that type: 0, 1 or 3."""
        if plan is not None and (plan.dtype == "bfloat16" or (plan.dtype == "float32" and self.name == "cpu-bf16")):
            return 1
        if self.name == "cpu" or dtype != np.float32 or not _core.has_tiles():
            return 0
        return 1 if self.name == "cpu-bf16" else 3 if rows > FEW_ROWS else 0

    def shallow_forward(self, net: Shallow, c: Array, save: bool, room: Array | None, out: Array | None) -> tuple[Array, Array | None]:
        z, U, b, W, *_, plan = net
        terms = self._terms(len(z), z.dtype, plan)
        y = np.empty((len(z), W.shape[1]), b.dtype) if out is None else out
        dtype = np.uint16 if plan.rounds_h else z.dtype
        saved = memory_for((_padded(len(z)) * len(U),), dtype, room) if save else None
        _core.shallow_forward(_bits(z), _bits(U), b, _bits(W), c, *_options(net), terms, y, saved)
        return y, saved

    def shallow_backward(self, dy: Array, net: Shallow, saved: Array | None, needs: frozenset[str], out: ShallowGrads) -> ShallowGrads:
        z, U, b, W, *_, plan = net
        if len(z) == 0:
            return super().shallow_backward(dy, net, None, needs, out)
        grads = gradient_arrays(needs, out, z, U, W, lambda shape: np.empty(shape, b.dtype))
        terms = self._terms(len(z), z.dtype, plan)
        _core.shallow_backward(_bits(dy), _bits(z), _bits(U), b, _bits(W), *_options(net), terms, saved, *grads)
        return grads

    def shallow_step(
        self, dy: Array, net: Shallow, c: Array, slots: Slots, updates: dict[str, Update], saved: Array | None, need_dz: bool,
    ) -> Array | None:  # fmt: skip
        z = net.z
        if len(z) == 0:
            return super().shallow_step(dy, net, c, slots, updates, None, need_dz)
        dtype = net.U.dtype
        dz, dc = np.empty(z.shape, dtype) if need_dz else None, np.empty(dy.shape[1], dtype)
        U, b, W, to_c = ((array, slots[key], _rule(updates[key])) for key, array in zip("UbWc", (net.U, net.b, net.W, c)))
        terms = self._terms(len(z), z.dtype, net.plan)
        _core.shallow_step(_bits(dy), _bits(z), U, b, W, to_c, *_options(net), terms, saved, dz, dc)
        return dz

    def linear_dropout(self, x: Array, weight: Array, bias: Array | None, activation: Activation, mask: Mask, out: Array | None) -> Array:
        out = np.empty((len(x), len(weight)), x.dtype) if out is None else out
        _core.linear(x, weight, bias, _code(activation), mask, self._terms(len(x), x.dtype), out)
        return out

    def linear_dropout_backward(
        self, dout: Array, x: Array, weight: Array, bias: Array | None, out: Array, activation: Activation,
        mask: Mask, needs: frozenset[str],
    ) -> LinearGrads:  # fmt: skip
        plain = activation == "identity" and mask.threshold == 256
        da = None if plain else np.empty_like(dout)
        dx = np.empty_like(x) if "x" in needs else None
        dweight = np.empty_like(weight) if "weight" in needs else None
        dbias = np.empty(len(weight), x.dtype) if "bias" in needs else None
        _core.linear_backward(dout, x, weight, bias, out, _code(activation), mask, self._terms(len(x), x.dtype), da, dx, dweight, dbias)
        return LinearGrads(dx, dweight, dbias)

    def dropout(self, x: Array, mask: Mask, out: Array | None) -> Array:
        out = np.empty_like(x) if out is None else out
        _core.dropout(x, out, mask)
        return out

    def optimizer_update(self, param: Array, grad: Array, slots: tuple[Array, ...], update: Update) -> None:
        _core.update(param, grad, slots, _rule(update))

    def predictor(
        self, weights: dict[str, Array], activation: Activation, mean: Array | None, scale: Array | None, dtype: str, copy: bool | None,
        steps: dict[str, Array],
    ) -> Served:  # fmt: skip
        return Served(weights, activation, mean, scale, dtype, copy, steps)


def _in_words(core: _core._Plan, dtype: str) -> str:
    kinds = {
        "vectors": f"vectors of {dtype}",
        "pairs": "pairs of bfloat16",
        "tiles": "tiles of bfloat16",
        "tiles_x3": "tiles of 3 bfloat16",
    }
    words = [kinds[core["by"]], f"slabs of {core['slab']} units", f"blocks of {core['row_block']} rows"]
    words += [f"H in {core['parts']} parts"] * (core["parts"] > 1) + [f"k in runs of {core['k_run']}"] * (core["k_run"] > 0)
    return ", ".join(words + ["threads own slabs, as rows are few"] * core["few_rows"])


def _options(net: Shallow) -> tuple[int, Mask, int, int]:
    return _code(net.activation), net.mask, net.plan.slab, net.plan.row_block


def _code(activation: Activation) -> int:
    return ACTIVATIONS.index(activation)


def _bits(array: Array) -> Array:
    """A bfloat16 array as uint16, the type that the core takes; a float32 array unchanged."""
    return array.view(np.uint16) if array.dtype == bfloat16 else array


def _rule(update: Update) -> _core._Update:
    """The fields that the core takes: all but the last, which is for devices."""
    return update[:-1]


def _padded(rows: int) -> int:
    return -(-rows // PANEL) * PANEL
