"""The wide layer's two passes on tensors. What `pymimic.ops` has checked for some shapes, dtypes and settings it need not check again."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_dtypes import bfloat16
from torch import Tensor

from .. import arguments, ops
from ..backends import choose
from ..backends.interface import Array, Backend, Mask, Seed, Shallow, ShallowGrads
from ..plan import Plan, plan
from .register import array, number

_MOST = 4096
_SEEN: dict[Any, tuple[Backend, Mask, Plan]] = {}  # what calls like an earlier one need beside their arrays


def forward(
    operands: tuple[Tensor, ...], y: Tensor, seed: Tensor | None, offset: Tensor | None, activation: str, dropout: float, origin: Any
) -> None:  # fmt: skip
    """Write y for z, U, b, W and c."""
    key, arrays, out = _key("forward", operands, activation, dropout, origin), [array(given) for given in operands], array(y)
    key_seed, step, found = number("seed", seed, 64), number("offset", offset, 32), _SEEN.get(key)
    if found is None or not _plain(arrays):
        named = {"activation": activation, "dropout": dropout, "origin": tuple(origin)}
        ops.shallow_forward(*arrays, seed=key_seed, offset=step, out=out, **named)  # type: ignore[call-overload]
        _remember(key, arrays, dropout, tuple(origin))
    else:
        backend, net = _again(found, arrays, activation, key_seed, step)
        backend.shallow_forward(net, arrays[4], False, None, out)


def backward(
    dy: Tensor, operands: tuple[Tensor, ...], gradients: dict[str, Tensor], seed: Tensor | None, offset: Tensor | None, activation: str,
    dropout: float, origin: Any,
) -> None:  # fmt: skip
    """Write the gradients by name for dy, z, U, b and W."""
    key = _key("backward", (dy, *operands), activation, dropout, origin)
    upstream, *arrays = [array(given) for given in (dy, *operands)]
    out = ShallowGrads(**{name: array(given) for name, given in gradients.items()})
    key_seed, step, found = number("seed", seed, 64), number("offset", offset, 32), _SEEN.get(key)
    if found is None or not _plain([upstream, *arrays]):
        named = {"activation": activation, "dropout": dropout, "origin": tuple(origin), "needs": gradients}
        ops.shallow_backward(upstream, *arrays, seed=key_seed, offset=step, out=out, **named)  # type: ignore[arg-type]
        _remember(key, arrays, dropout, tuple(origin))
    else:
        backend, net = _again(found, arrays, activation, key_seed, step)
        backend.shallow_backward(upstream, net, None, frozenset(gradients), out)


def _key(which: str, operands: tuple[Tensor, ...], activation: str, dropout: float, origin: Any) -> Any:
    """All that the ops' checks read, but what `_plain` looks at."""
    return which, *[(given.shape, given.dtype) for given in operands], activation, dropout, *origin


def _plain(arrays: list[Array]) -> bool:
    """Whether they are on the CPU, and need no copy, for order or for alignment."""
    return all(type(given) is np.ndarray and given.flags.c_contiguous and given.flags.aligned for given in arrays)


def _remember(key: Any, arrays: list[Array], dropout: float, origin: tuple[int, int]) -> None:
    """That the ops have taken such arguments. They convert bfloat16 ones, which are always left to them."""
    z, U, _, W = arrays[:4]
    if not _plain(arrays) or z.dtype == bfloat16:
        return
    if len(_SEEN) >= _MOST:
        _SEEN.clear()
    (B, k), (H, C) = z.shape, W.shape
    _SEEN[key] = choose(None, z), arguments.mask(dropout, 0, 0, origin), plan(B, k, k, H, C, str(U.dtype))


def _again(found: tuple[Backend, Mask, Plan], arrays: list[Array], activation: str, seed: Seed, offset: Seed) -> tuple[Backend, Shallow]:
    backend, mask, planned = found
    z, U, b, W = arrays[:4]
    masked = mask._replace(seed=seed, offset=offset) if mask.threshold < 256 else mask  # type: ignore[arg-type]
    return backend, Shallow(z, U, b, W, activation, masked, planned)  # type: ignore[arg-type]
