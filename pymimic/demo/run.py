"""The main job: a teacher, its logits on a transfer set, and one wide shallow net trained on labels and as a mimic."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from .. import _check
from ..backends import default_host
from ..backends.interface import Array
from ..data.cases import LabelledSet
from ..data.folds import out_of_fold
from ..data.teacher import Teacher, label
from ..data.transfer import TransferSet
from ..nets.student import Student
from ..optimizer import AdamW, cosine, warm_up
from ..threads import get_num_threads
from ..training.trainer import Trainer
from . import datasets
from .datasets import Dataset
from .recipes import Recipe, Training, recipe
from .teachers import FittedTeacher

_T = TypeVar("_T")
_TIMINGS = 5


@dataclass(frozen=True)
class Model:
    """One row of the table. Accuracy and agreement are shares of the test rows."""

    parameters: int | None
    bytes: int  # of the saved file
    bytes_compact: int
    accuracy: float
    agreement: float  # share of rows on which argmax is the teacher's
    train_seconds: float  # of this model's own training
    us_per_row: float  # all test rows in one call, median of 5
    curve: list[float]  # validation accuracy after each epoch; empty where there are no epochs
    validation_accuracy: float


@dataclass(frozen=True)
class Result:
    """What the demo reports."""

    data: str
    seed: int
    rows: dict[str, int]  # train, transfer, validation, test
    models: dict[str, Model]  # teacher, shallow, mimic
    backend: str
    seconds: float
    labelling_seconds: float  # of the transfer set, teachers of the folds included
    student: Student  # the mimic


class Seeds(NamedTuple):
    """What each random part begins from."""

    split: int
    teacher: int
    folds: int
    cases: int
    student: int  # one for both nets: they begin from the same weights

    @classmethod
    def of(cls, seed: int) -> Seeds:
        """Independent seeds from one."""
        return cls(*(int(stream.generate_state(1)[0]) for stream in np.random.SeedSequence(seed).spawn(len(cls._fields))))


def run_demo(name: str, folder: str | os.PathLike[str] | None = None, *, fast: bool = False, seed: int = 0, device: str = "cpu") -> Result:
    """Train the three models on a set and measure them; says on standard error what it is about.

    Parameters
    ----------
    name : "digits", "letter" or "mnist"
    folder : with the publisher's files, for letter and mnist
    fast : small nets and few epochs
    seed : everything random follows from it
    device : "cpu" or "cuda", where nets are trained and asked; teachers that are not nets stay on the CPU

    Raises
    ------
    ValueError, OSError
        A wrong argument, or files that are missing or malformed.
    """
    started = time.perf_counter()
    _demand_sklearn()
    seeds = Seeds.of(_check.integer("seed", seed, 0, 1 << 64))
    data, how = datasets.load(name, folder, seeds.split), recipe(name, fast)

    _say(f"{name}: fitting the teacher on {len(data.train.x)} rows")
    teacher, teacher_seconds = _timed(lambda: how.teacher(data.train, data.validation, data.outputs, seeds.teacher, device))
    _say("labelling the transfer set with its logits")
    transfer, labelling_seconds = _timed(lambda: _transfer_set(data, how, teacher.teacher, seeds, device))

    _say(f"training the shallow net on the labels of {len(data.train.x)} rows, {len(how.labels)} ways")
    labelled = LabelledSet(*data.train, data.outputs)
    shallow = max((_train(data, labelled, how, one, seeds.student, device) for one in how.labels), key=lambda net: net.validation_accuracy)
    _say(f"training the same net as a mimic on the logits of {len(transfer)} rows")
    mimic = _train(data, transfer, how, how.mimic, seeds.student, device)

    given = teacher.teacher.logits(data.test.x).argmax(axis=1)
    models = {
        "teacher": _measure_teacher(data, teacher, given, teacher_seconds),
        "shallow": _measure(data, shallow, given),
        "mimic": _measure(data, mimic, given),
    }
    rows = {"train": len(data.train.x), "transfer": len(transfer), "validation": len(data.validation.x), "test": len(data.test.x)}
    seconds = time.perf_counter() - started
    return Result(name, seed, rows, models, _backend(device), seconds, labelling_seconds, mimic.student)


class _Trained(NamedTuple):
    student: Student
    curve: list[float]
    validation_accuracy: float
    seconds: float


def _transfer_set(data: Dataset, how: Recipe, teacher: Teacher, seeds: Seeds, device: str) -> TransferSet:
    """The labelled rows, out of fold if the recipe says so, and generated ones; logits mean-centred row by row."""

    def fit_again(x: Array, labels: Array) -> Teacher:
        return how.teacher(datasets.Rows(x, labels), data.validation, data.outputs, seeds.teacher, device).teacher

    generated = np.concatenate(list(how.generate(data.train.x, seeds.cases)))
    own = out_of_fold(fit_again, *data.train, how.folds, seeds.folds) if how.folds else teacher.logits(data.train.x)
    targets = np.concatenate([own, label(teacher, generated, rows=len(data.train.x), workers=get_num_threads())])
    targets -= targets.mean(axis=1, keepdims=True)
    return TransferSet(np.concatenate([data.train.x, generated]), targets)


def _train(data: Dataset, cases: LabelledSet | TransferSet, how: Recipe, training: Training, seed: int, device: str) -> _Trained:
    """The shallow net on labels or on logits; validation rows choose the epoch whose weights are kept."""
    student = Student(data.inputs, how.hidden, data.outputs, how.rank, seed=seed)
    if how.rank is not None:
        student.initialise_bottleneck(data.train.x)
    student.to(device)
    steps = -(-len(cases) // training.batch_size) * training.epochs
    rate = warm_up(cosine(training.learning_rate, steps), round(0.03 * steps))
    trainer = Trainer(
        student, AdamW(rate, beta2=training.beta2, weight_decay=training.weight_decay), epochs=training.epochs,
        batch_size=training.batch_size, loss="cross_entropy" if isinstance(cases, LabelledSet) else "mimic", seed=seed,
        patience=training.epochs, monitor="accuracy", ema=training.ema, standardise_inputs=how.rank is None,
        device=device,
    )  # fmt: skip
    history, seconds = _timed(lambda: trainer.fit(cases, LabelledSet(*data.validation, data.outputs)))
    curve = [record.validation_accuracy or 0.0 for record in history]
    return _Trained(student, curve, max(curve), seconds)


def _measure(data: Dataset, net: _Trained, given: Array) -> Model:
    chosen, microseconds = _answer(data, net.student.predict)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.safetensors"
        net.student.save(path)
        size = path.stat().st_size
    numbers = net.student.parameter_count + sum(array.size for array in (net.student.mean, net.student.scale) if array is not None)
    accuracy, agreement = _share(chosen, data.test.labels), _share(chosen, given)
    return Model(
        net.student.parameter_count, size, 4 * numbers, accuracy, agreement, net.seconds, microseconds, net.curve, net.validation_accuracy
    )


def _measure_teacher(data: Dataset, fitted: FittedTeacher, given: Array, seconds: float) -> Model:
    _, microseconds = _answer(data, fitted.teacher.logits)
    accuracy = _share(given, data.test.labels)
    seen = _share(fitted.teacher.logits(data.validation.x).argmax(axis=1), data.validation.labels)
    return Model(fitted.parameters, fitted.bytes, fitted.bytes_compact, accuracy, 1.0, seconds, microseconds, fitted.curve, seen)


def _answer(data: Dataset, logits: Callable[[Array], Array]) -> tuple[Array, float]:
    """The classes chosen for the test rows, and microseconds a row."""
    times = [_timed(lambda: logits(data.test.x)) for _ in range(_TIMINGS)]
    return times[0][0].argmax(axis=1), 1e6 * statistics.median(seconds for _, seconds in times) / len(data.test.x)


def _timed(job: Callable[[], _T]) -> tuple[_T, float]:
    started = time.perf_counter()
    return job(), time.perf_counter() - started


def _backend(device: str) -> str:
    return "cuda" if device == "cuda" else default_host().name


def _share(chosen: Array, wanted: Array) -> float:
    return float(np.mean(chosen == wanted))


def _say(what: str) -> None:
    print(f"- {what}", file=sys.stderr, flush=True)


def _demand_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise ImportError('the demo needs scikit-learn and matplotlib: pip install "pymimic[demo]"') from None
