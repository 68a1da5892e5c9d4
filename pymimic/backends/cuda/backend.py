"""The CUDA kernels (kernels/) on CuPy arrays: allocates results and scratch, calls `pymimic._cuda` on CuPy's current stream.

Four backends differ in how float32 arrays are multiplied; sums are float32 in all of them.

    "cuda"       as float32 (three tf32 products for each): the default, exact to float32's rounding
    "cuda-tf32"  operands rounded to 10 bits of mantissa
    "cuda-bf16"  operands, h and da rounded to bfloat16
    "cuda-fp16"  operands and h rounded to IEEE half: forward only

In the shallow ops bfloat16 arrays, and handles of that dtype, are multiplied as bfloat16 by any of them.

The backward pass makes h again, so that no array is of B x H. Where k or C is above 256, or 512 as float32, cuBLAS makes its products, and
h can be saved.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from ... import _cuda
from ...devices import cupy
from ...plan import Plan
from ..interface import ACTIVATIONS, Activation, Array, Shallow, ShallowGrads, Slots, Update, gradient_arrays, memory_for
from . import by_cublas, cublas, operands
from .handle import PackEachCall, PackOnce, Pair
from .layers import Layers, parameter
from .memory import copied, empty, in_workspace, scratch, stream
from .operands import BF16, FP16
from .prediction import Prediction
from .serving import Served

_Sizes = tuple[int, int, int, int]  # B, k, H, C
_Problem = tuple[tuple[Any, ...], Array, Array, Array, Array]  # sizes and options, z, U, b, W: what the launchers begin with

cupy()  # says what to install where it is missing


class Cuda(Layers):
    """A `Backend` of device arrays. The shallow ops may multiply in another precision than the others, given by its code."""

    def __init__(self, name: str, code: int | None = None, params: dict[str, Array] | None = None) -> None:
        super().__init__(name, code)
        self._weights = PackEachCall(self.code) if params is None else PackOnce(self.code, params)

    def keeps_h(self, k: int, C: int) -> bool:
        """Whether the forward pass can save h for the backward pass: elsewhere making it again is a part of one kernel."""
        return by_cublas.is_long(k, C, self.code)

    def passes(self, plan: Plan) -> dict[str, str]:
        B, k, H, C = sizes = plan.B, plan.k, plan.H, plan.C
        code = BF16 if plan.dtype == "bfloat16" else self.code
        forward = _cuda.shallow_forward_plan(code, *sizes, 0)
        found = {
            "forward": f"{forward.kernel}, blocks of {forward.row_block} rows, slabs of {forward.slab} units, H in {forward.splits} parts"
        }
        if by_cublas.is_long(k, C, code):
            return found | {"backward": f"products of cuBLAS, slabs of {by_cublas.slab_units(B, H, k + C)} units"}
        rows, units = _cuda.shallow_backward_rows_plan(code, *sizes, 0), _cuda.shallow_backward_units_plan(code, *sizes, True, True)
        return found | {"backward, dz": _in_words(rows), "backward, dU, db, dW": f"{units.kernel}, columns in {units.column_chunks} parts"}

    def handle(self, params: dict[str, Array], dtype: str) -> Cuda:
        return Cuda(self.name, BF16 if dtype == "bfloat16" else self.code, params)

    def changed(self) -> None:
        self._weights.changed()

    def prediction(self, weights: dict[str, Array], activation: Activation) -> Prediction:
        self._demand_sizes(weights["U"].shape[1], len(weights["c"]))
        return Prediction(self.forward_packed, self.code, weights, activation)

    def predictor(
        self, weights: dict[str, Array], activation: Activation, mean: Array | None, scale: Array | None, dtype: str, copy: bool | None,
        steps: dict[str, Array],
    ) -> Served:  # fmt: skip
        self._demand_sizes(weights["U"].shape[1], len(weights["c"]))
        return Served(weights, activation, mean, scale, dtype, steps)

    def shallow_forward(self, net: Shallow, c: Array, save: bool, room: Array | None, out: Array | None) -> tuple[Array, Array | None]:
        if (bf16 := self._as_bfloat16(net)) is not None:
            return bf16.shallow_forward(net, c, save, room, out)
        self._demand_sizes(net.U.shape[1], net.W.shape[1])
        packed = self._weights.read(net.U, net.W)
        if not save:
            return self.forward_packed(net, c, packed, 0, out), None
        y = empty((len(net.z), len(c))) if out is None else out
        long = self._long(net, packed)
        dtype = np.uint16 if net.plan.rounds_h or self.code == BF16 else np.float32
        saved = memory_for(long.saved_shape(), dtype, None if in_workspace() else room, empty)
        by_cublas.forward(long, c, y, saved)
        return y, saved

    def forward_packed(self, net: Shallow, c: Array, packed: Pair, splits: int, out: Array | None) -> Array:
        """y by packed U and W; H is summed in `splits` parts, whose number, where it is 0, the shape decides."""
        (B, k), (H, C) = net.z.shape, net.W.shape
        y = empty((B, C)) if out is None else out
        workspace = scratch(_cuda.shallow_forward_plan(self.code, B, k, H, C, splits).workspace)
        _cuda.shallow_forward(*self._problem(net, packed, splits), self._weights.checked(c), y, workspace, stream())
        return y

    def shallow_backward(self, dy: Array, net: Shallow, saved: Array | None, needs: frozenset[str], out: ShallowGrads) -> ShallowGrads:
        if (bf16 := self._as_bfloat16(net)) is not None:
            return bf16.shallow_backward(dy, net, saved, needs, out)
        self._demand_training()
        z, U, W = net.z, net.U, net.W
        B, k, H, C = sizes = (*z.shape, *W.shape)
        self._demand_sizes(k, C)
        grads = gradient_arrays(needs, out, z, U, W, empty)
        if B == 0 or H == 0:
            for grad in grads:
                if grad is not None:
                    grad.fill(0)
        elif by_cublas.is_long(k, C, self.code):
            long = self._long(net, self._weights.read(U, W))
            for _ in by_cublas.backward(long, self._operand(dy)[:, :C], saved, grads.z, lambda units: _rows(grads, units)):
                pass
        else:
            problem = self._problem(net, self._weights.read(U, W))
            operand_dy = operands.checked(self._operand(dy))
            if grads.z is not None:
                self._backward_rows(sizes, problem, operand_dy, grads.z)
            if needs & {"U", "b", "W"}:
                _cuda.shallow_backward_units(*problem, operand_dy, grads.U, grads.b, grads.W, stream())
        if grads.c is not None and B:
            self._column_sums(dy, grads.c)
        return grads

    def shallow_step(
        self, dy: Array, net: Shallow, c: Array, slots: Slots, updates: dict[str, Update], saved: Array | None, need_dz: bool,
    ) -> Array | None:  # fmt: skip
        """dz from the weights as they were, then the update inside the backward pass. All memory is taken before anything changes."""
        z, U, b, W, *_ = net
        B, k, H, C = sizes = (*z.shape, *W.shape)
        with self._weights.step(updates_packed=B > 0):
            if B == 0 or H == 0:
                zeros = self.shallow_backward(dy, net, None, frozenset("zUbWc"), ShallowGrads())
                for name, array in zip("UbWc", (U, b, W, c)):
                    self.optimizer_update(array, cast(Array, getattr(zeros, name)), slots[name], updates[name])
                return zeros.z
            self._demand_training()
            self._demand_sizes(k, C)
            if by_cublas.is_long(k, C, self.code):
                return self._long_step(dy, net, c, slots, updates, saved, need_dz)
            in_place = _cuda.shallow_backward_units_plan(self.code, B, k, H, C, True, True).in_place
            dz, dc = empty((B, k)) if need_dz else None, empty((C,))
            packed, (new_U, new_W) = self._weights.read_and_write(U, W, in_place)
            old_b = b if in_place else copied(b)
            problem, operand_dy = self._problem(net._replace(b=old_b), packed), operands.checked(self._operand(dy))
            self._column_sums(dy, dc)
            if dz is not None:
                self._backward_rows(sizes, problem, operand_dy, dz)
            written = (("U", U, new_U), ("b", b, None), ("W", W, new_W))
            to_U, to_b, to_W = (self._updated(array, slots[name], new, updates[name]) for name, array, new in written)
            _cuda.shallow_backward_step(*problem, operand_dy, to_U, to_b, to_W, stream())
            if C:
                _cuda.optimizer_update(self._updated(c, slots["c"], None, updates["c"]), self.code, dc, stream())
            return dz

    def _long_step(
        self, dy: Array, net: Shallow, c: Array, slots: Slots, updates: dict[str, Update], saved: Array | None, need_dz: bool,
    ) -> Array | None:  # fmt: skip
        """A slab's weights are updated when dz has its part of them, so that gradients are a slab's too."""
        k, C = net.U.shape[1], net.W.shape[1]
        dz, dc = empty(net.z.shape) if need_dz else None, empty((C,))
        packed, (new_U, new_W) = self._weights.read_and_write(net.U, net.W, True)
        long = self._long(net, packed)
        most = long.slab_units()
        grads = ShallowGrads(U=empty((most, k)), b=empty((most,)), W=empty((most, C)))
        found = by_cublas.backward(
            long, self._operand(dy)[:, :C], saved, dz, lambda units: _rows(grads, slice(units.stop - units.start))
        )  # fmt: skip
        self._column_sums(dy, dc)
        for units, gradients in found:
            for name, grad, working in zip("UbW", gradients, (new_U, None, new_W)):
                if grad.size:
                    some = tuple(slot[units] for slot in slots[name])
                    to = parameter(getattr(net, name)[units], some, None if working is None else working[units], updates[name])
                    _cuda.optimizer_update(to, self.code, grad, stream())
        self.optimizer_update(c, dc, slots["c"], updates["c"])
        return dz

    def _as_bfloat16(self, net: Shallow) -> Cuda | None:
        """The backend for bfloat16 arrays, where this one multiplies in another precision."""
        return Cuda(self.name, BF16) if net.plan.dtype == "bfloat16" and self.code != BF16 else None

    def _problem(self, net: Shallow, packed: Pair, splits: int = 0) -> _Problem:
        (_, k), C = net.z.shape, net.W.shape[1]
        shape = (self.code, ACTIVATIONS.index(net.activation), splits, k, C, net.mask)
        U, W = map(self._weights.checked, packed)
        return shape, operands.checked(self._operand(net.z)), U, self._weights.checked(net.b), W

    def _updated(self, param: Array, slots: tuple[Array, ...], working: Array | None, update: Update) -> Any:
        """As `parameter`, of arrays that come again in the next step."""
        check = self._weights.checked
        return parameter(check(param), tuple(map(check, slots)), None if working is None else check(working), update)

    def _long(self, net: Shallow, packed: Pair) -> by_cublas.Problem:
        (_, k), C, (U, W) = net.z.shape, net.W.shape[1], packed
        code, compute_type = ACTIVATIONS.index(net.activation), cublas.COMPUTE_TYPES[self.name]
        return by_cublas.Problem(self.code, compute_type, code, net.mask, self._operand(net.z)[:, :k], U[:, :k], net.b, W[:, :C])

    def _operand(self, a: Array) -> Array:
        return operands.operand(a, self.code)

    def _backward_rows(self, sizes: _Sizes, problem: _Problem, dy: Array, dz: Array) -> None:
        _cuda.shallow_backward_rows(*problem, dy, dz, scratch(_cuda.shallow_backward_rows_plan(self.code, *sizes, 0).workspace), stream())

    def _demand_training(self) -> None:
        if self.code == FP16:
            raise ValueError("backend: expected 'cuda', 'cuda-tf32' or 'cuda-bf16' for gradients, got 'cuda-fp16', which is for prediction")

    def _demand_sizes(self, k: int, C: int) -> None:
        for axis, size, most in (("k", k, _cuda.MAX_K), ("C", C, _cuda.MAX_C)):
            if size > most:
                raise ValueError(f"{axis}: expected at most {most} with backend {self.name!r}, got {size}; the CPU takes any")


def _rows(grads: ShallowGrads, units: slice) -> tuple[Any, Any, Any]:
    """dU, db and dW of some units."""
    U, b, W = (None if grad is None else grad[units] for grad in (grads.U, grads.b, grads.W))
    return U, b, W


def _in_words(plan: _cuda.Plan) -> str:
    return f"{plan.kernel}, blocks of {plan.row_block} rows, slabs of {plan.slab} units, H in {plan.splits} parts"
