"""A set, its teacher, and the cases that students are trained on: made when they are asked for, and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..backends.interface import Array
from ..data.cases import Cases, LabelledSet
from ..data.folds import out_of_fold
from ..data.teacher import Teacher, label
from ..data.transfer import TransferSet
from ..nets.student import Student
from ..numerics import less_row_means
from .datasets import Dataset, Rows
from .recipes import Recipe
from .students import Trained, Training, train
from .teachers import FittedTeacher


class Seeds(NamedTuple):
    """What each random part begins from."""

    split: int
    teacher: int
    folds: int
    cases: int
    student: int  # one for all students: they begin from the same weights

    @classmethod
    def of(cls, seed: int) -> Seeds:
        """Independent seeds from one."""
        return cls(*(int(stream.generate_state(1)[0]) for stream in np.random.SeedSequence(seed).spawn(len(cls._fields))))


class Shape(NamedTuple):
    """Of a shallow net: H and k, and whether V begins as whitened PCA."""

    hidden: int
    rank: int | None = None
    whitened: bool = True


class Answers(NamedTuple):
    """Rows and the teacher's logits for them, whose mean is 0 in each row."""

    x: Array  # (N, D)
    logits: Array  # (N, C)


class Setting:
    """One set, split and labelled by one seed.

    Parameters
    ----------
    data, how, seeds : the set, the recipe, and where random parts begin
    device : "cpu" or "cuda", where nets are trained and asked
    """

    def __init__(self, data: Dataset, how: Recipe, seeds: Seeds, device: str) -> None:
        self.data, self.how, self.seeds, self.device = data, how, seeds, device
        self.validation: Cases = LabelledSet(*data.validation, data.outputs)

    @cached_property
    def fitted(self) -> FittedTeacher:
        """The teacher with its figures."""
        return self._fit(self.data.train)

    def cases(self, name: str) -> Cases:
        """The cases that a recipe calls so."""
        data, outputs = self.data, self.data.outputs
        make: dict[str, Callable[[], Cases]] = {
            "labels": lambda: LabelledSet(*data.train, outputs),
            "generated": lambda: TransferSet(*self.generated),
            "labels of generated": lambda: LabelledSet(self.generated.x, self._sources_labels(), outputs),
            "unlabelled": lambda: TransferSet(*self.unlabelled),
            "true labels": lambda: LabelledSet(*data.unlabelled, outputs),
            "teacher's choices": lambda: LabelledSet(self.unlabelled.x, self.unlabelled.logits.argmax(axis=1), outputs),
        }
        return make[name]()

    @cached_property
    def generated(self) -> Answers:
        """The labelled rows, out of fold if the recipe says so, and copy upon copy of generated ones."""
        x, teacher, folds = self.data.train.x, self.fitted.teacher, self.how.folds
        own = out_of_fold(self.fit, *self.data.train, folds, self.seeds.folds) if folds else teacher.logits(x)
        new = np.concatenate([x[:0], *self.how.generate(x, self.seeds.cases)])
        logits = label(teacher, new, workers=self.how.teacher.askers())
        return Answers(np.concatenate([x, new]), less_row_means(np.concatenate([own, logits])))

    @cached_property
    def unlabelled(self) -> Answers:
        """More rows of the set."""
        return self.answers(self.data.unlabelled.x)

    def answers(self, x: Array) -> Answers:
        """Those rows, and what the teacher says."""
        return Answers(x, less_row_means(label(self.fitted.teacher, x, workers=self.how.teacher.askers())))

    def _sources_labels(self) -> Array:
        """The labels of the rows that generated ones were made from."""
        return np.tile(self.data.train.labels, len(self.generated.x) // len(self.data.train.x))

    def fit(self, x: Array, labels: Array) -> Teacher:
        """The recipe's teacher, fitted on these rows."""
        return self._fit(Rows(x, labels)).teacher

    def logits(self, net: Teacher, rows: Rows) -> Array:
        """A net's for rows of the set."""
        return net.logits(rows.x)

    @cached_property
    def test_logits(self) -> Array:
        """The teacher's for the test rows."""
        return self.logits(self.fitted.teacher, self.data.test)

    @property
    def test_choices(self) -> Array:
        """The classes that the teacher chooses for the test rows."""
        chosen: Array = self.test_logits.argmax(axis=1)
        return chosen

    def part(self, copies: int) -> TransferSet:
        """The labelled rows and the first `copies` generated versions of them."""
        rows = len(self.data.train.x) * (1 + copies)
        return TransferSet(self.generated.x[:rows], self.generated.logits[:rows])

    def train(self, cases: Cases, trainings: Sequence[Training], shape: Shape | None = None) -> Trained[Student]:
        """The shallow net, trained in the way that gives the best net by its validation rows; `shape` in place of the recipe's."""
        nets = (self._train(cases, training, *(shape or Shape(self.how.hidden, self.how.rank))) for training in trainings)
        return max(nets, key=lambda net: net.validation_accuracy)

    def _train(self, cases: Cases, training: Training, hidden: int, rank: int | None, whitened: bool = True) -> Trained[Student]:
        data = self.data
        student = Student(data.inputs, hidden, data.outputs, rank, dropout=training.dropout, seed=self.seeds.student)
        standards: str | bool = "all" if len(data.shape) == 3 else "each"  # pixels that are rarely inked are not blown up
        if rank is not None and whitened:
            student.initialise_bottleneck(data.train.x)
            standards = False  # what comes out of the bottleneck has a deviation of 1
        return train(student, cases, self.validation, training, self.seeds.student, self.device, standardise_inputs=standards)

    def _fit(self, rows: Rows) -> FittedTeacher:
        return self.how.teacher(self.data, rows, self.seeds.teacher, self.device)
