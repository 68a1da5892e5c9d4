"""What a training run is told, checked before it begins. The loop itself is in `loop.py`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import _check, arguments
from ..backends import NAMES as BACKENDS
from ..backends import for_training
from ..callables import demand_arguments, describe
from ..data.cases import Cases, demand_cases
from ..data.feed import Augment
from ..devices import DEVICES
from ..distributed.group import Group
from ..distributed.student import ShardedStudent
from ..files import Path
from ..nets.net import Net
from ..nets.student import Student
from ..numerics import warn
from ..optimizer import Optimizer, warm_up
from .history import History
from .learner import LearningNet
from .loop import Run
from .losses import NAMES, Loss, demand_targets, loss_function, suits
from .resume import Place, Sample, as_stored, home, sample


class Trainer:
    """Trains a net on a teacher's logits or on labels: a `Student`, wide and shallow, or a `DeepNet`.

    Everything random follows from `seed`. `SeedSequence(seed, spawn_key=(e,))` gives epoch e's order of rows, `spawn_key=(e, first row)`
    the `rng` that `augment` gets, and `SeedSequence(seed)` itself the key of dropout, whose offset is the step; from it each layer
    of a deep net draws a key of its own.

    Parameters
    ----------
    student : a `Student` or a `DeepNet`, trained in place
    optimizer : `SGD` or `AdamW`; its step count and slots go on from where they are, and so it must not have trained another student
    epochs : passes over the data
    batch_size : rows of one forward and backward pass
    loss : "mimic" (Ba & Caruana 2014, equation 1), "distillation" (Hinton et al. 2015) or a `Loss`, on logits; "cross_entropy", on labels
    temperature : of "distillation", at most 100: above, float32 rounds away the loss, which tends to that of "mimic" on a `centred` teacher
    alpha : of "distillation": the share of the teacher's logits; labels have the rest, by cross-entropy, and must be in the data with the
        logits, as `TransferSet(labels=)` has them
    seed : of the order of rows, dropout and `augment`
    keep_best : whether the student gets the weights of the epoch with the best validation value, instead of the last
    patience : stop after so many epochs without a better validation value, and keep the best; None for none
    monitor : which value that is: validation "loss" or, of two outputs and more, "accuracy"
    clip_norm : rescale the gradient to at most this norm over all arrays; None does not
    accumulate : batches whose gradients make one optimizer step, as one batch of accumulate * batch_size rows would
    ema : decay a step, 0.995 for instance, of a running average of the weights, which is validated and kept in their place; None for none
    augment : an `Augment`, for fresh random cases at every step: it must be a function of its arguments alone
    standardise_inputs : give the student, unless it has them, mean and deviation of "each" (or True) training input, or of "all"
        together. A student that has learned without them is refused
    standardise_targets : train on logits of mean 0 and deviation 1, folding the inverse into the last layer at the end; losses are of
        these. A student that has learned goes on from the y that it gives
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
    group : a `pymimic.distributed.ProcessGroup`: each of its processes trains some of the hidden units of the student, which all of them
        have, and all call `fit` with the same arguments. A `ShardedStudent` brings its own
    reproducible : with a group, or without: add up fixed parts of H in their order, so that any number of processes gets the same bits

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong kind or out of range.
    """

    def __init__(
        self, student: Student | LearningNet, optimizer: Optimizer, *, epochs: int, batch_size: int = 512, loss: str | Loss = "mimic",
        temperature: float = 1.0, alpha: float = 1.0, seed: int = 0, keep_best: bool = False, patience: int | None = None,
        monitor: str = "loss", clip_norm: float | None = None, accumulate: int = 1, ema: float | None = None,
        augment: Augment | None = None, standardise_inputs: bool | str = False, standardise_targets: bool = False,
        checkpoint: Path | None = None, checkpoint_every: int = 1000, progress: bool = True, device: str = "cpu",
        backend: str | None = None, memory_budget: int = 256 << 20, dtype: str = "float32", keep: str = "float32",
        group: Group | None = None, reproducible: bool = False,
    ) -> None:  # fmt: skip
        for name, given, wanted in (("student", student, Net), ("optimizer", optimizer, Optimizer)):
            if not isinstance(given, wanted):
                raise TypeError(f"{name}: expected a pymimic {wanted.__name__}, got {type(given).__name__}")
        if not _check.one_of(device, DEVICES):
            raise ValueError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
        if not _check.one_of(dtype, ("float32", "bfloat16")):
            raise ValueError(f"dtype: expected 'float32' or 'bfloat16', got {dtype!r}")
        arguments.save_dtype(keep, dtype)
        if not isinstance(student, Student) and not dtype == keep == "float32":
            raise ValueError(f"dtype, keep: expected 'float32' for a net other than a Student, got {dtype!r} and {keep!r}")
        self.student, self.optimizer, self.device = student, optimizer, device
        self.backend = for_training(device, dtype) if backend is None else backend
        if backend is not None and not _check.one_of(backend, BACKENDS):
            raise ValueError(f"backend: expected one of {', '.join(BACKENDS)} or None, got {backend!r}")
        self.dtype, self.save_dtype = dtype, keep
        self.memory_budget = _check.integer("memory_budget", memory_budget, 0, 1 << 62)
        self.epochs = _check.integer("epochs", epochs, 0, 1 << 31)
        self.batch_size = _check.integer("batch_size", batch_size, 1, 1 << 31)
        self.accumulate = _check.integer("accumulate", accumulate, 1, 1 << 31)
        self.seed = _check.integer("seed", seed, 0, 1 << 64)
        self.patience = None if patience is None else _check.integer("patience", patience, 1, 1 << 31)
        self.keep_best = _check.flag("keep_best", keep_best) or patience is not None
        self.checkpoint_every = _check.integer("checkpoint_every", checkpoint_every, 1, 1 << 62)
        self.clip_norm = None if clip_norm is None else _check.number("clip_norm", clip_norm, above=0, or_none=True)
        self.ema = None if ema is None else _check.number("ema", ema, 0, 1, or_none=True)
        self.temperature = _check.temperature(temperature)
        self.alpha = _check.number("alpha", alpha, 0, most=1)
        self.standardise_targets = _check.flag("standardise_targets", standardise_targets)
        self.progress = _check.flag("progress", progress)
        if not _check.one_of(monitor, ("loss", "accuracy")):
            raise ValueError(f"monitor: expected 'loss' or 'accuracy', got {monitor!r}")
        if monitor == "accuracy" and student.outputs == 1:
            raise ValueError("monitor: expected 'loss' for a net with one output, whose accuracy is 1 whatever it says, got 'accuracy'")
        self.standardise_inputs = standardise_inputs if isinstance(standardise_inputs, str) else None
        if self.standardise_inputs is None and _check.flag("standardise_inputs", standardise_inputs):
            self.standardise_inputs = "each"
        if self.standardise_inputs not in ("each", "all", None):
            raise ValueError(f"standardise_inputs: expected True, False, 'each' or 'all', got {standardise_inputs!r}")
        self.loss_function = loss_function(loss, self.temperature, self.alpha, self.backend)
        self.loss = loss if isinstance(loss, str) else describe(loss)
        if callable(loss) and self.loss in NAMES:
            self.loss = f"function {self.loss}"
        if student.outputs == 1 and loss in ("distillation", "cross_entropy"):
            raise ValueError(f"loss: expected 'mimic' or a function for a net with one output, whose softmax is always 1, got {loss!r}")
        if self.standardise_targets and loss in ("cross_entropy", "distillation"):
            raise ValueError(f"standardise_targets: expected False with loss {loss!r}, which needs the targets as they are, got True")
        if self.temperature != 1 and loss != "distillation":
            raise ValueError(f"temperature: expected 1 with loss {self.loss!r}, as 'distillation' alone reads it, got {temperature}")
        if self.alpha < 1 and loss != "distillation":
            raise ValueError(f"alpha: expected 1 with loss {self.loss!r}, as 'distillation' alone takes logits and labels, got {alpha}")
        if augment is not None:
            if not callable(augment):
                raise TypeError(f"augment: expected a function or None, got {type(augment).__name__}")
            demand_arguments("augment", augment, "x", "targets", "rng")
        self.monitor, self.augment = monitor, augment
        self._augment = None if augment is None else describe(augment)  # now, before its own notes change what it holds
        self._take_group(group, _check.flag("reproducible", reproducible))
        self.checkpoint = home("checkpoint", checkpoint)
        self.place: Place | None = None  # of the last `fit` with a checkpoint
        self.history = History()
        if self.checkpoint is not None:
            self.configuration()  # is tried now, not at the first checkpoint

    def _take_group(self, group: Group | None, reproducible: bool) -> None:
        """Who trains: this process alone, or one of several."""
        if group is not None and not isinstance(group, Group):
            raise TypeError(f"group: expected a pymimic.distributed.ProcessGroup or None, got {type(group).__name__}")
        if isinstance(self.student, ShardedStudent):
            if group is not None or reproducible:
                raise ValueError("group, reproducible: expected none beside a ShardedStudent, which has its own")
            self.group, self.reproducible, self._shards = self.student.group, self.student.reproducible, False
        else:
            self.group, self.reproducible = group or Group(), reproducible
            self._shards = self.reproducible or self.group.everyone.size > 1  # whether `fit` cuts the student
        if (self.reproducible or self.group.everyone.size > 1) and (not isinstance(self.student, Student) or self.device != "cpu"):
            raise ValueError("group, reproducible: expected them with a Student on the CPU only")
        if self.reproducible and self.group.rows.size > 1:
            raise ValueError("reproducible: expected False where processes share out the rows of a batch, got True")

    @property
    def path(self) -> str:
        """Which way an update takes, and why."""
        if self.clip_norm is not None:
            return f"unfused: clip_norm={self.clip_norm} needs the norm of the whole gradient before the update"
        if not isinstance(self.student, Student):
            return "unfused: the layers of a deep net are updated after the backward pass"
        if self.group.rows.size > 1:
            return f"unfused: {self.group.rows.size} processes sum the gradients of their rows before the update"
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
        those for validation too, if they choose the epoch). Only `epochs`, the number in `patience`, the checkpoint's own arguments,
        and where and how to compute may differ. To go on with other settings all the same, name them: `resume_with=["learning_rate"]`.
        Where such settings change how epochs are compared (`validation`, `monitor`; for the loss also `loss`, `temperature`, `alpha`), the
        best epoch so far and its weights are forgotten: `keep_best` and `patience` compare the epochs from there on.

        A file at `checkpoint` with another run's state is replaced only if that run came to its end, or with `overwrite`. One that another
        run writes while this one goes on is never replaced: the next checkpoint raises ValueError instead.

        ctrl-C waits for the end of a step; then the checkpoint, if there is to be one, is written, and KeyboardInterrupt raised. However
        `fit` ends, the student has the last weights that are of use, `history` the records.

        Warns
        -----
        UserWarning
            The learning rate is 0 throughout; a `warm_up` takes the whole run; the run makes the net worse, and worse than the same
            answer for every row; `standardise_inputs` after `initialise_bottleneck`, which comes second.

        Raises
        ------
        TrainingDivergedError
            The loss, its gradient, the weights or what they make of some rows turned NaN or infinite; the message gives the step. The last
            checkpoint stays, and the student has the weights before that step or, where those are of no use, of its last good epoch.
        TypeError, ValueError
            The data don't fit the student or the loss; `resume` is of another run; `checkpoint` has an unfinished run, or another run
            has written it meanwhile; the optimizer has trained another student; a schedule gives no rate; a `Loss` returns no loss and
            gradient.
        OSError
            A checkpoint cannot be read or written.
        """
        with self.group.together():
            rows, held_out = self._samples(data, validation)
            resume = home("resume", resume)
            if isinstance(resume_with, str):
                resume_with = [resume_with]
            resume_with = _check.sequence("resume_with", resume_with, "names of settings")
            if resume is None and resume_with:
                raise ValueError(f"resume_with: expected it with resume only, got {', '.join(map(str, resume_with))} without")
            self.place = None if self.checkpoint is None else Place(self.checkpoint, resume, _check.flag("overwrite", overwrite))
            if resume is None:
                self.optimizer.demand_for(self.student)
        device = self.student.device
        try:
            self.student.to(self.device)
            net: Net = self.student
            if self._shards:
                assert isinstance(net, Student)
                net = ShardedStudent.of(net, self.group, reproducible=self.reproducible)
            run = Run(self, net, data, validation, rows, held_out, resume, resume_with)
            self.history, speaks = run.state.history, self.group.everyone.rank == 0
            if speaks and not self.history.stopped_early:
                self._warn_of_rates(run.steps - run.state.step)
            try:
                run.finish()
            finally:
                if run.handed_over and isinstance(net, ShardedStudent) and net is not self.student:
                    self.student.set_standardisation(net.mean, net.scale)
                    self.student.set_arrays(**net.whole().weights())
            if (useless := run.useless()) is not None and speaks:
                self._warn_of_no_use(useless, len(rows[0]))
            return self.history
        finally:
            self.student.to(device)

    def _samples(self, data: Cases, validation: Cases | None) -> tuple[Sample, Sample | None]:
        """Some rows of each, once they are known to suit the student and the loss."""
        demand_cases(self.student.inputs, self.student.outputs, data=data, validation=validation)
        rows = sample("data", data)
        demand_targets("data", self.loss, self.alpha, rows[1])
        held_out = None if validation is None else sample("validation", validation)
        self._demand_watchable(held_out, rows)
        return rows, held_out

    def _demand_watchable(self, validation: Sample | None, trained_on: Sample) -> None:
        if not self.keep_best:
            return
        if validation is None:
            raise ValueError("validation: expected a set, as keep_best and patience watch it, got None")
        if self.monitor == "loss" and not suits(self.loss, self.alpha, validation[1], trained_on[1]):
            if self.student.outputs == 1:
                raise ValueError(f"validation: expected targets that loss {self.loss!r} applies to, got others")
            raise ValueError(f"monitor: expected 'accuracy', as loss {self.loss!r} does not apply to the validation targets, got 'loss'")

    def _warn_of_rates(self, steps: int) -> None:
        """Warn where the steps to come have no learning rate, or never reach the schedule's own."""
        first, schedule = self.optimizer.steps, self.optimizer.schedule
        if steps > 0 and not any(schedule(step) for step in range(first, first + steps)):
            warn(
                f"optimizer: expected a learning rate above 0, got 0 at each of the {steps} steps to come, from step {first} of "
                f"{describe(schedule)} on: the {self._called} will not learn"
            )
        elif steps > 0 and isinstance(schedule, warm_up) and schedule.steps >= first + steps:
            warn(
                f"optimizer: expected a warm-up shorter than the run, got {schedule.steps} steps of {first + steps}: the learning rate "
                "rises to the last step, and never gets to its schedule"
            )

    def _warn_of_no_use(self, found: tuple[float, float], rows: int) -> None:
        """Warn where the run made the net worse, and worse than the same answer for every row."""
        warn(
            f"{self._called}: expected a loss below {found[1]:.4g}, that of the same answer for every row, got {found[0]:.4g}, more "
            f"than when the run began (on {rows} rows of the data): try a lower learning rate"
        )

    @property
    def _called(self) -> str:
        """The student's name in warnings: who calls the `fit` of another net knows of no student."""
        return "student" if isinstance(self.student, Student) else "net"

    def configuration(self) -> dict[str, Any]:
        """What must be the same for a run to go on, beside the data."""
        own = (
            "batch_size", "accumulate", "loss", "temperature", "alpha", "seed", "monitor", "clip_norm", "ema", "standardise_inputs",
            "standardise_targets", "dtype",
        )  # fmt: skip
        return as_stored({
            "student": self.student.configuration(), **self.optimizer.configuration(),
            "augment": self._augment, "keep_best": self.keep_best,
            "keep": self.save_dtype, **{name: getattr(self, name) for name in own},
        })  # fmt: skip
