"""Wide shallow layers as pure functions: arrays in, arrays out, no hidden state.

Shapes use one notation everywhere: B rows, D inputs, k bottleneck units, H hidden units, C outputs; `V (k, D)`, `U (H, k)`, `b (H,)`,
`W (H, C)`, `c (C,)`.

**Types.** The arrays of a call have one dtype: float32, or on the CPU float64. In the shallow ops z, U and W may be bfloat16 (ml_dtypes):
then h and da are rounded to bfloat16 too, and sums, b, c, y and all gradients are float32. An input that is not C-contiguous is copied
once. Inputs are never written to.

**Backends.** The backend follows the arrays: NumPy arrays run on the CPU, CuPy arrays on their device, on CuPy's current stream. `backend=`
names another one: "cpu", "cpu-bf16x3" (as exact, and faster with Intel AMX), "cpu-bf16", "numba" or "reference"; "cuda" (as exact as the
CPU), "cuda-tf32", "cuda-bf16" or "cuda-fp16". The same inputs give the same bits, run after run and for any number of threads.

**Device arrays of other libraries** (torch's CUDA tensors, Numba's arrays) are used where they are, `out` too, if they speak DLPack or
`__cuda_array_interface__`. Results are CuPy arrays, which `torch.from_dlpack` takes without a copy. Losses are 0-d arrays there. A call
does not wait for the device, with two exceptions: `cross_entropy` checks its labels, and CuPy waits for an array that names its stream
in `__cuda_array_interface__` and does not speak DLPack. Inside a `pymimic.Workspace` calls can be captured into CUDA graphs.

**Dropout** keeps a unit when its byte of Philox4x32-7 (Salmon et al. 2011) is below threshold = floor(256 (1 - p) + 0.5), and scales the
units that it keeps by 256 / threshold. `dropout` is the probability p in [0, 1). `seed` (64 bits) is the generator's key, and `offset`
(32 bits) the training step: ints, or on a device also 0-d int64 arrays. `origin=(row, unit)`, a multiple of (16, 32), says where this block
lies in the whole, so that a shard makes the whole's mask.

**Errors.** Every function raises TypeError for a wrong kind of array or dtype, and ValueError for a wrong shape or value. The message
names the argument, what was expected and what came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, overload

import numpy as np

from . import _check, arguments
from .backends import choose
from .backends.interface import Array, FactorizedGrads, LinearGrads, Saved, Seed, Shallow, ShallowGrads
from .devices import module
from .plan import Plan

__all__ = [
    "FactorizedGrads", "LinearGrads", "Saved", "ShallowGrads", "cross_entropy", "distillation_loss", "dropout", "dropout_backward",
    "factorized_matmul", "factorized_matmul_backward", "linear_dropout", "linear_dropout_backward", "mimic_loss",
    "shallow_backward", "shallow_forward",
]  # fmt: skip

_NO_MASK = arguments.mask(0.0, 0, 0, (0, 0))


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


def mimic_loss(y: Array, t: Array, weights: Array | None = None, *, backend: str | None = None) -> tuple[float, Array]:
    """Regression on logits: loss = sum_b w_b |y_b - t_b|^2 / (2 B), and dL/dy (B, C). An empty batch has loss 0.

    Ba & Caruana 2014, equation 1.

    Parameters
    ----------
    y, t : (B, C) arrays, the student's and the teacher's logits. -inf in t, for a class that is ruled out, is an error on the CPU
    weights : (B,) array of per-row weights, or None for ones
    """
    dims = _check.Dims()
    y, t = dims.array("y", y, "B", "C"), dims.array("t", t, "B", "C")
    weights = None if weights is None else dims.array("weights", weights, "B")
    loss, dy = choose(backend, y).mimic_loss(y, t, weights)
    if not dims.on_device and not math.isfinite(loss) and bool(np.isneginf(t).any()):
        raise ValueError("t: expected logits that squared errors can be taken of, got -inf; distillation_loss takes it, as probability 0")
    return loss, dy


def cross_entropy(y: Array, labels: Array, weights: Array | None = None, *, backend: str | None = None) -> tuple[float, Array]:
    """Mean over rows of w_b (-log softmax(y_b)[labels_b]), and dL/dy (B, C). An empty batch has loss 0.

    Parameters
    ----------
    y : (B, C) array of logits
    labels : (B,) array of integers in [0, C), which is checked, but not while a CUDA graph is captured
    weights : (B,) array of per-row weights, or None for ones
    """
    dims = _check.Dims()
    y = dims.array("y", y, "B", "C")
    labels = dims.labels("labels", labels)
    weights = None if weights is None else dims.array("weights", weights, "B")
    return choose(backend, y).cross_entropy(y, labels, weights)


def distillation_loss(
    y: Array, t: Array, temperature: float, weights: Array | None = None, labels: Array | None = None, alpha: float = 1.0, *,
    backend: str | None = None,
) -> tuple[float, Array]:  # fmt: skip
    """alpha T^2 times the mean over rows of w_b KL(softmax(t_b / T) || softmax(y_b / T)), and dL/dy (B, C).

    Hinton, Vinyals & Dean 2015, section 2. With labels (1 - alpha) times their `cross_entropy` is added. An empty batch has loss 0.

    Parameters
    ----------
    y, t : (B, C) arrays, the student's and the teacher's logits. t may have -inf, for a class that is ruled out: 0 log 0 is 0. A row of
        nothing else has no softmax, and gives NaN
    temperature : T > 0
    weights : (B,) array of per-row weights, or None for ones
    labels : (B,) array of integers in [0, C), as in `cross_entropy`; needed where alpha is below 1
    alpha : the share of the teacher's logits, in [0, 1]
    """
    dims = _check.Dims()
    y, t = dims.array("y", y, "B", "C"), dims.array("t", t, "B", "C")
    temperature = _check.number("temperature", temperature, above=0, float32=True)
    weights = None if weights is None else dims.array("weights", weights, "B")
    labels = None if labels is None else dims.labels("labels", labels)
    alpha = _check.number("alpha", alpha, 0, most=1)
    chosen = choose(backend, y)
    loss, dy = chosen.distillation_loss(y, t, temperature, weights)
    if alpha == 1:
        return loss, dy
    if labels is None:
        raise ValueError(f"labels: expected (B,) integers, as alpha = {alpha} leaves them a share, got None")
    hard_loss, hard_dy = chosen.cross_entropy(y, labels, weights)
    dy *= y.dtype.type(alpha)
    hard_dy *= y.dtype.type(1 - alpha)
    dy += hard_dy
    return alpha * loss + (1 - alpha) * hard_loss, dy


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
