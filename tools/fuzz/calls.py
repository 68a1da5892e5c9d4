"""Targets that call: the compiled core and `pymimic.ops`, with arguments of the wrong shape, stride, dtype or size."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from files import Target
from ml_dtypes import bfloat16

import pymimic as pm
from pymimic import _core, ops

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "support"))
import wrong_calls

INTS = (*wrong_calls.INTS, 1, 2, 3, 32, 64, 256, 2**20, 2**20 + 32, 2**32, 2**40)
DTYPES = ("f4", "f8", "f2", ">f4", "i1", "u2", "i4", "i8", "?", "c8", "O", "U1", "V3", "f4,f4", bfloat16)
NUMBERS = (0.0, 0.5, 1.0, -1.0, 0.999, 1e-9, 1e300, float("nan"), float("inf"), 2**70, "0.5", None, True, np.float32(0.25), np.int64(2))


class Draw:
    """Choices by the bytes of an input, one after the other; zeros follow the last."""

    def __init__(self, data: bytes) -> None:
        self._bytes = iter(data)

    def below(self, n: int) -> int:
        """A number in [0, n), n at most 256."""
        return next(self._bytes, 0) % n

    def one(self, values: Any) -> Any:
        """One of a few values."""
        return values[self.below(len(values))]


class Lying(np.ndarray):
    """An array that says something else of itself than NumPy knows."""

    shape = property(lambda self: (1 << 20, 1 << 20))  # type: ignore[assignment]
    ndim = property(lambda self: 2)  # type: ignore[assignment]
    size = property(lambda self: 1 << 40)  # type: ignore[assignment]
    nbytes = property(lambda self: 8)  # type: ignore[assignment]
    strides = property(lambda self: (4, 4))  # type: ignore[assignment]
    dtype = property(lambda self: np.dtype(np.float32))  # type: ignore[assignment]

    def __len__(self) -> int:
        return 1 << 30


def array(draw: Draw, like: np.ndarray) -> Any:
    """Another array in the place of one, which is plain."""
    way = draw.below(16)
    if way == 0:
        return like[tuple(slice(None, None, draw.one((1, -1, 2, -2))) for _ in range(like.ndim))]
    if way == 1:
        return like.astype(draw.one(DTYPES[:10]))
    if way == 2:
        return np.zeros(like.shape, draw.one(DTYPES))
    if way == 3:
        return like.T
    if way == 4:
        return like.view(Lying)
    if way == 5:
        memory = np.zeros(like.nbytes + 8, np.uint8)
        start = draw.below(8)
        return memory[start : start + like.nbytes].view(like.dtype).reshape(like.shape)
    if way == 6:
        still = like.copy()
        still.flags.writeable = False
        return still
    if way == 7:
        return np.lib.stride_tricks.as_strided(like, like.shape, (0,) * like.ndim)
    if way == 8:
        return like.reshape(draw.one(((-1,), (1, -1), (-1, 1), (1, -1, 1)))) if like.size else like[None]
    if way == 9:
        empty = [np.zeros(shape, np.float32) for shape in ((0, 2**40), (0, 2**60), (0,), (), (0, 0))]
        return draw.one((*empty, *wrong_calls.ENDLESS))
    if way == 10:
        return np.broadcast_to(np.float32(0), draw.one(((2**40, 2**20), (2**31, 2**31), (2**20, 2**20), (2**40,))))
    if way == 11:
        return draw.one((None, "x", 1.5, [], [[1.0]], object(), like.tolist(), memoryview(b"1234"), np.float32(1)))
    if way == 12:
        return np.ma.masked_array(like) if draw.below(2) else np.asmatrix(like) if like.ndim < 3 else like
    shape = [draw.one((size, size + 1, max(0, size - 1), 1, 0, 2 * size, 31, 32, 33, 64)) for size in like.shape]
    return np.zeros(shape[: draw.one((3, 3, 3, 1))] + [1] * (draw.below(8) == 0), like.dtype)


def other(draw: Draw, value: Any) -> Any:
    """Something else in the place of an argument, or in one place inside it."""
    if type(value) is np.ndarray and value.size < 1 << 20:  # not one that was made huge by an earlier choice, whose copies take all memory
        try:
            return array(draw, value)
        except (TypeError, ValueError, IndexError):  # there is no such array
            return None
    if isinstance(value, bool):
        return draw.one((not value, *NUMBERS))
    if isinstance(value, int):
        return draw.one((*INTS, *NUMBERS))
    if isinstance(value, float):
        return draw.one(NUMBERS)
    if isinstance(value, (tuple, list)) and value:
        at, named = draw.below(len(value)), hasattr(value, "_fields")
        parts = [*value[:at], *([other(draw, value[at])] if named or draw.below(8) else []), *value[at + 1 :]]
        return type(value)._make(parts) if named else type(value)(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = draw.one([field.name for field in dataclasses.fields(value) if field.init])
        return dataclasses.replace(value, **{name: other(draw, getattr(value, name))})
    return draw.one((*NUMBERS, *INTS, "", "relu", "tanh", "reference", "cpu", [], {}, object()))


def _core_call(data: bytes, _: Path) -> None:
    """One of the core's functions with one to three wrong arguments."""
    draw = Draw(data)
    if draw.below(50) == 0:
        draw.one((_core.set_num_threads, _core.multiply_adds, _core.set_isa, _core.run_on_openmp))(*(other(draw, v) for v in (1, "x")))
    name, arguments = draw.one(list(wrong_calls.right_calls()))
    arguments = list(arguments)
    for _ in range(draw.one((1, 1, 1, 2, 3))):
        at = draw.below(len(arguments))
        arguments[at] = other(draw, arguments[at])
    made = getattr(_core, name)(*arguments)
    if isinstance(made, _core.Predictor):
        made.predict(other(draw, np.zeros((draw.below(70), draw.one((6, 8))), np.float32)))


