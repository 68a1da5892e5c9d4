"""The ops as operators of torch: `torch.ops.pymimic.shallow`, `factorized_linear` and `linear_dropout`, with their backward passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import ops
from . import checked
from .register import array, number, operator, tensor

_MASK = "Tensor? seed=None, Tensor? offset=None, str activation='relu', float dropout=0., SymInt[2] origin=[0, 0]"
_NO_MASK = [None] * 5


def shallow(
    z: Tensor, U: Tensor, b: Tensor, W: Tensor, c: Tensor, *, activation: str = "relu", dropout: float = 0.0,
    seed: Tensor | None = None, offset: Tensor | None = None, origin: tuple[int, int] = (0, 0),
) -> Tensor:  # fmt: skip
    """y = dropout(f(z U^T + b)) W + c, without writing h (B x H) to memory, in either pass: `pymimic.ops.shallow_forward`.

    This is `torch.ops.pymimic.shallow`. Its memory is torch's: nothing is copied but tensors that are not contiguous, once.

    Parameters
    ----------
    z : (B, k) tensor, float32, float64 (not on a GPU) or bfloat16
    U : (H, k) tensor
    b : (H,) tensor; float32 is allowed beside bfloat16 operands
    W : (H, C) tensor
    c : (C,) tensor, as b
    activation : "relu", "identity", "tanh", "sigmoid" or "gelu" (the erf form)
    dropout : probability in [0, 1) that a hidden unit is dropped
    seed, offset : 0-d int64 tensors, or None for 0: the mask's key, whose 64 bits count, and the training step, whose low 32 bits do. The
        same numbers give the same mask, also when `torch.utils.checkpoint` calls again
    origin : (row, unit) of this block in the whole, a multiple of (16, 32)

    Returns
    -------
    y, a (B, C) tensor, float32 for bfloat16 operands. Inside `torch.autocast` all operands become bfloat16.

    Raises
    ------
    RuntimeError
        Wrong shapes, or dtypes or devices that differ; the message names the argument. A second derivative is wanted, or one in forward
        mode.
    """
    return _shallow(*_contiguous(z=z, U=U, b=b, W=W, c=c), seed, offset, activation, dropout, origin)  # type: ignore[no-any-return]


def factorized_linear(x: Tensor, V: Tensor, U: Tensor, b: Tensor | None = None) -> Tensor:
    """(x V^T) U^T + b, a (B, H) tensor: a wide linear layer through its bottleneck, `pymimic.ops.factorized_matmul`.

    Parameters
    ----------
    x : (B, D) tensor, float32 or float64 (not on a GPU); float32 inside `torch.autocast`
    V : (k, D) tensor
    U : (H, k) tensor
    b : (H,) tensor or None

    Raises
    ------
    RuntimeError
        As `shallow`.
    """
    return _factorized(*_contiguous(x=x, V=V, U=U), None if b is None else _contiguous(b=b)[0])  # type: ignore[no-any-return]


def linear_dropout(
    x: Tensor, weight: Tensor, bias: Tensor, *, activation: str = "relu", dropout: float = 0.0, seed: Tensor | None = None,
    offset: Tensor | None = None, origin: tuple[int, int] = (0, 0),
) -> Tensor:  # fmt: skip
    """dropout(f(x weight^T + bias)), a (B, out) tensor: a layer of a deep net, `pymimic.ops.linear_dropout`.

    Parameters
    ----------
    x : (B, in) tensor, float32 or float64 (not on a GPU); float32 inside `torch.autocast`
    weight : (out, in) tensor
    bias : (out,) tensor
    activation, dropout, seed, offset, origin : as in `shallow`

    Raises
    ------
    RuntimeError
        As `shallow`.
    """
    return _linear(*_contiguous(x=x, weight=weight, bias=bias), seed, offset, activation, dropout, origin)  # type: ignore[no-any-return]


def _contiguous(**tensors: Any) -> list[Tensor]:
    """The tensors, copied where they are not contiguous."""
    for name, given in tensors.items():
        demand_tensor(name, given)
    return [given.contiguous() for given in tensors.values()]


def demand_tensor(name: str, given: Any, sparse: bool = False) -> None:
    """Demand a tensor, dense if `sparse` is not allowed."""
    if not isinstance(given, Tensor):
        raise RuntimeError(f"{name}: expected a tensor, got {type(given).__name__}")
    if given.is_nested or (given.layout != torch.strided and not sparse):
        raise RuntimeError(f"{name}: expected a dense tensor, got one that is {'nested' if given.is_nested else given.layout}")


def _named(seed: Tensor | None, offset: Tensor | None, activation: str, dropout: float, origin: Any) -> dict[str, Any]:
    """The ops' keywords."""
    return {
        "seed": number("seed", seed, 64), "offset": number("offset", offset, 32), "activation": activation, "dropout": dropout,
        "origin": tuple(origin),
    }  # fmt: skip


