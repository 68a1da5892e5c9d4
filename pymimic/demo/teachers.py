"""The demo's teachers, and what they take to store."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.teacher import Ensemble, Teacher, from_sklearn
from ..optimizer import AdamW, cosine, warm_up
from ..threads import get_num_threads
from ..training.deepnet import DeepNet
from .datasets import Rows

_INTERNAL_NODE = 2 + 4 + 4 + 4  # bytes: uint16 feature, float32 threshold, two int32 children


@dataclass(frozen=True)
class FittedTeacher:
    """A teacher and its figures."""

    teacher: Teacher
    parameters: int | None  # None where the word has no clear meaning: forests and support vectors
    bytes: int  # of the saved file
    bytes_compact: int
    curve: list[float]  # validation accuracy after each epoch; empty for a teacher without epochs


@dataclass(frozen=True)
class DeepRecipe:
    """How deep dropout nets are trained; several are averaged."""

    hidden: tuple[int, ...]
    epochs: int
    nets: int = 1
    dropout: float = 0.5
    input_dropout: float = 0.1
    batch_size: int = 128
    learning_rate: float = 2e-3

    def __call__(self, train: Rows, validation: Rows, outputs: int, seed: int, device: str = "cpu") -> FittedTeacher:
        """Fit, on that device; the validation rows are only looked at, for the curve, and decide nothing."""
        sizes = (train.x.shape[1], *self.hidden, outputs)
        steps = -(-len(train.x) // self.batch_size) * self.epochs
        nets = []
        for stream in np.random.SeedSequence(seed).spawn(self.nets):
            net = DeepNet(sizes, dropout=self.dropout, input_dropout=self.input_dropout, seed=int(stream.generate_state(1)[0]))
            optimizer = AdamW(warm_up(cosine(self.learning_rate, steps), steps // 20))
            net.to(device).fit(
                *train, validation=(validation.x, validation.labels), epochs=self.epochs, batch_size=self.batch_size,
                optimizer=optimizer, standardise="all",
            )  # fmt: skip
            nets.append(net)
        curves = [[record.validation_accuracy or 0.0 for record in net.history] for net in nets]
        return FittedTeacher(
            Ensemble(nets), sum(net.parameter_count for net in nets), sum(_saved_bytes(net) for net in nets),
            4 * sum(net.parameter_count + sum(array.size for array in _standardisation(net)) for net in nets),
            np.mean(curves, axis=0).tolist(),
        )  # fmt: skip


@dataclass(frozen=True)
class ForestAndSvcRecipe:
    """Extremely randomised trees and an RBF support vector classifier with calibrated probabilities; their logits are averaged."""

    trees: int
    penalty: float = 10.0  # scikit-learn's C
    gamma: float = 4.0  # for inputs in [0, 1]

    def __call__(self, train: Rows, validation: Rows, outputs: int, seed: int, device: str = "cpu") -> FittedTeacher:
        """Fit on the rows to train on, always on the CPU; `validation` decides nothing."""
        from sklearn.calibration import CalibratedClassifierCV
        from sklearn.ensemble import ExtraTreesClassifier
        from sklearn.svm import SVC

        forest = ExtraTreesClassifier(self.trees, n_jobs=get_num_threads(), random_state=seed)
        svc = CalibratedClassifierCV(SVC(C=self.penalty, gamma=self.gamma), ensemble=False)
        estimators = [estimator.fit(*train) for estimator in (forest, svc)]
        teacher = Ensemble([from_sklearn(estimator, classes=range(outputs)) for estimator in estimators])
        size = len(pickle.dumps(estimators, protocol=5))
        return FittedTeacher(teacher, None, size, _forest_bytes(forest) + 4 * sum(array.size for array in _svc_arrays(svc)), [])


def _saved_bytes(net: DeepNet) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        net.save(path)
        return path.stat().st_size


def _standardisation(net: DeepNet) -> Sequence[Any]:
    return [array for array in (net.mean, net.scale) if array is not None]


def _forest_bytes(forest: Any) -> int:
    """A leaf counts as one float32 for each class."""
    total = 0
    for tree in (estimator.tree_ for estimator in forest.estimators_):
        leaves = int(np.count_nonzero(tree.children_left == -1))
        total += _INTERNAL_NODE * (tree.node_count - leaves) + 4 * len(forest.classes_) * leaves
    return total


def _svc_arrays(calibrated: Any) -> Iterator[Any]:
    """All that its prediction reads: the support vectors with their coefficients, and the sigmoids."""
    (only,) = calibrated.calibrated_classifiers_
    yield from (only.estimator.support_vectors_, only.estimator.dual_coef_, only.estimator.intercept_)
    yield from (np.array([sigmoid.a_, sigmoid.b_]) for sigmoid in only.calibrators)
