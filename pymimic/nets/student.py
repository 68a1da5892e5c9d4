"""The wide shallow net that mimics: z = x V^T, h = f(z U^T + b), y = h W + c. Ba & Caruana 2014, section 2.2."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import _check, arguments
from ..backends import choose, default_host
from ..backends.interface import Array, Served
from ..data.moments import moments, whitened_components
from ..devices import is_device, kind, module, to
from ..numerics import warn_of_bad_rows
from ..plan import FEW_ROWS
from ..weights import ShallowWeights
from .net import Net

_SLAB_BYTES = 64 << 20
_MOST_ROWS = 8192


class Student(Net):
    """A wide shallow net, with the standardisation of its inputs.

    Fresh weights are normal with mean 0, drawn from `SeedSequence(seed).spawn(3)`, one stream each for V, U and W:
    V with variance 1 / D, so that standardised inputs give z of variance 1 (`initialise_bottleneck` does better); U with
    2 / k for relu and gelu (He et al. 2015) and 2 / (k + H) otherwise (Glorot & Bengio 2010); W with 2 / (H + C); b and c are 0.

    Parameters
    ----------
    inputs, hidden, outputs : D, H and C, at least 1
    rank : k, the width of the linear bottleneck, at most D, or there is a UserWarning; None for none, and then there is no V
    activation : "relu", "identity", "tanh", "sigmoid" or "gelu"
    dropout : probability in [0, 1) that training drops a hidden unit; `predict` drops none
    seed : of the initial weights

    Attributes
    ----------
    mean, scale : (D,) float32 arrays, or None; the net sees (x - mean) * scale
    """

    file_kind = "student"

    def __init__(
        self, inputs: int, hidden: int, outputs: int, rank: int | None = None, activation: str = "relu", dropout: float = 0.0, seed: int = 0
    ) -> None:
        self._configure(inputs, hidden, outputs, rank, activation, dropout, seed)
        if self.rank is not None and self.rank > self.inputs:
            warnings.warn(
                f"rank: expected at most {self.inputs} units, the inputs, got {self.rank}: such a bottleneck takes time and wins nothing: "
                "leave it out",
                stacklevel=2,
            )
        self._draw(0, self.hidden)

    def _draw(self, first: int, end: int) -> None:
        """Take fresh weights, of hidden units first to end."""
        D, H, C, k = self.inputs, self.hidden, self.outputs, self.rank or self.inputs
        self.fresh = True
        streams = [np.random.default_rng(stream) for stream in np.random.SeedSequence(self.seed).spawn(3)]
        self._arrays = {} if self.rank is None else {"V": _normal(streams[0], (0, k), D, 1 / D)}
        self._arrays |= {
            "U": _normal(streams[1], (first, end), k, 2 / k if self.activation in ("relu", "gelu") else 2 / (k + H)),
            "b": np.zeros(end - first, np.float32),
            "W": _normal(streams[2], (first, end), C, 2 / (H + C)),
            "c": np.zeros(C, np.float32),
        }

    def _configure(self, inputs: int, hidden: int, outputs: int, rank: int | None, activation: str, dropout: float, seed: int) -> None:
        """Check and take over all but the weights."""
        self.inputs = _check.integer("inputs", inputs, 1, 1 << 31)
        self.hidden = _check.integer("hidden", hidden, 1, 1 << 31)
        self.outputs = _check.integer("outputs", outputs, 1, 1 << 31)
        self.rank = None if rank is None else _check.integer("rank", rank, 1, 1 << 31)
        self.activation = arguments.activation(activation)
        self.seed = _check.integer("seed", seed, 0, 1 << 64)
        arguments.mask(dropout, 0, 0, (0, 0))
        self.dropout = float(dropout)

    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in ("inputs", "hidden", "outputs", "rank", "activation", "dropout", "seed")}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight array by name."""
        D, H, C, k = self.inputs, self.hidden, self.outputs, self.rank or self.inputs
        bottleneck: dict[str, tuple[int, ...]] = {} if self.rank is None else {"V": (k, D)}
        return bottleneck | {"U": (H, k), "b": (H,), "W": (H, C), "c": (C,)}

    @property
    def _last_layer(self) -> tuple[str, str, int]:
        return "W", "c", 1

    def handle(self, **how: Any) -> ShallowWeights:
        """The wide layer, copied, as a `Trainer` moves it; `how` are arguments of `ShallowWeights`."""
        wide: dict[str, Any] = {name: array for name, array in self._arrays.items() if name != "V"}
        return ShallowWeights(**wide, activation=self.activation, **how)

    def initialise_bottleneck(self, x: Array, epsilon: float = 0.05) -> None:
        """Set V by PCA, whitened: V = components / sqrt(eigenvalue + epsilon), over a sample of inputs.

        The eigenvectors of the sample's covariance with the `rank` largest eigenvalues, each with its largest entry positive.
        A net that has no standardisation yet is given the sample's mean as `mean` and ones as `scale`, so that z has mean 0. Columns of
        different kinds want a standardisation before: `set_standardisation`.

        Parameters
        ----------
        x : (B, D) float array, B at least 2; a few thousand rows will do. The covariance takes 8 D^2 bytes, its eigenvectors O(D^3) time.
        epsilon : added to the eigenvalues, in their units, above 0

        Raises
        ------
        ValueError
            There is no bottleneck, or `rank` exceeds D, or x is not finite.
        """
        if self.rank is None:
            raise ValueError("rank: expected a student with a bottleneck, to be initialised, got one with rank=None, which has none")
        if self.rank > self.inputs:
            raise ValueError(f"rank: expected a bottleneck of at most {self.inputs} units, the inputs, got {self.rank}")
        epsilon = _check.number("epsilon", epsilon, above=0)
        x = to("cpu", _check.float_rows("x", x, self.inputs))
        if len(x) < 2:
            raise ValueError(f"x: expected at least 2 rows, got {len(x)}")
        _check.finite("x", x)
        mean = self.mean if self.mean is not None else moments(self._slabs(x))[0].astype(np.float32)
        scale = self.scale if self.scale is not None else np.ones(self.inputs, np.float32)
        V = whitened_components(
            (((np.asarray(slab, np.float64) - mean) * scale) for slab in self._slabs(x)), self.inputs, self.rank, epsilon
        )
        fresh = self.fresh
        self.set_standardisation(mean, scale)
        self.set_arrays(V=V)
        self.fresh = fresh  # U, b, W and c are as they were

    def predict(self, x: Array, backend: str | None = None) -> Array:
        """Logits y (B, C) float32 of x (B, D), which is float32, or float64 and rounded to it; strided and memory-mapped too.
        A tensor on the CPU, a DataFrame or a list of rows does as well.

        y is where x is. A student on a device takes NumPy arrays too. NaN propagates, and a UserWarning says so of more than 8 rows on the
        host. The rows are taken in slabs: beyond x and y, memory
        stays below some 100 MiB for any B (and on a device copies of U and W).

        A row's bits do not depend on the rows beside it. There are two exceptions: backend "reference", and "cpu-bf16x3", which multiplies
        up to 8 rows in plain float32.

        On the CPU up to 8 rows go through a `Predictor`, which the student keeps, with a copy of weights of at most 64 MiB. Make a
        `Predictor` of your own for weights in bfloat16 or int8.

        Raises
        ------
        TypeError, ValueError
            x is no float array, or its shape is not (B, D).
        """
        few = backend is None and isinstance(x, np.ndarray) and x.ndim == 2 and 0 < len(x) <= FEW_ROWS
        if few and self.device == "cpu" and not is_device(x) and default_host().name == "cpu":
            return self._few_rows().predict(self._float32_rows(x))
        x = _check.float_rows("x", x, self.inputs)
        if is_device(x) and self.device == "cpu":
            raise ValueError("x: expected a NumPy array, as the student is on the CPU (student.to('cuda') moves it), got one on a device")
        y, start, student = module(x).empty((len(x), self.outputs), np.float32), 0, self.as_it_is()
        net = choose(backend, student._arrays["c"]).prediction(student._arrays, self.activation)
        for slab in self._slabs(x, net.row_bytes):
            here = y[start : start + len(slab)]
            out = here if kind(x) == student.device else None
            answer = net.predict(student.standardise(to(student.device, slab)), out)
            if out is None:
                here[...] = to(kind(x), answer)
            start += len(slab)
        warn_of_bad_rows(x, y)
        return y  # type: ignore[no-any-return]

    def _few_rows(self) -> Served:
        """The weights as laid out for a few rows; made again when one of their sources has been replaced, by another thread too."""
        sources = (self._arrays, self.mean, self.scale, self.activation)
        served: tuple[tuple[Any, ...], Served] | None = self.__dict__.get("_served")  # its sources, and the net
        if served is None or any(then is not now for then, now in zip(served[0], sources)):
            student = self.as_it_is()
            sources = (student._arrays, student.mean, student.scale, student.activation)
            net = default_host().predictor(student._arrays, student.activation, student.mean, student.scale, "float32", None, {})
            self.__dict__["_served"] = served = (sources, net)
        return served[1]

    def _float32_rows(self, x: Array) -> Array:
        if _check.are_float32_rows(x, np.ndarray, self.inputs):
            return x
        return _check.contiguous(_check.float_rows("x", x, self.inputs), np.float32)

    def logits(self, x: Array, backend: str | None = None) -> Array:
        """`predict`, by the name that teachers have for it."""
        return self.predict(x, backend)

    def _slabs(self, x: Array, more_bytes: int = 0) -> Iterator[Array]:
        """Views of x, each of so many rows that what is computed from them stays small; `more_bytes` for each."""
        row_bytes = 4 * (2 * self.inputs + 4 * (self.rank or self.inputs) + 3 * self.outputs) + more_bytes
        rows = max(32, min(_MOST_ROWS, _SLAB_BYTES // row_bytes))
        return (x[start : start + rows] for start in range(0, len(x), rows))


def _normal(stream: np.random.Generator, rows: tuple[int, int], columns: int, variance: float) -> Array:
    """Rows of a matrix that is drawn from its first row on."""
    skipped, block = rows[0] * columns, np.empty(min(rows[0] * columns, _SLAB_BYTES // 4), np.float32)
    while skipped:
        stream.standard_normal(dtype=np.float32, out=block[: min(skipped, len(block))])
        skipped -= min(skipped, len(block))
    array = stream.standard_normal((rows[1] - rows[0], columns), np.float32)
    array *= np.float32(math.sqrt(variance))
    return array
