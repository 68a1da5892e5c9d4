"""What the classifier and the regressor share: parameters, the way from rows to a trained student, and asking it."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .. import _check
from ..backends.interface import Array
from ..data.cases import Cases
from ..data.generate import demand_discrete, demand_p_s
from ..data.moments import standardisation
from ..data.rounding import warn_of_merged_values
from ..data.teacher import label
from ..nets.student import Student
from ..optimizer import AdamW, cosine, warm_up
from ..training.trainer import Trainer
from .compression import size
from .rows import Rows, held_out, merged, with_new_cases
from .teacher import Lesson, Taught

_SLAB = 1 << 22  # numbers of a sparse matrix that are dense at a time
_PCA_ROWS = 4096
_FIRST = 0.03  # share of the steps in which the learning rate rises


class Seeds(NamedTuple):
    """One for each use of random numbers, so that none follows from another's."""

    student: int
    order: int
    munge: int
    split: int
    teacher: int


class Mimic(BaseEstimator):  # type: ignore[misc]
    """Base of `MimicClassifier` and `MimicRegressor`, which hold the parameters' names and their text."""

    student_: Student

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Mimic:
        """Train the student, first fitting the teacher if it is not fitted. If that fails, what was fitted before stays as it was.

        Parameters
        ----------
        X : (N, D) array, DataFrame or sparse matrix, which becomes one dense float32 array
        y : (N,) array; for the regressor (N, C) too
        sample_weight : (N,) array of at least 0, or None for ones. Rows of weight 0 are left out. To the student a row of weight 2 is
            exactly a row that stands twice. A teacher that is fitted here gets the weights too, and means by them what it means: its
            `min_samples_leaf`, say, counts rows

        Raises
        ------
        TypeError, ValueError
            What scikit-learn refuses, in its words; a teacher that cannot teach these rows; parameters out of range, by their names.

        Warns
        -----
        UserWarning
            Many values of a column of X, or of a regressor's y, are one as float32, in which nets learn.
        """
        fitted = copy.copy(self)
        fitted._fit(X, y, sample_weight)
        self.__dict__ = fitted.__dict__  # all at once
        return self

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> None:
        """As `fit`; leaves this estimator between two fits where it fails."""
        warm = self.warm_start and hasattr(self, "student_")
        several, given = self._columns_allowed, X
        X, y = validate_data(
            self, X, y, reset=not warm, dtype=np.float32, order="C", accept_sparse="csr", ensure_min_samples=2, multi_output=several,
            y_numeric=several,
        )  # fmt: skip
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            if not sample_weight.any():
                raise ValueError("Sample weights must contain at least one non-zero number.")
        x = X if isinstance(X, np.ndarray) else X.toarray(order="C")
        if X is x and getattr(given, "dtype", None) != np.float32:
            warn_of_merged_values("X", np.asarray(given, np.float64))
        if sample_weight is not None and not sample_weight.all():
            x, y, sample_weight = x[sample_weight > 0], y[sample_weight > 0], sample_weight[sample_weight > 0]
        rows, numbers = merged(x, self._encoded(y, warm), sample_weight)
        seeds = Seeds(*check_random_state(self.random_state).randint(0, np.iinfo(np.int32).max, 5).tolist())
        share = _check.number("validation_fraction", self.validation_fraction, 0, 1)
        copies, (p, s) = _check.integer("copies", self.copies, 0, 1 << 31), demand_p_s(self.p, self.s)
        discrete = demand_discrete(self.discrete, x.shape[1])
        out = held_out(self._strata(rows.y), len(rows.x), share, seeds.split)
        learned, validation = rows.take(~out), rows.take(out) if out.any() else None
        student = self._student(learned, seeds.student, warm)
        taught: Taught | None = None
        cases: Cases
        if self.teacher is None:
            trainer = self._trainer(student, len(learned.x), seeds.order, validation is not None)
            self._prepare(student, learned.y, warm)
            cases = self._cases(*learned[:2], learned.relative_weights())
            watched = None if validation is None else self._cases(*validation[:2], validation.relative_weights())
        else:
            copies = copies if len(learned.x) > 1 else 0
            trainer = self._trainer(student, len(learned.x) * (1 + copies), seeds.order, validation is not None)
            taught = self._lesson(rows, (x, y, sample_weight, numbers), seeds.teacher).ask(self.teacher)
            inputs = with_new_cases(learned.x, student, copies, p, s, seeds.munge, discrete)
            logits, weights = taught.own[~out], learned.relative_weights()
            if copies:
                logits = np.concatenate([logits, label(taught.teacher, inputs[len(logits) :])])
                weights = None if weights is None else np.tile(weights, 1 + copies)
            self._prepare(student, logits, warm)
            cases = self._mimic_cases(inputs, logits, weights)
            watched = None if validation is None else self._mimic_cases(validation.x, taught.own[out], validation.relative_weights())
        self.history_ = trainer.fit(cases, watched)
        self._adopt(student)
        self.teacher_ = None if taught is None else taught.fitted
        self.teacher_agreement_ = None
        if taught is not None:
            asked = out if np.count_nonzero(out) > 1 else np.ones(len(out), bool)
            self.teacher_agreement_ = self._agreement(taught.own[asked], student.predict(rows.x[asked]))
        self.compression_ = {"teacher": size(self.teacher_), "student": size(student)}

    def _lesson(self, rows: Rows, given: tuple[Array, Array, Array | None, Array], seed: int) -> Lesson:
        folds, names = _check.integer("folds", self.folds, 2, 1 << 31), getattr(self, "feature_names_in_", None)
        return Lesson(rows, *given, self._columns(), names, getattr(self, "floor", 0.01), folds, seed)

    def _student(self, rows: Rows, seed: int, warm: bool) -> Student:
        """A fresh net that knows its inputs' moments; with `warm` a copy of the one there is."""
        D, C = rows.x.shape[1], self._outputs(rows.y)
        wanted = {"hidden": self.hidden, "rank": self.rank, "activation": self.activation, "dropout": self.dropout, "outputs": C}
        if warm:
            have = self.student_.configuration()
            for name, value in wanted.items():
                if have[name] != value:
                    raise ValueError(f"{name}: expected {have[name]!r} as before, to go on with warm_start=True, got {value!r}")
            return copy.deepcopy(self.student_)
        student = Student(D, self.hidden, C, self.rank, self.activation, self.dropout, seed)
        student.set_standardisation(*standardisation([rows.x], D, self.standardise))
        if self.rank is not None and self.rank <= D and len(rows.x) > 1:
            some = np.random.default_rng(seed).permutation(len(rows.x))[:_PCA_ROWS]
            student.initialise_bottleneck(rows.x[some])
        return student

    def _trainer(self, student: Student, rows: int, seed: int, watched: bool) -> Trainer:
        epochs = _check.integer("epochs", self.epochs, 1, 1 << 31)
        batch_size = _check.integer("batch_size", self.batch_size, 1, 1 << 31)
        steps = -(-rows // batch_size) * epochs
        optimizer = AdamW(warm_up(cosine(self.learning_rate, steps), round(_FIRST * steps)), beta2=0.99, weight_decay=self.weight_decay)
        return Trainer(
            student, optimizer, epochs=epochs, batch_size=batch_size, seed=seed, ema=self.ema, keep_best=watched,
            patience=self.patience if watched else None, progress=bool(self.verbose), **self._loss(),
        )  # fmt: skip

    def _logits(self, X: Any) -> Array:
        """The student's outputs (B, C) float32."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float32, order="C", accept_sparse="csr")
        if isinstance(X, np.ndarray):
            return self.student_.predict(X)
        step = max(1, _SLAB // X.shape[1])
        return np.concatenate([self.student_.predict(X[i : i + step].toarray(order="C")) for i in range(0, X.shape[0], step)])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # What the two differ in.

    _columns_allowed: bool  # whether y may have columns; they are numbers then

    @abstractmethod
    def _encoded(self, y: Array, warm: bool) -> Array:
        """y as `Rows` has it, (N,) codes or (N, C) float64; sets what the estimator knows of y."""

    @abstractmethod
    def _columns(self) -> list[Any] | None:
        """Classes of the columns, or None for a regressor."""

    @abstractmethod
    def _strata(self, y: Array) -> Array | None:
        """What the validation split has its share of, or None."""

    @abstractmethod
    def _outputs(self, y: Array) -> int:
        """C."""

    @abstractmethod
    def _loss(self) -> dict[str, Any]:
        """The trainer's arguments for the loss."""

    @abstractmethod
    def _cases(self, x: Array, y: Array, weights: Array | None) -> Cases:
        """Rows to learn without a teacher."""

    @abstractmethod
    def _mimic_cases(self, x: Array, logits: Array, weights: Array | None) -> Cases:
        """Rows to learn a teacher's logits of."""

    def _prepare(self, student: Student, targets: Array, warm: bool) -> None:
        """Before the student learns these targets."""

    def _adopt(self, student: Student) -> None:
        self.student_ = student

    @abstractmethod
    def _agreement(self, teacher: Array, student: Array) -> float:
        """How alike two tables of outputs (B, C) are, at most 1."""
