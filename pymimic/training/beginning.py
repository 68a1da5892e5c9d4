"""How a run begins: what standardises a net's inputs and its targets, and the learner that moves the net."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..backends.interface import Array
from ..data.cases import Cases, Targets, both, in_order
from ..data.moments import moments, standardisation
from ..distributed.student import ShardedStudent
from ..nets.net import Net
from ..nets.student import Student
from ..numerics import warn
from .learner import Learner, LearningNet, ShallowLearner
from .sharded import ShardedLearner

if TYPE_CHECKING:
    from .trainer import Trainer


def standardise_inputs(trainer: Trainer, net: Net, data: Cases) -> None:
    """Give a fresh net the standardisation of its inputs that the trainer asks for, unless it has one."""
    how = trainer.standardise_inputs
    if not how:
        return
    if net.mean is None:
        if not net.fresh:
            what = "expected False for a net whose weights have seen inputs as they are"
            raise ValueError(f"standardise_inputs: {what}, got {how!r}: `set_standardisation` gives it one all the same")
        net.set_standardisation(*standards_of_inputs("data", data, how))
    elif net.fresh and np.all(net.scale == 1) and trainer.group.everyone.rank == 0:
        warn(
            "standardise_inputs: expected a net without a standardisation, got one that sees inputs less their mean, as "
            "`initialise_bottleneck` leaves it, and keeps that: call `set_standardisation` before"
        )


def standards_of_inputs(name: str, data: Cases, how: str) -> tuple[Array, Array]:
    """Mean and 1 / deviation (D,) float32 of the rows, of "each" column or of "all"; `name` is the argument's."""
    return standardisation((x for x, _, _ in in_order(name, data)), data.inputs, how)


def standards_of_targets(trainer: Trainer, data: Cases) -> tuple[Array | None, Array | None]:
    """Mean and deviation of each logit, (C,) float32, where the trainer asks for them."""
    if not trainer.standardise_targets:
        return None, None
    mean, deviation = moments(_logits(t) for _, t, _ in in_order("data", data))
    return mean.astype(np.float32), deviation.astype(np.float32)


def learner_in_units(trainer: Trainer, net: Net, mean: Array | None, deviation: Array | None) -> Learner:
    """The learner of a net whose targets are standardised by these: it begins with the y that the net gives, in their units.

    A fresh net's y has no units yet, and stays as it is.
    """
    if mean is None or deviation is None or net.fresh:
        return learner_of(trainer, net)
    begun = net.as_it_is()
    try:
        begun.fold(-mean / deviation, 1 / deviation)
    except ValueError as error:
        raise ValueError(f"standardise_targets: {error}") from None
    learner = learner_of(trainer, begun)
    learner.net = net
    return learner


def learner_of(trainer: Trainer, net: Net) -> Learner:
    """The student, its part or the deep net, as the loop moves it."""
    dropout_seed = int(np.random.SeedSequence(trainer.seed).generate_state(1, np.uint64)[0])
    shared = (trainer.optimizer, trainer.ema, dropout_seed, trainer.backend)
    if isinstance(net, LearningNet):
        return net.learner(*shared)
    assert isinstance(net, Student)
    wide = net.handle(dtype=trainer.dtype, backend=trainer.backend, memory_budget=trainer.memory_budget, keep=trainer.save_dtype)
    wide.owner = trainer.student
    return (ShardedLearner if isinstance(net, ShardedStudent) else ShallowLearner)(net, wide, *shared)


def _logits(targets: Array | Targets) -> Array:
    logits = both(targets)[0]
    assert logits is not None  # the loss takes them
    return logits
