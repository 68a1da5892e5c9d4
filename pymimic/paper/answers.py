"""The seed's eight questions, each answered in a sentence or two by the figures of the experiments."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .experiment import TEACHER
from .ledger import Line


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
            raise MissingError(experiment.partition("-")[0])
        return lines

    def share(self, experiment: str, part: str, name: str, column: str = "test_accuracy") -> Share:
        """Of a run."""
        return share(self.of(experiment, part, name), column)

    def number(self, experiment: str, part: str, name: str, column: str) -> float:
        """The mean of a count or of processor seconds."""
        return statistics.mean(float(line[column]) for line in self.of(experiment, part, name))

    def names(self, experiment: str, part: str) -> list[str]:
        """Of the part's runs, as they stand."""
        return list(dict.fromkeys(line["name"] for line in self._lines.get(experiment, ()) if line["part"] == part))

    def best(self, experiment: str, part: str, names: Sequence[str] = ()) -> str:
        """The run of the best mean on validation rows, which are no test rows."""
        names = names or self.names(experiment, part)
        if not names:
            raise MissingError(experiment.partition("-")[0])
        return max(names, key=lambda name: self.share(experiment, part, name, "validation_accuracy").mean)


def share(lines: Sequence[Line], column: str = "test_accuracy") -> Share:
    """Of a run's lines."""
    values = [100 * float(line[column]) for line in lines]
    return Share(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))


def answers(figures: Figures) -> list[Answer]:
    """All eight, in order."""
    return [Answer(question, _tried(answer, figures)) for question, answer in _QUESTIONS.items()]


def reproduced(figures: Figures) -> list[Answer]:
    """The paper's claims, each with what came out here."""
    return [Answer(claim, _tried(check, figures)) for claim, check in _CLAIMS.items()]


def _tried(answer: Callable[[Figures], str], figures: Figures) -> str:
    try:
        return answer(figures)
    except MissingError as missing:
        return f"Not measured: pymimic paper {missing} does it."


def _equal_parameters(f: Figures) -> str:
    labels, rolled = (f.share("mnist1d", "table", f"labels, {how}") for how in ("dropout and noise", "rows rolled at random"))
    mimic = f.share("mnist1d", "table", f.best("mnist1d", "table", ["mimic, unlabelled rows", "T = 3, unlabelled rows"]))
    deep, conv = (f.share("mnist1d", "equal parameters", name) for name in ("deep net without convolutions", "convolutional net"))
    count = f.number("mnist1d", "table", "labels", "parameters")
    return (
        f"MNIST-1D, {count:,.0f} parameters each, to a per cent: shallow on labels {labels} ({rolled} with rows rolled at random), deep "
        f"without convolutions {deep}, convolutional {conv}, the shallow net as mimic {mimic}."
    )


def _rank(f: Figures) -> str:
    parts = []
    for name in sorted(f.names("mnist", "rank"), key=lambda name: f.number("mnist", "rank", name, "parameters")):
        figures = f.share("mnist", "rank", name)
        count, seconds = (f.number("mnist", "rank", name, column) for column in ("parameters", "cpu_seconds"))
        parts.append(f"{name}: {figures}, {count / 1e6:.2f} M parameters, {seconds:.0f} CPU s")
    if not parts:
        raise MissingError("mnist")
    return f"MNIST, H = 2,048, as many cases each: {'; '.join(parts)}."


def _loss(f: Figures) -> str:
    names = {"squared error of logits": ("table", "mimic, unlabelled rows"), "T = 3": ("table", "T = 3, unlabelled rows")}
    names |= {name: ("loss", name) for name in ("squared error of probabilities", "T = 1", "T = 10")}
    said = {name: f.share("mnist1d", *where) for name, where in names.items()}
    best = max(said, key=lambda name: f.share("mnist1d", *names[name], "validation_accuracy").mean)
    order = ("squared error of logits", "squared error of probabilities", "T = 1", "T = 3", "T = 10")
    return f"MNIST-1D: {', '.join(f'{name} {said[name]}' for name in order)}. Best on validation rows: {best}."


def _cases(f: Figures) -> str:
    copies, rows = f.names("mnist1d", "MUNGE"), f.names("mnist1d", "rows")
    if not copies or not rows:
        raise MissingError("mnist1d")
    none, most = (f.share("mnist1d", "MUNGE", name) for name in (copies[0], copies[-1]))
    fewest, all_rows = (f.share("mnist1d", "rows", name) for name in (rows[0], rows[-1]))
    return (
        f"{'Yes' if _above(most, none) else 'No'}. MNIST-1D: the labelled rows alone {none}, with {copies[-1]} by MUNGE {most}. "
        f"True rows of the set: {rows[0]} {fewest}, {rows[-1]} {all_rows}."
    )


def _reduction(f: Figures) -> str:
    teacher, whole = f.share("letter", TEACHER, TEACHER), f.number("letter", TEACHER, TEACHER, "bytes")
    net = f.share("letter", "teachers", "one deep net"), f.number("letter", "teachers", "one deep net", "bytes")
    said = []
    for points in (1, 2):
        fit = [name for name in f.names("letter", "width, mimic") if f.share("letter", "width, mimic", name).mean >= teacher.mean - points]
        if not fit:
            said.append(f"none is within {points} points")
            continue
        smallest = min(fit, key=lambda name: f.number("letter", "width, mimic", name, "bytes"))
        size = f.number("letter", "width, mimic", smallest, "bytes")
        said.append(
            f"within {points} points {smallest}, {f.share('letter', 'width, mimic', smallest)}, {size / 1e3:.0f} kB: "
            f"{whole / size:,.0f}:1, and {net[1] / size:,.0f}:1 of one of the deep nets"
        )
    return f"Letter, all as float32, a teacher of {teacher} and {whole / 1e6:.1f} MB, a deep net of {net[0]}: {'; '.join(said)}."


