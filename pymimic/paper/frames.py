"""Speech frames as a set: rows are numbers of frames, whose windows are made when a net asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..backends.interface import Array
from ..data.cases import Cases
from ..data.teacher import Teacher
from ..demo.datasets import Dataset, Rows
from ..demo.recipes import Recipe
from ..demo.setting import Seeds, Setting
from ..demo.students import Trained, Training, train
from ..demo.teachers import ConvRecipe, DeepRecipe, NetsRecipe
from ..nets.student import Student
from ..numerics import less_row_means
from ..speech.windows import FrameCases, Frames
from ..training.convnet import ConvNet
from ..training.deepnet import DeepNet
from ..training.trainer import Trainer

_KINDS = 3  # of features in a frame: energies, their first and their second differences
_SAMPLE = 8_000  # windows from which a bottleneck is initialised


@dataclass(frozen=True)
class FrameData(Dataset):
    """As `Dataset`, but `x` of its rows are numbers of frames, (n,) int64.

    Attributes
    ----------
    frames : of all parts
    """

    frames: Frames

    @property
    def inputs(self) -> int:
        return self.frames.inputs

    @property
    def shape(self) -> tuple[int, ...]:
        """Values and their two differences as channels, filters by frames."""
        context = self.frames.context
        return (_KINDS, self.inputs // context // _KINDS, context)

    def cases(self, *parts: Rows) -> FrameCases:
        """The rows of these parts with their labels."""
        labels = np.zeros(len(self.frames), np.int64)
        for rows in parts:
            labels[rows.x] = rows.labels
        return FrameCases(self.frames, labels, self.outputs, np.concatenate([rows.x for rows in parts]))


class FrameSetting(Setting):
    """As `Setting`, for `FrameData`: a teacher labels the rows to train on and the unlabelled ones."""

    data: FrameData

    def __init__(self, data: FrameData, how: Recipe, seeds: Seeds, device: str) -> None:
        self.data, self.how, self.seeds, self.device = data, how, seeds, device
        self.validation = data.cases(data.validation)
        self._bottlenecks: dict[int, Array] = {}

    def logits(self, net: Teacher, rows: Rows) -> Array:
        return self.data.frames.answers(net, rows.x)

    def cases(self, name: str) -> Cases:
        """The cases called "labels", "true labels" (those of unlabelled rows too), or "answers" (the teacher's logits for all of them)."""
        if name == "answers":
            return self.answered
        return self.data.cases(self.data.train) if name == "labels" else self.data.cases(self.data.train, self.data.unlabelled)

    @cached_property
    def answered(self) -> FrameCases:
        """What the teacher says of the rows to train on and of the unlabelled ones; the mean of each row is 0."""
        rows = np.concatenate([self.data.train.x, self.data.unlabelled.x])
        answers = self.data.frames.answers(self.fitted.teacher, rows)
        logits = np.zeros((len(self.data.frames), self.data.outputs), np.float32)
        logits[rows] = less_row_means(answers)
        return FrameCases(self.data.frames, logits, rows=rows)

    def _train(self, cases: Cases, training: Training, hidden: int, rank: int | None, whitened: bool = True) -> Trained[Student]:
        data = self.data
        student = Student(data.inputs, hidden, data.outputs, rank, dropout=training.dropout, seed=self.seeds.student)
        student.set_standardisation(*data.frames.standards(data.train.x))
        if rank is not None and whitened:
            if rank not in self._bottlenecks:  # one for all students of that rank: it takes seconds
                chosen = np.random.default_rng(self.seeds.student).permutation(data.train.x)[:_SAMPLE]
                student.initialise_bottleneck(data.frames.windows(chosen))
                self._bottlenecks[rank] = student.arrays()["V"]
            student.set_arrays(V=self._bottlenecks[rank])
        return train(student, cases, self.validation, training, self.seeds.student, self.device)


@dataclass(frozen=True)
class FrameDeepRecipe(DeepRecipe):
    """Deep nets with dropout, on frames."""

    def fit_one(self, data: Dataset, train: Rows, seed: int, device: str = "cpu") -> DeepNet | ConvNet:
        return fit_on_frames(self, data, train, seed, device)


@dataclass(frozen=True)
class FrameConvRecipe(ConvRecipe):
    """Nets with convolutions over filters and frames, and dense layers with dropout behind them, on frames."""

    hidden: tuple[int, ...] = (512,)

    def fresh(self, data: Dataset, seed: int) -> ConvNet:
        return ConvNet(
            data.shape,
            self.convolutions,
            data.outputs,
            hidden=self.hidden,
            dropout=self.dropout,
            input_dropout=self.input_dropout,
            seed=seed,
        )

    def fit_one(self, data: Dataset, train: Rows, seed: int, device: str = "cpu") -> DeepNet | ConvNet:
        return fit_on_frames(self, data, train, seed, device)


def fit_on_frames(recipe: NetsRecipe, data: Dataset, train: Rows, seed: int, device: str) -> DeepNet | ConvNet:
    """A net of a recipe, with the weights of its best epoch by development rows."""
    assert isinstance(data, FrameData)
    net = recipe.fresh(data, seed)
    net.set_standardisation(*data.frames.standards(train.x))
    trainer = Trainer(
        net.to(device), recipe.optimizer(len(train.x)), epochs=recipe.epochs, batch_size=recipe.batch_size, loss="cross_entropy",
        seed=seed, keep_best=True, monitor="accuracy", ema=recipe.ema, device=device,
    )  # fmt: skip
    net.history = trainer.fit(data.cases(train), data.cases(data.validation))
    return net
