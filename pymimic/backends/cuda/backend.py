"""The CUDA kernels (kernels/) on CuPy arrays: allocates results and scratch, calls `pymimic._cuda` on CuPy's current stream.

Four backends differ in how float32 arrays are multiplied; sums are float32 in all of them.

    "cuda"       as float32 (three tf32 products for each): the default, exact to float32's rounding
    "cuda-tf32"  operands rounded to 10 bits of mantissa
    "cuda-bf16"  operands, h and da rounded to bfloat16
    "cuda-fp16"  operands and h rounded to IEEE half: forward only

In the shallow ops bfloat16 arrays, and handles of that dtype, are multiplied as bfloat16 by any of them.

h is made again in the backward pass, so that no array is of B x H. Where k or C is above 256, or 512 as float32, that pass is made of
cuBLAS's products, and h can be kept.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from ... import _cuda
from ...devices import cupy
from ...plan import Plan
from ..interface import ACTIVATIONS, ANYWHERE, Activation, Array, LinearGrads, Mask, ShallowGrads, Update, gradient_arrays, memory_for
from . import by_cublas, cublas, operands
from .memory import allocate, copied, empty, in_workspace, scratch, stream
from .operands import BF16, FP16

NAMES = ("cuda-bf16", "cuda-fp16", "cuda-tf32", "cuda")  # in the order of pymimic_precision
_Sizes = tuple[int, int, int, int]  # B, k, H, C
_Problem = tuple[Any, Array, Array, Array, Array, Array]  # how, z, U, b, W, dy

cupy()  # without it there is nothing to compute on


class Cuda:
    """A `Backend` of device arrays. The shallow ops may multiply in another precision than the others, given by its code."""

    def __init__(self, name: str, code: int | None = None) -> None:
        self.name = name
        self._code = NAMES.index(name) if code is None else code

    def keeps_h(self, k: int, C: int) -> bool:
        """Whether the forward pass can leave h for the backward pass: elsewhere making it again is a part of one kernel."""
        return by_cublas.is_long(k, C, self._code)

    def shallow_forward(
        self, z: Array, U: Array, b: Array, W: Array, c: Array, activation: Activation, mask: Mask,
        plan: Plan, save: bool, room: Array | None, out: Array | None,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        if plan.dtype == "bfloat16" and self._code != BF16:
            return Cuda(self.name, BF16).shallow_forward(z, U, b, W, c, activation, mask, plan, save, room, out)
        (B, k), (H, C) = z.shape, W.shape
        self.demand_sizes(k, C)
        y = empty((B, C)) if out is None else out
        if save:
            problem = self._long(z, *self._between(U, b, W), k, C, activation, mask)
            dtype = np.uint16 if plan.rounds_h or self._code == BF16 else np.float32
            kept = memory_for(problem.kept_shape(), dtype, None if in_workspace() else room, empty)
            by_cublas.forward(problem, c, y, kept)
            return y, kept
        splits = self._splits(k, H, C)
        workspace = scratch(_cuda.shallow_forward_workspace(self._code, B, k, H, C, splits))
        how = self._how(activation, mask, k, C, splits)
        _cuda.shallow_forward(how, self._operand(z), *self._between(U, b, W), c, y, workspace, stream())
        return y, None

    def shallow_backward(
        self, dy: Array, z: Array, U: Array, b: Array, W: Array, activation: Activation, mask: Mask,
        plan: Plan, saved: Array | None, needs: frozenset[str], out: ShallowGrads = ANYWHERE,
    ) -> ShallowGrads:  # fmt: skip
        if plan.dtype == "bfloat16" and self._code != BF16:
            return Cuda(self.name, BF16).shallow_backward(dy, z, U, b, W, activation, mask, plan, saved, needs, out)
        self._demand_training()
        B, k, H, C = sizes = (*z.shape, *W.shape)
        self.demand_sizes(k, C)
        grads = gradient_arrays(needs, out, z, U, W, empty)
        if B == 0 or H == 0:
            for grad in grads:
                if grad is not None:
                    grad.fill(0)
        elif by_cublas.is_long(k, C, self._code):
            long = self._long(z, *self._between(U, b, W), k, C, activation, mask)
            for _ in by_cublas.backward(long, self._operand(dy)[:, :C], saved, grads.z, lambda units: _rows(grads, units)):
                pass
        else:
            problem = (self._how(activation, mask, k, C), self._operand(z), *self._between(U, b, W), self._operand(dy))
            if grads.z is not None:
                self._backward_rows(sizes, problem, grads.z)
            if needs & {"U", "b", "W"}:
                _cuda.shallow_backward_units(*problem, grads.U, grads.b, grads.W, stream())
        if grads.c is not None and B:
            self._column_sums(dy, grads.c)
        return grads

    def shallow_step(
        self, dy: Array, z: Array, params: dict[str, Array], slots: dict[str, tuple[Array, ...]], updates: dict[str, Update],
        activation: Activation, mask: Mask, plan: Plan, saved: Array | None, need_dz: bool,
    ) -> Array | None:  # fmt: skip
        """dz from the weights as they were, then the update inside the backward pass. All memory is taken before anything changes."""
        U, b, W, c = (params[name] for name in "UbWc")
        B, k, H, C = sizes = (*z.shape, *W.shape)
        if B == 0 or H == 0:
            none = self.shallow_backward(dy, z, U, b, W, activation, mask, plan, None, frozenset("zUbWc"))
            for name, param in params.items():
                self.optimizer_update(param, cast(Array, getattr(none, name)), slots[name], updates[name])
            return none.z
        self._demand_training()
        self.demand_sizes(k, C)
        if by_cublas.is_long(k, C, self._code):
            return self._long_step(dy, z, params, slots, updates, activation, mask, saved, need_dz)
        in_place = _cuda.shallow_step_in_place(self._code, B, k, H, C)
        dz, dc = empty((B, k)) if need_dz else None, empty((C,))
        (old_U, old_W), (new_U, new_W) = self._step_operands(U, W, in_place)
        old_b = b if in_place else copied(b)
        problem = (self._how(activation, mask, k, C), self._operand(z), old_U, old_b, old_W, self._operand(dy))
        self._column_sums(dy, dc)
        if dz is not None:
            self._backward_rows(sizes, problem, dz)
        written = (("U", new_U), ("b", None), ("W", new_W))
        to_U, to_b, to_W = (parameter(params[name], slots[name], new, updates[name]) for name, new in written)
        _cuda.shallow_backward_step(*problem, to_U, to_b, to_W, stream())
        self.optimizer_update(c, dc, slots["c"], updates["c"])
        return dz

    def _long_step(
        self, dy: Array, z: Array, params: dict[str, Array], slots: dict[str, tuple[Array, ...]], updates: dict[str, Update],
        activation: Activation, mask: Mask, saved: Array | None, need_dz: bool,
    ) -> Array | None:  # fmt: skip
        """A slab's weights are updated when dz has its part of them, so that gradients are a slab's too."""
        U, b, W = (params[name] for name in "UbW")
        k, C = U.shape[1], W.shape[1]
        dz, dc = empty(z.shape) if need_dz else None, empty((C,))
        (old_U, old_W), (new_U, new_W) = self._step_operands(U, W, True)
        long = self._long(z, old_U, b, old_W, k, C, activation, mask)
        most = long.slab_units()
        grads = ShallowGrads(U=empty((most, k)), b=empty((most,)), W=empty((most, C)))
        given = by_cublas.backward(long, self._operand(dy)[:, :C], saved, dz, lambda units: _rows(grads, slice(units.stop - units.start)))
        self._column_sums(dy, dc)
        for units, found in given:
            for name, grad, working in zip("UbW", found, (new_U, None, new_W)):
                if grad.size:
                    some = tuple(slot[units] for slot in slots[name])
                    to = parameter(params[name][units], some, None if working is None else working[units], updates[name])
                    _cuda.optimizer_update(to, self._code, grad, stream())
        self.optimizer_update(params["c"], dc, slots["c"], updates["c"])
        return dz

    def linear_dropout(self, x: Array, weight: Array, bias: Array | None, activation: Activation, mask: Mask, out: Array | None) -> Array:
        out = empty((len(x), len(weight))) if out is None else out
        self._multiply(x, weight, out, transpose_b=True)
        if out.size and not (bias is None and activation == "identity" and mask.keep == 256):
            _cuda.linear_dropout(out, bias, out, ACTIVATIONS.index(activation), mask, stream())
        return out

    def linear_dropout_backward(
        self,
        dout: Array,
        x: Array,
        weight: Array,
        bias: Array | None,
        out: Array,
        activation: Activation,
        mask: Mask,
        needs: frozenset[str],
    ) -> LinearGrads:
        da = dout
        dx = empty(x.shape) if "x" in needs else None
        dweight = empty(weight.shape) if "weight" in needs else None
        dbias = empty((len(weight),)) if "bias" in needs else None
        plain = activation == "identity" and mask.keep == 256
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
            _cuda.optimizer_update(parameter(param, slots, None, update), self._code, grad, stream())

    def send(self, update: Update, to: Any = None) -> Any:
        """The numbers of a step, on the current stream, to the memory that captured updates read them from, which is made without `to`."""
        numbers = np.frombuffer(_cuda.update_numbers(update[:-1]), np.uint8)
        to = allocate(numbers.shape, np.uint8) if to is None else to
        to.set(numbers, stream=cupy().cuda.get_current_stream())
        return to

    def hold(self, params: dict[str, Array], dtype: str) -> Cuda:
        """The backend of a handle that owns these arrays and multiplies in that dtype."""
        from .handle import Held

        return Held(self.name, BF16 if dtype == "bfloat16" else self._code, params)

    def net(self, weights: dict[str, Array], activation: Activation) -> Any:
        """The net of these weights, for prediction."""
        from .prediction import Net

        return Net(self.name, weights, activation)

    def _between(self, U: Array, b: Array, W: Array) -> tuple[Array, Array, Array]:
        return self._operand(U), b, self._operand(W)

    def _long(
        self, z: Array, U: Array, b: Array, W: Array, k: int, C: int, activation: Activation, mask: Mask
    ) -> by_cublas.Problem:  # fmt: skip
        code, compute = ACTIVATIONS.index(activation), cublas.COMPUTE[self.name]
        return by_cublas.Problem(self._code, compute, code, mask, self._operand(z)[:, :k], U[:, :k], b, W[:, :C])

    def _step_operands(self, U: Array, W: Array, in_place: bool) -> tuple[tuple[Array, Array], tuple[Any, Any]]:
        """(U, W) to read, which are not the arrays themselves, and to write."""
        return (operands.copied(U, self._code), operands.copied(W, self._code)), (None, None)

    def _operand(self, a: Array) -> Array:
        return operands.operand(a, self._code)

    def _backward_rows(self, sizes: _Sizes, problem: _Problem, dz: Array) -> None:
        _cuda.shallow_backward_rows(*problem, dz, scratch(_cuda.shallow_backward_rows_workspace(self._code, *sizes, 0)), stream())

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
        cublas.multiply(a, b, out, cublas.COMPUTE[self.name], **transposed)

    def _how(self, activation: Activation, mask: Mask, k: int, C: int, splits: int = 0) -> tuple[Any, ...]:
        return self._code, ACTIVATIONS.index(activation), splits, k, C, mask

    def _splits(self, k: int, H: int, C: int) -> int:
        """Parts of H that y is summed from in a forward pass; 0 lets the number of rows decide as well."""
        return 0

    def _demand_training(self) -> None:
        if self._code == FP16:
            raise ValueError("backend: expected 'cuda', 'cuda-tf32' or 'cuda-bf16' for gradients, got 'cuda-fp16', which is for prediction")

    def demand_sizes(self, k: int, C: int) -> None:
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
