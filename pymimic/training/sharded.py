"""A student of which each process has some units, while it learns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backends import instruction_set
from ..backends.interface import Array
from ..distributed.group import Group
from ..distributed.weights import ShardedWeights
from ..nets.net import Net
from ..optimizer import Optimizer
from ..version import __version__
from .learner import ShallowLearner, sum_of_squares


class ShardedLearner(ShallowLearner):
    """What all processes have to do together, and nothing else, is other than of a student in one process."""

    wide: ShardedWeights

    @property
    def group(self) -> Group:  # type: ignore[override]
        return self.wide.group

    def global_norm(self, gradients: dict[str, Array]) -> float:
        of_all = {name: gradient for name, gradient in gradients.items() if name in ("V", "c")}
        return math.sqrt(sum_of_squares(of_all) + self.wide.sum_of_squares(gradients))

    def demand_in_step(self) -> None:
        try:
            self.group.agree(**{name: self.arrays[name] for name in ("V", "c") if name in self.arrays})
        except ValueError as error:
            found = f"got others, as their weights came to differ: {error}"
            raise ValueError(f"data: expected the same rows on all processes, {found}") from None


def demand_agreement(group: Group, net: Net, optimizer: Optimizer, configuration: dict[str, Any], **more: Any) -> None:
    """Demand that all processes of the group begin the same run, with the same library.

    Parameters
    ----------
    configuration, more : what has to be the same, of what a checkpoint keeps and of what it does not

    Raises
    ------
    ValueError
        On every process: what differs.
    """
    shared = {name: array for name, array in net.weights().items() if name in ("V", "c")}
    slots = {name: array for name, array in optimizer.state().items() if name.partition(".")[0] in ("V", "c", "steps")}
    group.agree(
        pymimic=__version__, numpy=np.__version__, instruction_set=instruction_set(), **configuration, **more,
        mean=net.mean, scale=net.scale, **shared,
        **{f"optimizer.{name}": array for name, array in slots.items()},
    )  # fmt: skip
