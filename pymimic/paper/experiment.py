"""How an experiment runs: all its students first, seed by seed, by their validation rows; the test rows at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ..demo.datasets import Dataset, Rows
from ..demo.measure import Size, accuracy_of, agreement_of, choices
from ..demo.setting import Setting
from ..demo.students import Trained, Training
from ..nets.student import Student
from ..progress import Progress
from .ledger import Ledger, Line

_T = TypeVar("_T")
_FEW = 500
TEACHER = "teacher"  # the part and the name of each seed's teacher


@dataclass(frozen=True)
class Run:
    """One student of each seed.

    Attributes
    ----------
    part : of the experiment: the table or the plot that it belongs to
    name : what it is, in that part
    train : makes it
    value : where it stands on the plot's axis, or None
    """

    part: str
    name: str
    train: Callable[[Setting], tuple[Trained, int]]  # and the number of its cases
    value: float | None = None


class Experiment(ABC):
    """One of the paper's."""

    name: str
    title: str

    def __init__(self, fast: bool, device: str, path: Path | None) -> None:
        self.fast, self.device, self.path = fast, device, path

    def demand(self) -> None:  # noqa: B027 - only some need anything
        """Demand files and packages, before anything is trained."""

    @abstractmethod
    def setting(self, seed: int) -> Setting:
        """The set and its teacher, for a seed."""

    @abstractmethod
    def runs(self) -> Sequence[Run]:
        """What is trained for every seed."""

    def some(self, values: Sequence[_T]) -> Sequence[_T]:
        """All, or two of them if it is to be fast."""
        return values[:2] if self.fast else values

    def shorter(self, training: Training, share: float = 1.0) -> Training:
        """For that share of the epochs, and of a tenth of them if it is to be fast."""
        return replace(training, epochs=max(1, round(training.epochs * share * (0.1 if self.fast else 1))))

    def fewer(self, data: Dataset) -> Dataset:
        """All rows, or a few hundred of each part if it is to be fast."""
        if not self.fast:
            return data
        few = [Rows(rows.x[:_FEW], rows.labels[:_FEW]) for rows in (data.train, data.validation, data.test, data.unlabelled)]
        return Dataset(data.name, data.outputs, *few)


def perform(experiment: Experiment, folder: Path, seeds: int, progress: bool = True) -> tuple[Ledger, int]:
    """Do what is left of it; returns the ledger, and how often the test rows had been opened before."""
    ledger, runs = Ledger(folder, experiment.name + "-fast" * experiment.fast), experiment.runs()
    names = [(run.part, run.name) for run in runs]
    assert len(set(names)) == len(names), f"two runs of one name among {names}"
    settings: dict[int, Setting] = {}  # one at a time: they hold the cases

    def setting(seed: int) -> Setting:
        if seed not in settings:
            settings.clear()
            settings[seed] = experiment.setting(seed)
        return settings[seed]

    with Progress(total=seeds * len(runs), disable=None if progress else True, unit="run") as bar:
        for seed in range(seeds):
            if not ledger.has(seed, TEACHER, TEACHER):
                fitted, validation = setting(seed).fitted, setting(seed).data.validation
                seen, _ = accuracy_of(choices(fitted.teacher.logits, validation, 1)[0], validation)
                size = {"rows": len(setting(seed).data.train.x), "seconds": fitted.seconds, "validation_accuracy": seen}
                ledger.add(seed, TEACHER, TEACHER, None, size | _sizes(fitted.size), None)
            for run in runs:
                bar.set_description(f"{experiment.name}, seed {seed}: {run.part}, {run.name}", refresh=True)
                if not ledger.has(seed, run.part, run.name):
                    trained, rows = run.train(setting(seed))
                    figures = {"rows": rows, "seconds": trained.seconds, "validation_accuracy": trained.validation_accuracy}
                    net = {"hidden": trained.student.hidden, "rank": trained.student.rank}
                    ledger.add(seed, run.part, run.name, run.value, figures | net | _sizes(Size.of(trained.student)), trained)
                bar.update()

    def on_test_rows(line: Line, student: Student | None) -> dict[str, float]:
        here = setting(int(line["seed"]))
        given = here.test_choices
        chosen = given if student is None else choices(student.logits, here.data.test, 1)[0]
        accuracy, error = accuracy_of(chosen, here.data.test)
        return {"test_accuracy": accuracy, "test_error": error, "agreement": agreement_of(chosen, given)}

    return ledger, ledger.open_test_rows(on_test_rows)


def _sizes(size: Size) -> dict[str, int | None]:
    return {"parameters": size.parameters, "multiply_adds": size.multiply_adds, "bytes": size.bytes}
