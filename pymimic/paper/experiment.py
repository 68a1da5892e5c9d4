"""How an experiment runs: all its nets first, seed by seed, by their validation rows; the test rows at the end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ..backends.interface import Array
from ..bench.machine import made_by
from ..data.cases import Cases
from ..data.teacher import Teacher
from ..demo import datasets
from ..demo.datasets import Dataset, Rows
from ..demo.measure import Size, accuracy_of, agreement_of
from ..demo.recipes import Recipe
from ..demo.setting import Seeds, Setting, Shape
from ..demo.students import Trained, Training
from ..demo.teachers import NetsRecipe
from ..nets.net import Net
from ..nets.student import Student
from ..progress import Progress
from .ledger import Ledger, held
from .table import TEACHER, Line, other_than
from .teachers import Kept

_T = TypeVar("_T")
_How = TypeVar("_How", Training, NetsRecipe)
_FEW = 500


@dataclass(frozen=True)
class Run:
    """One net of each seed.

    Attributes
    ----------
    part : of the experiment: the table or the plot that it belongs to
    name : what it is, in that part
    train : makes it
    value : where it stands on the plot's axis; "bytes" for those that it takes; or None
    seeds : how many of the first seeds have one, as it takes long; None for all
    """

    part: str
    name: str
    train: Callable[[Setting], tuple[Trained[Any], int]]  # and the number of its cases
    value: float | str | None = None
    seeds: int | None = None


class Experiment(ABC):
    """One of the paper's.

    Parameters
    ----------
    folder : for what it keeps
    fast : few rows and epochs
    device : "cpu" or "cuda", where nets are trained
    path : with the publisher's files, or with a folder of the experiment's name that has them
    """

    name: str
    title: str
    group: str  # by which it is asked for
    seeds = 5  # unless told otherwise
    needs_files = False  # of a publisher
    takes_files = False  # where there are some, and makes its own where there are none
    notes: tuple[str, ...] = ()  # for the report
    in_all = True  # whether it is one of "all"
    devices: tuple[str, ...] = ("cpu", "cuda")  # it is for
    more: tuple[str, ...] = ()  # figures on test rows beside accuracy and agreement, as shares: the CSV's and the report's columns

    def __init__(self, folder: Path, fast: bool, device: str, path: Path | None) -> None:
        self.folder, self.fast, self.device = folder, fast, device
        self.path = path if self.needs_files or self.takes_files else None
        if self.path is not None and (self.path / self.source).is_dir():
            self.path = self.path / self.source

    @property
    def source(self) -> str:
        """The name of the set."""
        return self.name

    def demand(self) -> None:
        """Demand files and packages, before anything is trained."""
        self.recipe().teacher.demand_packages()
        if self.needs_files:
            self.data(0)

    @abstractmethod
    def recipe(self) -> Recipe:
        """The teacher, the students' size and how cases are generated."""

    @abstractmethod
    def runs(self) -> Sequence[Run]:
        """What is trained for every seed."""

    def images(self, ledger: Ledger) -> dict[str, Array]:
        """Pictures for the report by their titles, (n, height, width) each, once there is what they show."""
        return {}

    def measured(self, setting: Setting, net: Teacher, logits: Array) -> dict[str, float]:
        """The figures that `more` names, of a net with these logits for the test rows."""
        return {}

    def data(self, seed: int) -> Dataset:
        """The set, as that seed splits it."""
        return datasets.load(self.source, self.path, seed)

    def setting(self, seed: int) -> Setting:
        """The set and its teacher, for a seed."""
        seeds, how = Seeds.of(seed), self.recipe()
        return Setting(self._fewer(self.data(seeds.split)), how, seeds, self.device)

    def kept(self, recipe: NetsRecipe) -> Kept:
        """A teacher of nets that are read from files once they have been trained."""
        return Kept(self.shorter(recipe), self.folder / "nets" / f"{self.stem}-teachers")

    def student(
        self, part: str, name: str, cases: Callable[[Setting], Cases], trainings: Sequence[Training], value: float | None = None,
        shape: Shape | None = None, steps_of: int | None = None,
    ) -> Run:  # fmt: skip
        """A shallow net, the best of several trainings by validation rows, in as many steps as `steps_of` cases would take."""

        def train(setting: Setting) -> tuple[Trained[Student], int]:
            made = cases(setting)
            share = 1.0 if steps_of is None else steps_of / len(made)
            return setting.train(made, [self.shorter(training, share) for training in trainings], shape), len(made)

        return Run(part, name, train, value)

    def net(self, part: str, name: str, recipes: Sequence[NetsRecipe]) -> Run:
        """A net of another kind, on labels, the best of several trainings by validation rows."""

        def train(setting: Setting) -> tuple[Trained[Net], int]:
            nets = [self.alone(recipe, setting) for recipe in recipes]
            return max(nets, key=lambda net: net.validation_accuracy), len(setting.data.train.x)

        return Run(part, name, train)

    def alone(self, recipe: NetsRecipe, setting: Setting) -> Trained[Net]:
        """One net of the recipe."""
        started, cpu_started = time.perf_counter(), time.process_time()
        one = replace(self.shorter(recipe), nets=1)
        (own,) = one.seeds(setting.seeds.teacher)
        net = one.fit_one(setting.data, setting.data.train, own, setting.device)
        curve = [record.validation_accuracy or 0.0 for record in net.history]
        return Trained(net, curve, curve[-1], time.perf_counter() - started, time.process_time() - cpu_started)

    def some(self, values: Sequence[_T]) -> Sequence[_T]:
        """All, or two of them if it is to be fast."""
        return values[:2] if self.fast else values

    def shorter(self, how: _How, share: float = 1.0) -> _How:
        """For that share of the epochs, and of a tenth of them, in no more steps than all cases take, if it is to be fast."""
        share = min(share, 1.0) / 10 if self.fast else share
        return replace(how, epochs=max(1, round(how.epochs * share)))

    def held(self) -> AbstractContextManager[None]:
        """Keep other processes from performing it in this folder; BlockingIOError where one does."""
        return held(self.folder, self._file)

    def open(self) -> Ledger:
        """What is known of its runs."""
        return Ledger(self.folder, self._file, self.more)

    @property
    def stem(self) -> str:
        """How files begin that experiments on one set share."""
        return self.source + "-fast" * self.fast

    @property
    def begun(self) -> bool:
        """Whether the folder has runs of it."""
        return (self.folder / f"{self._file}.csv").exists()

    @property
    def _file(self) -> str:
        return self.name + "-fast" * self.fast

    def _fewer(self, data: Dataset) -> Dataset:
        """All rows, or a few hundred of each part if it is to be fast."""
        if not self.fast:
            return data
        few = [Rows(rows.x[:_FEW], rows.labels[:_FEW]) for rows in (data.train, data.validation, data.test, data.unlabelled)]
        return Dataset(data.name, data.outputs, *few)


