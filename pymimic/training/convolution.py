"""Forward and backward through convolutions and dense layers, as functions of the weights.

A convolution is a product: `Windows` lays out what a kernel sees as rows of a matrix, and adds such rows up again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .. import _check, arguments, ops
from ..backends.interface import Array
from ..devices import is_device, module
from .layers import MOST_LAYERS, Layers, Stack, layer_key

_MOST = 1 << 31
_MOST_VALUES = 1 << 30  # that a convolution makes or looks at in a row: 4 GiB
_BLOCK_BYTES, _DEVICE_BLOCK_BYTES = 1 << 20, 64 << 20  # of windows laid out at once: on the host they stay in cache


class Convolution(NamedTuple):
    """A convolution of `pymimic.ConvNet`. Kernel, stride and padding are an int, or one for each axis: (height, width).

    Parameters
    ----------
    channels : of its outputs
    kernel : size of the window that an output sees
    stride : how far apart windows are
    padding : zeros that are put before the first and behind the last input
    """

    channels: int
    kernel: int | Sequence[int]
    stride: int | Sequence[int] = 1
    padding: int | Sequence[int] = 0


class Windows:
    """Where a kernel stands on inputs of one size. Arrays have their channels last: (rows, *size, channels).

    Parameters
    ----------
    size : of the inputs, (length,) or (height, width)
    channels : of the inputs
    convolution : see `Convolution`
    name : of the argument that it came by, for messages

    Attributes
    ----------
    kernel, stride, padding : one for each axis
    out : how many windows there are along each axis
    columns : numbers in a window
    """

    def __init__(self, size: tuple[int, ...], channels: int, convolution: Convolution, name: str = "convolution") -> None:
        self.size, self.channels = size, channels
        self.kernel = _axes(f"{name}.kernel", convolution.kernel, len(size), 1)
        self.stride = _axes(f"{name}.stride", convolution.stride, len(size), 1)
        self.padding = _axes(f"{name}.padding", convolution.padding, len(size), 0)
        padded = tuple(n + 2 * p for n, p in zip(size, self.padding))
        if any(k > n for k, n in zip(self.kernel, padded)):
            raise ValueError(f"{name}.kernel: expected at most {list(padded)}, the size of the padded inputs, got {list(self.kernel)}")
        self.out = tuple((n - k) // s + 1 for n, k, s in zip(padded, self.kernel, self.stride))
        self.columns = math.prod(self.kernel) * channels

    def patches(self, x: Array) -> Array:
        """The windows of x (n, *size, channels) as rows (n * windows, columns): position by position, the channels of each together."""
        xp = module(x)
        if any(self.padding):
            padded = xp.zeros((len(x), *(n + 2 * p for n, p in zip(self.size, self.padding)), self.channels), x.dtype)
            padded[(slice(None), *self._inside())] = x
            x = padded
        row, *axes, channel = x.strides
        strides = (row, *(s * axis for s, axis in zip(self.stride, axes)), *axes, channel)
        view = xp.lib.stride_tricks.as_strided(x, (len(x), *self.out, *self.kernel, self.channels), strides)
        return xp.ascontiguousarray(view).reshape(len(x) * math.prod(self.out), self.columns)  # type: ignore[no-any-return]

    def sums(self, patches: Array) -> Array:
        """The transpose of `patches`: each input's sum over the windows that see it, (n, *size, channels)."""
        n, axes = len(patches) // math.prod(self.out), range(len(self.size))
        patches = patches.reshape(n, *self.out, *self.kernel, self.channels)
        pairs = itertools.chain(*((1 + axis, 1 + len(axes) + axis) for axis in axes))
        patches = patches.transpose(0, *pairs, 1 + 2 * len(axes))  # (n, windows, kernel, windows, kernel, channels) in two dimensions
        apart = [-(-k // s) for k, s in zip(self.kernel, self.stride)]  # so many windows on, they overlap no more
        room = [max(s * (o + m - 1), n + p) for o, s, m, n, p in zip(self.out, self.stride, apart, self.size, self.padding)]
        sums = module(patches).zeros((n, *room, self.channels), patches.dtype)
        for firsts in itertools.product(*map(range, apart)):
            source, target, shape = [slice(None)], [slice(None)], [n]
            for first, m, o, s in zip(firsts, apart, self.out, self.stride):
                count = -(-(o - first) // m)
                source += [slice(first, None, m), slice(None)]
                target += [slice(first * s, (first + count * m) * s)]
                shape += [count, m * s]
            cells = sums[tuple(target)].reshape(*shape, self.channels)  # a view, as it only splits axes
            seen = cells[(slice(None), *itertools.chain(*((slice(None), slice(k)) for k in self.kernel)))]
            seen += patches[tuple(source)]
        return sums[(slice(None), *self._inside())]  # type: ignore[no-any-return]

    def _inside(self) -> list[slice]:
        """Where the inputs lie in the padded ones."""
        return [slice(p, p + n) for n, p in zip(self.size, self.padding)]


class ConvolutionLayers(Stack):
    """The shape of a `ConvNet` and its dropout, without weights. See there for the parameters."""

    def __init__(
        self, input_shape: Sequence[int], convolutions: Sequence[Convolution | Sequence[Any]], outputs: int, hidden: Sequence[int],
        activation: str, dropout: float, input_dropout: float, seed: int,
    ) -> None:  # fmt: skip
        self.input_shape = _check.integers("input_shape", input_shape, 1, _MOST)
        if len(self.input_shape) not in (2, 3):
            raise ValueError(f"input_shape: expected (channels, length) or (channels, height, width), got {self.input_shape}")
        self.inputs = _check.integer("input_shape", math.prod(self.input_shape), 1, _MOST)
        self.convolutions = _demanded(convolutions)
        self.windows: list[Windows] = []
        channels, size = self.input_shape[0], tuple(self.input_shape[1:])
        for i, convolution in enumerate(self.convolutions):
            self.windows.append(Windows(size, channels, convolution, f"convolutions[{i}]"))
            channels, size = convolution.channels, self.windows[-1].out
        self.outputs = _check.integer("outputs", outputs, 1, _MOST)
        self.hidden = _check.integers("hidden", hidden, 1, _MOST)
        self.activation = arguments.activation(activation)
        count, features = len(self.windows), channels * math.prod(size)
        if features >= _MOST:
            raise ValueError(f"convolutions: expected fewer than {_MOST} outputs of the last one, got {features}")
        for i, (convolution, windows) in enumerate(zip(self.convolutions, self.windows)):
            if (values := math.prod(windows.out) * max(convolution.channels, windows.columns)) > _MOST_VALUES:
                what = f"expected at most 2^30 numbers in a row's outputs, and in the windows that make them, got {values}"
                raise ValueError(f"convolutions[{i}]: {what}")
        self.dense = Layers([features, *self.hidden, self.outputs], activation, dropout, dropout, seed, first=count)
        self.seed, self.dropout = self.dense.seed, self.dense.dropout
        arguments.mask(input_dropout, 0, 0, (0, 0), name="input_dropout")
        self.input_dropout, self.key = float(input_dropout), layer_key(self.seed, count + self.dense.count + 1)

    def configuration(self) -> dict[str, Any]:
        names = ("input_shape", "convolutions", "outputs", "hidden", "activation", "dropout", "input_dropout", "seed")
        convolutions = [[c.channels, list(w.kernel), list(w.stride), list(w.padding)] for c, w in zip(self.convolutions, self.windows)]
        return {name: convolutions if name == "convolutions" else getattr(self, name) for name in names}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (convolution, windows) in enumerate(zip(self.convolutions, self.windows)):
            shapes |= {f"weight{i}": (convolution.channels, windows.columns), f"bias{i}": (convolution.channels,)}
        return shapes | self.dense.shapes

    @property
    def multiply_adds(self) -> int:
        each = (
            convolution.channels * windows.columns * math.prod(windows.out) for convolution, windows in zip(self.convolutions, self.windows)
        )
        return sum(each) + self.dense.multiply_adds

    @property
    def row_values(self) -> int:
        between = sum(convolution.channels * math.prod(windows.out) for convolution, windows in zip(self.convolutions, self.windows))
        return self.inputs + between + self.dense.row_values

    def forward(
        self, arrays: Mapping[str, Array], x: Array, step: int | None = None, row: int = 0, backend: str | None = None
    ) -> list[Array]:
        """The convolutions' inputs (B, *size, channels), the last one's outputs, the dense layers' inputs (B, units), the logits."""
        if step is not None and self.input_dropout:
            x = ops.dropout(x, self.input_dropout, seed=self.key, offset=step, origin=(row, 0), backend=backend)
        channels, *size = self.input_shape
        columns = x.reshape(len(x), channels, math.prod(size)).transpose(0, 2, 1)
        outs = [module(x).ascontiguousarray(columns).reshape(len(x), *size, channels)]
        for i, windows in enumerate(self.windows):
            weight, bias = arrays[f"weight{i}"], arrays[f"bias{i}"]
            out = module(x).empty((len(x) * math.prod(windows.out), len(weight)), x.dtype)
            for rows, places in _blocks(windows, outs[-1]):
                patches = windows.patches(outs[-1][rows])
                ops.linear_dropout(patches, weight, bias, activation=self.activation, out=out[places], backend=backend)
            outs.append(out.reshape(len(x), *windows.out, len(weight)))
        features = outs[-1].reshape(len(x), self.dense.inputs)
        return outs + self.dense.forward(arrays, features, step, row, backend)

    def backward(
        self, arrays: Mapping[str, Array], outs: list[Array], dy: Array, step: int, row: int = 0, backend: str | None = None
    ) -> dict[str, Array]:
        count = len(self.windows)
        gradients, dy = self.dense.backward_with_inputs(arrays, outs[count + 1 :], dy, step, row, backend)
        for i in reversed(range(count)):
            windows, x, weight, bias = self.windows[i], outs[i], arrays[f"weight{i}"], arrays[f"bias{i}"]
            dout, out = dy.reshape(-1, len(weight)), outs[i + 1].reshape(-1, len(weight))
            dweight, dbias = module(x).zeros(weight.shape, x.dtype), module(x).zeros(bias.shape, x.dtype)
            dy = module(x).empty(x.shape if i else (0,), x.dtype)
            for rows, places in _blocks(windows, x):
                layer = ops.linear_dropout_backward(
                    dout[places], windows.patches(x[rows]), weight, out[places], bias=bias, activation=self.activation,
                    needs=("x", "weight", "bias") if i else ("weight", "bias"), backend=backend,
                )  # fmt: skip
                dweight += layer.weight
                dbias += layer.bias
                if layer.x is not None:
                    dy[rows] = windows.sums(layer.x)
            gradients |= {f"weight{i}": dweight, f"bias{i}": dbias}
        return gradients


def _blocks(windows: Windows, x: Array) -> Iterator[tuple[slice, slice]]:
    """Blocks of the rows of x whose windows take little memory, and where the windows of these rows lie among all."""
    places = math.prod(windows.out)
    room = _DEVICE_BLOCK_BYTES if is_device(x) else _BLOCK_BYTES
    step = max(1, room // (places * windows.columns * x.dtype.itemsize))
    return ((slice(at, at + step), slice(at * places, (at + step) * places)) for at in range(0, len(x), step))


def _demanded(value: Any) -> list[Convolution]:
    """Demand at least one convolution, or what one takes."""
    if not isinstance(value, (list, tuple)) or isinstance(value, Convolution):
        raise TypeError(f"convolutions: expected a sequence of Convolution, got {value!r}")
    if not value:
        raise ValueError("convolutions: expected at least one Convolution, got none; a DeepNet has dense layers alone")
    if len(value) > MOST_LAYERS:
        raise ValueError(f"convolutions: expected at most {MOST_LAYERS}, got {len(value)}")
    for i, entry in enumerate(value):
        if not isinstance(entry, (list, tuple)) or not 2 <= len(entry) <= 4:
            raise TypeError(f"convolutions[{i}]: expected a Convolution(channels, kernel, stride=1, padding=0), got {entry!r}")
        _check.integer(f"convolutions[{i}].channels", entry[0], 1, _MOST)
    return [Convolution(int(channels), *rest) for channels, *rest in value]


def _axes(name: str, value: Any, count: int, low: int) -> tuple[int, ...]:
    """Demand an int, or one for each axis, and give one for each."""
    if isinstance(value, (list, tuple)):
        if len(value) != count:
            raise ValueError(f"{name}: expected an int or {count} of them, one for each axis, got {list(value)}")
        return tuple(_check.integers(name, value, low, _MOST))
    return (_check.integer(name, value, low, _MOST),) * count
