"""The wide hidden layer and the outputs behind it, forward and backward."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, overload

from .. import _check, arguments
from ..backends import choose
from ..backends.interface import Array, Saved, Seed, Shallow, ShallowGrads
from ..plan import Plan


@overload
def shallow_forward(
    z: Array, U: Array, b: Array, W: Array, c: Array, *, activation: str = ..., dropout: float = ..., seed: Seed = ...,
    offset: Seed = ..., origin: tuple[int, int] = ..., save: Literal[False] = ..., plan: Plan | None = ..., out: Array | None = ...,
    backend: str | None = ...,
) -> Array: ...  # fmt: skip
@overload
def shallow_forward(
    z: Array, U: Array, b: Array, W: Array, c: Array, *, activation: str = ..., dropout: float = ..., seed: Seed = ...,
    offset: Seed = ..., origin: tuple[int, int] = ..., save: Literal[True] | Saved, plan: Plan | None = ..., out: Array | None = ...,
    backend: str | None = ...,
) -> tuple[Array, Saved]: ...  # fmt: skip
@overload
def shallow_forward(
    z: Array, U: Array, b: Array, W: Array, c: Array, *, activation: str = ..., dropout: float = ..., seed: Seed = ...,
    offset: Seed = ..., origin: tuple[int, int] = ..., save: bool | Saved, plan: Plan | None = ..., out: Array | None = ...,
    backend: str | None = ...,
) -> Array | tuple[Array, Saved]: ...  # fmt: skip
def shallow_forward(
    z: Array, U: Array, b: Array, W: Array, c: Array, *, activation: str = "relu", dropout: float = 0.0, seed: Seed = 0,
    offset: Seed = 0, origin: tuple[int, int] = (0, 0), save: bool | Saved = False, plan: Plan | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array | tuple[Array, Saved]:  # fmt: skip
    """y = dropout(f(z U^T + b)) W + c, without writing h (B x H) to memory.

    Ba & Caruana 2014, section 2.2, after the bottleneck z = x V^T.

    Parameters
    ----------
    z : (B, k) array
    U : (H, k) array
    b : (H,) array; float32 is allowed beside bfloat16 operands
    W : (H, C) array
    c : (C,) array, as b
    activation : "relu", "identity", "tanh", "sigmoid" or "gelu" (the erf form)
    dropout : probability in [0, 1) that a hidden unit is dropped
    seed : of the mask
    offset : the training step, which gives each step a mask of its own
    origin : (row, unit) of this block in the whole
    save : whether to keep h for `shallow_backward`: B x H values, in bfloat16 if `plan` says "keep-bf16" or the operands are bfloat16.
        A `Saved` of an earlier call means the same, and lends its memory to this call if the size fits
    plan : what `pymimic.plan` returned for this shape, or None
    out : (B, C) array to write y into
    backend : a name, see `pymimic.ops`; None follows the arrays

    Returns
    -------
    y, a (B, C) array; with `save` the pair (y, saved).
    """
    dims = _check.Dims()
    z = dims.array("z", z, "B", "k", bf16=True)
    U, b = dims.array("U", U, "H", "k", bf16=True), dims.beside("b", b, "H")
    W, c = dims.array("W", W, "H", "C", bf16=True), dims.beside("c", c, "C")
    act, mask = arguments.activation(activation), arguments.mask(dropout, seed, offset, origin, dims.on_device)
    out = dims.output("out", out, ("B", "C"), (z, U, b, W, c))
    chosen, planned = choose(backend, z), arguments.plan(plan, dims)
    save, room = arguments.save(save)
    if save and not chosen.keeps_h(dims["k"], dims["C"]):
        raise ValueError(
            f"save: expected False with backend {chosen.name!r}, which at k = {dims['k']} and C = {dims['C']} makes h again in the "
            f"backward pass, got True"
        )
    y, saved = chosen.shallow_forward(Shallow(z, U, b, W, act, mask, planned), c, save, room, out)
    return y if saved is None else (y, Saved(saved, chosen.name, act, mask, planned))


def shallow_backward(
    dy: Array, z: Array, U: Array, b: Array, W: Array, *, activation: str = "relu", dropout: float = 0.0, seed: Seed = 0,
    offset: Seed = 0, origin: tuple[int, int] = (0, 0), saved: Saved | None = None,
    needs: Iterable[str] = ("z", "U", "b", "W", "c"), plan: Plan | None = None, out: ShallowGrads | None = None,
    backend: str | None = None,
) -> ShallowGrads:  # fmt: skip
    """Gradients of `shallow_forward`, given dy = dL/dy (B, C); h is made again, or read from `saved`.

    Parameters
    ----------
    dy : (B, C) array
    z, U, b, W : as given to the forward pass
    activation, dropout, seed, offset, origin : as given to the forward pass
    saved : what `shallow_forward(save=True)` returned for the same arguments
    needs : which gradients to compute; the others are None
    plan : as given to the forward pass
    out : ShallowGrads of arrays to write into, with None where a new array is wanted. Gradients of a wide layer are large, and the
        system can take as long to provide fresh memory as the products take
    backend : as given to the forward pass

    Returns
    -------
    ShallowGrads(z, U, b, W, c) with the shapes of those arrays.
    """
    dims = _check.Dims()
    z, U, W = dims.array("z", z, "B", "k", bf16=True), dims.array("U", U, "H", "k", bf16=True), dims.array("W", W, "H", "C", bf16=True)
    dy, b = dims.beside("dy", dy, "B", "C"), dims.beside("b", b, "H")
    act, mask = arguments.activation(activation), arguments.mask(dropout, seed, offset, origin, dims.on_device)
    wanted = _check.needs(needs, ShallowGrads._fields)
    chosen, planned = choose(backend, z), arguments.plan(plan, dims, saved)
    array = arguments.saved(saved, chosen.name, act, mask, planned)
    out = arguments.gradients(dims, out, wanted, (dy, z, U, b, W))
    return chosen.shallow_backward(dy, Shallow(z, U, b, W, act, mask, planned), array, wanted, out)
