"""Plain matrix products by cuBLAS, through CuPy, of float32 arrays or of bfloat16 ones, whose words CuPy holds as uint16."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..devices import cupy
from .interface import Array

# cublasComputeType_t: how float32 operands are multiplied; sums are float32
COMPUTE = {"cuda": 68, "cuda-tf32": 77, "cuda-bf16": 75, "cuda-fp16": 74}
_TYPES = {4: 0, 2: 14}  # cudaDataType by bytes: CUDA_R_32F, CUDA_R_16BF
_DEFAULT_ALGORITHM = -1
_ONE, _ZERO = np.ones(1, np.float32), np.zeros(1, np.float32)


def multiply(
    a: Array, b: Array, out: Array, compute: int, *, transpose_a: bool = False, transpose_b: bool = False, add: bool = False
) -> None:
    """out (m, n) = or += a b, with a or b as they are or transposed.

    Rows are contiguous, and may lie apart. cuBLAS sees the transposes of all: out^T = b^T a^T. bfloat16 operands are multiplied as such.
    """
    m, n = out.shape
    inner = a.shape[0] if transpose_a else a.shape[1]
    if out.size == 0 or (inner == 0 and add):
        return
    if inner == 0:
        out.fill(0)
        return
    cublas = cupy().cuda.cublas
    operation = {False: cublas.CUBLAS_OP_N, True: cublas.CUBLAS_OP_T}
    cublas.gemmEx(
        cupy().cuda.device.get_cublas_handle(), operation[transpose_b], operation[transpose_a], n, m, inner, _ONE.ctypes.data,
        *_matrix(b), *_matrix(a), (_ONE if add else _ZERO).ctypes.data, *_matrix(out), compute if a.itemsize == 4 else COMPUTE["cuda"],
        _DEFAULT_ALGORITHM,
    )  # fmt: skip


def _matrix(array: Any) -> tuple[int, int, int]:
    """Pointer, type, elements from row to row."""
    apart = array.strides[0] // array.itemsize if len(array) > 1 else array.shape[1]
    return int(array.data.ptr), _TYPES[array.itemsize], apart
