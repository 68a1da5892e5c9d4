"""The portable fast path, compiled by Numba at first use: the tile algorithm of `_numba_kernels` (h is never written).

An independent second opinion in the tests. Calls take turns, as not every threading layer of Numba's can run two at once, and a
forked child runs on one thread, as it does not inherit its parent's threads.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numba
import numpy as np

from ..errors import BackendUnavailableError
from ..plan import Plan
from ..threads import get_num_threads
from . import _numba_kernels as kernels
from .interface import ACTIVATIONS, Activation, Array, LinearGrads, Mask, Shallow, ShallowGrads, Slots, Update, gradient_arrays, memory_for
from .reference import Reference, to_save_dtype

_PANEL_ROWS = 128  # at most, of one tile: a tile of 512 units then takes 256 KiB in float32
_LINEAR_SLAB, _LINEAR_BLOCK = 256, 1024  # of the ops that have no plan

_started: Any = numba.config  # its NUMBA_NUM_THREADS is the most that can be asked for

_turn = threading.Lock()
_forked = False


def _after_fork() -> None:
    global _turn, _forked
    _turn, _forked = threading.Lock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _run(kernel: Any, *args: Any) -> None:
    """Run a kernel on as many threads as `pymimic.set_num_threads` and Numba allow."""
    with _turn:
        if _forked:
            kernel.py_func(*args)
            return
        numba.set_num_threads(min(get_num_threads(), _started.NUMBA_NUM_THREADS))
        kernel(*args)


class Numba(Reference):
    """The shallow ops, layers and dropout by tiles; losses and updates as the definition has them."""

    writes_h = False

    def shallow_forward(self, net: Shallow, c: Array, save: bool, room: Array | None, out: Array | None) -> tuple[Array, Array | None]:
        z, U, b, W, activation, mask, plan = net
        _demand_one_type(plan)
        y = np.empty((len(z), W.shape[1]), z.dtype) if out is None else out
        saved = memory_for((len(z), len(U)), z.dtype, room) if save else np.empty((0, 0), z.dtype)
        _forward((z, U, b, W, c), activation, mask, plan.slab, y, saved, activation == "relu")
        return y, to_save_dtype(saved, plan) if save else None

    def shallow_backward(self, dy: Array, net: Shallow, saved: Array | None, needs: frozenset[str], out: ShallowGrads) -> ShallowGrads:
        z, U, b, W, *_ = net
        grads = gradient_arrays(needs, out, z, U, W, lambda shape: np.empty(shape, z.dtype))
        for grad in grads:
            if grad is not None:
                grad.fill(0)  # parts are added
        if dy.size == 0:
            return grads
        backward = _shallow_backward(dy, net, saved)
        for slab in backward.slabs(len(U)):
            dU, db, dW = (None if grad is None else grad[slab] for grad in (grads.U, grads.b, grads.W))
            backward.run(slab, U, b, W, grads.z, dU, db, dW)
        if grads.c is not None:
            grads.c[...] = _column_sums(dy)
        return grads

    def shallow_step(
        self, dy: Array, net: Shallow, c: Array, slots: Slots, updates: dict[str, Update], saved: Array | None, need_dz: bool,
    ) -> Array | None:  # fmt: skip
        """Slab by slab: its part of dz and its gradients first, then its weights change."""
        z, U, b, W, *_ = net
        dz = np.zeros_like(z) if need_dz else None
        backward = _shallow_backward(dy, net, saved)
        for slab in backward.slabs(len(U)):
            grads = [np.zeros_like(param[slab]) for param in (U, b, W)]
            backward.run(slab, U, b, W, dz, *grads)
            for key, param, grad in zip("UbW", (U, b, W), grads):
                self.optimizer_update(param[slab], grad, tuple(slot[slab] for slot in slots[key]), updates[key])
        self.optimizer_update(c, _column_sums(dy), slots["c"], updates["c"])
        return dz

    def linear_dropout(self, x: Array, weight: Array, bias: Array | None, activation: Activation, mask: Mask, out: Array | None) -> Array:
        """The shallow net without outputs, whose h is saved."""
        out = np.empty((len(x), len(weight)), x.dtype) if out is None else out
        bias = np.zeros(len(weight), x.dtype) if bias is None else bias
        no_W, no_c, no_y = (np.empty(shape, x.dtype) for shape in ((len(weight), 0), 0, (len(x), 0)))
        _forward((x, weight, bias, no_W, no_c), activation, mask, _LINEAR_SLAB, no_y, out, True)
        return out

    def linear_dropout_backward(
        self, dout: Array, x: Array, weight: Array, bias: Array | None, out: Array, activation: Activation, mask: Mask,
        needs: frozenset[str],
    ) -> LinearGrads:  # fmt: skip
        dx = np.zeros_like(x) if "x" in needs else None
        dweight = np.zeros_like(weight) if "weight" in needs else None
        dbias = np.zeros(len(weight), x.dtype) if "bias" in needs else None
        no_dy, no_W = np.empty((len(x), 0), x.dtype), np.empty((len(weight), 0), x.dtype)
        bias = np.zeros(len(weight), x.dtype) if bias is None else bias
        source = kernels.RECOMPUTE if activation == "gelu" else kernels.OUTPUT
        backward = _Backward(no_dy, dout, x, activation, mask, _LINEAR_SLAB, _LINEAR_BLOCK, out, source)
        for slab in backward.slabs(len(weight)):
            backward.run(
                slab, weight, bias, no_W, dx, None if dweight is None else dweight[slab], None if dbias is None else dbias[slab], None
            )
        return LinearGrads(dx, dweight, dbias)

    def dropout(self, x: Array, mask: Mask, out: Array | None) -> Array:
        out = np.empty_like(x) if out is None else out
        matrices = (-1, *x.shape[-2:]) if x.size else (0, 0, 0)
        _run(kernels.dropout, _mutable(x).reshape(matrices), _words(mask), out.reshape(matrices))
        return out


def _demand_one_type(plan: Plan) -> None:
    if plan.dtype == "bfloat16":
        raise BackendUnavailableError("backend: 'numba' has no bfloat16; 'cpu' and 'reference' have")


def _forward(arrays: tuple[Array, ...], activation: Activation, mask: Mask, slab: int, y: Array, save: Array, saves_h: bool) -> None:
    if y.size == 0 == save.size:
        return
    inputs = (_mutable(array) for array in arrays)
    _run(kernels.forward, *inputs, ACTIVATIONS.index(activation), _words(mask), slab, y, save, saves_h, _panel(len(y)))


def _shallow_backward(dy: Array, net: Shallow, saved: Array | None) -> _Backward:
    _demand_one_type(net.plan)
    shape = (len(net.z), len(net.U))
    if saved is not None and saved.shape != shape:  # the kernels do not look
        raise ValueError(f"saved: expected an array of shape {shape}, got {saved.shape}")
    source = kernels.RECOMPUTE if saved is None else kernels.OUTPUT if net.activation == "relu" else kernels.PRE_ACTIVATION
    return _Backward(dy, None, net.z, net.activation, net.mask, net.plan.slab, net.plan.row_block, saved, source)


class _Backward:
    """The backward pass over one slab after another: what they share, tiles included."""

    def __init__(
        self, dy: Array, dout: Array | None, z: Array, activation: Activation, mask: Mask, slab: int, row_block: int,
        saved: Array | None, source: int,
    ) -> None:  # fmt: skip
        nothing = np.empty((0, 0), z.dtype)
        self.dy, self.dout, self.z = _mutable(dy), _mutable(nothing if dout is None else dout), _mutable(z)
        self.saved, self.source = _mutable(nothing if saved is None else saved.astype(z.dtype, copy=False)), source
        self.activation, self.mask, self.slab, self.row_block = ACTIVATIONS.index(activation), mask, slab, row_block
        width = _panel(min(len(z), row_block))
        self.h, self.da = (np.empty((-(-min(len(z), row_block) // width), slab, width), z.dtype) for _ in range(2))

    def slabs(self, units: int) -> list[slice]:
        """The units of each slab."""
        return [slice(first, min(first + self.slab, units)) for first in range(0, units, self.slab)]

    def run(
        self, slab: slice, U: Array, b: Array, W: Array, dz: Array | None, dU: Array | None, db: Array | None, dW: Array | None
    ) -> None:
        """Add the slab's part to dz, and make its gradients dU, db and dW, where they are wanted."""
        outputs = {kernels.NEED_Z: dz, kernels.NEED_U: dU, kernels.NEED_B: db, kernels.NEED_W: dW}
        needs = sum(bit for bit, array in outputs.items() if array is not None)
        if needs == 0 or len(self.z) == 0:
            return
        absent = np.empty((0, 0), U.dtype), np.empty(0, U.dtype)
        wanted = ((absent[bit == kernels.NEED_B] if array is None else array) for bit, array in outputs.items())
        weights = (_mutable(array[slab]) for array in (U, b, W))
        mask = _words(self.mask._replace(unit=self.mask.unit + slab.start))
        _run(
            kernels.backward, self.dy, self.dout, self.z, *weights, self.activation, mask, self.source, self.saved, slab.start,
            self.row_block, self.h, self.da, *wanted, needs,
        )  # fmt: skip


def _panel(rows: int) -> int:
    """Rows of a panel: enough panels for the threads, in multiples of dropout's 16. Bits do not depend on it."""
    return min(_PANEL_ROWS, max(16, -(-rows // (16 * get_num_threads())) * 16))


class _Writable:
    """Memory of a read-only array for NumPy to wrap: kernels, which write to no input, are compiled for one type of array."""

    def __init__(self, array: Array) -> None:
        self.owner = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def _mutable(array: Array) -> Array:
    """`array` as kernels take it: in a type of array that may be written to."""
    return array if array.flags.writeable else np.asarray(_Writable(array))


def _words(mask: Mask) -> Array:
    words = [mask.threshold, mask.seed & 0xFFFFFFFF, mask.seed >> 32, mask.offset, mask.row // 16, mask.unit // 32]
    return np.array(words, np.uint64)


def _column_sums(dy: Array) -> Array:
    return np.asarray(dy.sum(0, dtype=np.float64).astype(dy.dtype))
