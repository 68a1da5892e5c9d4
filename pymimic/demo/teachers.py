"""The demo's teachers, and what they take to store."""

from __future__ import annotations

import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..data.classifier import from_sklearn
from ..data.generators import Generate, fresh_cases
from ..data.teacher import Ensemble, Teacher
from ..nets.net import Net
from ..optimizer import AdamW, cosine, warm_up
from ..packages import package
from ..threads import get_num_threads
from ..training.convnet import ConvNet
from ..training.convolution import Convolution
from ..training.deepnet import DeepNet
from .datasets import Dataset, Rows
from .measure import Size

_INTERNAL_NODE = 2 + 4 + 4 + 4  # bytes: uint16 feature, float32 threshold, two int32 children


@dataclass(frozen=True)
class FittedTeacher:
    """A teacher and its figures."""

    what: str
    teacher: Teacher
    size: Size
    seconds: float  # of its training
    curve: list[float]  # validation accuracy after each epoch; empty for a teacher without epochs

    @property
    def title(self) -> str:
        """As a table has it."""
        return f"teacher: {self.what}"


class TeacherRecipe(ABC):
    """How a teacher is fitted."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is."""

    def demand_packages(self) -> None:  # noqa: B027 - only some teachers need any
        """ImportError says what to install, where something is missing."""

    def askers(self) -> int:
        """How many threads may ask the teacher at once, to use all cores."""
        return 1

    @abstractmethod
    def __call__(self, data: Dataset, train: Rows, seed: int, device: str = "cpu") -> FittedTeacher:
        """Fit on `train`. Of the set, the validation rows are only looked at, for the curve, and decide nothing."""


class SeveralNets(TeacherRecipe):
    """Nets that are trained one by one, whose logits are averaged."""

    nets: int
    kind: ClassVar[type[Net]]
    noun: ClassVar[str]

    @property
    def title(self) -> str:
        return f"{self.nets} {self.noun}{'s' if self.nets > 1 else ''}"

    @abstractmethod
    def fit_one(self, data: Dataset, train: Rows, seed: int, device: str = "cpu") -> Net:
        """One of the nets, with the seed of its own."""

    def seeds(self, seed: int) -> list[int]:
        """The nets' own, from the teacher's."""
        return [int(stream.generate_state(1)[0]) for stream in np.random.SeedSequence(seed).spawn(self.nets)]

    def curve(self, nets: Sequence[Any]) -> list[float]:
        """Validation accuracy after each epoch, the nets' mean; empty where it is not known."""
        return []

    def __call__(self, data: Dataset, train: Rows, seed: int, device: str = "cpu") -> FittedTeacher:
        started = time.perf_counter()
        nets = [self.fit_one(data, train, own, device) for own in self.seeds(seed)]
        return FittedTeacher(self.title, Ensemble(nets), Size.of(*nets), time.perf_counter() - started, self.curve(nets))


