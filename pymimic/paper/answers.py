"""The eight questions that the project began with, each answered in a sentence or two by the figures of the experiments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .figures import Answer, Figures, MissingError, Share, above, those_there, tried
from .table import TEACHER


def answers(figures: Figures) -> list[Answer]:
    """All eight, in order."""
    return [Answer(question, tried(answer, figures)) for question, answer in _QUESTIONS.items()]


def _equal_parameters(f: Figures) -> str:
    sizes = {"cifar10": "reduced", "cifar10-full": "full"}
    return those_there([partial(_on_mnist1d, f), *(partial(_in_the_papers_setting, f, name, size) for name, size in sizes.items())])


def _on_mnist1d(f: Figures) -> str:
    labels, rolled = (f.share("mnist1d", "table", f"labels, {how}") for how in ("dropout and noise", "rows rolled at random"))
    mimic = f.share("mnist1d", "table", f.best("mnist1d", "table", ["mimic, unlabelled rows", "T = 3, unlabelled rows"]))
    deep, conv = (f.share("mnist1d", "equal parameters", name) for name in ("deep net without convolutions", "convolutional net"))
    count = f.number("mnist1d", "table", "labels", "parameters")
    return (
        f"MNIST-1D, {count:,.0f} parameters each, to a per cent: shallow on labels {labels} ({rolled} with rows rolled at random), deep "
        f"without convolutions {deep}, convolutional {conv}, the shallow net as mimic {mimic}."
    )


def _in_the_papers_setting(f: Figures, experiment: str, size: str) -> str:
    """Of CIFAR-10."""
    said = []
    for part in [part for part in ("with a convolution", "without convolution") if f.names(experiment, part)]:
        names = ("labels, regularised", f.best(experiment, part, ["mimic", "T = 3"]))
        labels, mimic = (f.share(experiment, part, name) for name in names)
        said.append(f"CIFAR-10 (JPEG), {size}, shallow {part}: on labels {labels}, as mimic {mimic}.")
    return " ".join([*said, f"Its teacher: {f.share(experiment, TEACHER, TEACHER)}."])


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
        f"{'Yes' if above(most, none) else 'No'}. MNIST-1D: the labelled rows alone {none}, with {copies[-1]} by MUNGE {most}. "
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
    return f"{'Yes' if above(best, none) else 'No'}. MNIST-1D, mimic on unlabelled rows: none {none}, {listed}."


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
