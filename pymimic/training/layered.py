"""What nets of layers share: logits, fitting to labels, and how the trainer moves them. Which layers they have is a `Stack`'s business."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..data.cases import LabelledSet
from ..data.feed import Augment
from ..devices import kind, module, to
from ..files import Path
from ..numerics import warn_of_bad_rows
from ..optimizer import AdamW, Optimizer
from .history import History
from .layers import Stack, fresh_arrays
from .learner import Learner, LearningNet
from .trainer import Trainer

AnyLayeredNet = TypeVar("AnyLayeredNet", bound="LayeredNet")

_SLAB_BYTES = 32 << 20
_MOST_ROWS = 8192


class LayeredNet(LearningNet):
    """Base of `pymimic.DeepNet` and `pymimic.ConvNet`, whose constructors take what those of their stacks take.

    Attributes
    ----------
    history : of the last `fit`
    """

    _stack: type[Stack]

    def __init__(self, *configuration: Any) -> None:
        self._configure(*configuration)
        self._arrays = fresh_arrays(self._layers)
        self.fresh = True

    def _configure(self, *configuration: Any, **named: Any) -> None:
        self._layers = self._stack(*configuration, **named)
        self.inputs, self.outputs = self._layers.inputs, self._layers.outputs
        self.history = History()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of weight0 (out, in), bias0 (out,), weight1, ... by name."""
        return self._layers.shapes

    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return self._layers.configuration()

    @property
    def multiply_adds(self) -> int:
        return self._layers.multiply_adds

    @property
    def _last_layer(self) -> tuple[str, str, int]:
        weight, bias = list(self.shapes)[-2:]
        return weight, bias, 0

    def logits(self, x: Array, backend: str | None = None) -> Array:
        """Logits (B, C) float32 of x (B, D) float32 or float64, without dropout, in slabs of rows: memory stays small for any B.

        They are where x is; a net on a device takes x from the host too. `backend` is as in `pymimic.ops`.
        """
        x = _check.float_rows("x", x, self.inputs)
        y, net = module(x).empty((len(x), self.outputs), np.float32), self.as_it_is()
        rows = max(32, min(_MOST_ROWS, _SLAB_BYTES // (4 * self._layers.row_values)))
        for start in range(0, len(x), rows):
            slab = net.standardise(to(net.device, x[start : start + rows]))
            y[start : start + rows] = to(kind(x), self._layers.forward(net._arrays, slab, backend=backend)[-1])
        warn_of_bad_rows(x, y)
        return y  # type: ignore[no-any-return]

    def learner(self, optimizer: Optimizer, ema: float | None, dropout_seed: int, backend: str | None) -> Learner:
        """The net as a `pymimic.Trainer` moves it."""
        return LayeredLearner(self, self._stack(**self.configuration() | {"seed": dropout_seed}), optimizer, ema, backend)

    def fit(
        self: AnyLayeredNet, x: Array, labels: Array, *, validation: tuple[Array, Array] | None = None, epochs: int = 30,
        batch_size: int = 128, optimizer: Optimizer | None = None, sample_weight: Array | None = None, augment: Augment | None = None,
        ema: float | None = None, keep_best: bool = False, patience: int | None = None, monitor: Literal["loss", "accuracy"] = "loss",
        standardise: Literal["each", "all"] | bool | None = "each", checkpoint: Path | None = None, checkpoint_every: int = 1000,
        resume: Path | None = None, resume_with: str | Iterable[str] = (), overwrite: bool = False, progress: bool = True,
        backend: str | None = None,
    ) -> AnyLayeredNet:  # fmt: skip
        """Train on labels by mean cross-entropy, going on from the weights as they are, by a `pymimic.Trainer` with the net's seed.

        Parameters
        ----------
        x, labels : (N, D) float32 or float64 array, and (N,) ints in [0, C)
        validation : the same of other rows, looked at after each epoch
        optimizer : with its schedule; None takes AdamW(1e-3). All of a run are epochs * ceil(N / batch_size) steps
        sample_weight : (N,) per-row weights, or None for ones
        standardise : "each" (or True) input by its own mean and deviation, "all" by common ones (images), or None for inputs as they are;
            a net that was fitted before keeps what it has, also none
        resume, resume_with, overwrite : a checkpoint to go on from, what may differ from it, and whether to replace an unfinished run's,
            see `pymimic.Trainer.fit`
        epochs, batch_size, augment, ema, keep_best, patience, monitor, checkpoint, checkpoint_every, progress, backend : see
            `pymimic.Trainer`

        Returns
        -------
        The net itself; `history` has a record for each epoch. What `pymimic.Trainer.fit` raises is raised here.
        """
        if self.outputs == 1:
            raise ValueError("labels: expected a net of two outputs or more to learn them, got one with one, whose softmax is always 1")
        if validation is not None and not (isinstance(validation, (tuple, list)) and len(validation) == 2):
            raise TypeError(f"validation: expected a pair (x, labels) or None, got {type(validation).__name__}")
        with _named("weights", "sample_weight"):
            cases = LabelledSet(x, labels, self.outputs, sample_weight)
        with _named("", "validation: "):
            held_out = None if validation is None else LabelledSet(*validation, self.outputs)
        for name, given in (("x", cases), ("validation", held_out)):
            if given is not None and (given.inputs != self.inputs or len(given) == 0):
                raise ValueError(f"{name}: expected at least one row of {self.inputs} inputs, got shape {given.x.shape}")
        if not (standardise is None or isinstance(standardise, (bool, np.bool_)) or _check.one_of(standardise, ("each", "all"))):
            raise ValueError(f"standardise: expected True, False, 'each', 'all' or None, got {standardise!r}")
        keeps_none = resume is None and not self.fresh and self.mean is None
        trainer = Trainer(
            self, AdamW(1e-3) if optimizer is None else optimizer, epochs=epochs, batch_size=batch_size, loss="cross_entropy",
            seed=self._layers.seed, keep_best=keep_best, patience=patience, monitor=monitor, ema=ema, augment=augment,
            standardise_inputs=False if keeps_none else standardise or False,
            checkpoint=checkpoint, checkpoint_every=checkpoint_every, progress=progress, device=self.device, backend=backend,
        )  # fmt: skip
        if trainer.keep_best and held_out is None:
            raise ValueError("validation: expected rows and labels, as keep_best and patience watch them, got None")
        try:
            trainer.fit(cases, held_out, resume=resume, resume_with=resume_with, overwrite=overwrite)
        finally:
            self.history = trainer.history
        return self


@contextmanager
def _named(beginning: str, instead: str) -> Iterator[None]:
    """Let errors whose message begins so begin otherwise, as the user knows the argument."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not str(error).startswith(beginning):
            raise
        raise type(error)(instead + str(error).removeprefix(beginning)) from None


class LayeredLearner(Learner):
    """A net of layers while it learns: gradients of all layers, then an update of each array."""

    net: LayeredNet

    def __init__(self, net: LayeredNet, layers: Stack, optimizer: Optimizer, ema: float | None, backend: str | None) -> None:
        super().__init__(net, net.arrays(), optimizer, ema, backend)
        self.layers = layers

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
