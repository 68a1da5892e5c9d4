"""What a checkpoint holds, demanded to be what this run needs before any of it is taken over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..data.moments import TINY
from .history import History
from .learner import Learner

Groups = dict[str, dict[str, Array]]
_GROUPS = ("weights", "average", "best", "optimizer", "inputs", "targets")
_MOST_STEPS = 1 << 32  # of a run: a mask's offset has 32 bits
_MOST_OPTIMIZER_STEPS = 1 << 40  # of an optimizer, in all the runs that it was in


def demand_counters(counters: Mapping[str, Any], history: History, rows: int) -> None:
    """Demand counts that a run over so many rows can have, and a history that goes with them."""
    for name, high in (("epoch", 1 << 31), ("position", rows + 1), ("step", _MOST_STEPS)):
        _check.integer(name, counters[name], 0, high)
    _check.number("loss_sum", counters["loss_sum"])
    _check.number("seconds", counters["seconds"], 0)
    if len(history) != counters["epoch"]:
        raise ValueError(f"epoch: expected {len(history)}, as there are so many records, got {counters['epoch']}")
    for i, record in enumerate(history):
        _check.integer(f"records[{i}].epoch", record.epoch, i + 1, i + 2)
        _check.integer(f"records[{i}].step", record.step, 0, counters["step"] + 1)
        for name in ("train_loss", "learning_rate", "seconds"):
            _check.number(f"records[{i}].{name}", getattr(record, name))
        for name in ("validation_loss", "validation_accuracy"):
            if (value := getattr(record, name)) is not None:
                _check.number(f"records[{i}].{name}", value)
    if history.best_epoch is not None:
        _check.integer("best_epoch", history.best_epoch, 1, len(history) + 1)
    _check.flag("stopped_early", history.stopped_early)
    _check.integer("compared_from", history.compared_from, 0, len(history) + 1)


def demand_groups(
    arrays: Mapping[str, Array], learner: Learner, step: int, best: bool, standardised: Mapping[str, bool], averaged: bool
) -> Groups:
    """Demand the arrays that a run needs, of finite numbers, and give them by group and name.

    Parameters
    ----------
    step : that the checkpoint is at
    best : whether the weights of the best epoch are kept, and there was one
    standardised : whether "inputs" and "targets" must be; those inputs that need not be may be
    averaged : whether there must be a running average
    """
    groups: Groups = {name: {} for name in _GROUPS}
    for key, array in arrays.items():
        group, _, name = key.partition(".")
        if group not in groups:
            raise ValueError(f"expected no array {key!r}")
        groups[group][name] = array
        if array.dtype.kind == "f":
            _check.finite(key, array.reshape(-1))
    weights = {name: array.shape for name, array in learner.arrays.items()}
    net, steps = learner.net, groups["optimizer"].get("steps")
    if steps is None or steps.dtype != np.int64 or steps.shape != ():
        raise ValueError("optimizer.steps: expected an int64")
    _check.integer("optimizer.steps", int(steps), step, _MOST_OPTIMIZER_STEPS)
    slots = {f"{name}.{slot}": shape for name, shape in weights.items() for slot in learner.optimizer.slot_names}
    wanted: dict[str, tuple[dict[str, tuple[int, ...]], bool, bool]] = {  # shapes; whether they must be there; whether they may be
        "weights": (weights, True, True),
        "average": (weights, averaged, True),
        "best": (weights, best, best),
        "optimizer": ({"steps": (), **slots}, True, True),
        "inputs": (dict.fromkeys(("mean", "scale"), (net.inputs,)), standardised["inputs"], True),
        "targets": (dict.fromkeys(("mean", "scale"), (net.outputs,)), standardised["targets"], standardised["targets"]),
    }
    if int(steps) == 0 and groups["optimizer"].keys() == {"steps"}:
        del wanted["optimizer"]
    for group, (shapes, must, may) in wanted.items():
        if groups[group] and not may:
            raise ValueError(f"expected no arrays of {group!r}")
        if groups[group] or must:
            _demand_arrays(group, groups[group], shapes)
    if groups["targets"] and groups["targets"]["scale"].min() < TINY:
        raise ValueError(f"targets.scale: expected at least {TINY:.2g}, got {groups['targets']['scale'].min()}")
    return groups


def demand_standardisation(targets: Mapping[str, Array], logits: Array, rows: int) -> None:
    """Demand that mean and scale can be those of so many rows, of which `logits` (n, C) are some: squares sum to rows * scale^2."""
    if targets:
        with np.errstate(over="ignore"):
            squares = ((np.asarray(logits, np.float64) - targets["mean"]) ** 2).sum(axis=0)
        most = rows * np.maximum(targets["scale"], TINY).astype(np.float64) ** 2
        if (squares > 1.01 * most + len(logits) * (1e-6 * targets["mean"].astype(np.float64)) ** 2).any():
            raise ValueError("targets.scale: expected the deviation of the data's targets, got less than that of some of them")


def _demand_arrays(group: str, given: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Demand float32 arrays of those names and shapes, and no others."""
    for name in (*shapes, *given):
        if name not in shapes:
            raise ValueError(f"expected no array '{group}.{name}'")
        if name not in given:
            raise ValueError(f"expected an array '{group}.{name}'")
        array, dtype = given[name], np.int64 if (group, name) == ("optimizer", "steps") else np.float32
        if array.dtype != dtype or array.shape != shapes[name]:
            raise ValueError(f"{group}.{name}: expected {np.dtype(dtype)} {shapes[name]}, got {array.dtype} {array.shape}")
