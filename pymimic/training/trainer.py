"""The training loop: batches from a seeded permutation, validation, early stopping, checkpoints.

The loop is `fit`, `_epoch` and `_step`. It moves a `Learner`, which knows the net; where it stands is in `state.py`.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import numpy as np

from .. import _check, arguments
from ..backends import for_training
from ..backends.interface import Array
from ..callables import describe
from ..data.cases import Cases, Targets, both, demand_cases, in_order, together
from ..data.feed import Augment, Batch, feed, shuffled
from ..data.moments import moments, standardisation
from ..devices import DEVICES, like, module, to
from ..errors import TrainingDivergedError
from ..files import Path
from ..nets.net import Net
from ..nets.student import Student
from ..optimizer import Optimizer
from ..progress import Progress
from .history import History, Record
from .interrupt import DeferredInterrupt
from .learner import Learner, LearningNet, ShallowLearner, global_norm
from .losses import NAMES, Loss, demand_targets, loss_function, suits
from .resume import Sample, as_stored, demand_place, fingerprint, home, sample
from .state import TrainingState

_TRIED_ROWS = 16  # whose outputs must be finite wherever weights are kept


class Trainer:
    """Trains a net on a teacher's logits or on labels: a `Student`, wide and shallow, or a `DeepNet`.

    Everything random follows from `seed`. `SeedSequence(seed, spawn_key=(e,))` gives epoch e's order of rows, `spawn_key=(e, first row)`
    the generator that `augment` gets, and `SeedSequence(seed)` itself the key of dropout, whose offset is the step; from it each layer
    of a deep net draws a key of its own.

    Parameters
    ----------
    student : a `Student` or a `DeepNet`, trained in place
    optimizer : `SGD` or `AdamW`; its step count and slots go on from where they are, and so it must not have trained another student
    epochs : passes over the data
    batch_size : rows of one forward and backward pass
    loss : "mimic" (Ba & Caruana 2014, equation 1), "distillation" (Hinton et al. 2015) or a `Loss`, on logits; "cross_entropy", on labels
    temperature : of "distillation"
    alpha : of "distillation": the share of the teacher's logits; labels have the rest, by cross-entropy, and must be in the data with the
        logits, as `TransferSet(labels=)` has them
    seed : of the order of rows, dropout and `augment`
    patience : stop after so many epochs without a better validation value, and keep the best weights; None keeps the last
    monitor : what patience watches: validation "loss" or "accuracy"
    clip_norm : rescale the gradient to at most this norm over all arrays; None does not
    accumulate : batches whose gradients make one optimizer step, as one batch of accumulate * batch_size rows would
    ema : decay a step, 0.995 for instance, of a running average of the weights, which is validated and kept in their place; None for none
    augment : an `Augment`, for fresh random cases at every step: it must be a function of its arguments alone
    standardise_inputs : give the student, unless it has them, mean and deviation of "each" (or True) training input, or of "all" together
    standardise_targets : train on logits of mean 0 and deviation 1, folding the inverse into the last layer at the end; losses are of these
    checkpoint : file to keep the run's state in, for `fit(resume=)`; written every `checkpoint_every` steps, at ctrl-C and at the end
    progress : draw a bar, if standard error is a terminal
    device : where to train, "cpu" or "cuda". `fit` moves the student to "cuda" and back, and copies batches while the device computes.
        A `Loss` of yours gets CuPy arrays there
    backend : a name, see `pymimic.ops`. None takes the fastest that is as exact as float32: "cpu-bf16x3" on the CPU, "cuda" on a device
        ("cuda-tf32" beside a `dtype` of bfloat16)
    memory_budget : bytes that h (B x H) may take between the forward and the backward pass; a larger h is made again
    dtype : "float32" or "bfloat16", the type of the wide layer's operands; sums and weights are float32 either way. AMX, AVX512_BF16 and
        a device's tensor cores multiply bfloat16 faster
    keep : the type of a kept h where `dtype` is float32. "bfloat16" halves its memory, and puts errors of up to 4e-3 into dW. A `DeepNet`
        has neither this choice nor the two before: its layers are float32, and it keeps their outputs

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong kind or out of range.
    """

    def __init__(
        self, student: Student | LearningNet, optimizer: Optimizer, *, epochs: int, batch_size: int = 512, loss: str | Loss = "mimic",
        temperature: float = 1.0, alpha: float = 1.0, seed: int = 0, patience: int | None = None, monitor: str = "loss",
        clip_norm: float | None = None, accumulate: int = 1, ema: float | None = None, augment: Augment | None = None,
        standardise_inputs: bool | str = False, standardise_targets: bool = False, checkpoint: Path | None = None,
        checkpoint_every: int = 1000, progress: bool = True, device: str = "cpu", backend: str | None = None,
        memory_budget: int = 256 << 20, dtype: str = "float32", keep: str = "float32",
    ) -> None:  # fmt: skip
        for name, given, wanted in (("student", student, Net), ("optimizer", optimizer, Optimizer)):
            if not isinstance(given, wanted):
                raise TypeError(f"{name}: expected a pymimic {wanted.__name__}, got {type(given).__name__}")
        if device not in DEVICES:
            raise ValueError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
        if dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype: expected 'float32' or 'bfloat16', got {dtype!r}")
        arguments.save_dtype(keep, dtype)
        if not isinstance(student, Student) and not dtype == keep == "float32":
            raise ValueError(f"dtype, keep: expected 'float32' for a net other than a Student, got {dtype!r} and {keep!r}")
        self.student, self.optimizer, self.device = student, optimizer, device
        self.backend = backend or for_training(device, dtype)
        self.dtype, self.save_dtype = dtype, keep
        self.memory_budget = _check.integer("memory_budget", memory_budget, 0, 1 << 62)
        self.epochs = _check.integer("epochs", epochs, 0, 1 << 31)
        self.batch_size = _check.integer("batch_size", batch_size, 1, 1 << 31)
        self.accumulate = _check.integer("accumulate", accumulate, 1, 1 << 31)
        self.seed = _check.integer("seed", seed, 0, 1 << 64)
        self.patience = None if patience is None else _check.integer("patience", patience, 1, 1 << 31)
        self.checkpoint_every = _check.integer("checkpoint_every", checkpoint_every, 1, 1 << 62)
        self.clip_norm = None if clip_norm is None else _check.number("clip_norm", clip_norm, above=0, or_none=True)
        self.ema = None if ema is None else _check.number("ema", ema, 0, 1, or_none=True)
        self.temperature = _check.number("temperature", temperature, above=0, float32=True)
        self.alpha = _check.number("alpha", alpha, 0, most=1)
        self.standardise_targets = _check.flag("standardise_targets", standardise_targets)
        self.progress = _check.flag("progress", progress)
        if monitor not in ("loss", "accuracy"):
            raise ValueError(f"monitor: expected 'loss' or 'accuracy', got {monitor!r}")
        self.standardise_inputs = standardise_inputs if isinstance(standardise_inputs, str) else None
        if self.standardise_inputs is None and _check.flag("standardise_inputs", standardise_inputs):
            self.standardise_inputs = "each"
        if self.standardise_inputs not in ("each", "all", None):
            raise ValueError(f"standardise_inputs: expected True, False, 'each' or 'all', got {standardise_inputs!r}")
        self._loss = loss_function(loss, self.temperature, self.alpha, self.backend)
        self.loss = loss if isinstance(loss, str) else describe(loss)
        if callable(loss) and self.loss in NAMES:
            self.loss = f"function {self.loss}"
        if self.standardise_targets and loss in ("cross_entropy", "distillation"):
            raise ValueError(f"standardise_targets: expected False with loss {loss!r}, which needs the targets as they are, got True")
        if self.alpha < 1 and loss != "distillation":
            raise ValueError(f"alpha: expected 1 with loss {self.loss!r}, as 'distillation' alone takes logits and labels, got {alpha}")
        if augment is not None and not callable(augment):
            raise TypeError(f"augment: expected a function or None, got {type(augment).__name__}")
        self.monitor, self.augment = monitor, augment
        self.checkpoint = home("checkpoint", checkpoint)
        self.history = History()
        if self.checkpoint is not None:
            self._configuration()  # is tried now, not at the first checkpoint

    @property
    def path(self) -> str:
        """Which way an update takes, and why."""
        if self.clip_norm is not None:
            return f"unfused: clip_norm={self.clip_norm} needs the norm of the whole gradient before the update"
        if not isinstance(self.student, Student):
            return "unfused: the layers of a deep net are updated after the backward pass"
        if self.accumulate > 1:
            return f"unfused: accumulate={self.accumulate} sums gradients before the update"
        return "fused: the optimizer runs inside the backward pass, and gradients of the wide layer are not stored"

    def fit(
        self, data: Cases, validation: Cases | None = None, *, resume: Path | None = None, resume_with: str | Iterable[str] = (),
        overwrite: bool = False,
    ) -> History:  # fmt: skip
        """Train on `data`, a `TransferSet`, a `LabelledSet` or other `Cases`; the student then has the result.

        With `resume`, a checkpoint, the run goes on bit for bit as if it had never stopped, given the same data and arguments. All that
        shapes the run is compared: the net, the optimizer, its schedule and numbers, loss, batches, seed, and some rows of the data (of
        those for validation too, where patience watches them). Only `epochs`, the number in `patience`, the checkpoint's own arguments,
        and where and how to compute may differ. To go on with other settings all the same, name them: `resume_with=["learning_rate"]`.

        A file at `checkpoint` with another run's state is replaced only if that run came to its end, or with `overwrite`.

        ctrl-C waits for the end of a step; then the checkpoint, if there is to be one, is written, and KeyboardInterrupt raised. However
        `fit` ends, the student has the last weights that are of use, `history` the records.

        Raises
        ------
        TrainingDivergedError
            The loss, its gradient, the weights or what they make of some rows turned NaN or infinite; the message gives the step. The last
            checkpoint stays, and the student has the weights before that step or, where those are of no use, of its last good epoch.
        TypeError, ValueError
            The data don't fit the student or the loss; `resume` is of another run; `checkpoint` has an unfinished run; the optimizer has
            trained another student; a schedule gives no rate; a `Loss` returns no loss and gradient.
        OSError
            A checkpoint cannot be read or written.
        """
        demand_cases(self.student.inputs, self.student.outputs, data=data, validation=validation)
        rows = sample(data)
        demand_targets(self.loss, self.alpha, rows[1])
        self._demand_watchable(validation, rows)
        resume = home("resume", resume)
        if self.checkpoint is not None:
            demand_place(self.checkpoint, resume, _check.flag("overwrite", overwrite))
        if resume is None:
            self.optimizer.demand_for(self.student)
        device = self.student.device
        try:
            return self._fit(data, validation, rows, resume, resume_with)
        finally:
            self.student.to(device)

    def _fit(
        self, data: Cases, validation: Cases | None, rows: Sample, resume: str | None, resume_with: str | Iterable[str]
    ) -> History:  # fmt: skip
        self.student.to(self.device)
        dropout_seed = int(np.random.SeedSequence(self.seed).generate_state(1, np.uint64)[0])
        net, shared = self.student, (self.optimizer, self.ema, dropout_seed, self.backend)
        wide: dict[str, Any] = {"memory_budget": self.memory_budget, "dtype": self.dtype, "keep": self.save_dtype}
        learner = ShallowLearner(net, *shared, **wide) if isinstance(net, Student) else net.learner(*shared)
        configuration: dict[str, Any] = {}
        if self.checkpoint is not None or resume is not None:
            configuration = self._configuration() | {"rows": len(data), "data": fingerprint(rows)}
            if self.patience is not None and validation is not None:
                configuration["validation"] = fingerprint(sample(validation))
        if resume is None:
            state = TrainingState()
            self._standardise(data, state)
        else:
            state = TrainingState.load(resume, learner, configuration, resume_with)
            self.optimizer.demand_for(self.student)
        self.history = state.history
        self._set_tried(rows[0], learner)
        started = time.perf_counter() - state.seconds

        def save(finished: bool = False) -> None:
            state.seconds = time.perf_counter() - started
            if self.checkpoint is not None:
                self._demand_useful(state, learner)
                state.save(self.checkpoint, learner, configuration, finished)

        steps = -(-len(data) // (self.batch_size * self.accumulate)) * self.epochs
        if not state.history.stopped_early:
            self._warn_of_no_rate(steps - state.step)
        hide_bar = None if self.progress else True  # None: unless standard error is a terminal
        with DeferredInterrupt() as interrupt, Progress(total=steps, initial=state.step, disable=hide_bar, unit="step") as bar:
            try:
                while state.epoch < self.epochs and not state.history.stopped_early:
                    self._epoch(data, state, learner, interrupt, bar, save)
                    learner.hand_over()
                    loss, accuracy = (None, None) if validation is None else self._validate(validation, rows, state, learner, interrupt)
                    state.seconds, rate = time.perf_counter() - started, self.optimizer.learning_rate
                    record = Record(state.epoch + 1, state.step, state.loss_sum / len(data), loss, accuracy, rate, state.seconds)
                    state.consistent = False
                    if state.history.add(record, self.monitor) and self.patience is not None:
                        state.best = self.student.arrays()
                    if self.patience is not None:
                        state.history.stopped_early = record.epoch - (state.history.best_epoch or 0) >= self.patience
                    state.epoch, state.position, state.loss_sum = state.epoch + 1, 0, 0.0
                    state.consistent = True
                save(finished=True)
            except KeyboardInterrupt:
                if state.consistent:
                    save()
                raise
            finally:
                self._finish(state, learner)
        return state.history

    def _epoch(
        self, data: Cases, state: TrainingState, learner: Learner, interrupt: DeferredInterrupt, bar: Any, save: Callable[[], None]
    ) -> None:
        """The steps of an epoch that are still to do."""
        bar.set_description(f"epoch {state.epoch + 1}/{self.epochs}", refresh=False)
        drawn = shuffled(data, self.seed, state.epoch, state.position, self.batch_size, self.accumulate, self.augment)
        with closing(feed(((x, *both(state.targets(t)), w) for x, t, w in drawn), self.device)) as batches:
            while state.position < len(data):
                rows = min(self.batch_size * self.accumulate, len(data) - state.position)
                loss = self._step(batches, rows, state, learner)
                state.loss_sum += loss * rows
                state.position += rows
                state.step += 1
                state.consistent = True
                bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
                bar.update()
                if state.step % self.checkpoint_every == 0:
                    save()
                interrupt.check()
        self._demand_useful(state, learner)

    def _step(self, batches: Iterator[Batch], rows: int, state: TrainingState, learner: Learner) -> float:
        """One optimizer step; returns the mean loss of its rows under the weights as they were."""
        total: dict[str, Array] = {}
        mean_loss = 0.0
        for start in range(0, rows, self.batch_size):
            x, logits, labels, weights = next(batches)
            y, done = learner.forward(x, state.step, row=start // self.batch_size * (-(-self.batch_size // 16) * 16))
            loss, dy = self._loss(y, together(logits, labels), weights)
            share = len(x) / rows
            mean_loss += float(loss) * share
            state.consistent = math.isfinite(mean_loss) or _finite(y)  # or the weights are of no use
            self._demand_finite("loss", mean_loss, state.step + 1, inputs=x, logits=logits, weights=weights)
            if self.loss not in NAMES and not _finite(dy):
                raise self._diverged("gradient of the loss", state.step + 1, "NaN or infinity")
            self.optimizer.rate_at(self.optimizer.steps)  # while nothing has changed yet
            if self.clip_norm is None and self.accumulate == 1:
                state.consistent = False
                learner.step(done, dy)
                return mean_loss
            dy = dy * np.float32(share)
            for name, gradient in learner.gradients(done, dy).items():
                total[name] = total[name] + gradient if name in total else gradient
        if self.clip_norm is not None:
            norm = global_norm(total)
            self._demand_finite("gradient norm", norm, state.step + 1)
            for gradient in total.values() if norm > self.clip_norm else ():
                gradient *= np.float32(self.clip_norm / norm)
        state.consistent = False
        learner.apply(total)
        return mean_loss

    def _validate(
        self, cases: Cases, trained_on: Sample, state: TrainingState, learner: Learner, interrupt: DeferredInterrupt
    ) -> tuple[float | None, float]:  # fmt: skip
        """Mean loss (None if it does not apply to these targets) and accuracy of the net as it stands."""
        loss_sum, right, comparable = 0.0, 0, True
        with closing(feed(((x, *both(t), w) for x, t, w in in_order(cases)), self.device)) as batches:
            for x, logits, labels, weights in batches:
                y, targets = learner.predict(x), together(logits, labels)
                comparable = suits(self.loss, self.alpha, targets, trained_on[1])
                if comparable:
                    loss_sum += float(self._loss(y, state.targets(targets), weights)[0]) * len(x)
                if state.target_scale is not None:
                    y = y * like(y, state.target_scale) + like(y, state.target_mean)
                right += int(module(y).count_nonzero(y.argmax(axis=1) == (_answers(logits, labels))))
                interrupt.check()
        if comparable:
            self._demand_finite("validation loss", loss_sum, state.step)
        return (loss_sum / len(cases) if comparable else None), right / len(cases)

    def _standardise(self, data: Cases, state: TrainingState) -> None:
        if self.standardise_inputs and self.student.mean is None:
            rows = (x for x, _, _ in in_order(data))
            self.student.set_standardisation(*standardisation(rows, data.inputs, self.standardise_inputs))
        if self.standardise_targets:
            mean, deviation = moments(_logits(t) for _, t, _ in in_order(data))
            state.target_mean, state.target_scale = mean.astype(np.float32), deviation.astype(np.float32)

    def _set_tried(self, x: Array, learner: Learner) -> None:
        """Choose the rows that weights are tried on: some that are finite, and whose outputs were so to begin with."""
        x = np.asarray(x, np.float32)
        x = x[np.isfinite(x).all(axis=1)][:_TRIED_ROWS]
        with np.errstate(all="ignore"):
            y = to("cpu", learner.outputs(to(self.device, x)))
        self._tried = to(self.device, np.ascontiguousarray(x[np.isfinite(y).all(axis=1)]))

    def _demand_useful(self, state: TrainingState, learner: Learner) -> None:
        """Demand weights that may be kept."""
        state.consistent = learner.useful(self._tried)
        if not state.consistent:
            raise self._diverged("weights", state.step, "NaN or infinity in them or in what they make of some rows", "finite values")

    def _finish(self, state: TrainingState, learner: Learner) -> None:
        """Give the student its result; where what the learner has is of no use, the student keeps what it was given last."""
        if state.consistent and learner.useful(self._tried):
            learner.hand_over()
        if state.best is not None:
            self.student.set_arrays(**state.best)
        if state.target_mean is not None and state.target_scale is not None:
            self.student.fold(state.target_mean, state.target_scale)

    def _demand_finite(self, what: str, value: float, step: int, **batch: Array | None) -> None:
        """Demand a finite number; the message says which part of the batch is not."""
        if not math.isfinite(value):
            bad = [name for name, array in batch.items() if array is not None and not _finite(array)]
            raise self._diverged(what, step, f"{value}, as {' and '.join(bad)} of its rows in `data` are not finite" if bad else f"{value}")

    def _diverged(self, what: str, step: int, got: str, expected: str = "a finite number") -> TrainingDivergedError:
        there = self.checkpoint is not None and os.path.exists(self.checkpoint)
        kept = f"; the last good checkpoint is in {str(self.checkpoint)!r}" if there else ""
        return TrainingDivergedError(f"{what}: expected {expected} at step {step}, got {got}{kept}")

    def _demand_watchable(self, validation: Cases | None, trained_on: Sample) -> None:
        if self.patience is None:
            return
        if validation is None:
            raise ValueError("validation: expected a set, as patience watches it, got None")
        targets = validation.batch(np.arange(1))[1]
        if self.monitor == "loss" and not suits(self.loss, self.alpha, targets, trained_on[1]):
            raise ValueError(f"monitor: expected 'accuracy', as loss {self.loss!r} does not apply to the validation targets, got 'loss'")

    def _warn_of_no_rate(self, steps: int) -> None:
        first = self.optimizer.steps
        if steps > 0 and not any(self.optimizer.schedule(step) for step in range(first, first + steps)):
            warnings.warn(
                f"optimizer: expected a learning rate above 0, got 0 at each of the {steps} steps to come, from step {first} of "
                f"{describe(self.optimizer.schedule)} on: the student will not learn",
                stacklevel=4,
            )

    def _configuration(self) -> dict[str, Any]:
        """What must be the same for a run to go on, beside the data."""
        own = (
            "batch_size", "accumulate", "loss", "temperature", "alpha", "seed", "monitor", "clip_norm", "ema", "standardise_inputs",
            "standardise_targets", "dtype",
        )  # fmt: skip
        return as_stored({
            "student": self.student.configuration(), **self.optimizer.configuration(),
            "augment": None if self.augment is None else describe(self.augment), "early_stopping": self.patience is not None,
            "keep": self.save_dtype, **{name: getattr(self, name) for name in own},
        })  # fmt: skip


def _finite(array: Array) -> bool:
    return bool(module(array).isfinite(array).all())


def _logits(targets: Array | Targets) -> Array:
    logits = both(targets)[0]
    assert logits is not None  # the loss takes them
    return logits


def _answers(logits: Array | None, labels: Array | None) -> Array:
    """The classes that are right: labels, or else the teacher's."""
    if labels is not None:
        return labels
    assert logits is not None
    answers: Array = logits.argmax(axis=1)
    return answers