def _compressed(f: Figures) -> str:
    said = []
    for experiment in ("compress-letter", "compress-mnist"):
        shallow = f.share(experiment, "bytes", "student: as trained")
        deep = f.share(experiment, "bytes", "deep net, rounded alone: as trained")
        fit = [name for name in f.names(experiment, "bytes") if name.startswith("student: ")]
        near = [name for name in fit if f.share(experiment, "bytes", name).mean >= shallow.mean - 1]
        smallest = min(near, key=lambda name: f.number(experiment, "bytes", name, "bytes"))
        times = f.number(experiment, "bytes", "student: as trained", "bytes") / f.number(experiment, "bytes", smallest, "bytes")
        said.append(
            f"{experiment.partition('-')[2]}: rounded alone to 8 and 4 bits, the shallow net of {shallow} loses "
            f"{_lost(f, experiment, shallow, 'student')} points. The deep net of {deep} loses {_lost(f, experiment, deep, 'deep net')}. "
            f"With its transfer set the shallow net takes {times:.1f} times fewer bytes within a point ({smallest.partition(': ')[2]})."
        )
    return " ".join(said)


def _lost(f: Figures, experiment: str, whole: Share, net: str) -> str:
    """Points that rounding alone to 8 and to 4 bits costs a net."""
    lost = [whole.mean - f.share(experiment, "bytes", f"{net}, rounded alone: {bits} bits").mean for bits in (8, 4)]
    return f"{lost[0]:.2f} and {lost[1]:.2f}"


def _features(f: Figures) -> str:
    f.share("mnist", "table", "mimic, deformed images")
    return "See the pictures of V's rows and of U V's in the section on MNIST."


def _dropout(f: Figures) -> str:
    none, names = f.share("mnist1d", "table", "mimic, unlabelled rows"), f.names("mnist1d", "dropout")
    if not names:
        raise MissingError("mnist1d")
    best = f.share("mnist1d", "dropout", f.best("mnist1d", "dropout"))
    listed = ", ".join(f"{name} {f.share('mnist1d', 'dropout', name)}" for name in names)
    return f"{'Yes' if _above(best, none) else 'No'}. MNIST-1D, mimic on unlabelled rows: none {none}, {listed}."


_QUESTIONS: dict[str, Callable[[Figures], str]] = {
    "1. Shallow on labels, shallow as mimic, deep: at equal parameter counts, who is how good?": _equal_parameters,
    "2. What does the factorisation cost in fit, and win in fit per parameter?": _rank,
    "3. Is regression on log p better than on p, or than cross-entropy with temperature?": _loss,
    "4. Can the larger model simply generate more learning cases for the smaller one?": _cases,
    "5. 1000:1 reduction: can it be shown?": _reduction,
    "6. Are shallow nets more compressible?": _compressed,
    "7. What did the hidden units learn?": _features,
    "8. Does dropout help the student after all?": _dropout,
}


def _compared(better: Share, worse: Share, what: str) -> str:
    """Whether one mean is above another, in words."""
    verdict, gap = "Reproduced" if _above(better, worse) else "Not reproduced", better.mean - worse.mean
    return f"{verdict}: {what} {better} against {worse}, a difference of {gap:+.2f} points (standard error {_error(better, worse):.2f})."


def _above(better: Share, worse: Share) -> bool:
    """By more than two standard errors of the difference."""
    return better.mean - worse.mean > 2 * _error(better, worse)


def _error(one: Share, other: Share) -> float:
    """The standard error of a difference."""
    return math.hypot(one.error, other.error)


def _mimic_beats_labels(f: Figures) -> str:
    mimic = f.share("mnist1d", "table", f.best("mnist1d", "table", ["mimic, unlabelled rows", "T = 3, unlabelled rows"]))
    labels = f.best("mnist1d", "table", ["labels", "labels, dropout and noise", "labels, rows rolled at random"])
    return _compared(mimic, f.share("mnist1d", "table", labels), f"MNIST-1D, mimic and the best on labels ({labels}),")


def _as_good_as_the_teacher(f: Figures) -> str:
    said = []
    for experiment, part in (("mnist1d", "table"), ("letter", "width, mimic"), ("mnist", "table")):
        names = [name for name in f.names(experiment, part) if name.startswith(("mimic", "T = ", "H = "))]
        if names:
            mimic, teacher = f.share(experiment, part, f.best(experiment, part, names)), f.share(experiment, TEACHER, TEACHER)
            said.append(f"{experiment}: mimic {mimic}, teacher {teacher}, {mimic.mean - teacher.mean:+.2f} points")
    if not said:
        raise MissingError("all")
    return f"{'; '.join(said)}."


def _dropout_critical(f: Figures) -> str:
    with_dropout, without = (f.share("mnist1d", "teachers", name) for name in ("one net", "one net without dropout"))
    return _compared(with_dropout, without, "MNIST-1D, a convolutional net with and without")


def _bottleneck(f: Figures) -> str:
    none, small = (f.share("mnist", "rank", name) for name in ("no bottleneck", "k = 64"))
    cost = none.mean - small.mean
    return f"{'Reproduced' if cost < 0.1 else 'Not reproduced'}: MNIST, k = 64 costs {cost:.2f} points; less than 0.1 is almost none."


_CLAIMS: dict[str, Callable[[Figures], str]] = {
    "A shallow net as mimic beats the same net on labels.": _mimic_beats_labels,
    "It reaches the accuracy of its teacher.": _as_good_as_the_teacher,
    "Dropout is critical for the teacher.": _dropout_critical,
    "The bottleneck costs almost no accuracy.": _bottleneck,
}
