"""`MimicClassifier`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from .. import _check
from ..backends.interface import Array
from ..data.cases import Cases, LabelledSet
from ..data.transfer import TransferSet
from ..numerics import log_softmax
from .mimic import Mimic
from .teacher import is_teacher


class MimicClassifier(ClassifierMixin, Mimic):  # type: ignore[misc]
    """A wide shallow net, one hidden layer, that mimics another classifier; without a teacher it learns the labels.

    The student learns the teacher's logits log(p + floor) of the labelled rows, and of new rows that MUNGE makes of these. It sees each
    input less its mean over its deviation, and learns by AdamW along a cosine. The epoch with the least loss on held-out rows is kept.

    Parameters
    ----------
    teacher : an estimator with `predict_proba`, of scikit-learn or used alike; or a pymimic teacher, whose columns are put in the order of
        `classes_` if it knows its `classes`, and are the sorted classes if not; None for none. One that is not fitted is cloned and
        fitted here on the rows as they are given, in their order, but as float32; its logits for these come from clones that were
        fitted on the other folds, where rows that are alike share a fold. `clone`, as `GridSearchCV` uses it, forgets a fit: wrap the
        teacher in `sklearn.frozen.FrozenEstimator` to keep it. A parameter `random_state` of None is set from this estimator's
    hidden, rank, activation, dropout : of the net, see `pymimic.Student`; a bottleneck starts from the inputs' principal components
    loss, temperature : "distillation" at that temperature, at most 100, or "mimic", squared error of logits. Without a teacher it is
        cross-entropy
    floor : above 0, added to each probability of the teacher, see `pymimic.from_sklearn`
    folds : for a teacher that is not fitted, at least 2
    copies, p, s, discrete : new rows for each labelled row, and how they are made, see `pymimic.munge`; without a teacher there are none
    standardise : "each" input by its own moments, or "all" alike, for pixels and signals
    epochs, batch_size, learning_rate, weight_decay, ema : of training, see `pymimic.Trainer`; an epoch has the new rows too
    validation_fraction : in [0, 1), of each class's rows, held out to choose the epoch. 0 holds out none: the last epoch is kept
    patience : stop after so many epochs without a better validation loss; None for none
    warm_start : let `fit` go on from the student there is, along a new schedule; features, classes and net must be as before
    random_state : int, RandomState or None; an int gives the same bits from fit to fit
    verbose : draw a bar, if standard error is a terminal

    Attributes
    ----------
    student_ : the `pymimic.Student`, whose columns are `classes_`; `student_.save` writes it without its teacher
    teacher_ : the fitted teacher, or None
    teacher_agreement_ : share of held-out rows (of all rows, if fewer than 2 were held out) on which the student answers as the teacher
        did, out of fold where it was fitted here; None without a teacher
    compression_ : {"teacher": {...}, "student": {...}} of "bytes" (of the pickle), "parameters" and "multiply_adds" (for a row); None where
        a word has no meaning or no number is known, as in forests
    history_ : the `pymimic.History` of the last training
    classes_ : (C,) array of labels, sorted
    n_features_in_ : D
    feature_names_in_ : (D,) array of names, where X was a DataFrame with such
    """

    classes_: Array
    _columns_allowed = False

    def __init__(
        self, teacher: Any = None, *, hidden: int = 512, rank: int | None = None, activation: str = "relu", dropout: float = 0.0,
        loss: str = "distillation", temperature: float = 2.0, floor: float = 0.01, folds: int = 5, copies: int = 4, p: float = 0.2,
        s: float = 5.0, discrete: Sequence[int] = (), standardise: str = "each", epochs: int = 40, batch_size: int = 64,
        learning_rate: float = 3e-3, weight_decay: float = 1.0, ema: float | None = 0.99, validation_fraction: float = 0.1,
        patience: int | None = None, warm_start: bool = False, random_state: Any = None, verbose: bool = False,
    ) -> None:  # fmt: skip
        self.teacher, self.hidden, self.rank, self.activation, self.dropout = teacher, hidden, rank, activation, dropout
        self.loss, self.temperature, self.floor, self.folds = loss, temperature, floor, folds
        self.copies, self.p, self.s, self.discrete, self.standardise = copies, p, s, discrete, standardise
        self.epochs, self.batch_size, self.learning_rate, self.weight_decay, self.ema = epochs, batch_size, learning_rate, weight_decay, ema
        self.validation_fraction, self.patience, self.warm_start = validation_fraction, patience, warm_start
        self.random_state, self.verbose = random_state, verbose

    def decision_function(self, X: Any) -> Array:
        """Logits (B, C) float32; of two classes (B,): those of the second less those of the first."""
        y = self._logits(X)
        return y[:, 1] - y[:, 0] if y.shape[1] == 2 else y

    def predict(self, X: Any) -> Array:
        """The class of the greatest logit, (B,)."""
        y = self._logits(X)
        chosen: Array = self.classes_[y.argmax(axis=1)]
        return chosen

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (B, C) float64. Of a mimic the floor is taken off again: softmax of the logits is (p + floor) / (1 + C floor)."""
        p: Array = np.exp(log_softmax(self._logits(X).astype(np.float64)))
        if self._floor:
            p = np.maximum(p * (1 + p.shape[1] * self._floor) - self._floor, 0)
        p /= p.sum(axis=1, keepdims=True)
        return p

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of `predict_proba` (B, C) float64; -inf where that is 0."""
        with np.errstate(divide="ignore"):
            log_p: Array = np.log(self.predict_proba(X))
        return log_p

    def _encoded(self, y: Array, warm: bool) -> Array:
        check_classification_targets(y)
        classes = np.unique(y)
        if len(classes) < 2:
            raise ValueError(f"The number of classes has to be greater than one; got {len(classes)} class")
        if warm and not np.array_equal(classes, self.classes_):
            raise ValueError(f"y: expected the classes {self.classes_.tolist()} as before, with warm_start=True, got {classes.tolist()}")
        self.classes_ = classes
        floor = _check.number("floor", self.floor, above=0)
        self._floor = 0.0 if self.teacher is None or is_teacher(self.teacher) else floor  # which is in the logits
        return np.searchsorted(classes, y)

    def _columns(self) -> list[Any] | None:
        columns: list[Any] = self.classes_.tolist()
        return columns

    def _strata(self, y: Array) -> Array | None:
        return y

    def _outputs(self, y: Array) -> int:
        return len(self.classes_)

    def _loss(self) -> dict[str, Any]:
        if self.teacher is None:
            return {"loss": "cross_entropy"}
        return {"loss": self.loss, **({"temperature": self.temperature} if self.loss == "distillation" else {})}

    def _cases(self, x: Array, y: Array, weights: Array | None) -> Cases:
        return LabelledSet(x, y, len(self.classes_), weights)

    def _mimic_cases(self, x: Array, logits: Array, weights: Array | None) -> Cases:
        return TransferSet(x, logits, weights)

    def _agreement(self, teacher: Array, student: Array) -> float:
        return float(np.mean(teacher.argmax(axis=1) == student.argmax(axis=1)))
