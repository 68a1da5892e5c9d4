"""The training loop: steps, epochs, validation, checkpoints.

A `Run` is one call of `Trainer.fit`. It moves a `Learner`, which knows the net; where it stands is in `state.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.interface import Array
from ..data.cases import Cases, Targets, both, finite_in_order, together
from ..data.feed import Batch, feed, shuffled
from ..devices import like, module, to
from ..distributed.group import Group
from ..errors import TrainingDivergedError
from ..nets.net import Net
from ..progress import Progress
from .beginning import learner_in_units, learner_of, standardise_inputs, standards_of_targets
from .history import Record
from .interrupt import DeferredInterrupt
from .losses import NAMES, demand_targets, loss_function, one_answer, suits
from .resume import Sample, fingerprint
from .sharded import demand_agreement
from .state import TrainingState, diverged

if TYPE_CHECKING:
    from .trainer import Trainer

_TRIED_ROWS = 16  # whose outputs must be finite wherever weights are kept


class Run:
    """A training run as a `Trainer` says: begun anew or from a checkpoint, then `finish`ed.

    Parameters
    ----------
    trainer : the settings
    net : the trainer's student, where it will be trained, or this process's part of it
    data, validation : see `Trainer.fit`
    rows, held_out : samples of the data, and of those for validation
    resume : a checkpoint to go on from, or None
    resume_with : settings that may differ from the checkpoint's
    """

    def __init__(
        self, trainer: Trainer, net: Net, data: Cases, validation: Cases | None, rows: Sample, held_out: Sample | None, resume: str | None,
        resume_with: str | Iterable[str],
    ) -> None:  # fmt: skip
        self.rows = rows
        self.trainer, self.net, self.data, self.validation = trainer, net, data, validation
        self.configuration: dict[str, Any] = {}
        if trainer.checkpoint is not None or resume is not None or trainer.group.everyone.size > 1:
            self.configuration = trainer.configuration() | {"rows": len(data), "data": fingerprint(rows)}
            if trainer.keep_best and held_out is not None:
                self.configuration["validation"] = fingerprint(held_out)
        if trainer.group.everyone.size > 1:
            watched = None if validation is None or held_out is None else [len(validation), fingerprint(held_out)]
            demand_agreement(
                trainer.group, net, trainer.optimizer, self.configuration | {"validation": watched}, epochs=trainer.epochs,
                patience=trainer.patience, resume=resume is not None, checkpoint=trainer.checkpoint is not None,
                checkpoint_every=trainer.checkpoint_every,
            )  # fmt: skip
        self._given = resume is not None  # whether the net has weights of this run
        if resume is None:
            self.state = TrainingState()
            standardise_inputs(trainer, net, data)
            self.state.target_mean, self.state.target_scale = standards = standards_of_targets(trainer, data)
            self.learner = learner_in_units(trainer, net, *standards)
        else:
            self.learner = learner_of(trainer, net)
            self.state = TrainingState.load(resume, self.learner, self.configuration, trainer.epochs, resume_with, rows)
            trainer.optimizer.demand_for(trainer.student)
            self.state.history.stopped_early = self._out_of_patience()
        self._tried = self._rows_to_try()
        self._began = self._loss_on_sample(to("cpu", self.learner.outputs(self._sample_there()))) if trainer.loss in NAMES else None
        self._started = time.perf_counter() - self.state.seconds
        self._interrupt = DeferredInterrupt()
        self._interrupted = False  # on all processes
        self.handed_over = False  # whether the net has its result

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run, the part before a checkpoint included."""
        trainer = self.trainer
        return -(-len(self.data) // (trainer.batch_size * trainer.accumulate)) * trainer.epochs

    def finish(self) -> None:
        """Take all steps that are left."""
        trainer, state = self.trainer, self.state
        hide_bar = None if trainer.progress and trainer.group.everyone.rank == 0 else True  # None: unless standard error is a terminal
        alike = False  # whether all processes have come to the same end
        with self._interrupt, Progress(total=self.steps, initial=state.step, disable=hide_bar, unit="step") as bar:
            try:
                while state.epoch < trainer.epochs and not state.history.stopped_early:
                    self._epoch(bar)
                    self._hand_over()
                    self._record()
                if state.step > 0:  # a run of no epochs has nothing to keep, and takes no file's place
                    self._save(finished=True)
                alike = True
            except TrainingDivergedError:
                alike = True
                raise
            except KeyboardInterrupt as stop:
                alike = self._interrupted
                if state.consistent and (alike or trainer.group.everyone.size == 1):
                    self._save()
                    if trainer.checkpoint is not None:
                        stop.args = (f"stopped in epoch {state.reached}, state in {trainer.checkpoint!r}: go on with fit(resume=...)",)
                raise
            finally:
                if alike or trainer.group.everyone.size == 1:
                    self._hand_over_the_last()
                    self.handed_over = True

    def useless(self) -> tuple[float, float] | None:
        """Where the net's loss is higher than when the run began, and than that of the same answer for every row: its loss, and that one.

        All are of the sample of the data. None without steps, for a loss of the user's own, and where the same answer is right.
        """
        if self._began is None or self.state.step == 0:
            return None
        net = to("cpu", self.learner.predict(self._sample_there()))
        targets = self.state.targets(self.rows[1])
        y = self.state.targets(net)
        assert isinstance(y, np.ndarray)
        answer = one_answer(self.trainer.loss, self.trainer.temperature, targets, self.rows[2], y.shape[1])
        of_net, of_one, of_none = (self._loss_on_sample(a) for a in (y, answer, np.zeros_like(y)))
        return (of_net, of_one) if of_net > max(of_one, self._began) and of_one > 1e-6 * of_none else None

    def _loss_on_sample(self, y: Array) -> float:
        trainer, weights = self.trainer, self.rows[2]
        loss = loss_function(trainer.loss, trainer.temperature, trainer.alpha, None)
        with np.errstate(over="ignore", invalid="ignore"):
            return float(loss(np.ascontiguousarray(y), self.state.targets(self.rows[1]), weights)[0])

    def _sample_there(self) -> Array:
        return to(self.trainer.device, np.ascontiguousarray(self.rows[0], np.float32))

    def _epoch(self, bar: Any) -> None:
        """The steps of an epoch that are still to do."""
        trainer, state, rows_a_step = self.trainer, self.state, self.trainer.batch_size * self.trainer.accumulate
        bar.set_description(f"epoch {state.epoch + 1}/{trainer.epochs}", refresh=False)
        drawn = shuffled(
            self.data, trainer.seed, state.epoch, state.position, trainer.batch_size, trainer.accumulate, trainer.augment
        )  # fmt: skip
        source = "data" if trainer.augment is None else "augment"
        with closing(feed(((x, *both(self._targets(source, t)), w) for x, t, w in drawn), trainer.device)) as batches:
            while state.position < len(self.data):
                rows = min(rows_a_step, len(self.data) - state.position)
                loss = self._step(batches, rows)
                state.loss_sum += loss * rows
                state.position += rows
                state.step += 1
                state.consistent = True
                bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
                bar.update()
                if state.step % trainer.checkpoint_every == 0:
                    self._save()
                self._check_interrupt()
        self._demand_useful()

    def _check_interrupt(self) -> None:
        """Stop where this process, or another one of the group, was told to."""
        if self.learner.group.anyone(self._interrupt.pending):
            self._interrupted = True
            self._interrupt.check()
            raise KeyboardInterrupt

    def _targets(self, source: str, targets: Array | Targets) -> Array | Targets:
        """Targets as the loss takes them; `source` is the argument that they come from."""
        demand_targets(source, self.trainer.loss, self.trainer.alpha, targets)
        return self.state.targets(targets)

    def _step(self, batches: Iterator[Batch], rows: int) -> float:
        """One optimizer step; returns the mean loss of its rows under the weights as they were."""
        trainer, state, others = self.trainer, self.state, self.trainer.group.rows
        total: dict[str, Array] = {}
        mean_loss = 0.0
        for start in range(0, rows, trainer.batch_size):
            batch, first = _own_rows(next(batches), others)
            x, logits, labels, weights = batch
            row = start // trainer.batch_size * (-(-trainer.batch_size // 16) * 16) + first
            y, done = self.learner.forward(x, state.step, row=row)
            loss, dy = trainer.loss_function(y, together(logits, labels), weights)
            share = len(x) / rows
            mean_loss += float(others.sum(np.array([float(loss) * share]))[0])
            state.consistent = math.isfinite(mean_loss) or not others.anyone(not _finite(y))  # or the weights are of no use
            self._demand_finite("a finite loss", mean_loss, state.step + 1, inputs=x, logits=logits, weights=weights)
            if trainer.loss not in NAMES and others.anyone(not _finite(dy)):
                raise diverged(state.step + 1, "a finite gradient of the loss", "NaN or infinity", self._kept())
            trainer.optimizer.rate_at(trainer.optimizer.steps)  # while nothing has changed yet
            if trainer.clip_norm is None and trainer.accumulate == others.size == 1:
                state.consistent = False
                self.learner.step(done, dy)
                return mean_loss
            dy = dy * np.float32(share)
            for name, gradient in self.learner.gradients(done, dy).items():
                total[name] = total[name] + gradient if name in total else gradient
        for gradient in total.values() if others.size > 1 else ():
            others.sum(gradient)
        if trainer.clip_norm is not None:
            norm = self.learner.global_norm(total)
            self._demand_finite("a finite gradient norm", norm, state.step + 1)
            for gradient in total.values() if norm > trainer.clip_norm else ():
                gradient *= np.float32(trainer.clip_norm / norm)
        state.consistent = False
        self.learner.apply(total)
        return mean_loss

    def _record(self) -> None:
        """Close an epoch: validate, add its record, keep the best weights if they are wanted."""
        trainer, state = self.trainer, self.state
        loss, accuracy = (None, None) if self.validation is None else self._validate(self.validation)
        state.seconds, rate = time.perf_counter() - self._started, trainer.optimizer.learning_rate
        record = Record(state.epoch + 1, state.step, state.loss_sum / len(self.data), loss, accuracy, rate, state.seconds)
        state.consistent = False
        if state.history.add(record, trainer.monitor) and trainer.keep_best:
            state.best = self.net.arrays()
        state.history.stopped_early = self._out_of_patience()
        state.epoch, state.position, state.loss_sum = state.epoch + 1, 0, 0.0
        state.consistent = True

    def _out_of_patience(self) -> bool:
        history, patience = self.state.history, self.trainer.patience
        return patience is not None and len(history) - (history.best_epoch or history.compared_from) >= patience

    def _validate(self, cases: Cases) -> tuple[float | None, float | None]:
        """Mean loss (None if it does not apply to these targets) and accuracy (None with one output) of the net as it stands."""
        trainer, state = self.trainer, self.state
        loss_sum, right, comparable = 0.0, 0, True
        held_out = finite_in_order("validation", cases, ruled_out=trainer.loss != "mimic")
        with closing(feed(((x, *both(t), w) for x, t, w in held_out), trainer.device)) as batches:
            for x, logits, labels, weights in batches:
                y, targets = self.learner.predict(x), together(logits, labels)
                comparable = suits(trainer.loss, trainer.alpha, targets, self.rows[1])
                if comparable:
                    loss_sum += float(trainer.loss_function(y, state.targets(targets), weights)[0]) * len(x)
                if state.target_scale is not None:
                    y = y * like(y, state.target_scale) + like(y, state.target_mean)
                right += int(module(y).count_nonzero(y.argmax(axis=1) == (_answers(logits, labels))))
                self._check_interrupt()
        if comparable:
            self._demand_finite("a finite validation loss", loss_sum, state.step)
        return (loss_sum / len(cases) if comparable else None), (right / len(cases) if self.net.outputs > 1 else None)

    def _save(self, finished: bool = False) -> None:
        """Write the checkpoint, if there is to be one."""
        self.state.seconds = time.perf_counter() - self._started
        if self.trainer.place is not None:
            self._demand_useful()
            self.state.save(self.trainer.place, self.learner, self.configuration, finished)

    def _rows_to_try(self) -> Array:
        """The rows that weights are tried on: some that are finite, and whose outputs are so to begin with."""
        x = np.asarray(self.rows[0], np.float32)
        x = x[np.isfinite(x).all(axis=1)][:_TRIED_ROWS]
        with np.errstate(all="ignore"):
            y = to("cpu", self.learner.outputs(to(self.trainer.device, x)))
        return to(self.trainer.device, np.ascontiguousarray(x[np.isfinite(y).all(axis=1)]))

    def _hand_over(self) -> None:
        self.learner.hand_over()
        self._given = True

    def _hand_over_the_last(self) -> None:
        """Give the student its result; where what the learner has is of no use, the student keeps what it was given last."""
        student, state = self.net, self.state
        if state.step > 0 and state.consistent and self.learner.useful(self._tried):
            self._hand_over()
        if state.best is not None:
            student.set_arrays(**state.best)
        if self._given and state.target_mean is not None and state.target_scale is not None:
            try:
                student.fold(state.target_mean, state.target_scale)
            except ValueError as error:
                raise diverged(state.step, "finite weights for targets as they were given", str(error)) from error

    def _demand_useful(self) -> None:
        """Demand weights that may be kept."""
        self.learner.demand_in_step()
        self.state.consistent = self.learner.useful(self._tried)
        if not self.state.consistent:
            got = "NaN or infinity in them or in what they make of some rows"
            raise diverged(self.state.step, "finite weights", got, self._kept())

    def _demand_finite(self, expected: str, value: float, step: int, **batch: Array | None) -> None:
        """Demand a finite number; the message says which part of the batch is not."""
        if not math.isfinite(value):
            bad = [name for name, array in batch.items() if array is not None and not _finite(array)]
            source = "in `data`" if self.trainer.augment is None else "from `augment`"
            if bad:
                raise diverged(step, expected, f"{value}, as {' and '.join(bad)} of its rows {source} are not finite", self._kept(), "")
            raise diverged(step, expected, f"{value}", self._kept())

    def _kept(self) -> str:
        """The run's checkpoint, if there is one, as the end of a message."""
        place = self.trainer.place
        return f"; the last good checkpoint is in {place.path!r}" if place is not None and place.kept else ""


def _own_rows(batch: Batch, others: Group) -> tuple[Batch, int]:
    """The rows of a batch that are this process's, and the first of them: whole tiles of 16, but for the last."""
    if others.size == 1:
        return batch, 0
    rows = len(batch[0])
    first, end = (min(rows, 16 * (-(-rows // 16) * rank // others.size)) for rank in (others.rank, others.rank + 1))
    x, *more = batch
    logits, labels, weights = (None if array is None else array[first:end] for array in more)
    return (x[first:end], logits, labels, weights), first


def _finite(array: Array) -> bool:
    return bool(module(array).isfinite(array).all())


def _answers(logits: Array | None, labels: Array | None) -> Array:
    """The classes that are right: labels, or else the teacher's."""
    if labels is not None:
        return labels
    assert logits is not None
    answers: Array = logits.argmax(axis=1)
    return answers
