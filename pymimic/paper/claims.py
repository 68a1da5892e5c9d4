"""The paper's claims, and one on spoken digits, each with what came out here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .figures import Answer, Figures, MissingError, above, compared, those_there, tried
from .speech import DIGIT_ERROR, LEFT_OUT
from .table import TEACHER


def reproduced(figures: Figures) -> list[Answer]:
    """The paper's claims, each with what came out here."""
    return [Answer(claim, tried(check, figures)) for claim, check in _CLAIMS.items()]


def _mimic_beats_labels(f: Figures) -> str:
    mimic = f.share("mnist1d", "table", f.best("mnist1d", "table", ["mimic, unlabelled rows", "T = 3, unlabelled rows"]))
    labels = f.best("mnist1d", "table", ["labels", "labels, dropout and noise", "labels, rows rolled at random"])
    return compared(mimic, f.share("mnist1d", "table", labels), f"MNIST-1D, mimic and the best on labels ({labels}),")


def _as_good_as_the_teacher(f: Figures) -> str:
    said = []
    for experiment, part in (("mnist1d", "table"), ("letter", "width, mimic"), ("mnist", "table"), ("cifar10", "with a convolution")):
        names = [name for name in f.names(experiment, part) if name.startswith(("mimic", "T = ", "H = "))]
        if names:
            best = f.best(experiment, part, names)
            mimic, teacher = f.share(experiment, part, best), f.share(experiment, TEACHER, TEACHER)
            said.append(f"{experiment}: mimic ({best}) {mimic}, teacher {teacher}, {mimic.mean - teacher.mean:+.2f} points")
    if not said:
        raise MissingError("all")
    return f"{'; '.join(said)}."


def _dropout_critical(f: Figures) -> str:
    with_dropout, without = (f.share("mnist1d", "teachers", name) for name in ("one net", "one net without dropout"))
    return compared(with_dropout, without, "MNIST-1D, a convolutional net with and without")


def _bottleneck(f: Figures) -> str:
    none, small = (f.share("mnist", "rank", name) for name in ("no bottleneck", "k = 64"))
    cost = none.mean - small.mean
    return f"{'Reproduced' if cost < 0.1 else 'Not reproduced'}: MNIST, k = 64 costs {cost:.2f} points; less than 0.1 is almost none."


def _speech(f: Figures) -> str:
    titles = {"timit-synthetic": "synthetic speech", "timit": "TIMIT"}
    return those_there([partial(_order, f, experiment, title) for experiment, title in titles.items()])


def _order(f: Figures, experiment: str, title: str) -> str:
    names = ("SNN-8k on labels", "SNN-50k on labels", "SNN-MIMIC-8k", "SNN-MIMIC-50k")
    labels_8k, labels_50k, mimic_8k, mimic_50k = (f.share(experiment, "table", name) for name in names)
    teacher = f.share(experiment, TEACHER, TEACHER)
    labels = max(labels_8k, labels_50k, key=lambda share: share.mean)
    held = above(mimic_8k, labels) and not above(mimic_8k, mimic_50k) and not above(mimic_50k, teacher)
    return (
        f"{'Reproduced' if held else 'Not reproduced'}: {title}, frames: SNN on labels {labels_8k} (8k) and {labels_50k} (50k), "
        f"SNN-MIMIC-8k {mimic_8k}, SNN-MIMIC-50k {mimic_50k}, ensemble {teacher}."
    )


def _digits(f: Figures) -> str:
    speakers = [experiment.name for experiment in LEFT_OUT]
    runs = {"ensemble": (TEACHER, TEACHER), "on labels": ("table", "labels, augmented"), "mimic (T = 3)": ("table", "T = 3")}
    frames, wrong = ([f.over(speakers, *run, column) for run in runs.values()] for column in ("test_accuracy", DIGIT_ERROR))
    held = frames[2].mean >= frames[0].mean - 0.5 and wrong[2].mean <= wrong[0].mean
    listed = "; ".join(f"{name}: frames {right}, digit error {error}" for name, right, error in zip(runs, frames, wrong))
    return (
        f"{'Reproduced' if held else 'Not reproduced'} (frames within 0.5 points, digits no worse): FSDD, mean over six speakers. {listed}."
    )


_CLAIMS: dict[str, Callable[[Figures], str]] = {
    "A shallow net as mimic beats the same net on labels.": _mimic_beats_labels,
    "It reaches the accuracy of its teacher.": _as_good_as_the_teacher,
    "Dropout is critical for the teacher.": _dropout_critical,
    "The bottleneck costs almost no accuracy.": _bottleneck,
    "On speech, SNN on labels < SNN-MIMIC-8k <= a wider mimic <= the ensemble.": _speech,
    "It is as good as its teacher on spoken digits of speakers never heard.": _digits,
}
