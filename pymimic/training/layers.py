"""Forward and backward through a deep stack of `linear_dropout` layers, as functions of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import _check, arguments, ops
from ..backends.interface import Array
from ..numerics import philox4x32


class Layers:
    """The shape of a deep net and its dropout, without weights: those are `weight0 (out, in), bias0 (out,), weight1, ...` by name.

    The last layer has neither activation nor dropout. See `pymimic.DeepNet` for the parameters.
    """

    def __init__(self, layer_sizes: Sequence[int], activation: str, dropout: float, input_dropout: float, seed: int) -> None:
        self.layer_sizes = [_check.integer("layer_sizes", size, 1, 1 << 31) for size in layer_sizes]
        if len(self.layer_sizes) < 2:
            raise ValueError(f"layer_sizes: expected [D, hidden units ..., C], got {self.layer_sizes}")
        self.activation = arguments.activation(activation)
        self.seed = _check.integer("seed", seed, 0, 1 << 64)
        for name, p in (("dropout", dropout), ("input_dropout", input_dropout)):
            arguments.mask(p, 0, 0, (0, 0), name=name)
        self.dropout, self.input_dropout = float(dropout), float(input_dropout)
        self.count = len(self.layer_sizes) - 1
        self.keys = [layer_key(self.seed, i) for i in range(self.count + 1)]  # the last one is the inputs'

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight array by name."""
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (below, units) in enumerate(zip(self.layer_sizes, self.layer_sizes[1:])):
            shapes |= {f"weight{i}": (units, below), f"bias{i}": (units,)}
        return shapes

    def forward(
        self, arrays: Mapping[str, Array], x: Array, step: int | None = None, row: int = 0, backend: str | None = None
    ) -> list[Array]:
        """The layers' inputs, and at the end the logits (B, C), of x (B, D); with the masks of a training step from `row` on, or none."""
        if step is not None and self.input_dropout:
            x = ops.dropout(x, self.input_dropout, seed=self.keys[-1], offset=step, origin=(row, 0), backend=backend)
        outs = [x]
        for i in range(self.count):
            outs.append(ops.linear_dropout(outs[-1], arrays[f"weight{i}"], arrays[f"bias{i}"], **self._keywords(i, step, row, backend)))
        return outs

    def backward(
        self, arrays: Mapping[str, Array], outs: list[Array], dy: Array, step: int, row: int = 0, backend: str | None = None
    ) -> dict[str, Array]:
        """Gradients by name, given what `forward` returned and dy = dL/dlogits (B, C)."""
        gradients: dict[str, Array] = {}
        for i in reversed(range(self.count)):
            needs = ("x", "weight", "bias") if i else ("weight", "bias")
            weight, bias = arrays[f"weight{i}"], arrays[f"bias{i}"]
            keywords = self._keywords(i, step, row, backend)
            layer = ops.linear_dropout_backward(dy, outs[i], weight, outs[i + 1], bias=bias, needs=needs, **keywords)
            assert layer.weight is not None
            assert layer.bias is not None
            gradients |= {f"weight{i}": layer.weight, f"bias{i}": layer.bias}
            dy = dy if layer.x is None else layer.x
        return gradients

    def _keywords(self, layer: int, step: int | None, row: int, backend: str | None) -> dict[str, Any]:
        """The arguments of `linear_dropout` for a layer."""
        last = layer == self.count - 1
        return {
            "activation": "identity" if last else self.activation, "dropout": 0.0 if last or step is None else self.dropout,
            "seed": self.keys[layer], "offset": step or 0, "origin": (row, 0), "backend": backend,
        }  # fmt: skip


def layer_key(seed: int, layer: int) -> int:
    """The key of a layer's dropout masks: the first 64 bits of Philox4x32-7 with key `seed`, counter (layer, 0, 0, 0)."""
    words = philox4x32(np.array([layer, 0, 0, 0], np.uint32), (seed & 0xFFFFFFFF, seed >> 32))
    return int(words[0]) | int(words[1]) << 32
