"""What the demo trains on each set. Every number here was chosen on validation rows; none on test rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..backends.interface import Array
from ..data import images
from ..data.generate import munge
from ..data.generators import copies
from .teachers import DeepRecipe, ForestAndSvcRecipe


@dataclass(frozen=True)
class Training:
    """How a student is trained: AdamW, 3 % warm-up, cosine; the best epoch by validation accuracy is kept."""

    learning_rate: float
    epochs: int
    batch_size: int
    weight_decay: float = 0.0
    beta2: float = 0.999
    ema: float | None = None


@dataclass(frozen=True)
class Munge:
    """New cases by `pymimic.munge`."""

    copies: int
    p: float
    s: float

    def __call__(self, x: Array, seed: int) -> Iterator[Array]:
        """Copies of x (N, D)."""
        return munge(x, self.copies, self.p, self.s, seed)


@dataclass(frozen=True)
class Deform:
    """New images by `pymimic.Deform`."""

    copies: int
    degrees: float = 10.0
    stretch: float = 0.1
    shift: float = 1.0

    def __call__(self, x: Array, seed: int) -> Iterator[Array]:
        """Copies of x (N, side * side)."""
        return copies(images.Deform(math.isqrt(x.shape[1]), self.degrees, self.stretch, self.shift, elastic=0.0), x, self.copies, seed)


@dataclass(frozen=True)
class Recipe:
    """One shallow net, trained twice: on labels, with each of `labels`, of which the best on validation rows counts; as a mimic."""

    hidden: int
    rank: int | None
    teacher: DeepRecipe | ForestAndSvcRecipe
    folds: int  # in which the labelled rows get their logits from teachers not fitted on them; 0: from the teacher itself
    generate: Munge | Deform
    labels: tuple[Training, ...]
    mimic: Training


def recipe(name: str, fast: bool) -> Recipe:
    """The recipe for "digits", "letter" or "mnist"; `fast` takes seconds, and is good for nothing but a look."""
    if name not in _FULL:
        raise ValueError(f"data: expected one of {', '.join(_FULL)}, got {name!r}")
    return (_FAST if fast else _FULL)[name]


_FULL = {
    "digits": Recipe(
        hidden=2048, rank=32,
        teacher=DeepRecipe((512, 512), epochs=100, nets=3, batch_size=64, learning_rate=3e-3),
        folds=4, generate=Munge(copies=20, p=0.2, s=5.0),
        labels=(Training(3e-3, 60, 64), Training(3e-3, 60, 64, weight_decay=1.0)),
        mimic=Training(3e-3, 20, 256),
    ),
    # dense: with 16 inputs a bottleneck has nothing to win
    "letter": Recipe(
        hidden=1024, rank=None,
        teacher=ForestAndSvcRecipe(trees=500),
        folds=5, generate=Munge(copies=30, p=0.1, s=5.0),
        labels=(Training(1e-2, 60, 128), Training(2e-2, 60, 128)),  # unregularised, as the mimic is
        mimic=Training(1.4e-2, 40, 256),
    ),
    # three training runs more would be needed to label the own rows out of fold; dropout keeps the teacher from overfitting them badly
    "mnist": Recipe(
        hidden=8192, rank=64,
        teacher=DeepRecipe((1200, 1200), epochs=15, input_dropout=0.2, learning_rate=1e-3),
        folds=0, generate=Deform(copies=3),
        labels=(Training(1e-3, 8, 512), Training(3e-3, 8, 512, weight_decay=0.1)),
        mimic=Training(3e-3, 8, 512, beta2=0.99, ema=0.995),
    ),
}  # fmt: skip

_FAST = {
    "digits": replace(
        _FULL["digits"], hidden=1024, teacher=DeepRecipe((256, 256), epochs=40, batch_size=64, learning_rate=3e-3), folds=2,
        generate=Munge(copies=5, p=0.2, s=5.0), labels=(Training(3e-3, 20, 64),), mimic=Training(3e-3, 15, 256),
    ),
    "letter": replace(
        _FULL["letter"], teacher=ForestAndSvcRecipe(trees=100), folds=2, generate=Munge(copies=4, p=0.1, s=5.0),
        labels=(Training(1e-2, 30, 128),), mimic=Training(1.4e-2, 20, 256),
    ),
    "mnist": replace(
        _FULL["mnist"], hidden=2048, teacher=DeepRecipe((400, 400), epochs=3, input_dropout=0.2, learning_rate=1e-3),
        generate=Deform(copies=1),
        labels=(Training(1e-3, 3, 512),), mimic=Training(3e-3, 3, 512, beta2=0.99, ema=0.99),
    ),
}  # fmt: skip
