"""Layers whose result is written out: through a bottleneck, of a deep net, and dropout alone."""

from __future__ import annotations

from collections.abc import Iterable

from .. import _check, arguments
from ..backends import choose
from ..backends.interface import Array, FactorizedGrads, LinearGrads, Seed
from ..devices import module

_NO_MASK = arguments.mask(0.0, 0, 0, (0, 0))


def factorized_matmul(
    x: Array, V: Array, U: Array, b: Array | None = None, *, activation: str = "identity", out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """f((x V^T) U^T + b), a (B, H) array: the wide layer through its bottleneck, for callers who want h itself.

    Ba & Caruana 2014, section 2.2: O(k (H + D)) multiply-adds a row instead of O(H D).

    Parameters
    ----------
    x : (B, D) array
    V : (k, D) array
    U : (H, k) array
    b : (H,) array or None
    activation : as in `shallow_forward`
    out : (B, H) array to write into
    backend : as in `shallow_forward`
    """
    dims = _check.Dims()
    x, V, U = dims.array("x", x, "B", "D"), dims.array("V", V, "k", "D"), dims.array("U", U, "H", "k")
    b = None if b is None else dims.array("b", b, "H")
    act = arguments.activation(activation)
    out = dims.output("out", out, ("B", "H"), (x, V, U) if b is None else (x, V, U, b))
    chosen = choose(backend, x)
    z = chosen.linear_dropout(x, V, None, "identity", _NO_MASK, None)
    return chosen.linear_dropout(z, U, b, act, _NO_MASK, out)


def factorized_matmul_backward(
    da: Array, x: Array, V: Array, U: Array, *, needs: Iterable[str] = ("x", "V", "U", "b"), backend: str | None = None
) -> FactorizedGrads:
    """Gradients of `factorized_matmul`, given da = dL/da (B, H) at the pre-activation a = (x V^T) U^T + b.

    Returns
    -------
    FactorizedGrads(x, V, U, b) with the shapes of those arrays; None where not in `needs`.
    """
    dims = _check.Dims()
    da, x = dims.array("da", da, "B", "H"), dims.array("x", x, "B", "D")
    V, U = dims.array("V", V, "k", "D"), dims.array("U", U, "H", "k")
    wanted = _check.needs(needs, FactorizedGrads._fields)
    chosen = choose(backend, x)
    outer_needs = {"weight" for _ in wanted & {"U"}} | {"bias" for _ in wanted & {"b"}} | {"x" for _ in wanted & {"x", "V"}}
    z = (
        chosen.linear_dropout(x, V, None, "identity", _NO_MASK, None)
        if "U" in wanted
        else module(da).empty((dims["B"], dims["k"]), da.dtype)
    )
    outer = chosen.linear_dropout_backward(da, z, U, None, da, "identity", _NO_MASK, frozenset(outer_needs))
    dx = dV = None
    if outer.x is not None:
        inner_needs = {"weight" for _ in wanted & {"V"}} | {"x" for _ in wanted & {"x"}}
        inner = chosen.linear_dropout_backward(outer.x, x, V, None, outer.x, "identity", _NO_MASK, frozenset(inner_needs))
        dx, dV = inner.x, inner.weight
    return FactorizedGrads(dx, dV, outer.weight, outer.bias)


def linear_dropout(
    x: Array, weight: Array, bias: Array, *, activation: str = "relu", dropout: float = 0.0, seed: Seed = 0, offset: Seed = 0,
    origin: tuple[int, int] = (0, 0), out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """dropout(f(x weight^T + bias)): a layer of a deep net.

    Parameters
    ----------
    x : (B, in) array
    weight : (out, in) array
    bias : (out,) array
    activation, dropout, seed, offset, origin, backend : as in `shallow_forward`
    out : (B, out) array to write into
    """
    dims = _check.Dims()
    x, weight = dims.array("x", x, "B", "in"), dims.array("weight", weight, "out", "in")
    bias = dims.array("bias", bias, "out")
    act, mask = arguments.activation(activation), arguments.mask(dropout, seed, offset, origin, dims.on_device)
    out = dims.output("out", out, ("B", "out"), (x, weight, bias))
    return choose(backend, x).linear_dropout(x, weight, bias, act, mask, out)


def linear_dropout_backward(
    dout: Array, x: Array, weight: Array, out: Array, *, bias: Array | None = None, activation: str = "relu", dropout: float = 0.0,
    seed: Seed = 0, offset: Seed = 0, origin: tuple[int, int] = (0, 0), needs: Iterable[str] = ("x", "weight", "bias"),
    backend: str | None = None,
) -> LinearGrads:  # fmt: skip
    """Gradients of `linear_dropout`, given dout = dL/dout and its result `out`, both (B, out).

    The derivative is taken from `out`, except for gelu, which takes the same value twice: there the
    pre-activation is computed again, and `bias` (out,) must be given.

    Returns
    -------
    LinearGrads(x, weight, bias) with the shapes of those arrays; None where not in `needs`.
    """
    dims = _check.Dims()
    dout, x = dims.array("dout", dout, "B", "out"), dims.array("x", x, "B", "in")
    weight, out = dims.array("weight", weight, "out", "in"), dims.array("out", out, "B", "out")
    bias = None if bias is None else dims.array("bias", bias, "out")
    act, mask = arguments.activation(activation), arguments.mask(dropout, seed, offset, origin, dims.on_device)
    if act == "gelu" and bias is None:
        raise ValueError("bias: expected the layer's (out,) bias, as gelu's derivative needs the pre-activation, got None")
    wanted = _check.needs(needs, LinearGrads._fields)
    return choose(backend, x).linear_dropout_backward(dout, x, weight, bias, out, act, mask, wanted)


def dropout(
    x: Array, p: float, *, seed: Seed, offset: Seed = 0, origin: tuple[int, int] = (0, 0), out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """x with units zeroed with probability p and the others scaled by 256 / threshold, over the last two axes (row, unit).

    Srivastava et al. 2014; `pymimic.ops` defines the mask. Leading axes, if any, all get the same one. `out` is an array like x to write
    into: the system takes longer to provide fresh memory than the masking takes.
    """
    return _masked("x", x, p, seed, offset, origin, out, backend)


def dropout_backward(
    dy: Array, p: float, *, seed: Seed, offset: Seed = 0, origin: tuple[int, int] = (0, 0), out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """dL/dx of `dropout`, given dy = dL/dout: the mask is made again from the same seed, offset and origin. `out` as there."""
    return _masked("dy", dy, p, seed, offset, origin, out, backend)


def _masked(
    name: str, value: object, p: float, seed: Seed, offset: Seed, origin: tuple[int, int], out: Array | None, backend: str | None
) -> Array:
    array = _check.any_array(name, value)
    if array.ndim < 2:
        raise ValueError(f"{name}: expected at least two axes (row, unit), got shape {array.shape}")
    dims, axes = _check.Dims(), [f"axis{i}" for i in range(array.ndim)]
    array = dims.array(name, array, *axes)
    mask = arguments.mask(p, seed, offset, origin, dims.on_device, "p")
    return choose(backend, array).dropout(array, mask, dims.output("out", out, axes, (array,)))
