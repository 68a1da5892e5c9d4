"""Plain matrix products by CuPy's cuBLAS, of float32 arrays or of bfloat16 ones, whose words CuPy holds as uint16."""

from __future__ import annotations

from typing import Any

from ... import _cuda
from ...devices import cupy
from ...errors import CudaError
from ..interface import Array
from .memory import stream

# cublasComputeType_t: how float32 operands are multiplied; sums are float32
COMPUTE_TYPES = {"cuda": 68, "cuda-tf32": 77, "cuda-bf16": 75, "cuda-fp16": 74}


def multiply(
    a: Array, b: Array, out: Array, compute_type: int, *, transpose_a: bool = False, transpose_b: bool = False, add: bool = False
) -> None:
    """out (m, n) = or += a b, with a or b as they are or transposed.

    Rows are contiguous; there may be gaps between them. cuBLAS sees the transposes of all: out^T = b^T a^T.
    It multiplies bfloat16 operands as such.

    Raises
    ------
    CudaError
        cuBLAS refused, as where memory is short.
    """
    m, n = out.shape
    inner = a.shape[0] if transpose_a else a.shape[1]
    if out.size == 0 or (inner == 0 and add):
        return
    if inner == 0:
        out.fill(0)
        return
    halves = a.itemsize == 2
    compute_type = COMPUTE_TYPES["cuda"] if halves else compute_type
    transposed = (transpose_b, transpose_a)
    _cuda.multiply(_handle(), (n, m, inner), transposed, _matrix(b), _matrix(a), _matrix(out), halves, add, compute_type, stream())


def _handle() -> int:
    try:
        return int(cupy().cuda.device.get_cublas_handle())
    except (RuntimeError, ImportError) as error:  # CuPy's CUBLASError, or no cuBLAS
        raise CudaError(f"cuBLAS: {error}: free device memory, or take fewer rows at once, if that is short") from error


def _matrix(array: Any) -> tuple[int, int]:
    """Pointer, and elements from row to row."""
    apart = array.strides[0] // array.itemsize if len(array) > 1 else array.shape[1]
    return int(array.data.ptr), apart
