"""The shallow ops where k or C is long: products by cuBLAS, and between them h and da of a slab of hidden units at a time.

The kernels of a backward pass make h and da again for every 256 columns of dz, and for every 448 of dU and dW. Where that is more than
once, these take fewer operations: 3 k + 2 C multiply-adds for each row and unit, or 2 k + 2 C with a saved h. What passes over memory is
of the size of a slab. That they are faster from `LONG` on is a count, from nominal rates; `benchmarks/gpu/ways.py` measures it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ... import _cuda
from ..interface import ACTIVATIONS, Array, Mask
from . import cublas
from .memory import empty, scratch, stream
from .operands import BF16, FP32, TF32

# Up to so many columns the kernels are used, by precision. They make a float32 product of three on tensor cores; cuBLAS uses none.
LONG = {BF16: 256, TF32: 256, FP32: 512}
_VALUES = 8 << 20  # of a slab: of h, and of the gradients of U and W; or as many as `_LEAST` units have
_LEAST, _GROUP = 256, 128  # units of a slab; it is a multiple of the second
_GRADIENTS = tuple[Any, Any, Any]  # dU, db, dW of some units, None where not needed


def is_long(k: int, C: int, precision: int) -> bool:
    """Whether these are for that shape."""
    return precision in LONG and max(k, C) > LONG[precision]


def slab_units(B: int, H: int, columns: int) -> int:
    """Units of a slab, for so many columns of U and W together."""
    count = -(-max(1, H) // max(_LEAST, _VALUES // max(1, B, columns)))
    return -(-max(1, H) // (count * _GROUP)) * _GROUP


class Problem(NamedTuple):
    """What a pass reads: operands with k and C columns, and with gaps between rows; how they are multiplied."""

    precision: int
    compute_type: int  # cublasComputeType_t of float32 operands
    activation: int
    mask: Mask
    z: Array
    U: Array
    b: Array
    W: Array

    def slabs(self) -> Iterator[tuple[int, slice]]:
        """Numbers and units."""
        units = self.slab_units()
        return ((i, slice(first, min(first + units, len(self.b)))) for i, first in enumerate(range(0, len(self.b), units)))

    def slab_units(self) -> int:
        """Units of all slabs but the last, which may be shorter."""
        return slab_units(len(self.z), len(self.b), int(self.U.shape[1] + self.W.shape[1]))

    def saved_shape(self) -> tuple[int, int, int]:
        """Of what a forward pass keeps."""
        units = self.slab_units()
        return -(-len(self.b) // units), len(self.z), units

    def room(self, dtype: Any = "float32") -> Array:
        """Memory for a value of each row and unit of a slab."""
        return empty((len(self.z), self.slab_units()), dtype)

    def multiply(self, a: Array, b: Array, out: Array, **options: bool) -> None:
        """out = or += a b."""
        cublas.multiply(a, b, out, self.compute_type, **options)

    def saves_h(self, saved: Array | None) -> bool:
        """Whether `saved` holds h itself, in the form that products read."""
        return saved is not None and ACTIVATIONS[self.activation] == "relu" and saved.dtype == self.z.dtype

    def masked(self, units: slice) -> Mask:
        """The mask of a slab."""
        return self.mask._replace(unit=self.mask.unit + units.start)


def forward(p: Problem, c: Array, y: Array, saved: Array) -> None:
    """y and, in `saved`, what a backward pass can use: h for relu, the pre-activation for others; float32, or bfloat16's words."""
    a, is_h = p.room(), p.saves_h(saved)
    h: Any = None if is_h else a if p.z.itemsize == 4 else p.room(p.z.dtype)
    y[...] = c
    for i, units in p.slabs():
        n = units.stop - units.start
        p.multiply(p.z, p.U[units], a[:, :n], transpose_b=True)
        to, also = (saved[i], None) if is_h else (h, saved[i])
        _cuda.hidden_forward(p.precision, p.activation, p.masked(units), a, p.b[units], also, to, stream())
        p.multiply(to[:, :n], p.W[units], y, add=True)


def backward(
    p: Problem, dy: Array, saved: Array | None, dz: Array | None, room: Callable[[slice], _GRADIENTS]
) -> Iterator[tuple[slice, _GRADIENTS]]:
    """dz at the end, and before that dU, db and dW, slab after slab, in the memory that `room` gives for its units.

    Nothing reads a slab's weights after its gradients are made. All scratch is allocated first.
    """
    is_16bit = p.z.itemsize == 2
    is_h = p.saves_h(saved)
    a, dh = p.room() if saved is None else None, p.room()
    h: Any = None if is_h else a if a is not None and not is_16bit else p.room(p.z.dtype)
    da = p.room(p.z.dtype) if is_16bit else dh
    sizes = {units.stop - units.start for _, units in p.slabs()}
    work = scratch(max(_cuda.hidden_backward_workspace(len(p.z), n) for n in sizes))
    for i, units in p.slabs():
        n, U, W = units.stop - units.start, p.U[units], p.W[units]
        dU, db, dW = grads = room(units)
        if a is not None:
            p.multiply(p.z, U, a[:, :n], transpose_b=True)
        p.multiply(dy, W, dh[:, :n], transpose_b=True)
        stored: Any = None if saved is None else saved[i]
        _cuda.hidden_backward(p.precision, p.activation, p.masked(units), a, p.b[units], stored, dh, h, da, db, work, stream())
        if dz is not None:
            p.multiply(da[:, :n], U, dz, add=i > 0)
        if dU is not None:
            p.multiply(da[:, :n], p.z, dU, transpose_a=True)
        if dW is not None:
            p.multiply((stored if h is None else h)[:, :n], dy, dW, transpose_a=True)
        yield units, grads
