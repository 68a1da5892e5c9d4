"""The main job: a teacher, its logits on many rows, and one wide shallow net trained on labels, as a mimic, and for control."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace

from .. import _check
from ..backends import default_host
from ..backends.interface import Array
from ..nets.student import Student
from . import datasets
from .measure import Model, Size, accuracy_of, agreement_of, choices
from .recipes import recipe
from .setting import Seeds, Setting
from .students import Trained

_SHARES = (0, 1 / 24, 1 / 8, 1 / 3)  # of the generated copies, for accuracy against their number


@dataclass(frozen=True)
class Result:
    """What the demo reports."""

    data: str
    seed: int
    rows: dict[str, int]  # labelled, validation, test
    models: dict[str, Model]  # the teacher first, then the students by their names in the recipe
    by_cases: dict[int, float]  # test accuracy of mimics by the number of cases, labelled rows among them; empty if not asked for
    backend: str
    seconds: float
    student: Student  # of models["mimic"]


def run_demo(
    name: str, folder: str | os.PathLike[str] | None = None, *, fast: bool = False, seed: int = 0, device: str = "cpu",
    by_cases: bool = False,
) -> Result:  # fmt: skip
    """Train the teacher and the students on a set and measure them; says on standard error what it is about.

    Parameters
    ----------
    name : "mnist1d", "letter" or "mnist"
    folder : with the publisher's files, for letter and mnist
    fast : fewer cases and epochs
    seed : everything random follows from it
    device : "cpu" or "cuda", where nets are trained and asked; teachers that are not nets stay on the CPU
    by_cases : train mimics on fewer generated cases too, for as many steps

    Raises
    ------
    ValueError, OSError
        A wrong argument, or files that are missing or malformed.
    ImportError
        The teacher needs scikit-learn.
    """
    started = time.perf_counter()
    seeds = Seeds.of(_check.integer("seed", seed, 0, 1 << 64))
    data, how = datasets.load(name, folder, seeds.split), recipe(name, fast)
    how.teacher.demand_packages()
    setting = Setting(data, how, seeds, device)

    _say(f"{name}: fitting the teacher on {len(data.train.x):,} rows")
    fitted = setting.fitted
    given, microseconds = choices(fitted.teacher.logits, data.test)
    seen, _ = accuracy_of(choices(fitted.teacher.logits, data.validation, 1)[0], data.validation)
    figures = (*accuracy_of(given, data.test), 1.0, microseconds, fitted.seconds, seen, fitted.curve)
    models = {"teacher": Model(fitted.title, len(data.train.x), fitted.size, *figures)}
    nets: dict[str, Student] = {}
    for key, way in how.students.items():
        cases = setting.cases(way.cases)
        _say(f'training the shallow net of the line "{way.title}": {len(cases):,} rows')
        trained = setting.train(cases, way.trainings)
        models[key], nets[key] = _measure(setting, way.title, trained, len(cases), given), trained.net
    curve = _by_cases(setting, models["munge" if "munge" in models else "mimic"]) if by_cases else {}
    rows = {"labelled": len(data.train.x), "validation": len(data.validation.x), "test": len(data.test.x)}
    backend = "cuda" if device == "cuda" else default_host().name
    return Result(name, seed, rows, models, curve, backend, time.perf_counter() - started, nets["mimic"])


def _measure(setting: Setting, title: str, trained: Trained[Student], rows: int, given: Array) -> Model:
    chosen, microseconds = choices(trained.net.logits, setting.data.test)
    return Model(
        title, rows, Size.of(trained.net), *accuracy_of(chosen, setting.data.test), agreement_of(chosen, given), microseconds,
        trained.seconds, trained.validation_accuracy, trained.curve,
    )  # fmt: skip


def _by_cases(setting: Setting, most: Model) -> dict[int, float]:
    """Accuracy of mimics of fewer generated copies, and of that with all of them."""
    way = next(way for way in setting.how.students.values() if way.cases == "generated")
    curve = {}
    for copies in sorted({round(share * setting.how.generate.copies) for share in _SHARES}):
        cases = setting.part(copies)
        _say(f"training a mimic on fewer rows, for the plot: {len(cases):,} rows")
        more = round(most.rows / len(cases))  # epochs, for as many steps
        trained = setting.train(cases, [replace(training, epochs=more * training.epochs) for training in way.trainings])
        curve[len(cases)] = accuracy_of(choices(trained.net.logits, setting.data.test, 1)[0], setting.data.test)[0]
    return curve | {most.rows: most.accuracy}


def _say(what: str) -> None:
    print(f"- {what}", file=sys.stderr, flush=True)
