"""Plain matrix products by cuBLAS, through CuPy, of float32 arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..devices import cupy
from .interface import Array

# cublasComputeType_t: how float32 operands are multiplied; sums are float32
COMPUTE = {"cuda": 68, "cuda-tf32": 77, "cuda-bf16": 75, "cuda-fp16": 74}
_FLOAT32 = 0  # CUDA_R_32F
_DEFAULT_ALGORITHM = -1
_ONE, _ZERO = np.ones(1, np.float32), np.zeros(1, np.float32)


def multiply(a: Array, b: Array, out: Array, compute: int, *, transpose_a: bool = False, transpose_b: bool = False) -> None:
    """out (m, n) = a b, with a or b as they are or transposed; all C-contiguous, which cuBLAS sees as their transposes: out^T = b^T a^T."""
    m, n = out.shape
    inner = a.shape[0] if transpose_a else a.shape[1]
    if out.size == 0:
        return
    if inner == 0:
        out.fill(0)
        return
    cublas = cupy().cuda.cublas
    operation = {False: cublas.CUBLAS_OP_N, True: cublas.CUBLAS_OP_T}
    cublas.gemmEx(
        cupy().cuda.device.get_cublas_handle(), operation[transpose_b], operation[transpose_a], n, m, inner, _ONE.ctypes.data,
        _pointer(b), _FLOAT32, b.shape[1], _pointer(a), _FLOAT32, a.shape[1], _ZERO.ctypes.data, _pointer(out), _FLOAT32, n,
        compute, _DEFAULT_ALGORITHM,
    )  # fmt: skip


def _pointer(array: Any) -> int:
    return int(array.data.ptr)