def _wanted(names: str | tuple[str, ...], needs: list[bool]) -> list[str]:
    return [name for name, need in zip(names, needs) if need]


def _each(gradients: list[Tensor], needs: tuple[bool, ...], dtypes: list[torch.dtype]) -> list[Tensor | None]:
    """The gradients where they are needed, in the dtypes of the operands, and None elsewhere."""
    found = iter(gradients)
    return [next(found).to(dtype) if need else None for need, dtype in zip(needs, dtypes)]


def _sums(z: Tensor) -> torch.dtype:
    """The dtype of sums of products of such operands."""
    return torch.float32 if z.dtype == torch.bfloat16 else z.dtype


def _new_y(z: Tensor, U: Tensor, b: Tensor, W: Tensor, *_: Any) -> Tensor:
    return z.new_empty((*z.shape[:1], *W.shape[1:]), dtype=_sums(z))


def _run_shallow(
    z: Tensor, U: Tensor, b: Tensor, W: Tensor, c: Tensor, seed: Tensor | None = None, offset: Tensor | None = None,
    activation: str = "relu", dropout: float = 0.0, origin: Any = (0, 0),
) -> Tensor:  # fmt: skip
    y = _new_y(z, U, b, W)
    checked.forward((z, U, b, W, c), y, seed, offset, activation, dropout, origin)
    return y


def _new_gradients(dy: Tensor, z: Tensor, U: Tensor, b: Tensor, W: Tensor, needs: list[bool], *_: Any) -> list[Tensor]:
    shapes = {"z": z.shape, "U": U.shape, "b": U.shape[:1], "W": W.shape, "c": W.shape[1:]}
    return [z.new_empty(shapes[name], dtype=_sums(z)) for name in _wanted("zUbWc", needs)]


def _run_shallow_backward(
    dy: Tensor, z: Tensor, U: Tensor, b: Tensor, W: Tensor, needs: list[bool], seed: Tensor | None = None, offset: Tensor | None = None,
    activation: str = "relu", dropout: float = 0.0, origin: Any = (0, 0),
) -> list[Tensor]:  # fmt: skip
    gradients = _new_gradients(dy, z, U, b, W, needs)
    named = dict(zip(_wanted("zUbWc", needs), gradients))
    checked.backward(dy, (z, U, b, W), named, seed, offset, activation, dropout, origin)
    return gradients


def _save_shallow(ctx: Any, arguments: tuple[Any, ...], y: Tensor) -> None:
    z, U, b, W, _, seed, offset, *ctx.settings = arguments
    ctx.save_for_backward(z, U, b, W, seed, offset)
    ctx.dtypes = [given.dtype for given in arguments[:5]]


def _differentiate_shallow(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    z, U, b, W, seed, offset = ctx.saved_tensors
    needs = ctx.needs_input_grad[:5]
    gradients = _shallow_backward(dy.contiguous(), z, U, b, W, list(needs), seed, offset, *ctx.settings)
    return *_each(gradients, needs, ctx.dtypes), *_NO_MASK


def _new_factorized(x: Tensor, V: Tensor, U: Tensor, b: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:1], *U.shape[:1]))


def _run_factorized(x: Tensor, V: Tensor, U: Tensor, b: Tensor | None = None) -> Tensor:
    out = _new_factorized(x, V, U)
    ops.factorized_matmul(array(x), array(V), array(U), None if b is None else array(b), out=array(out))
    return out


def _new_factorized_gradients(da: Tensor, x: Tensor, V: Tensor, U: Tensor, needs: list[bool]) -> list[Tensor]:
    shapes = (x.shape, V.shape, U.shape, U.shape[:1])
    return [x.new_empty(shape) for shape, need in zip(shapes, needs) if need]


def _run_factorized_backward(da: Tensor, x: Tensor, V: Tensor, U: Tensor, needs: list[bool]) -> list[Tensor]:
    names = _wanted("xVUb", needs)
    gradients = ops.factorized_matmul_backward(array(da), array(x), array(V), array(U), needs=names)
    return [tensor(getattr(gradients, name)) for name in names]