@dataclass(frozen=True)
class NetsRecipe(SeveralNets):
    """Nets of the library."""

    epochs: int
    nets: int = 1
    batch_size: int = 64
    learning_rate: float = 5e-3
    weight_decay: float = 0.0
    beta2: float = 0.999
    ema: float | None = None
    dropout: float = 0.5
    input_dropout: float = 0.0
    augment: Generate | None = None  # makes new inputs of each batch's, of the same classes

    @abstractmethod
    def fresh(self, data: Dataset, seed: int) -> DeepNet | ConvNet:
        """A net with fresh weights."""

    def curve(self, nets: Sequence[Any]) -> list[float]:
        curves = [[record.validation_accuracy or 0.0 for record in net.history] for net in nets]
        return [float(mean) for mean in np.mean(curves, axis=0)]

    def optimizer(self, rows: int) -> AdamW:
        """For a run over so many rows, of which a twentieth warms up."""
        steps = -(-rows // self.batch_size) * self.epochs
        rate = warm_up(cosine(self.learning_rate, steps), steps // 20)
        return AdamW(rate, beta2=self.beta2, weight_decay=self.weight_decay)

    def fit_one(self, data: Dataset, train: Rows, seed: int, device: str = "cpu") -> DeepNet | ConvNet:
        net = self.fresh(data, seed).to(device)
        net.fit(
            *train, validation=data.validation, epochs=self.epochs, batch_size=self.batch_size, ema=self.ema, standardise="all",
            optimizer=self.optimizer(len(train.x)), augment=fresh_cases(self.augment) if self.augment else None,
        )  # fmt: skip
        return net


@dataclass(frozen=True)
class DeepRecipe(NetsRecipe):
    """Deep nets with dropout."""

    hidden: tuple[int, ...] = (512, 512)
    noun, kind = "deep net", DeepNet

    def fresh(self, data: Dataset, seed: int) -> DeepNet:
        sizes = (data.inputs, *self.hidden, data.outputs)
        return DeepNet(sizes, dropout=self.dropout, input_dropout=self.input_dropout, seed=seed)


@dataclass(frozen=True)
class ConvRecipe(NetsRecipe):
    """Convolutional nets with dropout before the last layer."""

    convolutions: tuple[Convolution, ...] = ()
    noun, kind = "convolutional net", ConvNet

    def fresh(self, data: Dataset, seed: int) -> ConvNet:
        return ConvNet(data.shape, self.convolutions, data.outputs, dropout=self.dropout, input_dropout=self.input_dropout, seed=seed)


@dataclass(frozen=True)
class ForestRecipe(TeacherRecipe):
    """Extremely randomised trees."""

    trees: int
    title = "trees"

    def demand_packages(self) -> None:
        package("data", "sklearn", "scikit-learn", "as it makes the teacher")

    def askers(self) -> int:
        return get_num_threads()  # support vectors use one core each

    def __call__(self, data: Dataset, train: Rows, seed: int, device: str = "cpu") -> FittedTeacher:
        """Always on the CPU."""
        started = time.perf_counter()
        fitted = {estimator.fit(*train): bytes_of for estimator, bytes_of in self._estimators(seed).items()}
        teacher = Ensemble([from_sklearn(estimator, classes=range(data.outputs)) for estimator in fitted])
        seconds = time.perf_counter() - started
        compact = sum(bytes_of(estimator) for estimator, bytes_of in fitted.items())
        size = Size(None, None, compact, len(pickle.dumps(list(fitted), protocol=5)))
        return FittedTeacher(self.title, teacher, size, seconds, [])

    def _estimators(self, seed: int) -> dict[Any, Callable[[Any], int]]:
        """Each, not yet fitted, with what gives the bytes that its predictions read."""
        from sklearn.ensemble import ExtraTreesClassifier

        return {ExtraTreesClassifier(self.trees, n_jobs=get_num_threads(), random_state=seed): _forest_bytes}


@dataclass(frozen=True)
class ForestAndSvcRecipe(ForestRecipe):
    """Trees and an RBF support vector classifier with calibrated probabilities; their logits are averaged."""

    penalty: float = 10.0  # scikit-learn's C
    gamma: float = 4.0  # for inputs in [0, 1]
    title = "trees and support vectors"

    def _estimators(self, seed: int) -> dict[Any, Callable[[Any], int]]:
        from sklearn.calibration import CalibratedClassifierCV
        from sklearn.svm import SVC

        svc = CalibratedClassifierCV(SVC(C=self.penalty, gamma=self.gamma), ensemble=False)
        return super()._estimators(seed) | {svc: _svc_bytes}


def _forest_bytes(forest: Any) -> int:
    """A leaf counts as one float32 for each class."""
    total = 0
    for tree in (estimator.tree_ for estimator in forest.estimators_):
        leaves = int(np.count_nonzero(tree.children_left == -1))
        total += _INTERNAL_NODE * (tree.node_count - leaves) + 4 * len(forest.classes_) * leaves
    return total


def _svc_bytes(calibrated: Any) -> int:
    """Support vectors with their coefficients, and sigmoids of two numbers, as float32."""
    (only,) = calibrated.calibrated_classifiers_
    arrays = (only.estimator.support_vectors_, only.estimator.dual_coef_, only.estimator.intercept_)
    return 4 * (sum(int(array.size) for array in arrays) + 2 * len(only.calibrators))
