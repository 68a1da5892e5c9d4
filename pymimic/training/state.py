"""Everything that a training run carries from step to step, and its file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backends.interface import Array
from ..data.cases import Targets, both, together
from ..devices import like, module, to
from ..errors import FileFormatError, TrainingDivergedError
from ..files import Path
from .history import History
from .learner import Learner
from .restored import demand_counters, demand_groups, demand_standardisation
from .resume import Place, Sample, demand_epochs, demand_same_run, other_measure

_COUNTERS = ("epoch", "position", "step", "loss_sum", "seconds")


@dataclass
class TrainingState:
    """Where a run stands. The working weights, their average and the optimizer are the learner's."""

    epoch: int = 0  # epochs completed
    position: int = 0  # rows of this epoch's permutation that are used up
    step: int = 0  # optimizer steps completed
    loss_sum: float = 0.0  # over the rows of this epoch so far
    seconds: float = 0.0
    history: History = field(default_factory=History)
    best: dict[str, Array] | None = None  # the weights of the best epoch, where they are wanted
    target_mean: Array | None = None  # (C,) float32, the targets' standardisation, where it is on
    target_scale: Array | None = None
    consistent: bool = True  # False while a step is half done, or when weights are not finite: of no use to anyone

    @property
    def reached(self) -> int:
        """The epoch that the run is in, from 1; of one that stands between two epochs the one completed last."""
        return self.epoch + (self.position > 0)

    def targets(self, given: Array | Targets) -> Array | Targets:
        """Labels as they are, logits as float32 and standardised if asked for."""
        logits, labels = both(given)
        if logits is None:
            return given
        logits = module(logits).asarray(logits, np.float32)
        if self.target_mean is not None and self.target_scale is not None:
            logits = (logits - like(logits, self.target_mean)) / like(logits, self.target_scale)
        return together(logits, labels)

    def save(self, place: Place, learner: Learner, configuration: dict[str, Any], finished: bool) -> None:
        """Write a checkpoint atomically; `finished` says that the run came to its end, so that another may take the file's place.

        Raises
        ------
        OSError
            The file cannot be written; the old one is untouched.
        TrainingDivergedError
            A weight or an optimizer slot is not finite; the old file is untouched.
        ValueError
            Another run has written the file; it is untouched.
        """
        groups: dict[str, Mapping[str, Array | None]] = {
            "weights": learner.arrays,
            "average": learner.average or {},
            "best": self.best or {},
            "optimizer": learner.optimizer.state(),
            "inputs": {"mean": learner.net.mean, "scale": learner.net.scale},
            "targets": {"mean": self.target_mean, "scale": self.target_scale},
        }
        given = ((f"{group}.{name}", array) for group, members in groups.items() for name, array in members.items())
        arrays = {name: to("cpu", array) for name, array in given if array is not None}
        bad = [name for name, array in arrays.items() if array.size and not (np.isfinite(array.min()) and np.isfinite(array.max()))]
        if learner.group.anyone(bool(bad)):
            self.consistent = False
            raise diverged(self.step, f"finite values in {bad[0] if bad else 'the weights and slots of all processes'}", "NaN or infinity")
        counters = {name: getattr(self, name) for name in _COUNTERS}
        metadata = {"configuration": configuration, "counters": counters, "history": self.history.as_dict(), "finished": finished}
        learner.net.write_file(place.path, arrays, {"kind": "checkpoint", **metadata}, place.demand)
        place.note()

    @classmethod
    def load(
        cls, path: Path, learner: Learner, configuration: dict[str, Any], epochs: int, resume_with: Iterable[str], rows: Sample
    ) -> TrainingState:  # fmt: skip
        """Read a checkpoint, and set the learner and its net to it; `rows` is a sample of the data.

        Raises
        ------
        FileFormatError
            The file is truncated, foreign, or no checkpoint.
        ValueError
            It was written by a run of another configuration, in more than what `resume_with` names, or is beyond so many epochs.
        OSError
            The file cannot be read.
        """
        flat, metadata = learner.net.read_file(path, "checkpoint", "resume")
        with learner.group.together():
            return cls._taken(path, flat, metadata, learner, configuration, epochs, resume_with, rows)

    @classmethod
    def _taken(
        cls, path: Path, flat: dict[str, Array], metadata: dict[str, Any], learner: Learner, configuration: dict[str, Any], epochs: int,
        resume_with: Iterable[str], rows: Sample,
    ) -> TrainingState:  # fmt: skip
        """What was read, once it is known to suit the run."""
        demand_same_run(path, metadata.get("configuration"), configuration, resume_with)
        have = metadata["configuration"]
        with _whole(path):
            history = History.from_dict(metadata["history"])
            state = cls(**metadata["counters"], history=history)
            demand_counters(metadata["counters"], history, configuration["rows"])
            averaged = learner.average is not None and have.get("ema") is not None
            standardised = {name: bool(configuration[f"standardise_{name}"]) for name in ("inputs", "targets")}
            best = configuration["keep_best"] and history.best_epoch is not None
            groups = demand_groups(flat, learner, state.step, best, standardised, averaged)
            if have.get("data") == configuration["data"] and (logits := both(rows[1])[0]) is not None:
                demand_standardisation(groups["targets"], logits, configuration["rows"])
        demand_epochs(path, state.reached, epochs)
        inputs, targets = groups["inputs"], groups["targets"]
        for name, array in learner.arrays.items():
            array[...] = like(array, groups["weights"][name])
            if learner.average is not None:
                learner.average[name][...] = like(array, (groups["average"] or groups["weights"])[name])
        learner.changed()
        learner.optimizer.load_state(groups["optimizer"])
        learner.net.set_standardisation(inputs.get("mean"), inputs.get("scale"))
        state.best = groups["best"] or None
        if other_measure(have, configuration):
            state.best = None
            state.history.forget_best()
        state.target_mean, state.target_scale = targets.get("mean"), targets.get("scale")
        learner.hand_over()
        return state


def diverged(step: int, expected: str, got: str, kept: str = "", advice: str = ": try a lower learning rate") -> TrainingDivergedError:
    """The error of a run that came to no good at a step; `kept` says what is left of it."""
    return TrainingDivergedError(f"training diverged at step {step}: expected {expected}, got {got}{advice}{kept}")


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Let errors of what is in a checkpoint say that it is not whole."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"expected a whole checkpoint in {os.fspath(path)!r}, got one that lacks or misplaces something: {error}"
        raise FileFormatError(f"resume: {what}") from error