def _save_factorized(ctx: Any, arguments: tuple[Any, ...], out: Tensor) -> None:
    ctx.save_for_backward(*arguments[:3])


def _differentiate_factorized(ctx: Any, da: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad
    gradients = _factorized_backward(da, *ctx.saved_tensors, list(needs))
    return tuple(_each(gradients, needs, [da.dtype] * 4))


def _new_linear(x: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return x.new_empty((*x.shape[:1], *weight.shape[:1]))


def _run_linear(
    x: Tensor, weight: Tensor, bias: Tensor, seed: Tensor | None = None, offset: Tensor | None = None, activation: str = "relu",
    dropout: float = 0.0, origin: Any = (0, 0),
) -> Tensor:  # fmt: skip
    out = _new_linear(x, weight)
    named = _named(seed, offset, activation, dropout, origin)
    ops.linear_dropout(array(x), array(weight), array(bias), out=array(out), **named)
    return out


def _new_linear_gradients(dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, needs: list[bool], *_: Any) -> list[Tensor]:
    return [x.new_empty(given.shape) for given, need in zip((x, weight, bias), needs) if need]


def _run_linear_backward(
    dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, needs: list[bool], seed: Tensor | None = None,
    offset: Tensor | None = None, activation: str = "relu", dropout: float = 0.0, origin: Any = (0, 0),
) -> list[Tensor]:  # fmt: skip
    names = _wanted(("x", "weight", "bias"), needs)
    named = _named(seed, offset, activation, dropout, origin)
    gradients = ops.linear_dropout_backward(
        array(dout), array(x), array(weight), array(out), bias=array(bias), needs=names, **named
    )  # fmt: skip
    return [tensor(getattr(gradients, name)) for name in names]


def _save_linear(ctx: Any, arguments: tuple[Any, ...], out: Tensor) -> None:
    x, weight, bias, seed, offset, *ctx.settings = arguments
    ctx.save_for_backward(x, weight, bias, out, seed, offset)


def _differentiate_linear(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, out, seed, offset = ctx.saved_tensors
    needs = ctx.needs_input_grad[:3]
    gradients = _linear_backward(dout, x, weight, bias, out, list(needs), seed, offset, *ctx.settings)
    return *_each(gradients, needs, [dout.dtype] * 3), *_NO_MASK


_shallow = operator(
    f"shallow(Tensor z, Tensor U, Tensor b, Tensor W, Tensor c, {_MASK}) -> Tensor",
    _run_shallow, _new_y, setup=_save_shallow, backward=_differentiate_shallow, autocast=torch.bfloat16,
)  # fmt: skip
_shallow_backward = operator(
    f"shallow_backward(Tensor dy, Tensor z, Tensor U, Tensor b, Tensor W, bool[] needs, {_MASK}) -> Tensor[]",
    _run_shallow_backward, _new_gradients,
)  # fmt: skip
_factorized = operator(
    "factorized_linear(Tensor x, Tensor V, Tensor U, Tensor? b=None) -> Tensor",
    _run_factorized, _new_factorized, setup=_save_factorized, backward=_differentiate_factorized, autocast=torch.float32,
)  # fmt: skip
_factorized_backward = operator(
    "factorized_linear_backward(Tensor da, Tensor x, Tensor V, Tensor U, bool[] needs) -> Tensor[]",
    _run_factorized_backward, _new_factorized_gradients,
)  # fmt: skip
_linear = operator(
    f"linear_dropout(Tensor x, Tensor weight, Tensor bias, {_MASK}) -> Tensor",
    _run_linear, _new_linear, setup=_save_linear, backward=_differentiate_linear, autocast=torch.float32,
)  # fmt: skip
_linear_backward = operator(
    f"linear_dropout_backward(Tensor dout, Tensor x, Tensor weight, Tensor bias, Tensor out, bool[] needs, {_MASK}) -> Tensor[]",
    _run_linear_backward, _new_linear_gradients,
)  # fmt: skip


def _run_first_offset(offset: Tensor) -> Tensor:
    if torch._C._current_graph_task_id() != -1:
        raise RuntimeError("offset: expected a compiled net outside of a checkpoint, whose second pass would have another mask")
    return offset.clone()


first_offset = operator("first_offset(Tensor offset) -> Tensor", _run_first_offset, torch.empty_like)
