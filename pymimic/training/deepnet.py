"""A deep multilayer perceptron on the `linear_dropout` kernels, trained on labels: a teacher of our own."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Literal

import numpy as np

from .. import _check, backends, ops
from ..backends.interface import Array
from ..data.cases import LabelledSet, in_order
from ..data.feed import feed, labelled
from ..data.moments import standardisation
from ..devices import kind, module, to
from ..errors import FileFormatError, TrainingDivergedError
from ..files import Path, read_safetensors, write_safetensors
from ..optimizer import AdamW, Optimizer
from ..progress import Progress
from .history import History, Record
from .layers import Layers

_SLAB_BYTES = 32 << 20
_MOST_ROWS = 8192


class DeepNet:
    """x -> dropout(f(x weight0^T + bias0)) -> ... -> logits; the last layer has neither activation nor dropout.

    Dropout (Srivastava et al. 2014) is what makes it a good teacher. Layer i's mask has as key the first two words of
    Philox4x32-7(key seed, counter (i, 0, 0, 0)), the inputs' with i = the number of layers, and as offset the step.
    Fresh weights are normal with mean 0, from `SeedSequence(seed, spawn_key=(0,))`: variance 2 / in before relu
    and gelu (He et al. 2015), else 1 / in; biases are 0.

    Parameters
    ----------
    layer_sizes : [D, hidden units ..., C], at least D and C
    activation : "relu", "identity", "tanh", "sigmoid" or "gelu"
    dropout : probability in [0, 1) that training drops a hidden unit
    input_dropout : the same for an input
    seed : 64 bits; of the weights, the batches and the masks

    Attributes
    ----------
    mean, scale : (D,) float32 arrays or None; the net sees (x - mean) * scale
    history : of the last `fit`
    """

    def __init__(
        self, layer_sizes: Sequence[int], activation: str = "relu", dropout: float = 0.0, input_dropout: float = 0.0, seed: int = 0
    ) -> None:
        self._layers = Layers(layer_sizes, activation, dropout, input_dropout, seed)
        self.mean: Array | None = None
        self.scale: Array | None = None
        self.history = History()
        self._arrays = {name: np.zeros(shape, np.float32) for name, shape in self._layers.shapes.items()}
        rng = self._stream(0)
        for i in range(self._layers.count):
            weight = self._arrays[f"weight{i}"]
            gain = 2 if activation in ("relu", "gelu") and i < self._layers.count - 1 else 1
            weight[...] = rng.standard_normal(weight.shape, np.float32) * np.float32(math.sqrt(gain / weight.shape[1]))

    def __repr__(self) -> str:
        return f"DeepNet({', '.join(f'{name}={value!r}' for name, value in self.configuration().items())})"

    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments by name."""
        own = self._layers
        return {
            "layer_sizes": list(own.sizes), "activation": own.activation, "dropout": own.dropout, "input_dropout": own.input_dropout,
            "seed": own.seed,
        }  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Configuration and the sha256 of weights and standardisation, for a transfer set's manifest."""
        digest = hashlib.sha256()
        for array in (*self._arrays.values(), self.mean, self.scale):
            digest.update(b"" if array is None else to("cpu", array).tobytes())
        return {"kind": "deepnet", **self.configuration(), "sha256": digest.hexdigest()}

    @property
    def inputs(self) -> int:
        """D."""
        return self._layers.sizes[0]

    @property
    def outputs(self) -> int:
        """C."""
        return self._layers.sizes[-1]

    @property
    def parameter_count(self) -> int:
        """Numbers in weights and biases."""
        return sum(array.size for array in self._arrays.values())

    @property
    def nbytes(self) -> int:
        """Bytes that they take in memory."""
        return sum(array.nbytes for array in self._arrays.values())

    @property
    def device(self) -> str:
        """Where the weights are: "cpu" or "cuda"."""
        return kind(self._arrays["bias0"])

    def to(self, device: str) -> DeepNet:
        """The same net, its weights moved to "cpu" (NumPy arrays) or "cuda" (CuPy arrays, on the current device), where `fit` then runs.

        BackendUnavailableError says why there is no CUDA backend.
        """
        if device == "cuda":
            backends.get("cuda")
        self._arrays = {name: to(device, array) for name, array in self._arrays.items()}
        return self

    def arrays(self) -> dict[str, Array]:
        """Copies of weight0 (out, in), bias0 (out,), weight1, ... by name, float32, where the net is."""
        return {name: array.copy() for name, array in self._arrays.items()}

    def logits(self, x: Array) -> Array:
        """Logits (B, C) float32 of x (B, D) float32 or float64, without dropout, in slabs of rows: memory stays small for any B.

        They are where x is; a net on a device takes x from the host too.
        """
        return self._predict(self._arrays, _check.float_rows("x", x, self.inputs))

    def fit(
        self, x: Array, labels: Array, *, validation: tuple[Array, Array] | None = None, epochs: int = 30, batch_size: int = 128,
        optimizer: Optimizer | None = None, sample_weight: Array | None = None,
        augment: Callable[[Array, np.random.Generator], Array] | None = None, ema: float | None = None, patience: int | None = None,
        monitor: Literal["loss", "accuracy"] = "loss", standardise: Literal["each", "all"] | None = "each", progress: bool = True,
        backend: str | None = None,
    ) -> DeepNet:  # fmt: skip
        """Train on labels by mean cross-entropy, going on from the weights as they are.

        Parameters
        ----------
        x, labels : (N, D) float32 or float64 array, and (N,) ints in [0, C)
        validation : the same of other rows, looked at after each epoch
        epochs : each visits all rows once, in an order from `SeedSequence(seed, spawn_key=(1,))`
        batch_size : rows of one step
        optimizer : with its schedule; None takes AdamW(1e-3). All of a run are epochs * ceil(N / batch_size) steps
        sample_weight : (N,) per-row weights, or None for ones
        augment : called with a batch's rows (n, D) float32, a copy, and a Generator; returns rows to train on instead, of the same shape
        ema : decay of a running average of the weights per step, 0.995 for instance ((1 + n) / (10 + n) after n steps, where
            that is less), which is then what is validated and kept; None for none
        patience : stop after so many epochs without a better validation value, and keep the best weights; None keeps the last
        monitor : what patience watches: validation "loss" or "accuracy"
        standardise : "each" input by its own mean and deviation, "all" by common ones (images), or None for inputs as they are;
            a net that was fitted before keeps what it has
        progress : draw a bar, if standard error is a terminal
        backend : see `pymimic.ops`; it must go with the net's device

        Returns
        -------
        The net itself; `history` has a record for each epoch.

        Raises
        ------
        TrainingDivergedError
            The loss or the weights became NaN or infinite; the message gives the step, and the net has the weights of its
            last good epoch, as after ctrl-C.
        TypeError, ValueError
            An argument of the wrong kind or shape, or out of range.
        """
        cases = LabelledSet(x, labels, self.outputs, sample_weight)
        held_out = None if validation is None else LabelledSet(*validation, self.outputs)
        self._demand(cases, held_out, ema, patience, monitor)
        _check.integer("batch_size", batch_size, 1, 1 << 31)
        optimizer = AdamW(1e-3) if optimizer is None else optimizer
        if self.mean is None and standardise is not None:
            self.mean, self.scale = standardisation((x for x, _, _ in in_order(cases)), self.inputs, standardise)
        self._layers.backend = backend
        ordering, augmenting = self._stream(1), self._stream(2)
        working = self.arrays()
        average = working if ema is None else self.arrays()
        history = self.history = History()
        started = time.perf_counter()
        hidden = None if progress else True  # None: hidden unless standard error is a terminal
        for epoch in Progress(range(1, _check.integer("epochs", epochs, 0, 1 << 31) + 1), unit="epoch", disable=hidden):
            loss_sum = 0.0
            drawn = labelled(cases, ordering.permutation(len(cases)), batch_size, augment, augmenting)
            with closing(feed(drawn, self.device)) as batches:
                for batch, targets, weights in batches:
                    step = optimizer.steps
                    outs = self._layers.forward(working, self._standardise(batch), step)
                    device_loss, dy = ops.cross_entropy(outs[-1], targets, weights, backend=backend)
                    loss = float(device_loss)
                    _demand_finite("loss", loss, step + 1)
                    loss_sum += loss * len(batch)
                    optimizer.advance()
                    for name, gradient in self._layers.backward(working, outs, dy, step).items():
                        optimizer.update(name, working[name], gradient, backend)
                    if ema is not None:
                        _approach(average, working, 1 - min(ema, (1 + optimizer.steps) / (10 + optimizer.steps)))
            _demand_finite("weights", sum(float(array.sum()) for array in average.values()), optimizer.steps)
            seen: tuple[float | None, float | None] = (
                (None, None) if held_out is None else self._evaluate(average, held_out, optimizer.steps)
            )
            record = Record(epoch, optimizer.steps, loss_sum / len(cases), *seen, optimizer.learning_rate, time.perf_counter() - started)
            if history.add(record, monitor) or patience is None:
                self._arrays = {name: array.copy() for name, array in average.items()}
            elif epoch - (history.best_epoch or 0) >= patience:
                history.stopped_early = True
                break
        return self

    def save(self, path: Path) -> None:
        """Write the net to a safetensors file, atomically; OSError where that fails, and what was there before is untouched."""
        standardisation = None
        if self.mean is not None and self.scale is not None:
            standardisation = {"mean": self.mean.tolist(), "scale": self.scale.tolist()}
        metadata = {"kind": "deepnet", "configuration": self.configuration(), "input_standardisation": standardisation}
        write_safetensors(path, {name: to("cpu", array) for name, array in self._arrays.items()}, metadata)

    @classmethod
    def load(cls, path: Path) -> DeepNet:
        """The net that `save` wrote.

        Raises
        ------
        FileFormatError
            The file is truncated, foreign, or not a deep net's; the message names it.
        OSError
            The file cannot be read.
        """
        arrays, metadata = read_safetensors(path, kind="deepnet")
        try:
            net = cls(**metadata["configuration"])
            standardisation = metadata["input_standardisation"]
            if standardisation is not None:
                net.mean, net.scale = (np.array(standardisation[name], np.float32) for name in ("mean", "scale"))
                if not net.mean.shape == net.scale.shape == (net.inputs,):
                    raise ValueError(f"expected {net.inputs} means and scales, got {net.mean.shape} and {net.scale.shape}")
            have = {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}
            want = {name: (shape, "float32") for name, shape in net._layers.shapes.items()}
            if have != want:
                raise ValueError(f"expected arrays {want}, got {have}")
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"path: {str(path)!r}: expected a deep net's configuration and weights, got: {error}") from error
        net._arrays = {name: arrays[name] for name in want}
        return net

    def _stream(self, number: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._layers.seed, spawn_key=(number,)))

    def _standardise(self, x: Array) -> Array:
        """What the first layer sees, of x (B, D) float32."""
        return x if self.mean is None or self.scale is None else (x - to(kind(x), self.mean)) * to(kind(x), self.scale)

    def _predict(self, arrays: dict[str, Array], x: Array) -> Array:
        y = module(x).empty((len(x), self.outputs), np.float32)
        rows = max(32, min(_MOST_ROWS, _SLAB_BYTES // (4 * sum(self._layers.sizes))))
        for start in range(0, len(x), rows):
            slab = self._standardise(to(self.device, module(x).asarray(x[start : start + rows], np.float32)))
            y[start : start + rows] = to(kind(x), self._layers.forward(arrays, slab)[-1])
        return y  # type: ignore[no-any-return]

    def _evaluate(self, arrays: dict[str, Array], cases: LabelledSet, step: int) -> tuple[float, float]:
        """Mean cross-entropy and accuracy."""
        loss, right = 0.0, 0
        with closing(feed(in_order(cases), self.device)) as batches:
            for x, labels, _ in batches:
                y = self._predict(arrays, x)
                loss += float(ops.cross_entropy(y, labels)[0]) * len(x)
                right += int(module(y).count_nonzero(y.argmax(axis=1) == labels))
        _demand_finite("validation loss", loss, step)
        return loss / len(cases), right / len(cases)

    def _demand(self, cases: LabelledSet, held_out: LabelledSet | None, ema: float | None, patience: int | None, monitor: str) -> None:
        for name, given in (("x", cases), ("validation", held_out)):
            if given is not None and (given.inputs != self.inputs or len(given) == 0):
                raise ValueError(f"{name}: expected at least one row of {self.inputs} inputs, got shape {given.x.shape}")
        if ema is not None and not 0 <= ema < 1:
            raise ValueError(f"ema: expected a number in [0, 1) or None, got {ema}")
        if monitor not in ("loss", "accuracy"):
            raise ValueError(f"monitor: expected 'loss' or 'accuracy', got {monitor!r}")
        if patience is not None:
            _check.integer("patience", patience, 1, 1 << 31)
            if held_out is None:
                raise ValueError("validation: expected rows and labels, as patience watches them, got None")


def _approach(average: dict[str, Array], working: dict[str, Array], share: float) -> None:
    """Move the average towards the working weights by that share of the way."""
    for name, array in average.items():
        array += np.float32(share) * (working[name] - array)


def _demand_finite(what: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise TrainingDivergedError(f"{what}: expected a finite number at step {step}, got {value}")
