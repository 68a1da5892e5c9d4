"""Functions of arrays that more than one floor needs: random words, and log(softmax)."""

from __future__ import annotations

import numpy as np

from .devices import Array


def philox4x32(counter: Array, key: tuple[int, int], rounds: int = 7) -> Array:
    """Philox4x32 of counters (..., 4) uint32 under a 64-bit key (Salmon et al. 2011, section 4)."""
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    low = np.uint64(0xFFFFFFFF)
    for _ in range(rounds):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            p1 & low,
            (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            p0 & low,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def log_softmax(y: Array) -> Array:
    """log(softmax(y)) along the last axis, without overflow."""
    if y.size == 0:
        return y.copy()
    shifted: Array = y - y.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
