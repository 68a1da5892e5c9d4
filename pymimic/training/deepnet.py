"""A deep multilayer perceptron on the `linear_dropout` kernels: a teacher of our own, or a student to compare wide ones with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..data.cases import LabelledSet
from ..devices import kind, module, to
from ..files import Path
from ..optimizer import AdamW, Optimizer
from .history import History
from .layers import Layers
from .learner import Learner, LearningNet
from .trainer import Trainer

_SLAB_BYTES = 32 << 20
_MOST_ROWS = 8192


class DeepNet(LearningNet):
    """x -> dropout(f(x weight0^T + bias0)) -> ... -> logits; the last layer has neither activation nor dropout.

    Dropout (Srivastava et al. 2014) is what makes it a good teacher. Layer i's mask has as key the first two words of
    Philox4x32-7(key from the trainer's seed, counter (i, 0, 0, 0)), the inputs' with i = the number of layers, and as offset the step.
    Fresh weights are normal with mean 0, from `SeedSequence(seed, spawn_key=(0,))`: variance 2 / in before relu
    and gelu (He et al. 2015), else 1 / in; biases are 0.

    Parameters
    ----------
    layer_sizes : [D, hidden units ..., C], at least D and C
    activation : "relu", "identity", "tanh", "sigmoid" or "gelu"
    dropout : probability in [0, 1) that training drops a hidden unit
    input_dropout : the same for an input
    seed : 64 bits; of the weights, and of what is random in `fit`

    Attributes
    ----------
    inputs, outputs : D and C
    mean, scale : (D,) float32 arrays or None; the net sees (x - mean) * scale
    history : of the last `fit`
    """

    file_kind = "deepnet"

    def __init__(
        self, layer_sizes: Sequence[int], activation: str = "relu", dropout: float = 0.0, input_dropout: float = 0.0, seed: int = 0
    ) -> None:
        self._configure(layer_sizes, activation, dropout, input_dropout, seed)
        self._arrays = {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
        for i in range(self._layers.count):
            weight = self._arrays[f"weight{i}"]
            gain = 2 if activation in ("relu", "gelu") and i < self._layers.count - 1 else 1
            weight[...] = rng.standard_normal(weight.shape, np.float32) * np.float32(math.sqrt(gain / weight.shape[1]))

    def _configure(self, *configuration: Any, **named: Any) -> None:
        self._layers = Layers(*configuration, **named)
        self.inputs, self.outputs = self._layers.layer_sizes[0], self._layers.layer_sizes[-1]
        self.history = History()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of weight0 (out, in), bias0 (out,), weight1, ... by name."""
        return self._layers.shapes

    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self._layers, name) for name in ("layer_sizes", "activation", "dropout", "input_dropout", "seed")}

    def describe(self) -> dict[str, Any]:
        """Configuration and the sha256 of weights and standardisation, for a transfer set's manifest."""
        digest = hashlib.sha256()
        for array in (*self._arrays.values(), self.mean, self.scale):
            digest.update(b"" if array is None else to("cpu", array).tobytes())
        return {"kind": "deepnet", **self.configuration(), "sha256": digest.hexdigest()}

    @property
    def _last_layer(self) -> tuple[str, str, int]:
        last = self._layers.count - 1
        return f"weight{last}", f"bias{last}", 0

    def logits(self, x: Array, backend: str | None = None) -> Array:
        """Logits (B, C) float32 of x (B, D) float32 or float64, without dropout, in slabs of rows: memory stays small for any B.

        They are where x is; a net on a device takes x from the host too. `backend` is as in `pymimic.ops`.
        """
        x = _check.float_rows("x", x, self.inputs)
        y = module(x).empty((len(x), self.outputs), np.float32)
        rows = max(32, min(_MOST_ROWS, _SLAB_BYTES // (4 * sum(self._layers.layer_sizes))))
        for start in range(0, len(x), rows):
            slab = self.standardise(to(self.device, x[start : start + rows]))
            y[start : start + rows] = to(kind(x), self._layers.forward(self._arrays, slab, backend=backend)[-1])
        return y  # type: ignore[no-any-return]

    def learner(self, optimizer: Optimizer, ema: float | None, dropout_seed: int, backend: str | None) -> Learner:
        """The net as a `pymimic.Trainer` moves it."""
        return DeepLearner(self, optimizer, ema, dropout_seed, backend)

    def fit(
        self, x: Array, labels: Array, *, validation: tuple[Array, Array] | None = None, epochs: int = 30, batch_size: int = 128,
        optimizer: Optimizer | None = None, sample_weight: Array | None = None,
        augment: Callable[[Array, np.random.Generator], Array] | None = None, ema: float | None = None, patience: int | None = None,
        monitor: Literal["loss", "accuracy"] = "loss", standardise: Literal["each", "all"] | None = "each",
        checkpoint: Path | None = None, checkpoint_every: int = 1000, resume: Path | None = None,
        resume_with: str | Iterable[str] = (), overwrite: bool = False, progress: bool = True, backend: str | None = None,
    ) -> DeepNet:  # fmt: skip
        """Train on labels by mean cross-entropy, going on from the weights as they are, by a `pymimic.Trainer` with the net's seed.

        Parameters
        ----------
        x, labels : (N, D) float32 or float64 array, and (N,) ints in [0, C)
        validation : the same of other rows, looked at after each epoch
        optimizer : with its schedule; None takes AdamW(1e-3). All of a run are epochs * ceil(N / batch_size) steps
        sample_weight : (N,) per-row weights, or None for ones
        augment : called with a batch's rows (n, D) float32, a copy, and a Generator; returns rows to train on instead, of the same shape
        standardise : "each" input by its own mean and deviation, "all" by common ones (images), or None for inputs as they are;
            a net that was fitted before keeps what it has
        resume, resume_with, overwrite : a checkpoint to go on from, what may differ from it, and whether to replace an unfinished run's,
            see `pymimic.Trainer.fit`
        epochs, batch_size, ema, patience, monitor, checkpoint, checkpoint_every, progress, backend : see `pymimic.Trainer`

        Returns
        -------
        The net itself; `history` has a record for each epoch. What `pymimic.Trainer.fit` raises is raised here.
        """
        cases = LabelledSet(x, labels, self.outputs, sample_weight)
        held_out = None if validation is None else LabelledSet(*validation, self.outputs)
        for name, given in (("x", cases), ("validation", held_out)):
            if given is not None and (given.inputs != self.inputs or len(given) == 0):
                raise ValueError(f"{name}: expected at least one row of {self.inputs} inputs, got shape {given.x.shape}")
        if standardise not in ("each", "all", None):
            raise ValueError(f"standardise: expected 'each', 'all' or None, got {standardise!r}")
        with_labels = None if augment is None else partial(_augment_rows, augment)
        trainer = Trainer(
            self, optimizer or AdamW(1e-3), epochs=epochs, batch_size=batch_size, loss="cross_entropy", seed=self._layers.seed,
            patience=patience, monitor=monitor, ema=ema, augment=with_labels, standardise_inputs=standardise or False,
            checkpoint=checkpoint, checkpoint_every=checkpoint_every, progress=progress, device=self.device, backend=backend,
        )  # fmt: skip
        if patience is not None and held_out is None:
            raise ValueError("validation: expected rows and labels, as patience watches them, got None")
        try:
            trainer.fit(cases, held_out, resume=resume, resume_with=resume_with, overwrite=overwrite)
        finally:
            self.history = trainer.history
        return self


def _augment_rows(
    augment: Callable[[Array, np.random.Generator], Array], x: Array, labels: Array, rng: np.random.Generator
) -> tuple[Array, Array]:  # fmt: skip
    return np.asarray(augment(x, rng), np.float32), labels


class DeepLearner(Learner):
    """A deep net while it learns: gradients of all layers, then an update of each array."""

    net: DeepNet

    def __init__(self, net: DeepNet, optimizer: Optimizer, ema: float | None, dropout_seed: int, backend: str | None) -> None:
        super().__init__(net, net.arrays(), optimizer, ema, backend)
        self.layers = Layers(**net.configuration() | {"seed": dropout_seed})

    def forward(self, x: Array, step: int, row: int) -> tuple[Array, Any]:
        outs = self.layers.forward(self.arrays, self.net.standardise(x), step, row, self.backend)
        return outs[-1], (outs, step, row)

    def gradients(self, done: Any, dy: Array) -> dict[str, Array]:
        outs, step, row = done
        return self.layers.backward(self.arrays, outs, dy, step, row, self.backend)

    def outputs(self, x: Array) -> Array:
        return self.layers.forward(self.arrays, self.net.standardise(x), backend=self.backend)[-1]

    def predict(self, x: Array) -> Array:
        return self.net.logits(x, self.backend)
