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
from ..interface import (
    ACTIVATIONS,
    ANYWHERE,
    Activation,
    Array,
    Backend,
    LinearGrads,
    Mask,
    Shallow,
    ShallowGrads,
    Slots,
    Update,
    gradient_arrays,
    memory_for,
)  # fmt: skip
from . import by_cublas, cublas, operands
from .handle import PackEachCall, PackOnce, Pair
from .memory import allocate, copied, empty, in_workspace, scratch, stream
from .operands import BF16, FP16
from .prediction import Prediction
from .serving import Served

NAMES = ("cuda-bf16", "cuda-fp16", "cuda-tf32", "cuda")  # in the order of pymimic_precision
_Sizes = tuple[int, int, int, int]  # B, k, H, C
_Problem = tuple[tuple[Any, ...], Array, Array, Array, Array]  # sizes and options, z, U, b, W: what the launchers begin with

cupy()  # says what to install where it is missing


class Cuda(Backend):
    """A `Backend` of device arrays. The shallow ops may multiply in another precision than the others, given by its code."""

    def __init__(self, name: str, code: int | None = None, params: dict[str, Array] | None = None) -> None:
        super().__init__(name)
        self.code = NAMES.index(name) if code is None else code
        self._weights = PackEachCall(self.code) if params is None else PackOnce(self.code, params)

    def keeps_h(self, k: int, C: int) -> bool:
        """Whether the forward pass can save h for the backward pass: elsewhere making it again is a part of one kernel."""
        return by_cublas.is_long(k, C, self.code)

    def handle(self, params: dict[str, Array], dtype: str) -> Cuda:
        return Cuda(self.name, BF16 if dtype == "bfloat16" else self.code, params)

    def changed(self) -> None:
        self._weights.changed()

    def prediction(self, weights: dict[str, Array], activation: Activation) -> Prediction:
        self._demand_sizes(weights["U"].shape[1], len(weights["c"]))
        return Prediction(self.forward_packed, self.code, weights, activation)

    def predictor(
        self, weights: dict[str, Array], activation: Activation, mean: Array | None, scale: Array | None, dtype: str, copy: bool | None
    ) -> Served:
        self._demand_sizes(weights["U"].shape[1], len(weights["c"]))
        return Served(weights, activation, mean, scale, dtype)

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
        _cuda.shallow_forward(*self._problem(net, packed, splits), c, y, workspace, stream())
        return y

    def shallow_backward(
        self, dy: Array, net: Shallow, saved: Array | None, needs: frozenset[str], out: ShallowGrads = ANYWHERE
    ) -> ShallowGrads:
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
            operand_dy = self._operand(dy)
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
                zeros = self.shallow_backward(dy, net, None, frozenset("zUbWc"))
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
            problem, operand_dy = self._problem(net._replace(b=old_b), packed), self._operand(dy)
            self._column_sums(dy, dc)
            if dz is not None:
                self._backward_rows(sizes, problem, operand_dy, dz)
            written = (("U", U, new_U), ("b", b, None), ("W", W, new_W))
            to_U, to_b, to_W = (parameter(array, slots[name], new, updates[name]) for name, array, new in written)
            _cuda.shallow_backward_step(*problem, operand_dy, to_U, to_b, to_W, stream())
            self.optimizer_update(c, dc, slots["c"], updates["c"])
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

    def linear_dropout(self, x: Array, weight: Array, bias: Array | None, activation: Activation, mask: Mask, out: Array | None) -> Array:
        out = empty((len(x), len(weight))) if out is None else out
        self._multiply(x, weight, out, transpose_b=True)
        if out.size and not (bias is None and activation == "identity" and mask.threshold == 256):
            _cuda.linear_dropout(out, bias, out, ACTIVATIONS.index(activation), mask, stream())
        return out

    def linear_dropout_backward(
        self, dout: Array, x: Array, weight: Array, bias: Array | None, out: Array, activation: Activation, mask: Mask,
        needs: frozenset[str],
    ) -> LinearGrads:  # fmt: skip
        da = dout
        dx = empty(x.shape) if "x" in needs else None
        dweight = empty(weight.shape) if "weight" in needs else None
        dbias = empty((len(weight),)) if "bias" in needs else None
        plain = activation == "identity" and mask.threshold == 256
        if dout.size == 0:
            for grad in (dx, dweight, dbias):
                if grad is not None:
                    grad.fill(0)
            return LinearGrads(dx, dweight, dbias)
        if not plain:
            if activation == "gelu":  # takes the same value twice: its slope is of the pre-activation
                product = empty(out.shape)
                self._multiply(x, weight, product, transpose_b=True)
                out = product
            da = empty(dout.shape)
            room = scratch(_cuda.linear_dropout_backward_workspace(*dout.shape))
            code = ACTIVATIONS.index(activation)
            _cuda.linear_dropout_backward(dout, out, bias, da, dbias, code, mask, room, stream())
        elif dbias is not None:
            self._column_sums(dout, dbias)
        if dx is not None:
            self._multiply(da, weight, dx)
        if dweight is not None:
            self._multiply(da, x, dweight, transpose_a=True)
        return LinearGrads(dx, dweight, dbias)

    def dropout(self, x: Array, mask: Mask, out: Array | None) -> Array:
        out = empty(x.shape) if out is None else out
        _cuda.dropout(x, out, mask, stream())
        return out

    def mimic_loss(self, y: Array, t: Array, weights: Array | None) -> tuple[float, Array]:
        return self._loss(_cuda.mimic_loss, y, t, weights)

    def cross_entropy(self, y: Array, labels: Array, weights: Array | None) -> tuple[float, Array]:
        return self._loss(_cuda.cross_entropy, y, copied(labels, np.int64), weights)

    def distillation_loss(self, y: Array, t: Array, temperature: float) -> tuple[float, Array]:
        return self._loss(_cuda.distillation_loss, y, t, temperature)

    def optimizer_update(self, param: Array, grad: Array, slots: tuple[Array, ...], update: Update) -> None:
        if param.size:
            _cuda.optimizer_update(parameter(param, slots, None, update), self.code, grad, stream())

    def step_numbers(self, update: Update, to: Any = None) -> Any:
        """The numbers of a step, copied on the current stream to memory that captured updates read them from."""
        numbers = np.frombuffer(_cuda.update_numbers(update[:-1]), np.uint8)
        to = allocate(numbers.shape, np.uint8) if to is None else to
        to.set(numbers, stream=cupy().cuda.get_current_stream())
        return to

    def _as_bfloat16(self, net: Shallow) -> Cuda | None:
        """The backend for bfloat16 arrays, where this one multiplies in another precision."""
        return Cuda(self.name, BF16) if net.plan.dtype == "bfloat16" and self.code != BF16 else None

    def _problem(self, net: Shallow, packed: Pair, splits: int = 0) -> _Problem:
        (_, k), C = net.z.shape, net.W.shape[1]
        shape = (self.code, ACTIVATIONS.index(net.activation), splits, k, C, net.mask)
        packed_U, packed_W = packed
        return shape, self._operand(net.z), packed_U, net.b, packed_W

    def _long(self, net: Shallow, packed: Pair) -> by_cublas.Problem:
        (_, k), C, (U, W) = net.z.shape, net.W.shape[1], packed
        code, compute_type = ACTIVATIONS.index(net.activation), cublas.COMPUTE_TYPES[self.name]
        return by_cublas.Problem(self.code, compute_type, code, net.mask, self._operand(net.z)[:, :k], U[:, :k], net.b, W[:, :C])

    def _operand(self, a: Array) -> Array:
        return operands.operand(a, self.code)

    def _backward_rows(self, sizes: _Sizes, problem: _Problem, dy: Array, dz: Array) -> None:
        _cuda.shallow_backward_rows(*problem, dy, dz, scratch(_cuda.shallow_backward_rows_plan(self.code, *sizes, 0).workspace), stream())

    def _column_sums(self, a: Array, sums: Array) -> None:
        _cuda.column_sums(a, sums, scratch(_cuda.column_sums_workspace(*a.shape)), stream())

    def _loss(self, function: Any, y: Array, *others: Any) -> tuple[float, Array]:
        loss, dy = empty(()), empty(y.shape)
        if y.size == 0:
            loss.fill(0)
        else:
            function(y, *others, loss, dy, scratch(_cuda.loss_workspace(*y.shape)), stream())
        return cast(float, loss), dy

    def _multiply(self, a: Array, b: Array, out: Array, **transposed: bool) -> None:
        cublas.multiply(a, b, out, cublas.COMPUTE_TYPES[self.name], **transposed)

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


def parameter(param: Array, slots: tuple[Array, ...], working: Any, update: Update) -> Any:
    """What an update writes and reads, as the binding takes it."""
    return param, slots, working, update[:-1], update.numbers
