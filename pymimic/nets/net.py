"""What every net of the library has: weights by name on some device, the standardisation of its inputs, and a file."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from .. import _check, backends
from ..backends.interface import Array
from ..data.cases import LabelledSet, in_order
from ..devices import DEVICES, kind, module, to, wait
from ..errors import FileFormatError
from ..files import Path, write_safetensors
from ..numerics import log_softmax
from ..unit_files import read_arrays, remove_shards
from .integers import Integers, Rounding, demand_forms, demand_integers, forms, matrices, product, restored, stored

AnyNet = TypeVar("AnyNet", bound="Net")


class Net(ABC):
    """Base of `pymimic.Student`, `pymimic.DeepNet` and `pymimic.ConvNet`. All of them are teachers: they have `logits` and `describe`.

    Attributes
    ----------
    inputs, outputs : D and C
    mean, scale : (D,) float32 arrays, or None; the net sees (x - mean) * scale
    fresh : whether the weights are the random ones that a net begins with
    """

    file_kind: str  # as files name it
    inputs: int
    outputs: int
    mean: Array | None = None
    scale: Array | None = None
    fresh: bool = False
    _arrays: dict[str, Array]
    _rounding: Rounding | None = None

    @abstractmethod
    def logits(self, x: Array, backend: str | None = None) -> Array:
        """Logits (B, C) float32 of x (B, D), where x is."""

    def predict(self, x: Array, backend: str | None = None) -> Array:
        """`logits`, by another name."""
        return self.logits(x, backend)

    def predict_proba(self, x: Array, backend: str | None = None) -> Array:
        """softmax of `predict(x)`, (B, C) float32, where x is."""
        return to(kind(x), np.exp(log_softmax(to("cpu", self.predict(x, backend)))))

    def describe(self) -> dict[str, Any]:
        """Configuration and the sha256 of weights and standardisation, for a transfer set's manifest."""
        net, digest = self.as_it_is(), hashlib.sha256()
        for array in (*net._arrays.values(), net.mean, net.scale):
            digest.update(b"" if array is None else to("cpu", array).tobytes())
        bits = {"bits": net.bits} if net.bits else {}  # descriptions of earlier versions have none
        return {"kind": self.file_kind, **self.configuration(), **bits, "sha256": digest.hexdigest()}

    def as_it_is(self: AnyNet) -> AnyNet:
        """A net of the same arrays, which keeps them while another thread gives this one others: each call reads one."""
        net = type(self).__new__(type(self))
        net.__dict__.update(self.__dict__)  # in one piece, for other threads
        if net.mean is not None and net.device != "cpu":
            net._standards_on(net.device)
            self.__dict__["_standards"] = net.__dict__["_standards"]
        return net

    def score(self, x: Array, labels: Array) -> float:
        """Accuracy: the share of rows whose largest logit is the label's.

        Parameters
        ----------
        x : (B, D) float32 or float64 array of at least one row, of finite values
        labels : (B,) array of integers in [0, C)
        """
        cases = LabelledSet(to("cpu", x), labels, self.outputs)
        if len(cases) == 0:
            raise ValueError("x: expected at least one row, got none")
        net = self.as_it_is()
        return sum(np.count_nonzero(net.logits(rows).argmax(axis=1) == answers) for rows, answers, _ in in_order("x", cases)) / len(cases)

    @abstractmethod
    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments by name."""

    @abstractmethod
    def _configure(self, *arguments: Any, **named: Any) -> None:
        """Check and take over all but the weights."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight array by name."""

    @property
    @abstractmethod
    def _last_layer(self) -> tuple[str, str, int]:
        """The names of the last layer's weights and biases, and the weights' axis of outputs."""

    def fold(self, mean: Array, scale: Array) -> None:
        """Turn the net's y into y * scale + mean, by changing the last layer: undoes a standardisation of the targets, both (C,).

        ValueError where a weight would not be finite; the net is then as it was.
        """
        factors = _stored("scale", scale, self.outputs)
        _stored("mean", mean, self.outputs)
        weight_name, bias_name, axis = self._last_layer
        arrays = self._arrays
        weight, bias = arrays[weight_name], to("cpu", arrays[bias_name])
        with np.errstate(over="ignore"):
            biases = (bias * np.asarray(to("cpu", scale), np.float64) + to("cpu", mean)).astype(np.float32)
            folded = {weight_name: weight * to(self.device, factors if axis else factors[:, None]), bias_name: to(self.device, biases)}
        if not all(bool(module(array).isfinite(array).all()) for array in folded.values()):
            raise ValueError("scale: expected the last layer to stay finite when it is multiplied by it, got NaN or infinity")
        self._take(arrays | folded)  # new arrays: a Predictor may read the old ones

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in self.__dict__.copy().items() if name not in ("_served", "_standards")
        }  # made again when wanted

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.configuration().items())})"

    @property
    def device(self) -> str:
        """Where the weights are: "cpu" or "cuda"."""
        return kind(next(iter(self._arrays.values())))

    def to(self: AnyNet, device: str) -> AnyNet:
        """The same net, its weights moved to "cpu" (NumPy arrays) or "cuda" (CuPy arrays, on the current device).

        BackendUnavailableError says why there is no CUDA backend.
        """
        if not _check.one_of(device, DEVICES):
            raise ValueError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
        if device == "cuda":
            backends.get("cuda")
        self._take({name: to(device, array) for name, array in self._arrays.items()}, self._rounding)
        return self

    @property
    def parameter_count(self) -> int:
        """Numbers in the weights."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def multiply_adds(self) -> int:
        """Multiplications, each with its addition, that one row's prediction takes; biases and activations are not counted."""
        return products(self.shapes)

    @property
    def nbytes(self) -> int:
        """Bytes that the weights take in memory."""
        return sum(array.nbytes for array in self._arrays.values())

    @property
    def stored_nbytes(self) -> int:
        """Bytes that the weights take in a file: fewer than in memory where `pymimic.compress` made integers of them."""
        return sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in forms(self.shapes, self.bits).values())

    def arrays(self) -> dict[str, Array]:
        """Copies of the weights by name, float32, where the net is."""
        return {name: array.copy() for name, array in self._arrays.items()}

    def weights(self) -> dict[str, Array]:
        """The arrays themselves, to be read and not written."""
        return self._arrays

    def set_arrays(self, **arrays: Array) -> None:
        """Replace the weights named: copies of float32 or float64 arrays of the shapes that `shapes` gives.

        Nothing is replaced when one of them does not fit.
        """
        for name in arrays:
            if name not in self.shapes:
                raise ValueError(f"arrays: expected names among {', '.join(self.shapes)}, got {name!r}")
        checked = {name: _check.float_shape(name, value, self.shapes[name]) for name, value in arrays.items()}
        moved = {name: to(self.device, value) for name, value in checked.items()}
        copies = {name: module(here).array(here, np.float32, order="C") for name, here in moved.items()}
        self._take(self._arrays | copies, self._rounding if arrays.keys().isdisjoint(matrices(self.shapes)) else None)
        self.fresh = False

    @property
    def bits(self) -> int | None:
        """8 or 4 where all matrices of weights are integers times a scale a row; None where they are any float32 numbers."""
        return None if self._rounding is None else self._rounding.bits

    def set_integers(self, bits: int, **integers: Integers) -> None:
        """Replace all matrices of weights by integers times a scale a row, as which `save` then writes them.

        In memory they stay float32, to the same bits. Whatever replaces a matrix later, training above all, makes all of them float32
        numbers again, in files too.

        Parameters
        ----------
        bits : 8 or 4
        integers : for each matrix by name its values (rows, columns) int8, in [-127, 127] or [-7, 7], and its scales (rows,) float32
        """
        demand_integers(bits, integers, self.shapes)
        arrays = self._arrays | {name: to(self.device, product(given)) for name, given in integers.items()}
        self._take(arrays, Rounding(bits, {name: steps.copy() for name, (_, steps) in integers.items()}))
        self.fresh = False

    def _take(self, arrays: dict[str, Array], rounding: Rounding | None = None) -> None:
        """Let these be the weights."""
        self.__dict__.update({"_arrays": arrays, "_rounding": rounding})  # in one piece, for other threads

    def _demand_finite(self) -> None:
        for name, array in self._arrays.items():
            _check.finite(name, to("cpu", array))

    def set_standardisation(self, mean: Array | None, scale: Array | None) -> None:
        """Let the net see (x - mean) * scale; None and None for x itself.

        Parameters
        ----------
        mean : (D,) float array, in the inputs' units; finite, as the float32 that is kept
        scale : likewise, one over those units
        """
        if (mean is None) != (scale is None):
            raise ValueError("scale: expected None if and only if mean is None")
        stored = [None if value is None else _stored(name, value, self.inputs) for name, value in (("mean", mean), ("scale", scale))]
        self.__dict__.update(zip(("mean", "scale"), stored))  # in one piece, for other threads

    def standardise(self, x: Array) -> Array:
        """(x - mean) * scale as a C-contiguous (B, D) float32 array: what the first weights are multiplied by."""
        x = _check.contiguous(_check.float_rows("x", x, self.inputs), np.float32)
        net = self.as_it_is()
        if net.mean is None or net.scale is None:
            return x
        mean, scale = net._standards_on(kind(x))
        centred = x - mean
        centred *= scale
        return centred

    def _standards_on(self, device: str) -> tuple[Array, Array]:
        """Mean and scale on the device, copied there once for each that is set."""
        assert self.mean is not None
        assert self.scale is not None
        if device == "cpu":
            return np.asarray(self.mean, np.float32), np.asarray(self.scale, np.float32)
        copies: list[Array] | None = self.__dict__.get("_standards")
        if copies is None or copies[0] is not self.mean or copies[1] is not self.scale:
            copies = [self.mean, self.scale, to(device, self.mean), to(device, self.scale)]
            wait(device)  # other streams may use them next
            self.__dict__["_standards"] = copies
        return copies[2], copies[3]

    def save(self, path: Path) -> None:
        """Write the weights to a safetensors file, atomically; configuration and standardisation go into its metadata key "pymimic".

        Raises
        ------
        OSError
            The file cannot be written; what was there before is untouched.
        ValueError
            A weight is NaN or infinite: `load` refuses such files.
        """
        net, standardisation = self.as_it_is(), None
        net._demand_finite()
        if net.mean is not None and net.scale is not None:
            standardisation = {"mean": net.mean.tolist(), "scale": net.scale.tolist()}
        own = {"kind": self.file_kind, "configuration": self.configuration(), "input_standardisation": standardisation, "bits": net.bits}
        self.write_file(path, stored({name: to("cpu", array) for name, array in net._arrays.items()}, net._rounding), own)

    def write_file(
        self, path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, Any], demand: Callable[[], None] | None = None
    ) -> None:  # fmt: skip
        """`pymimic.files.write_safetensors`, or what stands for it where a net is in several processes."""
        write_safetensors(path, arrays, metadata, demand)
        remove_shards(path)

    def read_file(self, path: Path, kind: str, name: str = "path") -> tuple[dict[str, Array], dict[str, Any]]:
        """`pymimic.unit_files.read_arrays`, of this process's part of a net that is in several."""
        return read_arrays(path, kind, name)

    @classmethod
    def load(cls: type[AnyNet], path: Path) -> AnyNet:
        """The net that `save` wrote.

        Raises
        ------
        FileFormatError
            The file is truncated, foreign, or of another kind of net; the message names it.
        OSError
            The file cannot be read; the message names `path`.
        """
        net = cls.__new__(cls)
        net._fill(path, *read_arrays(path, cls.file_kind))
        return net

    def _fill(self, path: Path, arrays: dict[str, Array], metadata: dict[str, Any]) -> None:
        """Become the net that is in a file."""
        try:
            self._configure(**metadata["configuration"])
            standardisation = metadata["input_standardisation"]
            if standardisation is not None:
                self.set_standardisation(np.asarray(standardisation["mean"]), np.asarray(standardisation["scale"]))
            bits = metadata.get("bits")
            demand_forms(arrays, self.shapes, bits)
            self._arrays = {name: arrays[name] for name in self.shapes}
            if bits is not None:
                self.set_integers(bits, **restored(arrays, self.shapes, bits))
            self._demand_finite()
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"path: {str(path)!r}: expected a {self.file_kind}'s configuration and weights, got: {error}") from error


def products(shapes: dict[str, tuple[int, ...]]) -> int:
    """The multiply-adds of a row that meets each matrix once."""
    return sum(math.prod(shape) for shape in shapes.values() if len(shape) == 2)


def _stored(name: str, value: Array, columns: int) -> Array:
    """Demand a float array (columns,) of numbers that are finite as float32, and give a copy as such, on the host."""
    with np.errstate(over="ignore"):
        stored = np.array(to("cpu", _check.float_shape(name, value, (columns,))), np.float32)
    _check.finite(name, stored)
    return stored
