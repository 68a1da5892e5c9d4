"""Options that several commands have."""

from __future__ import annotations

from ..exits import option
from ..threads import set_num_threads


def use_threads(threads: int | None) -> None:
    """What --threads says."""
    if threads is not None:
        with option("threads", n="threads"):
            set_num_threads(threads)


def demand_loss(loss: str) -> None:
    """Demand a loss on logits by its name, of --loss."""
    if loss not in ("mimic", "distillation"):
        raise ValueError(f"loss: expected mimic or distillation, got {loss!r}")
