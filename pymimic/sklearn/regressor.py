"""`MimicRegressor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from ..backends.interface import Array
from ..data.cases import Cases
from ..data.moments import TINY, moments
from ..data.rounding import warn_of_merged_values
from ..data.transfer import TransferSet
from ..nets.student import Student
from ..numerics import warn
from .mimic import Mimic

_LARGEST = 1e37  # float32 holds 34 times as much: room for a net's weights and answers


class MimicRegressor(RegressorMixin, Mimic):  # type: ignore[misc]
    """A wide shallow net, one hidden layer, that mimics another regressor; without a teacher it learns the targets.

    It learns by squared error, targets of mean 0 and deviation 1, each for itself: of y, or of what the teacher predicts for the labelled
    rows and for new rows that MUNGE makes of these. The net answers in float32: a y of which that keeps too little, as of one with a large
    offset, brings a warning, and one beyond 1e37 a ValueError. All else is as in `MimicClassifier`.

    Parameters
    ----------
    teacher : an estimator with `predict` that is a regressor by its tags, or a pymimic teacher, or None; else as in `MimicClassifier`
    hidden, rank, activation, dropout, folds, copies, p, s, discrete, standardise : as in `MimicClassifier`
    epochs, batch_size, learning_rate, weight_decay, ema, patience, warm_start, random_state, verbose : as in `MimicClassifier`
    validation_fraction : in [0, 1), of the rows, held out to choose the epoch

    Attributes
    ----------
    teacher_agreement_ : coefficient of determination of the student's predictions against the teacher's, on the held-out rows (on all, if
        fewer than 2 were held out), out of fold where it was fitted here; None without a teacher
    student_, teacher_, compression_, history_, n_features_in_, feature_names_in_ : as in `MimicClassifier`
    """

    _mean: Array
    _deviation: Array
    _columns_allowed = True

    def __init__(
        self, teacher: Any = None, *, hidden: int = 512, rank: int | None = None, activation: str = "relu", dropout: float = 0.0,
        folds: int = 5, copies: int = 4, p: float = 0.2, s: float = 5.0, discrete: Sequence[int] = (), standardise: str = "each",
        epochs: int = 40, batch_size: int = 64, learning_rate: float = 3e-3, weight_decay: float = 1.0, ema: float | None = 0.99,
        validation_fraction: float = 0.1, patience: int | None = None, warm_start: bool = False, random_state: Any = None,
        verbose: bool = False,
    ) -> None:  # fmt: skip
        self.teacher, self.hidden, self.rank, self.activation, self.dropout, self.folds = teacher, hidden, rank, activation, dropout, folds
        self.copies, self.p, self.s, self.discrete, self.standardise = copies, p, s, discrete, standardise
        self.epochs, self.batch_size, self.learning_rate, self.weight_decay, self.ema = epochs, batch_size, learning_rate, weight_decay, ema
        self.validation_fraction, self.patience, self.warm_start = validation_fraction, patience, warm_start
        self.random_state, self.verbose = random_state, verbose

    def predict(self, X: Any) -> Array:
        """Targets in their units, (B,), or (B, C) where y had columns: float32's numbers as float64."""
        y = self._logits(X).astype(np.float64)
        return y[:, 0] if self._one_axis else y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _encoded(self, y: Array, warm: bool) -> Array:
        self._one_axis = y.ndim == 1
        return _demand_targets(np.asarray(y.reshape(len(y), -1), np.float64))

    def _columns(self) -> list[Any] | None:
        return None

    def _strata(self, y: Array) -> Array | None:
        return None

    def _outputs(self, y: Array) -> int:
        return int(y.shape[1])

    def _loss(self) -> dict[str, Any]:
        return {"loss": "mimic"}

    def _prepare(self, student: Student, targets: Array, warm: bool) -> None:
        """It learns targets of mean 0 and deviation 1, those of its first fit; `_adopt` undoes that."""
        if warm:
            student.fold(-self._mean / self._deviation, 1 / self._deviation)
        else:
            self._mean, self._deviation = moments([targets])

    def _cases(self, x: Array, y: Array, weights: Array | None) -> Cases:
        return TransferSet(x, ((y - self._mean) / self._deviation).astype(np.float32), weights)

    def _mimic_cases(self, x: Array, logits: Array, weights: Array | None) -> Cases:
        return self._cases(x, logits, weights)

    def _adopt(self, student: Student) -> None:
        student.fold(self._mean, self._deviation)
        self.student_ = student

    def _agreement(self, teacher: Array, student: Array) -> float:
        return float(r2_score(teacher, student))


def _demand_targets(y: Array) -> Array:
    """Demand (N, C) float64 targets that a float32 net can answer; warn of those that it cannot tell apart."""
    off = np.abs(y) > _LARGEST
    if off.any():
        row = int(off.any(axis=1).argmax())
        value = y[row, off[row].argmax()]
        raise ValueError(f"y: expected values in [{-_LARGEST:g}, {_LARGEST:g}], for a float32 net, got {value:g} in row {row}: scale them")
    warn_of_merged_values("y", y)
    spread = np.ptp(y, axis=0)
    for column in np.flatnonzero((spread > 0) & (spread < TINY)):
        warn(f"y: expected values that float32 can tell apart, got a range of {spread[column]:g} in column {column}: scale them")
    return y
