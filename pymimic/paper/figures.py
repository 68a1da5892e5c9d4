"""What the figures of all experiments say: means over seeds, and whether one is above another."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .table import Line


class Share(NamedTuple):
    """A mean over seeds in per cent, with its standard deviation over them and how many there are."""

    mean: float
    deviation: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.deviation:.2f} %" if self.seeds > 1 else f"{self.mean:.2f} %"

    @property
    def error(self) -> float:
        """The standard error of the mean; 0 of a single seed."""
        return self.deviation / math.sqrt(self.seeds)


@dataclass(frozen=True)
class Answer:
    """A question, and what the figures say."""

    question: str
    text: str


class MissingError(LookupError):
    """A run that an answer needs has not been made."""


class Figures:
    """What is known of all experiments, by their names."""

    def __init__(self, lines: Mapping[str, Sequence[Line]]) -> None:
        self._lines = lines

    def of(self, experiment: str, part: str, name: str) -> list[Line]:
        """The lines of a run, one a seed, with their test figures; `MissingError` says which experiment to run."""
        lines = [line for line in self._lines.get(experiment, ()) if (line["part"], line["name"]) == (part, name) and line["test_accuracy"]]
        if not lines:
            raise MissingError(_group(experiment))
        return lines

    def share(self, experiment: str, part: str, name: str, column: str = "test_accuracy") -> Share:
        """Of a run."""
        return share(self.of(experiment, part, name), column)

    def over(self, experiments: Sequence[str], part: str, name: str, column: str = "test_accuracy") -> Share:
        """Of a run that several experiments have: of each seed that all of them have, the mean over them."""
        values = [{line["seed"]: float(line[column]) for line in self.of(one, part, name)} for one in experiments]
        seeds = set.intersection(*map(set, values))
        if not seeds:
            raise MissingError(_group(experiments[0]))
        return share([{column: str(statistics.mean(of_seed[seed] for of_seed in values))} for seed in sorted(seeds)], column)

    def number(self, experiment: str, part: str, name: str, column: str) -> float:
        """The mean of a count or of processor seconds."""
        return statistics.mean(float(line[column]) for line in self.of(experiment, part, name))

    def names(self, experiment: str, part: str) -> list[str]:
        """Of the part's runs that have test figures, as they stand."""
        lines = self._lines.get(experiment, ())
        return list(dict.fromkeys(line["name"] for line in lines if line["part"] == part and line["test_accuracy"]))

    def best(self, experiment: str, part: str, names: Sequence[str] = ()) -> str:
        """The run of the best mean on validation rows, which are no test rows."""
        names = names or self.names(experiment, part)
        if not names:
            raise MissingError(_group(experiment))
        return max(names, key=lambda name: self.share(experiment, part, name, "validation_accuracy").mean)


def _group(experiment: str) -> str:
    """By what `pymimic paper` is asked for it."""
    return next((group for group in ("compress", "speech") if experiment.startswith(f"{group}-")), experiment)


def share(lines: Sequence[Line], column: str = "test_accuracy") -> Share:
    """Of a run's lines."""
    values = [100 * float(line[column]) for line in lines]
    return Share(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))


def those_there(answers: Sequence[Callable[[], str]]) -> str:
    """What can be said, one behind the other; `MissingError` is of the first where nothing can."""
    said, missing = [], []
    for answer in answers:
        try:
            said.append(answer())
        except MissingError as error:
            missing.append(error)
    if not said:
        raise missing[0]
    return " ".join(said)


def tried(answer: Callable[[Figures], str], figures: Figures) -> str:
    """What an answer says, or that its runs are missing."""
    try:
        return answer(figures)
    except MissingError as missing:
        return f"Not measured: pymimic paper {missing} does it."


def compared(better: Share, worse: Share, what: str) -> str:
    """Whether one mean is above another, in words."""
    verdict, gap = "Reproduced" if above(better, worse) else "Not reproduced", better.mean - worse.mean
    return f"{verdict}: {what} {better} against {worse}, a difference of {gap:+.2f} points (standard error {error_of(better, worse):.2f})."


def above(better: Share, worse: Share) -> bool:
    """By more than two standard errors of the difference."""
    return better.mean - worse.mean > 2 * error_of(better, worse)


def error_of(one: Share, other: Share) -> float:
    """The standard error of a difference."""
    return math.hypot(one.error, other.error)
