"""What a training run reports: one record an epoch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Record:
    """One epoch. `seconds` is wall-clock time since the run began, the time of interrupted runs before it included."""

    epoch: int  # from 1
    step: int  # optimizer steps taken so far
    train_loss: float  # mean over the epoch's rows, each at its own step, with dropout
    validation_loss: float | None  # None without a validation set, or if that has labels and the loss needs logits
    validation_accuracy: float | None  # share of rows whose argmax is the label or, for logits, the teacher's; None with one output too
    learning_rate: float
    seconds: float


class History(list[Record]):
    """The records of a run, in order.

    Attributes
    ----------
    best_epoch : the epoch with the best validation value, from 1, or None without validation
    stopped_early : whether patience ran out
    compared_from : epochs before that are not compared: a resumed run measured their validation values otherwise
    """

    best_epoch: int | None = None
    stopped_early: bool = False
    compared_from: int = 0

    def add(self, record: Record, monitor: str) -> bool:
        """Append a record; whether it is the best so far by its validation "loss" (least) or "accuracy" (greatest)."""
        best = min((_to_lower(earlier, monitor) for earlier in self[self.compared_from :]), default=math.inf)
        self.append(record)
        better = _to_lower(record, monitor) < best
        if better:
            self.best_epoch = record.epoch
        return better

    def forget_best(self) -> None:
        """Compare those epochs alone that are still to come."""
        self.best_epoch, self.stopped_early, self.compared_from = None, False, len(self)

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        own = {name: getattr(self, name) for name in ("best_epoch", "stopped_early", "compared_from")}
        return {"records": [asdict(record) for record in self], **own}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> History:
        """The history that `as_dict` gave."""
        history = cls(Record(**record) for record in state["records"])
        history.best_epoch, history.stopped_early = state["best_epoch"], state["stopped_early"]
        history.compared_from = state.get("compared_from", 0)  # earlier versions have none
        return history


def _to_lower(record: Record, monitor: str) -> float:
    """The validation loss, or minus the validation accuracy; infinity where there is none."""
    if monitor == "loss":
        return math.inf if record.validation_loss is None else record.validation_loss
    return math.inf if record.validation_accuracy is None else -record.validation_accuracy