def perform(experiment: Experiment, seeds: int, progress: bool = True) -> None:
    """Do what is left of it, which is to be `held`."""
    ledger, runs = experiment.open(), experiment.runs()
    names = [(run.part, run.name) for run in runs]
    assert len(set(names)) == len(names), f"two runs of one name among {names}"
    settings: dict[int, Setting] = {}  # one at a time: they hold the cases

    def maker() -> dict[str, str]:  # asked for each run: where none is left, no device is needed
        return {"made_by": made_by(experiment.device)}

    def setting(seed: int) -> Setting:
        if seed not in settings:
            settings.clear()
            settings[seed] = experiment.setting(seed)
        return settings[seed]

    of_seed = [[run for run in runs if run.seeds is None or seed < run.seeds] for seed in range(seeds)]
    with Progress(total=sum(map(len, of_seed)), disable=None if progress else True, unit="run") as bar:
        for seed, wanted in enumerate(of_seed):
            if not ledger.has(seed, TEACHER, TEACHER):
                started = time.process_time()
                fitted, validation = setting(seed).fitted, setting(seed).data.validation
                seen, _ = accuracy_of(setting(seed).logits(fitted.teacher, validation).argmax(axis=1), validation)
                size = {"rows": len(setting(seed).data.train.x), "cpu_seconds": time.process_time() - started, "validation_accuracy": seen}
                ledger.add(seed, TEACHER, TEACHER, None, maker() | size | _sizes(fitted.size), None)
            for run in wanted:
                bar.set_description(f"{experiment.name}, seed {seed}: {run.part}, {run.name}", refresh=True)
                if not ledger.has(seed, run.part, run.name):
                    trained, rows = run.train(setting(seed))
                    figures = {"rows": rows, "cpu_seconds": trained.cpu_seconds, "validation_accuracy": trained.validation_accuracy}
                    net = {
                        "net": trained.net.file_kind,
                        "hidden": getattr(trained.net, "hidden", None),
                        "rank": getattr(trained.net, "rank", None),
                    }
                    figures |= maker() | net | _sizes(Size.of(trained.net))
                    ledger.add(seed, run.part, run.name, figures["bytes"] if isinstance(run.value, str) else run.value, figures, trained)
                bar.update()

    def on_test_rows(line: Line, net: Net | None) -> dict[str, float]:
        here = setting(int(line["seed"]))
        _demand_same(ledger, line["seed"], _sizes(here.fitted.size))
        asked = here.fitted.teacher if net is None else net
        logits = here.test_logits if net is None else here.logits(net, here.data.test)
        chosen = logits.argmax(axis=1)
        accuracy, error = accuracy_of(chosen, here.data.test)
        agreement = agreement_of(chosen, here.test_choices)
        return {"test_accuracy": accuracy, "test_error": error, "agreement": agreement} | experiment.measured(here, asked, logits)

    ledger.open_test_rows(on_test_rows)


def _demand_same(ledger: Ledger, seed: str, sizes: dict[str, int | None]) -> None:
    """Demand a teacher of the size that the CSV says: kept nets may be others."""
    line = next(line for line in ledger.lines if (line["seed"], line["part"], line["name"]) == (seed, TEACHER, TEACHER))
    if other := other_than(line, sizes):
        expected = f"a teacher of {line[other[0]]} {other[0]} for seed {seed}, as {ledger.path} says"
        raise ValueError(f"out: expected {expected}, got one of {other[1]}: choose another folder")


def _sizes(size: Size) -> dict[str, int | None]:
    return {"parameters": size.parameters, "multiply_adds": size.multiply_adds, "bytes": size.bytes}
