"""The training loop: batches from a seeded permutation, validation, early stopping, checkpoints.

The loop is `fit`, `_epoch` and `_step`. It moves a `Learner`, which knows the net; where it stands is in `state.py`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np

from .. import _check, arguments
from ..backends import for_training
from ..backends.interface import Array
from ..data.cases import Cases, demand_cases, in_order
from ..data.feed import Augment, Batch, feed, shuffled
from ..data.moments import moments, standardisation
from ..devices import DEVICES, like, module
from ..errors import TrainingDivergedError
from ..files import Path
from ..nets.student import Student
from ..optimizer import Optimizer
from ..progress import Progress
from .history import History, Record
from .interrupt import DeferredInterrupt
from .learner import Learner, LearningNet, ShallowLearner, global_norm
from .losses import Loss, loss_function
from .state import TrainingState


class Trainer:
    """Trains a net on a teacher's logits or on labels: a `Student`, wide and shallow, or a `DeepNet`.

    Everything random follows from `seed`. `SeedSequence(seed, spawn_key=(e,))` gives epoch e's order of rows, `spawn_key=(e, first row)`
    the generator that `augment` gets, and `SeedSequence(seed)` itself the key of dropout, whose offset is the step; from it each layer
    of a deep net draws a key of its own.

    Parameters
    ----------
    student : a `Student` or a `DeepNet`, trained in place
    optimizer : `SGD` or `AdamW`; its step count and slots go on from where they are
    epochs : passes over the data
    batch_size : rows of one forward and backward pass
    loss : "mimic" (Ba & Caruana 2014, equation 1), "distillation" (Hinton et al. 2015) or a `Loss`, on logits; "cross_entropy", on labels
    temperature : of "distillation"
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
        temperature: float = 1.0, seed: int = 0, patience: int | None = None, monitor: str = "loss", clip_norm: float | None = None,
        accumulate: int = 1, ema: float | None = None, augment: Augment | None = None, standardise_inputs: bool | str = False,
        standardise_targets: bool = False, checkpoint: Path | None = None, checkpoint_every: int = 1000, progress: bool = True,
        device: str = "cpu", backend: str | None = None, memory_budget: int = 256 << 20, dtype: str = "float32", keep: str = "float32",
    ) -> None:  # fmt: skip
        if device not in DEVICES:
            raise ValueError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
        if dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype: expected 'float32' or 'bfloat16', got {dtype!r}")
        arguments.save_dtype(keep, dtype)
        if not isinstance(student, Student) and not dtype == keep == "float32":
            raise ValueError(f"dtype, keep: expected 'float32' for a net other than a Student, got {dtype!r} and {keep!r}")
        self.student, self.optimizer, self.device = student, optimizer, device
        self.backend = backend or for_training(device, dtype)
        self.memory_budget, self.dtype, self.save_dtype = memory_budget, dtype, keep
        self.epochs = _check.integer("epochs", epochs, 0, 1 << 31)
        self.batch_size = _check.integer("batch_size", batch_size, 1, 1 << 31)
        self.accumulate = _check.integer("accumulate", accumulate, 1, 1 << 31)
        self.seed = _check.integer("seed", seed, 0, 1 << 64)
        self.patience = None if patience is None else _check.integer("patience", patience, 1, 1 << 31)
        self.checkpoint_every = _check.integer("checkpoint_every", checkpoint_every, 1, 1 << 62)
        if monitor not in ("loss", "accuracy"):
            raise ValueError(f"monitor: expected 'loss' or 'accuracy', got {monitor!r}")
        if clip_norm is not None and not 0 < clip_norm < math.inf:
            raise ValueError(f"clip_norm: expected a number above 0 or None, got {clip_norm}")
        if ema is not None and not 0 <= ema < 1:
            raise ValueError(f"ema: expected a number in [0, 1) or None, got {ema}")
        if standardise_targets and loss in ("cross_entropy", "distillation"):
            raise ValueError(f"standardise_targets: expected False with loss {loss!r}, which needs the targets as they are, got True")
        self.monitor, self.clip_norm, self.ema, self.augment = monitor, clip_norm, ema, augment
        self.standardise_inputs = "each" if standardise_inputs is True else standardise_inputs
        self.standardise_targets, self.temperature, self.checkpoint, self.progress = standardise_targets, temperature, checkpoint, progress
        self.loss = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
        self.history = History()
        self._loss = loss_function(loss, temperature, self.backend) if isinstance(loss, str) else loss

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

    def fit(self, data: Cases, validation: Cases | None = None, *, resume: Path | None = None) -> History:
        """Train on `data`, a `TransferSet`, a `LabelledSet` or other `Cases`; the student then has the result.

        With `resume`, a checkpoint, the run goes on bit for bit as if it had never stopped, given the same data and arguments (`epochs`,
        the number in `patience` and the checkpoint's own may differ). ctrl-C waits for the end of a step; then the checkpoint, if there is
        to be one, is written, and KeyboardInterrupt raised. However `fit` ends, the student has the weights so far, `history` the records.

        Raises
        ------
        TrainingDivergedError
            The loss turned NaN or infinite; the message gives the step. It was not taken, and the last checkpoint stays. Where outputs or
            weights are not finite, the student has the weights of its last good epoch.
        ValueError
            The data don't fit the student, or `resume` is of another run.
        OSError
            A checkpoint cannot be read or written.
        """
        demand_cases(self.student.inputs, self.student.outputs, data=data, validation=validation)
        self._demand_watchable(validation)
        home = self.student.device
        try:
            return self._fit(data, validation, resume)
        finally:
            self.student.to(home)

    def _fit(self, data: Cases, validation: Cases | None, resume: Path | None) -> History:
        self.student.to(self.device)
        dropout_seed = int(np.random.SeedSequence(self.seed).generate_state(1, np.uint64)[0])
        net, shared = self.student, (self.optimizer, self.ema, dropout_seed, self.backend)
        wide: dict[str, Any] = {"memory_budget": self.memory_budget, "dtype": self.dtype, "keep": self.save_dtype}
        learner = ShallowLearner(net, *shared, **wide) if isinstance(net, Student) else net.learner(*shared)
        configuration = self._configuration(len(data))
        state = TrainingState() if resume is None else TrainingState.load(resume, learner, configuration)
        if resume is None:
            self._standardise(data, state)
        self.history = state.history
        started = time.perf_counter() - state.seconds

        def save() -> None:
            state.seconds = time.perf_counter() - started
            if self.checkpoint is not None:
                state.save(self.checkpoint, learner, configuration)

        steps = -(-len(data) // (self.batch_size * self.accumulate)) * self.epochs
        hide_bar = None if self.progress else True  # None: unless standard error is a terminal
        with DeferredInterrupt() as interrupt, Progress(total=steps, initial=state.step, disable=hide_bar, unit="step") as bar:
            try:
                while state.epoch < self.epochs and not state.history.stopped_early:
                    self._epoch(data, state, learner, interrupt, bar, save)
                    learner.hand_over()
                    loss, accuracy = (None, None) if validation is None else self._validate(validation, state, learner, interrupt)
                    state.seconds, rate = time.perf_counter() - started, self.optimizer.learning_rate
                    record = Record(state.epoch + 1, state.step, state.loss_sum / len(data), loss, accuracy, rate, state.seconds)
                    state.consistent = False
                    if state.history.add(record, self.monitor) and self.patience is not None:
                        state.best = self.student.arrays()
                    if self.patience is not None:
                        state.history.stopped_early = record.epoch - (state.history.best_epoch or 0) >= self.patience
                    state.epoch, state.position, state.loss_sum = state.epoch + 1, 0, 0.0
                    state.consistent = True
                save()
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
        with closing(feed(((x, state.targets(t), w) for x, t, w in drawn), self.device)) as batches:
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
        total = sum(float(array.sum()) for array in learner.arrays.values())
        state.consistent = math.isfinite(total)
        self._demand_finite("weights", total, state.step)

    def _step(self, batches: Iterator[Batch], rows: int, state: TrainingState, learner: Learner) -> float:
        """One optimizer step; returns the mean loss of its rows under the weights as they were."""
        total: dict[str, Array] = {}
        mean_loss = 0.0
        for start in range(0, rows, self.batch_size):
            x, targets, weights = next(batches)
            y, done = learner.forward(x, state.step, row=start // self.batch_size * (-(-self.batch_size // 16) * 16))
            loss, dy = self._loss(y, targets, weights)
            share = len(x) / rows
            mean_loss += float(loss) * share
            state.consistent = math.isfinite(mean_loss) or bool(module(y).isfinite(y).all())  # or the weights are of no use
            self._demand_finite("loss", mean_loss, state.step + 1)
            if self.clip_norm is None and self.accumulate == 1:
                state.consistent = False
                learner.step(done, dy)
                return mean_loss
            dy *= np.float32(share)
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

    def _validate(self, cases: Cases, state: TrainingState, learner: Learner, interrupt: DeferredInterrupt) -> tuple[float | None, float]:
        """Mean loss (None if the targets are labels and the loss needs logits) and accuracy of the net as it stands."""
        loss_sum, right, comparable = 0.0, 0, True
        with closing(feed(in_order(cases), self.device)) as batches:
            for x, targets, weights in batches:
                y = learner.predict(x)
                labelled = targets.dtype.kind in "iu"
                comparable = labelled == (self.loss == "cross_entropy")
                if comparable:
                    loss_sum += float(self._loss(y, state.targets(targets), weights)[0]) * len(x)
                if state.target_scale is not None:
                    y = y * like(y, state.target_scale) + like(y, state.target_mean)
                right += int(module(y).count_nonzero(y.argmax(axis=1) == (targets if labelled else targets.argmax(axis=1))))
                interrupt.check()
        if comparable:
            self._demand_finite("validation loss", loss_sum, state.step)
        return (loss_sum / len(cases) if comparable else None), right / len(cases)

    def _standardise(self, data: Cases, state: TrainingState) -> None:
        if self.standardise_inputs and self.student.mean is None:
            rows = (x for x, _, _ in in_order(data))
            self.student.set_standardisation(*standardisation(rows, data.inputs, self.standardise_inputs))
        if self.standardise_targets:
            mean, deviation = moments(t for _, t, _ in in_order(data))
            state.target_mean, state.target_scale = mean.astype(np.float32), deviation.astype(np.float32)

    def _finish(self, state: TrainingState, learner: Learner) -> None:
        """Give the student its result; where what the learner has is of no use, the student keeps what it was given last."""
        if state.consistent:
            learner.hand_over()
        if state.best is not None:
            self.student.set_arrays(**state.best)
        if state.target_mean is not None and state.target_scale is not None:
            self.student.fold(state.target_mean, state.target_scale)

    def _demand_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            there = self.checkpoint is not None and os.path.exists(self.checkpoint)
            kept = f"; the last good checkpoint is in {str(self.checkpoint)!r}" if there else ""
            raise TrainingDivergedError(f"{what}: expected a finite number at step {step}, got {value}{kept}")

    def _demand_watchable(self, validation: Cases | None) -> None:
        if self.patience is None:
            return
        if validation is None:
            raise ValueError("validation: expected a set, as patience watches it, got None")
        labelled = validation.batch(np.arange(1))[1].dtype.kind in "iu"
        if self.monitor == "loss" and labelled != (self.loss == "cross_entropy"):
            raise ValueError(f"monitor: expected 'accuracy', as loss {self.loss!r} does not apply to the validation targets, got 'loss'")

    def _configuration(self, rows: int) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        own = ("batch_size", "accumulate", "loss", "temperature", "seed", "monitor", "clip_norm", "ema", "standardise_targets", "dtype")
        return {
            "student": self.student.configuration(), "optimizer": type(self.optimizer).__name__, "slots": list(self.optimizer.slot_names),
            "rows": rows, "augment": self.augment is not None, "early_stopping": self.patience is not None,
            "keep": self.save_dtype, **{name: getattr(self, name) for name in own},
        }  # fmt: skip
