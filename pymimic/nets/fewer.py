"""A wide net made smaller, without training: fewer hidden units, and a narrower bottleneck."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import ops
from ..backends.interface import Activation, Array
from ..data.moments import mean_and_spread

Weights = dict[str, Array]
"""V (unless there is no bottleneck), U, b, W and c by name, float32."""

_UNITS = 1024  # hidden units at once
_RIDGE = 1e-6  # of the bottleneck's covariance, over its mean variance


def hidden(weights: Weights, activation: Activation, z: Array) -> Iterator[tuple[slice, Array]]:
    """h (N, some units) float32 of z (N, k), and which units they are, some after the others."""
    for start in range(0, len(weights["b"]), _UNITS):
        here = slice(start, start + _UNITS)
        yield here, ops.linear_dropout(z, weights["U"][here], weights["b"][here], activation=activation)


def bottleneck(weights: Weights, x: Array) -> Array:
    """z (N, k) of x (N, D)."""
    V = weights.get("V")
    return x if V is None else ops.linear_dropout(x, V, np.zeros(len(V), np.float32), activation="identity")


def pruned(weights: Weights, activation: Activation, count: int, x: Array | None) -> Weights:
    """The net without the `count` hidden units that matter least.

    Units with the same weights and bias are made one first, with the sum of their rows of W. A unit matters as the norm of its row of W
    times the deviation of h over the rows: the deviation that it gives to y. What it gives on average goes into c (Sietsma & Dow 1991).

    Parameters
    ----------
    x : (N, D) float32 rows that the net sees, standardised. None stands for inputs of mean 0 and covariance 1: then the deviation is that
        of the pre-activation, a norm of weights, and c gets what a unit gives at 0
    """
    weights = weights | {"W": _merged(weights)}
    z = np.zeros((1, weights["U"].shape[1]), np.float32) if x is None else bottleneck(weights, x)
    moments = [(h.mean(axis=0, dtype=np.float64), h.std(axis=0, dtype=np.float64)) for _, h in hidden(weights, activation, z)]
    mean, deviation = (np.concatenate(part) for part in zip(*moments))
    if x is None:
        U = weights["U"].astype(np.float64)
        deviation = np.sqrt(np.einsum("hk,hk->h", U @ _spread_of_noise(weights), U))
    order = np.argsort(-np.linalg.norm(weights["W"], axis=1) * deviation, kind="stable")
    kept, gone = np.sort(order[: len(order) - count]), order[len(order) - count :]
    c = (weights["c"] + mean[gone] @ weights["W"][gone]).astype(np.float32)
    return weights | {name: weights[name][kept] for name in "UbW"} | {"c": c}


def _merged(weights: Weights) -> Array:
    """W where the first of units that are the same has the sum of their rows, and the others have zeros."""
    rows = np.column_stack([weights["U"], weights["b"]]) + 0.0  # -0 is 0
    first: dict[bytes, int] = {}
    owners = [first.setdefault(row.tobytes(), unit) for unit, row in enumerate(rows)]
    W = np.zeros(weights["W"].shape)
    np.add.at(W, owners, weights["W"])
    return W.astype(np.float32)


def factored(weights: Weights, rank: int, x: Array | None) -> Weights:
    """The net with a bottleneck of `rank` units: U V, or U where there is no V, is replaced by the product of that rank which is nearest.

    Nearest means that U V x is, on average over the rows: a truncated singular value decomposition of U V S, S S^T being the covariance of
    x (Eckart & Young 1936). The new z has covariance 1 over the rows, and b is moved so that the mean of U V x + b stays.

    Parameters
    ----------
    x : (N, D) float32 rows that the net sees, standardised. None stands for inputs of mean 0 and covariance 1
    """
    U, V = weights["U"].astype(np.float64), weights.get("V")
    if x is not None:
        mean, spread = mean_and_spread(bottleneck(weights, x), _RIDGE)
    else:
        mean, spread = np.zeros(U.shape[1]), _spread_of_noise(weights)
    values, vectors = np.linalg.eigh(spread)
    root, inverse = vectors * np.sqrt(values), vectors / np.sqrt(values)
    components = np.linalg.eigh(root.T @ (U.T @ U) @ root)[1][:, ::-1][:, :rank]
    narrow, onto = U @ (root @ components), (inverse @ components).T
    new = {"V": onto if V is None else onto @ V, "U": narrow, "b": weights["b"] + U @ mean - narrow @ (onto @ mean)}
    return weights | {name: array.astype(np.float32) for name, array in new.items()}


def _spread_of_noise(weights: Weights) -> Array:
    """The covariance of z for inputs of covariance 1, made such that it can be inverted."""
    if "V" not in weights:
        return np.eye(weights["U"].shape[1])
    V = weights["V"].astype(np.float64)
    spread = V @ V.T
    return np.asarray(spread + (_RIDGE * np.trace(spread) / len(V) or 1.0) * np.eye(len(V)))
