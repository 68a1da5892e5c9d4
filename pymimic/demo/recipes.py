"""What the demo trains on each set. Every number here was chosen on validation rows; none on test rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ..backends.interface import Array
from ..data.generate import munge
from ..data.generators import Noise, copies
from ..data.images import Deform
from ..training.convolution import Convolution
from .students import Training
from .teachers import ConvRecipe, DeepRecipe, ForestAndSvcRecipe, TeacherRecipe


@dataclass(frozen=True)
class Munged:
    """New cases by `pymimic.munge`."""

    copies: int
    p: float
    s: float

    def __call__(self, x: Array, seed: int) -> Iterator[Array]:
        """Copies of x (N, D)."""
        return munge(x, self.copies, self.p, self.s, seed)


@dataclass(frozen=True)
class Deformed:
    """New images by `pymimic.Deform`."""

    copies: int

    def __call__(self, x: Array, seed: int) -> Iterator[Array]:
        """Copies of x (N, 784)."""
        return copies(Deform(28), x, self.copies, seed)


@dataclass(frozen=True)
class Way:
    """One line of the table: the shallow net, trained on some cases in the way of `trainings` that validation rows like best."""

    title: str
    cases: str  # a name that `Setting.cases` knows
    trainings: tuple[Training, ...]


@dataclass(frozen=True)
class Recipe:
    """One teacher, and one shallow net that is trained in several ways."""

    hidden: int
    rank: int | None
    teacher: TeacherRecipe
    generate: Munged | Deformed = Munged(0, 0.5, 1.0)  # no copies
    students: dict[str, Way] = field(default_factory=dict)  # the demo's, by their names in JSON; "labels" and "mimic" are among them
    folds: int = 0  # in which the labelled rows get their logits from teachers not fitted on them; 0: from the teacher itself


def recipe(name: str, fast: bool) -> Recipe:
    """The recipe for "mnist1d", "letter" or "mnist"; `fast` takes seconds."""
    return (_FAST if fast else _FULL)[name]


def _mnist1d(teacher: ConvRecipe, hidden: int, generate: Munged, epochs: dict[str, int], students: list[str]) -> Recipe:
    plain, noisy = Training("cross_entropy", 1e-2, epochs["labels"], 256), Training("cross_entropy", 2e-2, epochs["regularised"], 256)
    mimic = Training("mimic", 2e-2, epochs["mimic"], 256)
    munged = replace(mimic, epochs=epochs["munge"])
    all_students = {
        "labels": Way("on labels", "labels", (plain,)),
        "regularised": Way("on labels, dropout and noise", "labels", (replace(noisy, dropout=0.3, augment=Noise(0.2)),)),
        "munge": Way("mimic, MUNGE's cases", "generated", (munged,)),
        "mimic": Way("mimic, unlabelled rows", "unlabelled", (mimic,)),
        "temperature": Way("mimic, distillation at T = 3", "unlabelled", (replace(mimic, loss="distillation", temperature=3.0),)),
        "true": Way("control: true labels", "true labels", (replace(mimic, loss="cross_entropy"),)),
        "hard": Way("control: teacher's classes", "teacher's choices", (replace(mimic, loss="cross_entropy"),)),
    }
    return Recipe(hidden, None, teacher, generate, {name: all_students[name] for name in students})


_LETTER = Training("mimic", 1.4e-2, 40, 256, beta2=0.999, ema=None)
_LETTER_LABELS = Training("cross_entropy", 1e-2, 60, 128, beta2=0.999, ema=None)
_MNIST = Training("mimic", 3e-3, 8, 512, ema=0.995)
_MNIST_LABELS = Training("cross_entropy", 1e-3, 8, 512, beta2=0.999, ema=None)
_CONVNET = ConvRecipe(
    convolutions=(Convolution(64, 5, 2, 2), Convolution(64, 3, 2, 1), Convolution(64, 3, 2, 1)),
    epochs=40, nets=2, learning_rate=5e-3, weight_decay=0.01, ema=0.99,
)  # fmt: skip
_EPOCHS = {"labels": 60, "regularised": 150, "munge": 7, "mimic": 7}

_FULL = {
    "mnist1d": _mnist1d(
        _CONVNET, 2048, Munged(24, 0.5, 10.0), _EPOCHS,
        ["labels", "regularised", "munge", "mimic", "temperature", "true", "hard"],
    ),
    # dense: with 16 inputs a bottleneck has nothing to win
    "letter": Recipe(
        1024, None, ForestAndSvcRecipe(trees=500), Munged(30, 0.1, 5.0),
        {
            "labels": Way("on labels", "labels", (_LETTER_LABELS, replace(_LETTER_LABELS, learning_rate=2e-2))),
            "regularised": Way(
                "on labels, dropout or decay", "labels",
                (replace(_LETTER_LABELS, dropout=0.3, epochs=100), replace(_LETTER_LABELS, weight_decay=0.1)),
            ),
            "mimic": Way("mimic, MUNGE's cases", "generated", (_LETTER,)),
        },
        folds=5,
    ),
    # three training runs more would be needed to label the own rows out of fold; dropout keeps the teacher from overfitting them badly
    "mnist": Recipe(
        8192, 64, DeepRecipe(hidden=(1200, 1200), epochs=15, batch_size=128, input_dropout=0.2, learning_rate=1e-3), Deformed(3),
        {
            "labels": Way("on labels", "labels", (_MNIST_LABELS, replace(_MNIST_LABELS, learning_rate=3e-3, weight_decay=0.1))),
            "regularised": Way("on labels, deformed images too", "labels of generated", (replace(_MNIST, loss="cross_entropy"),)),
            "mimic": Way("mimic, deformed images", "generated", (_MNIST,)),
        },
    ),
}  # fmt: skip


def _shorter(recipe: Recipe, teacher: TeacherRecipe, generate: Munged | Deformed, share: float, folds: int = 0) -> Recipe:
    students = {
        name: replace(one, trainings=tuple(replace(t, epochs=max(1, round(share * t.epochs))) for t in one.trainings[:1]))
        for name, one in recipe.students.items()
    }
    return replace(recipe, teacher=teacher, generate=generate, students=students, folds=folds)


_FAST = {
    "mnist1d": _mnist1d(
        replace(_CONVNET, epochs=15, nets=1),
        1024,
        Munged(8, 0.5, 10.0),
        {"labels": 25, "regularised": 40, "munge": 6, "mimic": 3},
        ["labels", "regularised", "munge", "mimic", "true"],
    ),
    "letter": _shorter(_FULL["letter"], ForestAndSvcRecipe(trees=100), Munged(4, 0.1, 5.0), 0.5, folds=2),
    "mnist": replace(
        _shorter(
            _FULL["mnist"], DeepRecipe(hidden=(400, 400), epochs=3, batch_size=128, input_dropout=0.2, learning_rate=1e-3), Deformed(1), 0.4
        ),
        hidden=2048,
    ),
}
