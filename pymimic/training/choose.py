"""MUNGE's p and s, chosen by what small students learn from the munged rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..data.cases import Cases, demand_parts, demand_values
from ..data.generate import demand_p_s, munge
from ..data.generators import demand_rows
from ..data.names import names_of
from ..data.teacher import Teacher, centred, label
from ..data.transfer import TransferSet
from ..nets.student import Student
from ..optimizer import AdamW, cosine, warm_up
from ..progress import Progress
from .trainer import Trainer

_BATCH = 256
GRID = ((0.1, 5.0), (0.2, 5.0), (0.5, 5.0), (0.2, 10.0), (0.5, 10.0))


class MungeChoice(NamedTuple):
    """What `choose_munge` returns."""

    p: float
    s: float
    accuracies: dict[tuple[float, float], float]  # on validation rows, of each (p, s) tried


def choose_munge(
    teacher: Teacher, x: Array, validation: Cases, *, logits: Array | None = None, grid: Iterable[tuple[float, float]] = GRID,
    discrete: Sequence[int] = (), copies: int = 8, hidden: int = 1024, epochs: int = 16, learning_rate: float = 2e-2, seed: int = 0,
    progress: bool = True,
) -> MungeChoice:  # fmt: skip
    """p and s for `munge`: those whose rows teach a small student best.

    For each pair of the grid a student learns the teacher's logits of x and of munged copies, by squared error; its accuracy on the
    validation rows after the last epoch decides, of equal ones the first. Differences below the accuracies' own standard error say nothing,
    and students that have hardly learned rank nothing: where the accuracies are far below what the student you want has, take more epochs.

    Parameters
    ----------
    teacher : labels the rows
    x : (N, D) array of rows to munge, attributes scaled alike, see `munge`
    validation : a `LabelledSet` of two classes or more, of rows that the teacher was not fitted on and that are not tested on
    logits : (N, C) array for the rows x, for instance by `out_of_fold`; None asks the teacher
    grid : pairs (p, s) to try
    discrete : see `munge`
    copies, hidden, epochs, learning_rate, seed : of each small student and its rows
    progress : show a bar where output is a terminal

    Raises
    ------
    ValueError, TypeError
        No pairs, or arrays that don't go together, before the teacher is asked; what `munge`, `label` and `Trainer` refuse.
    """
    x, teacher, pairs = demand_rows(x, names_of(teacher)), centred(teacher), _pairs(grid)
    copies, epochs = _check.integer("copies", copies, 1, 1 << 31), _check.integer("epochs", epochs, 1, 1 << 31)
    hidden, learning_rate = _check.integer("hidden", hidden, 1, 1 << 31), _check.number("learning_rate", learning_rate, above=0)
    progress = _check.flag("progress", progress)
    demand_parts("validation", validation)
    if validation.outputs == 1:
        raise ValueError("validation: expected at least two outputs, as accuracy decides, which is 1 for any net with one, got one")
    if validation.inputs != x.shape[1]:
        raise ValueError(f"validation: expected {x.shape[1]} inputs, as x has, got {validation.inputs}")
    if logits is not None:
        demand_values("logits", _check.Dims(N=len(x), C=validation.outputs).array("logits", logits, "N", "C"))
    munged = [munge(x, copies, p, s, seed, discrete) for p, s in pairs]
    own = label(teacher, x) if logits is None else logits
    if own.shape[1] != validation.outputs:
        raise ValueError(f"teacher: expected {validation.outputs} columns, as validation has outputs, got {own.shape[1]}")
    own = (own - own.mean(axis=1, keepdims=True)).astype(np.float32)
    accuracies: dict[tuple[float, float], float] = {}
    for pair, made in Progress(iterable=list(zip(pairs, munged)), desc="munging", unit="pair", disable=None if progress else True):
        new = np.concatenate(list(made))
        cases = TransferSet(np.concatenate([x, new]), np.concatenate([own, label(teacher, new)]))
        student = Student(cases.inputs, hidden, cases.outputs, seed=seed)
        steps = -(-len(cases) // _BATCH) * epochs
        trainer = Trainer(
            student, AdamW(warm_up(cosine(learning_rate, steps), steps // 30), beta2=0.99), epochs=epochs, batch_size=_BATCH, seed=seed,
            ema=0.99, standardise_inputs=True, progress=False,
        )  # fmt: skip
        accuracies[pair] = trainer.fit(cases, validation)[-1].validation_accuracy or 0.0
    best = max(accuracies, key=lambda pair: accuracies[pair])
    return MungeChoice(*best, accuracies)


def _pairs(grid: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Demand at least one pair (p, s)."""
    pairs = []
    for pair in _check.sequence("grid", grid, "pairs (p, s)"):
        pair = pair.tolist() if isinstance(pair, np.ndarray) else pair
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"grid: expected pairs (p, s), got {pair!r} among them")
        try:
            pairs.append(demand_p_s(*pair))
        except (TypeError, ValueError) as error:
            raise type(error)(f"grid: {error}") from None
    if not pairs:
        raise ValueError("grid: expected at least one pair (p, s), got none")
    return pairs
