"""The tile algorithm in Numba: a task owns a panel of rows, or some hidden units, and shares nothing.

A tile holds h (or dL/da) of one slab of units and one panel of rows, as [unit][row]. Vector lanes run along the rows, so
that weights are read in their own order. Sums run in the order of their index, without fused or reassociated operations:
bits depend neither on panels nor on threads. `mask` holds the threshold, the two words of the
seed, the offset, row // 16 and unit // 32 as uint64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, prange

RELU, IDENTITY, TANH, SIGMOID, GELU = range(5)  # the order of interface.ACTIVATIONS
UNITS = 32  # that one task of the weights' gradients owns
NEED_Z, NEED_U, NEED_B, NEED_W = 1, 2, 4, 8
RECOMPUTE, PRE_ACTIVATION, OUTPUT = range(3)  # what a tile of the backward pass is made from


def _compiled(function: Callable[..., Any], parallel: bool = False) -> Any:
    """`function` compiled at its first call, and cached on disk where some folder is writable."""
    try:
        return njit(function, cache=True, nogil=True, error_model="numpy", parallel=parallel)
    except RuntimeError:  # no folder for the cache: a read-only installation without a home directory
        return njit(function, nogil=True, error_model="numpy", parallel=parallel)


@_compiled
def add_product(out, A, B, m, n, q):  # type: ignore[no-untyped-def]
    """out (m, n) += A (m, q) B (q, n), two rows and four products at a time."""
    for i in range(0, m - 1, 2):
        for p in range(0, q - 3, 4):
            a0, a1, a2, a3 = A[i, p], A[i, p + 1], A[i, p + 2], A[i, p + 3]
            e0, e1, e2, e3 = A[i + 1, p], A[i + 1, p + 1], A[i + 1, p + 2], A[i + 1, p + 3]
            for j in range(n):
                b0, b1, b2, b3 = B[p, j], B[p + 1, j], B[p + 2, j], B[p + 3, j]
                first = out[i, j] + a0 * b0 + a1 * b1 + a2 * b2 + a3 * b3
                second = out[i + 1, j] + e0 * b0 + e1 * b1 + e2 * b2 + e3 * b3
                out[i, j] = first
                out[i + 1, j] = second
        for p in range(q - q % 4, q):
            for j in range(n):
                first, second = out[i, j] + A[i, p] * B[p, j], out[i + 1, j] + A[i + 1, p] * B[p, j]
                out[i, j] = first
                out[i + 1, j] = second
    if m % 2:
        for p in range(q):
            for j in range(n):
                out[m - 1, j] += A[m - 1, p] * B[p, j]


@_compiled
def transpose(out, A, m, n):  # type: ignore[no-untyped-def]
    """out (n, m) = A (m, n) transposed."""
    for i in range(m):
        for j in range(n):
            out[j, i] = A[i, j]


@_compiled
def philox(lane, row, unit, mask):  # type: ignore[no-untyped-def]
    """Philox4x32-7 at counter (offset, lane, row, unit): four words (Salmon et al. 2011, section 4)."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    c0, c1, c2, c3 = mask[3], np.uint64(lane), (mask[4] + np.uint64(row)) & low, (mask[5] + np.uint64(unit)) & low
    k0, k1 = mask[1], mask[2]
    for _ in range(7):
        left, right = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (right >> half) ^ c1 ^ k0, right & low, (left >> half) ^ c3 ^ k1, left & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return c0, c1, c2, c3