def _op_calls() -> list[tuple[Callable[..., Any], list[Any], dict[str, Any]]]:
    """Calls of `pymimic.ops` that are right."""
    B, k, H, C = 9, 4, 40, 3
    f = wrong_calls.f
    net = [f(B, k), f(H, k), f(H), f(H, C), f(C)]
    how = {"activation": "tanh", "dropout": 0.5, "seed": 3, "offset": 2, "origin": (16, 32)}
    plan = pm.plan(B, k, k, H, C)
    keep = pm.plan(B, k, k, H, C, h="keep-bf16")
    saved = ops.shallow_forward(*net, **how, plan=plan, save=True)[1]
    rounded = ops.shallow_forward(*net, **how, plan=keep, save=True)[1]
    layer = [net[0], net[1], net[2]]
    outs = ops.ShallowGrads(f(B, k), f(H, k), f(H), f(H, C), f(C))
    weights = pm.ShallowWeights(*net[1:])
    student = pm.Student(k, H, C, 2)
    student.set_standardisation(f(k), f(k) + 1)
    return [
        (ops.shallow_forward, net, how | {"plan": plan, "save": True, "out": f(B, C)}),
        (ops.shallow_forward, net, how | {"plan": keep, "save": rounded, "out": None}),
        (ops.shallow_backward, [f(B, C), *net[:4]], how | {"plan": plan, "saved": saved, "out": outs, "needs": ("z", "U", "b", "W", "c")}),
        (ops.shallow_backward, [f(B, C), *net[:4]], how | {"plan": keep, "saved": rounded, "needs": ("z", "U")}),
        (ops.factorized_matmul, [f(B, 6), f(k, 6), f(H, k), f(H)], {"activation": "gelu", "out": f(B, H)}),
        (ops.factorized_matmul_backward, [f(B, H), f(B, 6), f(k, 6), f(H, k)], {"needs": ("x", "V", "U", "b")}),
        (ops.linear_dropout, layer, how | {"out": f(B, H)}),
        (ops.linear_dropout_backward, [f(B, H), net[0], net[1], f(B, H)], how | {"bias": f(H), "needs": ("x", "weight", "bias")}),
        (ops.dropout, [f(2, B, H), 0.5], {"seed": 1, "offset": 2, "origin": (16, 32)}),
        (ops.dropout_backward, [f(2, B, H), 0.5], {"seed": 1, "offset": 2, "origin": (16, 32)}),
        (ops.mimic_loss, [f(B, C), f(B, C), f(B)], {}),
        (ops.cross_entropy, [f(B, C), np.zeros(B, np.int64), f(B)], {}),
        (ops.distillation_loss, [f(B, C), f(B, C), 2.0, f(B), np.zeros(B, np.int64), 0.5], {}),
        (pm.plan, [B, k, k, H, C, "float32", 1 << 20], {"h": "auto"}),
        (pm.ShallowWeights, net[1:], {"dtype": "float32", "activation": "relu"}),
        (weights.forward, [net[0]], how | {"save": True}),
        (weights.backward, [f(B, C), net[0]], dict(how)),
        (weights.step, [f(B, C), net[0], pm.SGD(0.1, momentum=0.5)], dict(how)),
        (student.predict, [f(B, k)], {"backend": None}),
        (pm.Predictor(student, "int8").predict, [f(B, k)], {}),
        (pm.AdamW(0.1).update, ["U", f(H, k), f(H, k)], {}),
        (pm.set_num_threads, [1], {}),
        (student.set_arrays, [], {"U": f(H, 2), "c": f(C)}),
        (student.set_standardisation, [f(k), f(k) + 1], {}),
    ]


def _op_call(data: bytes, _: Path) -> None:
    """One of the library's functions with one to three wrong arguments."""
    draw = Draw(data)
    call, given, named = draw.one(_op_calls())
    arguments: dict[Any, Any] = dict(enumerate(given)) | named
    for _ in range(draw.one((1, 1, 1, 2, 3))):
        at = draw.one(list(arguments))
        arguments[at] = other(draw, arguments[at])
    with np.errstate(all="ignore"):
        call(*(arguments[at] for at in range(len(given))), **{name: arguments[name] for name in named})


def _mutate(data: bytes, rng: Any) -> bytes:
    """Other choices, from some place on or in one place."""
    at = rng.randrange(len(data) + 1)
    if rng.random() < 0.5:
        return data[:at] + rng.randbytes(24 - min(at, 23))
    return data[:at] + rng.randbytes(1) + data[at + 1 :]


_REFUSED = (TypeError, ValueError, MemoryError)
CALLS = {
    name: Target(lambda: [bytes(24)], _mutate, run, _REFUSED, says=name == "ops", names_file=False, megabytes=1024)
    for name, run in (("core", _core_call), ("ops", _op_call))
}
