"""Forward and backward through a deep stack of `linear_dropout` layers, as functions of the weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .. import _check, arguments, ops
from ..backends.interface import Array
from ..nets.net import products
from ..numerics import philox4x32

MOST_LAYERS = 10_000  # no net has as many; a file may say so


class Stack(ABC):
    """The layers of a net without their weights, which are arrays `weight0 (out, in), bias0 (out,), weight1, ...` by name.

    Attributes
    ----------
    inputs, outputs : D and C
    activation, seed : see `pymimic.DeepNet`
    """

    inputs: int
    outputs: int
    activation: str
    seed: int

    @abstractmethod
    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments by name, as JSON can hold them."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight array by name, from the first layer to the last."""

    @property
    def multiply_adds(self) -> int:
        """See `pymimic.DeepNet`."""
        return products(self.shapes)

    @property
    @abstractmethod
    def row_values(self) -> int:
        """How many numbers the forward pass of a row keeps."""

    @abstractmethod
    def forward(
        self, arrays: Mapping[str, Array], x: Array, step: int | None = None, row: int = 0, backend: str | None = None
    ) -> list[Array]:
        """What `backward` needs, and last the logits (B, C), of x (B, D); with the masks of a training step from `row` on, or none."""

    @abstractmethod
    def backward(
        self, arrays: Mapping[str, Array], outs: list[Array], dy: Array, step: int, row: int = 0, backend: str | None = None
    ) -> dict[str, Array]:
        """Gradients by name, given what `forward` returned and dy = dL/dlogits (B, C)."""


class Layers(Stack):
    """The shape of a deep net and its dropout, without weights. The last layer has neither activation nor dropout.

    See `pymimic.DeepNet` for the parameters. `first` is the number of the first layer, in the names of weights and the keys of masks.
    """

    def __init__(
        self, layer_sizes: Sequence[int], activation: str, dropout: float, input_dropout: float, seed: int, first: int = 0
    ) -> None:  # fmt: skip
        self.layer_sizes = _check.integers("layer_sizes", layer_sizes, 1, 1 << 31)
        if len(self.layer_sizes) < 2:
            raise ValueError(f"layer_sizes: expected [D, hidden units ..., C], got {self.layer_sizes}")
        if len(self.layer_sizes) > MOST_LAYERS:
            raise ValueError(f"layer_sizes: expected at most {MOST_LAYERS} sizes, got {len(self.layer_sizes)}")
        self.inputs, self.outputs, self.first = self.layer_sizes[0], self.layer_sizes[-1], first
        self.activation = arguments.activation(activation)
        self.seed = _check.integer("seed", seed, 0, 1 << 64)
        for name, p in (("dropout", dropout), ("input_dropout", input_dropout)):
            arguments.mask(p, 0, 0, (0, 0), name=name)
        self.dropout, self.input_dropout = float(dropout), float(input_dropout)
        self.count = len(self.layer_sizes) - 1

    def configuration(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("layer_sizes", "activation", "dropout", "input_dropout", "seed")}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (below, units) in enumerate(zip(self.layer_sizes, self.layer_sizes[1:]), self.first):
            shapes |= {f"weight{i}": (units, below), f"bias{i}": (units,)}
        return shapes

    @property
    def row_values(self) -> int:
        return sum(self.layer_sizes)

    def forward(
        self, arrays: Mapping[str, Array], x: Array, step: int | None = None, row: int = 0, backend: str | None = None
    ) -> list[Array]:
        """The layers' inputs, and at the end the logits."""
        if step is not None and self.input_dropout:
            x = ops.dropout(x, self.input_dropout, seed=self._key(self.count), offset=step, origin=(row, 0), backend=backend)
        outs = [x]
        for i in range(self.count):
            weight, bias = arrays[f"weight{self.first + i}"], arrays[f"bias{self.first + i}"]
            outs.append(ops.linear_dropout(outs[-1], weight, bias, **self._keywords(i, step, row, backend)))
        return outs

    def backward(
        self, arrays: Mapping[str, Array], outs: list[Array], dy: Array, step: int, row: int = 0, backend: str | None = None
    ) -> dict[str, Array]:
        return self.backward_with_inputs(arrays, outs, dy, step, row, backend, need_x=False)[0]

    def backward_with_inputs(
        self, arrays: Mapping[str, Array], outs: list[Array], dy: Array, step: int, row: int, backend: str | None, need_x: bool = True
    ) -> tuple[dict[str, Array], Array]:
        """`backward`, and dL/dx (B, D) if it is needed."""
        gradients: dict[str, Array] = {}
        for i in reversed(range(self.count)):
            needs = ("x", "weight", "bias") if i or need_x else ("weight", "bias")
            weight, bias = (f"{kind}{self.first + i}" for kind in ("weight", "bias"))
            keywords = self._keywords(i, step, row, backend)
            layer = ops.linear_dropout_backward(dy, outs[i], arrays[weight], outs[i + 1], bias=arrays[bias], needs=needs, **keywords)
            assert layer.weight is not None
            assert layer.bias is not None
            gradients |= {weight: layer.weight, bias: layer.bias}
            dy = dy if layer.x is None else layer.x
        if need_x and self.input_dropout:
            dy = ops.dropout_backward(dy, self.input_dropout, seed=self._key(self.count), offset=step, origin=(row, 0), backend=backend)
        return gradients, dy

    def _key(self, layer: int) -> int:
        """Of a layer's masks; that after the last one's is the inputs'."""
        return layer_key(self.seed, self.first + layer)

    def _keywords(self, layer: int, step: int | None, row: int, backend: str | None) -> dict[str, Any]:
        """The arguments of `linear_dropout` for a layer."""
        last = layer == self.count - 1
        return {
            "activation": "identity" if last else self.activation, "dropout": 0.0 if last or step is None else self.dropout,
            "seed": self._key(layer), "offset": step or 0, "origin": (row, 0), "backend": backend,
        }  # fmt: skip


def fresh_arrays(stack: Stack) -> dict[str, Array]:
    """Weights as `pymimic.DeepNet` describes fresh ones, from the stack's seed."""
    rng = np.random.default_rng(np.random.SeedSequence(stack.seed, spawn_key=(0,)))
    arrays = {name: np.zeros(shape, np.float32) for name, shape in stack.shapes.items()}
    weights = [array for array in arrays.values() if array.ndim > 1]
    for weight in weights:
        gain = 2 if stack.activation in ("relu", "gelu") and weight is not weights[-1] else 1
        weight[...] = rng.standard_normal(weight.shape, np.float32) * np.float32(math.sqrt(gain / weight.shape[1]))
    return arrays


@lru_cache(1 << 10)
def layer_key(seed: int, layer: int) -> int:
    """The key of a layer's dropout masks: the first 64 bits of Philox4x32-7 with key `seed`, counter (layer, 0, 0, 0)."""
    words = philox4x32(np.array([layer, 0, 0, 0], np.uint32), (seed & 0xFFFFFFFF, seed >> 32))
    return int(words[0]) | int(words[1]) << 32