@_compiled
def kept_units(kept, units, rows, first_unit, first_row, mask):  # type: ignore[no-untyped-def]
    """Fill kept[unit, row] for a tile at (first_row, first_unit), multiples of 16 and 32; `kept` is padded to multiples of those."""
    byte = np.uint64(255)
    for unit in range(0, units, 32):
        for row in range(0, rows, 16):
            for lane in range(32):
                words = philox(lane, (first_row + row) // 16, (first_unit + unit) // 32, mask)
                u, r = unit + lane % 4 * 2, row + lane // 4
                for group in range(4):
                    word = words[group]
                    for j in range(4):  # the byte's place in its word: the unit's parity, then which half of the rows
                        kept[u + 8 * group + j % 2, r + j // 2 * 8] = (word >> np.uint64(8 * j)) & byte < mask[0]


@_compiled
def activate(a, activation):  # type: ignore[no-untyped-def]
    """f(a) and f'(a) of a float64; NaN propagates."""
    if activation == RELU:
        return (0.0, 0.0) if a <= 0 else (a, 1.0)
    if activation == TANH:
        h = math.tanh(a)
        return h, 1 - h * h
    if activation == SIGMOID:
        h = 0.5 * (1 + math.tanh(0.5 * a))
        return h, h * (1 - h)
    if activation == GELU:
        cdf = 0.5 * math.erfc(-a * math.sqrt(0.5))
        return a * cdf, cdf + a * math.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)
    return a, 1.0


@_compiled
def slope_of_output(h, activation):  # type: ignore[no-untyped-def]
    """f'(a) from h = f(a); not for gelu, which takes the same value twice."""
    if activation == RELU:
        return 1.0 if h > 0 else 0.0
    if activation == TANH:
        return 1 - h * h
    return h * (1 - h) if activation == SIGMOID else 1.0


@_compiled
def pre_activations(a, zT, U, b, units, rows):  # type: ignore[no-untyped-def]
    """A tile of a = z U^T + b."""
    for u in range(units):
        for r in range(rows):
            a[u, r] = b[u]
    add_product(a, U, zT, units, rows, U.shape[1])


@_compiled
def forward_panel(z, U, b, W, c, activation, mask, slab, y, save, saves_h, row, rows, width):  # type: ignore[no-untyped-def]
    """y of `rows` rows from `row` on: slab by slab, each adding one partial sum. `save` gets h or a, where it has rows."""
    (H, k), C, number = U.shape, W.shape[1], z.dtype.type
    zT, tile, kept = np.empty((k, width), z.dtype), np.empty((slab, width), z.dtype), np.ones((slab, width), np.bool_)
    WT, partial = np.empty((C, slab), z.dtype), np.empty((C, width), z.dtype)
    scale = number(256 / mask[0])
    transpose(zT, z[row : row + rows], rows, k)
    for r in range(rows):
        for j in range(C):
            y[row + r, j] = c[j]
    for first in range(0, H, slab):
        units = min(slab, H - first)
        pre_activations(tile, zT, U[first:], b[first:], units, rows)
        if len(save) > 0 and not saves_h:
            for r in range(rows):
                for u in range(units):
                    save[row + r, first + u] = tile[u, r]
        if mask[0] < 256:
            kept_units(kept, units, rows, first, row, mask)
        for u in range(units):
            for r in range(rows):
                h = number(activate(tile[u, r], activation)[0])
                tile[u, r] = h * scale if kept[u, r] else number(0)
        if len(save) > 0 and saves_h:
            for r in range(rows):
                for u in range(units):
                    save[row + r, first + u] = tile[u, r]
        partial[:] = 0
        transpose(WT, W[first:], units, C)
        add_product(partial, WT, tile, C, rows, units)
        for r in range(rows):
            for j in range(C):
                y[row + r, j] += partial[j, r]


def _forward(z, U, b, W, c, activation, mask, slab, y, save, saves_h, width):  # type: ignore[no-untyped-def]
    for panel in prange(-(-len(z) // width)):
        row = panel * width
        forward_panel(z, U, b, W, c, activation, mask, slab, y, save, saves_h, row, min(width, len(z) - row), width)


@_compiled
def backward_panel(dy, dout, z, U, b, W, activation, mask, source, saved, column, h, da, dz, needs, row, rows):  # type: ignore[no-untyped-def]
    """Tiles of h and da of one slab and `rows` rows from `row` on, and what the slab adds to these rows' dz.

    dL/dh is dout, where it has rows, plus dy W^T. The slab starts at `column` of dout and `saved`.
    """
    (units, k), C, width, number = U.shape, W.shape[1], h.shape[1], z.dtype.type
    kept = np.ones(h.shape, np.bool_)
    scale = number(256 / mask[0])
    if mask[0] < 256 and not (source == OUTPUT and activation == RELU):  # relu's h > 0 says active and kept
        kept_units(kept, units, rows, 0, row, mask)
    if source == RECOMPUTE:
        zT = np.empty((k, width), z.dtype)
        transpose(zT, z[row : row + rows], rows, k)
        pre_activations(h, zT, U, b, units, rows)
    else:
        for r in range(rows):
            for u in range(units):
                h[u, r] = saved[row + r, column + u]
    da[:] = 0
    if len(dout) > 0:
        for r in range(rows):
            for u in range(units):
                da[u, r] = dout[row + r, column + u]
    dyT = np.empty((C, width), z.dtype)
    transpose(dyT, dy[row : row + rows], rows, C)
    add_product(da, W, dyT, units, rows, C)
    for u in range(units):
        for r in range(rows):
            if source == OUTPUT:
                slope = slope_of_output(h[u, r] / scale, activation)
            else:
                value, slope = activate(h[u, r], activation)
                h[u, r] = number(value) * scale if kept[u, r] else number(0)
            da[u, r] = da[u, r] * (number(slope) * scale) if kept[u, r] else number(0)
    if needs & NEED_Z:
        UT, partial = np.empty((k, units), z.dtype), np.zeros((k, width), z.dtype)
        transpose(UT, U, units, k)
        add_product(partial, UT, da, k, rows, units)
        for r in range(rows):
            for j in range(k):
                dz[row + r, j] += partial[j, r]


@_compiled
def backward_units(dy, z, h, da, dU, db, dW, needs, block, block_rows, unit, units):  # type: ignore[no-untyped-def]
    """Add one block of rows, in tiles h and da of (panel, unit, row), to the gradients of `units` units from `unit` on."""
    width, k, C = h.shape[2], z.shape[1], dy.shape[1]
    partial_U, partial_b, partial_W = np.zeros((units, k), z.dtype), np.zeros(units, z.dtype), np.zeros((units, C), z.dtype)
    for panel in range(-(-block_rows // width)):
        row = block + panel * width
        rows = min(width, block + block_rows - row)
        if needs & NEED_U:
            add_product(partial_U, da[panel, unit:], z[row:], units, k, rows)
        if needs & NEED_W:
            add_product(partial_W, h[panel, unit:], dy[row:], units, C, rows)
        if needs & NEED_B:
            for u in range(units):
                for r in range(rows):
                    partial_b[u] += da[panel, unit + u, r]
    for u in range(units):
        if needs & NEED_U:
            for j in range(k):
                dU[unit + u, j] += partial_U[u, j]
        if needs & NEED_B:
            db[unit + u] += partial_b[u]
        if needs & NEED_W:
            for j in range(C):
                dW[unit + u, j] += partial_W[u, j]


def _backward(dy, dout, z, U, b, W, activation, mask, source, saved, column, row_block, h, da, dz, dU, db, dW, needs):  # type: ignore[no-untyped-def]
    """One slab: block by block of rows, panels of rows first, then groups of units. Workspace h, da: (panels of a block, unit, row)."""
    width = h.shape[2]
    for block in range(0, len(z), row_block):
        block_rows = min(row_block, len(z) - block)
        for panel in prange(-(-block_rows // width)):
            row = block + panel * width
            rows = min(width, block + block_rows - row)
            backward_panel(dy, dout, z, U, b, W, activation, mask, source, saved, column, h[panel], da[panel], dz, needs, row, rows)
        if needs & (NEED_U | NEED_B | NEED_W):
            for group in prange(-(-len(U) // UNITS)):
                unit = group * UNITS
                units = min(UNITS, len(U) - unit)
                backward_units(dy, z, h, da, dU, db, dW, needs, block, block_rows, unit, units)


@_compiled
def dropout_rows(x, mask, out, row):  # type: ignore[no-untyped-def]
    """16 rows from `row` on of every matrix of x (matrices, rows, units): the same mask for each."""
    matrices, rows, units = x.shape
    number = x.dtype.type
    scale = number(256 / mask[0])
    kept = np.ones((-(-units // 32) * 32, 16), np.bool_)
    if mask[0] < 256:
        kept_units(kept, units, 16, 0, row, mask)
    for matrix in range(matrices):
        for r in range(row, min(row + 16, rows)):
            for u in range(units):
                out[matrix, r, u] = x[matrix, r, u] * (scale if kept[u, r - row] else number(0))


def _dropout(x, mask, out):  # type: ignore[no-untyped-def]
    for tile in prange(-(-x.shape[1] // 16)):
        dropout_rows(x, mask, out, tile * 16)


# In Python, where prange is range, the functions above run the compiled tasks one after another.
forward, backward, dropout = (_compiled(function, parallel=True) for function in (_forward, _backward, _dropout))
