"""A student made smaller: fewer hidden units, a narrower bottleneck, weights of 8 or 4 bits."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..data.cases import Cases, demand_parts, demand_values, read
from ..data.transfer import TransferSet
from ..devices import to
from ..files import Path
from ..nets.fewer import Weights, factored, pruned
from ..nets.fitted import fitted, rounded
from ..nets.integers import LARGEST
from ..nets.student import Student
from ..optimizer import AdamW, cosine
from .losses import Loss, demand_targets
from .trainer import Trainer

_ROWS = 8192  # of the transfer set, over which averages are taken and W is fitted


def compress(
    student: Student, *, bits: int | None = None, prune: float = 0.0, rank: int | None = None, transfer: Cases | Path | None = None,
    epochs: int = 10, learning_rate: float = 1e-3, batch_size: int = 512, loss: str | Loss = "mimic", temperature: float = 1.0,
    validation: Cases | None = None, seed: int = 0, device: str | None = None, progress: bool = True,
) -> Student:  # fmt: skip
    """A smaller student: hidden units are pruned, then the bottleneck is narrowed, then weights are rounded, as far as each is asked for.

    With a transfer set, what matters is what the inputs are like, on up to 8192 of its rows. After `prune` and `rank` W is fitted to the
    student's own outputs by least squares, and then the whole net is trained on the set, by a `Trainer` with AdamW along a cosine. `bits`
    comes last; there the errors of weights that are rounded are made good by those that are not yet (Frantar et al. 2023, GPTQ). Without
    a transfer set there are only the weights to go by, nothing is trained, and much more is lost.

    Parameters
    ----------
    student : the net, which stays as it is
    bits : 8 or 4: V, U and W become integers times a scale for each row, as `Predictor`'s "int8" has them, and `Student.save` writes them
        as such. None leaves them float32
    prune : the share of the hidden units to remove, in [0, 1). The units go that give y the least deviation: the norm of a row of W times
        the deviation of h. What they give on average goes into c (Sietsma & Dow 1991)
    rank : units of the new bottleneck, at most as many as leave the net no larger. U V, or U, becomes the product of that rank whose U V x
        is nearest, by a singular value decomposition. That takes 8 k^2 bytes (D^2 without a bottleneck) and O(k^3) time
    transfer : a `TransferSet`, its folder, or other `Cases`; weights of rows count in training alone
    epochs, learning_rate, batch_size, loss, temperature : of the training after `prune` and `rank`, see `Trainer`; no epochs for none
    validation : `Cases` whose loss chooses the epoch that is kept; None keeps the last
    seed : of the rows that are looked at, and of the training
    device : where to train, "cpu" or "cuda"; None trains where the student is. All else is done on the CPU
    progress : draw bars, if standard error is a terminal

    Returns
    -------
    A new student, where the given one is.

    Raises
    ------
    TypeError, ValueError
        Nothing is asked for; a share that leaves no unit, or a rank that makes the net larger; weights that are not finite; a set that does
        not fit the student or the loss.
    TrainingDivergedError
        See `Trainer.fit`.
    OSError
        The folder cannot be read.
    """
    if not isinstance(student, Student):
        raise TypeError(f"student: expected a pymimic.Student, got {type(student).__name__}")
    given = student.as_it_is()
    hidden = _kept_units(given, prune)
    _demand_smaller(given, hidden, bits, rank)
    settings: dict[str, Any] = {
        "epochs": epochs, "batch_size": batch_size, "loss": loss, "temperature": temperature, "seed": seed, "progress": progress,
        "device": given.device if device is None else device, "keep_best": validation is not None,
    }  # fmt: skip
    Trainer(given, AdamW(learning_rate), **settings)  # refuses what is wrong, before the work
    cases = None if transfer is None else _cases(transfer, given)
    if validation is not None and cases is None:
        raise ValueError("validation: expected a transfer set beside it, as it chooses the epoch of a training, got none")
    weights = {name: to("cpu", array) for name, array in given.weights().items()}
    for name, array in weights.items():
        _check.finite(f"student: {name}", array)
    shrinks = hidden < given.hidden or (rank is not None and rank != given.rank)
    rows = None if cases is None else _rows(cases, loss if shrinks and epochs else None, seed)

    target = None if rows is None else _target(given, rows)
    x = None if rows is None else given.standardise(rows)
    if hidden < given.hidden:
        weights = pruned(weights, given.activation, given.hidden - hidden, x)
    if rank is not None and rank != given.rank:
        weights = factored(weights, rank, x)
    if shrinks and x is not None and target is not None:
        weights, _ = fitted(weights, given.activation, x, target, progress=progress)
    small = _student(given, weights)
    if shrinks and cases is not None and epochs:
        steps = -(-len(cases) // batch_size) * epochs
        Trainer(small, AdamW(cosine(learning_rate, steps)), **settings).fit(cases, validation)
    if bits is not None:
        target = None if rows is None else _target(small, rows)  # W is fitted to what training has made of it
        weights, integers = rounded(small.weights(), given.activation, bits, x, target, progress)
        small.set_arrays(b=weights["b"], c=weights["c"])
        small.set_integers(bits, **integers)
    for name, array in small.weights().items():
        _check.finite(f"student: {name}, compressed", array)
    return small.to(given.device)


def _kept_units(student: Student, prune: float) -> int:
    """How many hidden units stay."""
    kept = student.hidden - round(_check.number("prune", prune, 0, 1) * student.hidden)
    if kept == 0:
        raise ValueError(f"prune: expected a share that leaves at least one of {student.hidden} hidden units, got {prune}")
    return kept


def _demand_smaller(student: Student, hidden: int, bits: int | None, rank: int | None) -> None:
    """Demand something to do that makes no net larger."""
    if bits is not None and _check.integer("bits", bits, 4, 9) not in LARGEST:
        raise ValueError(f"bits: expected 8 or 4, or None for float32, got {bits}")
    if rank is not None:
        most = student.rank or hidden * student.inputs // (hidden + student.inputs)
        if _check.integer("rank", rank, 1, 1 << 31) > most:
            units = f"a bottleneck of at most {most} units" if most else "no bottleneck"
            raise ValueError(f"rank: expected {units}, as more make the net larger, got {rank}")
    if bits is None and rank is None and hidden == student.hidden:
        raise ValueError("bits: expected 8 or 4, or a rank, or a share to prune that is one unit at least, got none of them")


def _cases(transfer: Cases | Path, student: Student) -> Cases:
    """The transfer set, whose rows fit the student."""
    if isinstance(transfer, (str, os.PathLike)):
        try:
            transfer = TransferSet.open(transfer)
        except OSError as error:
            said = str(error.strerror or error).removeprefix("directory: ")
            raise OSError(error.errno, f"transfer: {said}", error.filename) from error
    demand_parts("transfer", transfer)
    for axis in ("inputs", "outputs"):
        want, have = getattr(student, axis), getattr(transfer, axis)
        if want != have:
            raise ValueError(f"transfer: expected {want} {axis}, as the student has, got {have}")
    return transfer


def _rows(cases: Cases, loss: str | Loss | None, seed: int) -> Array:
    """Rows (N, D) float32 of the set, at random; their targets are such as a loss by name takes."""
    chosen = np.random.default_rng(seed).permutation(len(cases))[:_ROWS]
    x, targets, _ = read("transfer", cases, np.sort(chosen))
    if isinstance(loss, str):
        demand_targets("transfer", loss, 1.0, targets)
    demand_values("transfer: x", x)
    return np.ascontiguousarray(x, np.float32)


def _target(student: Student, rows: Array) -> Array:
    """What the student says of the rows."""
    with np.errstate(over="ignore", invalid="ignore"):
        logits = student.predict(rows)
    if not np.isfinite(logits).all():
        raise ValueError("transfer: expected rows for which the student's logits are finite, got NaN or infinity among them")
    return logits


def _student(like: Student, weights: Weights) -> Student:
    """A student of these weights, on the CPU, otherwise like the other."""
    V = weights.get("V")
    sizes = {"hidden": len(weights["U"]), "rank": None if V is None else len(V)}
    student = Student(**(like.configuration() | sizes))
    student.set_arrays(**weights)
    student.set_standardisation(like.mean, like.scale)
    return student
