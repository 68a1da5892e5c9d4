"""`pymimic distill`: a student trained on two files, of inputs and of a teacher's logits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from .. import _check
from ..data.mapped import map_npy
from ..data.storage import Storage
from ..data.transfer import TransferSet
from ..distributed.group import Group
from ..distributed.launch import joined, restarted
from ..distributed.saving import remove
from ..distributed.speed import measured_shares
from ..distributed.student import ShardedStudent
from ..errors import TrainingDivergedError
from ..exits import complain, counted, option, say, status_of
from ..files import demand_kind_or_none
from ..nets.student import Student
from ..optimizer import SGD, AdamW, Optimizer, Schedule, constant, cosine, step_decay, warm_up
from ..targets import demand_distinct, demand_writable, expanded
from ..training.beginning import standards_of_inputs
from ..training.history import History
from ..training.resume import OtherRunError
from ..training.trainer import Trainer
from .options import demand_loss, use_threads
from .resuming import demand_clear_start, other_run, settings_of

_PCA_ROWS = 20_000


def distill(
    hidden: Annotated[int, typer.Option(metavar="H", help="hidden units")],
    out: Annotated[Path, typer.Option(metavar="S.safetensors", help="where to save the student")],
    inputs: Annotated[Path | None, typer.Option(metavar="X.npy", help="(N, D) float inputs; memory-mapped")] = None,
    logits: Annotated[Path | None, typer.Option(metavar="T.npy", help="(N, C) float logits of the teacher; memory-mapped")] = None,
    folder: Annotated[
        Path | None, typer.Option("--set", metavar="DIR", help="transfer set to train on; it is written, where --inputs are given too")
    ] = None,
    inputs_dtype: Annotated[
        str | None, typer.Option(metavar="float32|float16|uint8", help="how the set keeps inputs  [default: float32]")
    ] = None,
    inputs_range: Annotated[str | None, typer.Option(metavar="LOW,HIGH", help="least and greatest input of uint8  [default: 0,1]")] = None,
    logits_dtype: Annotated[
        str | None, typer.Option(metavar="float32|float16", help="how the set keeps logits  [default: float32]")
    ] = None,
    top_logits: Annotated[
        int | None, typer.Option(metavar="K", help="logits of a row that the set keeps; the others come back alike  [default: all]")
    ] = None,
    compress: Annotated[bool, typer.Option("--compress", help="let the set's files be compressed, to be kept rather than read")] = False,
    val_inputs: Annotated[Path | None, typer.Option(metavar="X.npy", help="(M, D) inputs to validate on")] = None,
    val_logits: Annotated[Path | None, typer.Option(metavar="T.npy", help="(M, C) logits to validate on")] = None,
    rank: Annotated[
        int | None, typer.Option(metavar="k", help="units of the linear bottleneck, at most D  [default: no bottleneck]")
    ] = None,
    activation: Annotated[str, typer.Option(metavar="NAME", help="relu, identity, tanh, sigmoid or gelu")] = "relu",
    dropout: Annotated[float, typer.Option(metavar="P", help="probability in [0, 1) that a hidden unit is dropped in training")] = 0.0,
    epochs: Annotated[int, typer.Option(metavar="N", help="passes over the rows")] = 20,
    batch_size: Annotated[int, typer.Option(metavar="B", help="rows of a step")] = 512,
    optimizer: Annotated[str, typer.Option(metavar="adamw|sgd", help="sgd is with Nesterov momentum 0.9")] = "adamw",
    lr: Annotated[float, typer.Option(metavar="RATE", help="learning rate, the schedule's highest")] = 5e-3,
    schedule: Annotated[
        str, typer.Option(metavar="cosine|constant|step", help="cosine falls to 0, step to a tenth at each third")
    ] = "cosine",
    warm_up_share: Annotated[
        float | None,
        typer.Option(
            "--warm-up",
            metavar="SHARE",
            help="of all steps, in which the rate rises linearly; in [0, 1)  [default: 0.03 with a cosine, else 0]",
        ),
    ] = None,
    weight_decay: Annotated[float, typer.Option(metavar="RATE", help="of V, U and W, times the learning rate a step")] = 0.0,
    loss: Annotated[str, typer.Option(metavar="mimic|distillation", help="squared error of logits, or cross-entropy (KL)")] = "mimic",
    temperature: Annotated[float, typer.Option(metavar="T", help="of distillation alone, at most 100")] = 1.0,
    ema: Annotated[float | None, typer.Option(metavar="D", help="keep a running average of the weights, decay D a step")] = None,
    patience: Annotated[
        int | None, typer.Option(metavar="N", help="stop after N epochs without a better validation loss; needs --val-inputs")
    ] = None,
    keep_best: Annotated[
        bool, typer.Option("--keep-best", help="save the epoch with the least validation loss, not the last; --patience does so too")
    ] = False,
    standardise_inputs: Annotated[bool, typer.Option(help="let the student see inputs of mean 0 and deviation 1")] = True,
    standardise_targets: Annotated[bool, typer.Option(help="train on logits of mean 0 and deviation 1; predictions are not")] = False,
    pca: Annotated[bool, typer.Option("--pca", help="start the bottleneck from whitened principal components; needs --rank")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="of weights, batches and dropout; at least 0")] = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="state of the run, removed at its end  [default: OUT.checkpoint]")
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(metavar="STEPS", help="how often to write it")] = 1000,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="where to train")] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="go on from the checkpoint of a run that was stopped, bit for bit")] = False,
    resume_with: Annotated[
        str, typer.Option("--resume-with", metavar="NAME,...", help="with --resume: options that may differ from that run's, such as lr")
    ] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="start anew where there is a checkpoint, which is overwritten")] = False,
    dtype: Annotated[str, typer.Option(metavar="float32|bfloat16", help="of the wide layer's products")] = "float32",
    reproducible: Annotated[
        bool, typer.Option("--reproducible", help="add up fixed parts of H: the same bits for any number of torchrun's processes")
    ] = False,
    shares: Annotated[
        str | None,
        typer.Option(
            metavar="measured|A,B,...", help="how torchrun's processes share the units: by their speed, or so  [default: equally]"
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="of the kernels  [default: the cores at hand]")] = None,
) -> None:
    """Train a wide shallow student on a teacher's logits (Ba & Caruana 2014), from --inputs and --logits, or from --set.

    With all three the files' rows are written into the folder, in the bytes that the options from --inputs-dtype to --compress say, and
    the student sees them as they are kept.
    The checkpoint is there for a run that is stopped: one that comes to its end removes it.
    Started by torchrun, each process trains some of the hidden units; a run that torchrun restarts goes on from the checkpoint.
    """
    use_threads(threads)
    state, group, resumes = Path(expanded(f"{out}.checkpoint" if checkpoint is None else checkpoint)), joined(), resume
    with group.together():  # what one process finds, all say
        kept: dict[str, Any] = {
            "inputs_dtype": inputs_dtype, "inputs_range": _range(inputs_range), "logits_dtype": logits_dtype, "top_logits": top_logits,
            "compress": compress or None,
        }  # fmt: skip
        kept = {name: value for name, value in kept.items() if value is not None}
        _demand_rows(inputs, logits, folder, kept)
        _demand_partners(val_inputs, val_logits, patience, keep_best, pca, rank)
        _check.integer("epochs", epochs, 1, 1 << 31)
        demand_loss(loss)
        reads = {"inputs": inputs, "logits": logits, "val-inputs": val_inputs, "val-logits": val_logits}
        demand_distinct(reads, {"out": out, "checkpoint": state})
        demand_distinct({"inputs": inputs}, {"logits": logits})
        demand_distinct({"val-inputs": val_inputs}, {"val-logits": val_logits})
        demand_writable("out", out)
        demand_writable("checkpoint", state)
        demand_kind_or_none("out", out, "student")
        restarts = restarted() and state.exists()
        demand_clear_start(state, resume or restarts, resume_with, fresh and not restarts)
        resumes = resume or restarts
        cases = _cases(inputs, logits, folder, kept, group)
        validation = None
        if val_inputs is not None and val_logits is not None:
            validation = _transfer_set("val-inputs", val_inputs, "val-logits", val_logits)
    sizes = (cases.inputs, hidden, cases.outputs, rank, activation, dropout, seed)
    dealt = _shares(shares, group, rank or cases.inputs, cases.outputs, batch_size)
    if group.size > 1 or reproducible:
        student: Student = ShardedStudent(*sizes, group=group, shares=dealt, reproducible=reproducible)
    else:
        student = Student(*sizes)
    if pca:
        if standardise_inputs:  # the components are those of what the net sees
            student.set_standardisation(*standards_of_inputs("inputs", cases, "each"))
        student.initialise_bottleneck(cases.batch(np.linspace(0, len(cases) - 1, min(len(cases), _PCA_ROWS)).astype(np.int64))[0])
    steps = -(-len(cases) // max(1, batch_size)) * epochs
    trainer = Trainer(
        student, _optimizer(optimizer, _schedule(schedule, lr, steps, warm_up_share), weight_decay), epochs=epochs, batch_size=batch_size,
        loss=loss, temperature=temperature, seed=seed, ema=ema, patience=patience, keep_best=keep_best,
        standardise_inputs=standardise_inputs,
        standardise_targets=standardise_targets, checkpoint=state, checkpoint_every=checkpoint_every, dtype=dtype,
        device=device,
    )  # fmt: skip
    may_differ = settings_of(trainer, resume_with)
    try:
        with option("checkpoint", data="inputs", validation="val-inputs"):
            try:
                history = trainer.fit(cases, validation, resume=state if resumes else None, resume_with=may_differ, overwrite=fresh)
            except OtherRunError:
                if not (fresh and resumes):
                    raise
                history = trainer.fit(cases, validation, overwrite=True)  # torchrun began anew before this run had a checkpoint
    except OtherRunError as error:
        raise ValueError(other_run(error)) from None
    except TrainingDivergedError as error:
        raise TrainingDivergedError(str(error).replace("learning rate", "--lr")) from None
    except KeyboardInterrupt as signal:
        hint = f"{str(state)!r} has the run's state: to go on, add --resume to the same command" if state.exists() else "no step was done"
        raise typer.Exit(complain(f"interrupted; {hint}", status_of(signal))) from None
    try:
        student.save(out)
    except OSError as error:
        what = f"out: {error.strerror} (the run is in {str(state)!r}: mend this, and add --resume to the same command)"
        raise OSError(error.errno, what, error.filename) from error
    if group.told(trainer.place is not None and trainer.place.kept)[0]:  # another run's stays
        remove(state, group)
    if group.rank == 0:
        where = f"{out} and {counted(group.size, 'file')} of units beside it" if group.size > 1 else f"{out}"
        say(f"{where}: {student.parameter_count} parameters, {counted(len(cases), 'row')}{_summary(history, trainer.keep_best)}")


def _shares(text: str | None, group: Group, rank: int, outputs: int, batch_size: int) -> list[float] | None:
    """What each process's share of the units is."""
    if text is None:
        return None
    if text == "measured":
        return measured_shares(group, rank, outputs, batch_size) if group.size > 1 else None
    try:
        given = [float(share) for share in text.split(",")]
    except ValueError:
        raise ValueError(f"shares: expected measured, or numbers such as 1,2,1, got {text!r}") from None
    if len(given) != group.size:
        raise ValueError(f"shares: expected one for each of {group.size} process{'es' * (group.size > 1)}, got {text!r}")
    return given


def _summary(history: History, keep_best: bool) -> str:
    """What the run came to."""
    last = history[-1] if history else None
    seen = "" if last is None else f" in {counted(last.epoch, 'epoch')}, {last.seconds:.1f} s; training loss {last.train_loss:.5g}"
    if history.best_epoch is not None:
        kept = history[history.best_epoch - 1 if keep_best else -1]
        seen += f", validation loss {kept.validation_loss:.5g}"
        seen += "" if kept.validation_accuracy is None else f", agreement with the teacher {kept.validation_accuracy:.4f}"
    return seen


def _range(text: str | None) -> tuple[float, float] | None:
    """Two numbers with a comma between them."""
    try:
        low, high = (text or "0,1").split(",")
        return None if text is None else (float(low), float(high))
    except ValueError:
        raise ValueError(f"inputs-range: expected two numbers LOW,HIGH, such as 0,1, got {text!r}") from None


def _demand_rows(inputs: Path | None, logits: Path | None, folder: Path | None, kept: dict[str, Any]) -> None:
    """Demand rows to train on, and for what a set is to be kept in, rows and a folder."""
    if (inputs is None) != (logits is None):
        one, other = ("inputs", "logits") if logits is None else ("logits", "inputs")
        raise ValueError(f"{other}: expected it beside --{one}, got --{one} alone")
    if inputs is None and folder is None:
        raise ValueError("inputs: expected --inputs and --logits, or --set, to train on, got none of them")
    for name in kept:
        if folder is None:
            raise ValueError(f"{name}: expected --set beside it, the folder to be written, got none")
        if inputs is None:
            raise ValueError(f"{name}: expected --inputs and --logits beside it, to be written into --set, got neither")
    Storage.of(**kept)


def _cases(inputs: Path | None, logits: Path | None, folder: Path | None, kept: dict[str, Any], group: Group) -> TransferSet:
    """The rows to train on; where there are files and a folder, the files' rows as the folder keeps them."""
    cases = None if inputs is None or logits is None else _transfer_set("inputs", inputs, "logits", logits)
    if folder is None:
        assert cases is not None
        return cases
    with option("set", directory="set"):
        part = (group.rank, group.size) if group.size > 1 else None
        return TransferSet.open(folder) if cases is None else cases.save(folder, part=part, **kept)


def _demand_partners(
    val_inputs: Path | None, val_logits: Path | None, patience: int | None, keep_best: bool, pca: bool, rank: int | None
) -> None:  # fmt: skip
    """Demand the options that others need beside them."""
    if (val_inputs is None) != (val_logits is None):
        one, other = ("val-inputs", "val-logits") if val_logits is None else ("val-logits", "val-inputs")
        raise ValueError(f"{other}: expected it beside --{one}, as validation takes both, got --{one} alone")
    for name, given in (("patience", patience is not None), ("keep-best", keep_best)):
        if given and val_inputs is None:
            raise ValueError(f"{name}: expected --val-inputs and --val-logits beside it, as it watches the validation loss, got neither")
    if pca and rank is None:
        raise ValueError("pca: expected --rank beside it, as it starts the bottleneck, got no bottleneck")


def _transfer_set(inputs: str, x: Path, logits: str, t: Path) -> TransferSet:
    """Two files as a set; errors name the options that they came by."""
    arrays = map_npy(inputs, x), map_npy(logits, t)
    try:
        with option(inputs, x=inputs, logits=logits):
            return TransferSet(*arrays)
    except (TypeError, ValueError) as error:
        file = t if str(error).startswith(f"{logits}: ") else x
        raise type(error)(f"{error} (in {str(file)!r})") from error


def _schedule(name: str, rate: float, steps: int, share: float | None) -> Schedule:
    if share is None:
        share = 0.03 if name == "cosine" else 0.0
    if not 0 <= share < 1:
        raise ValueError(f"warm-up: expected a share of the steps in [0, 1), such as 0.03, got {share}")
    if not 0 <= rate < float("inf"):
        raise ValueError(f"lr: expected a number of at least 0, got {rate}")
    schedules: dict[str, Schedule] = {
        "cosine": cosine(rate, max(1, steps)),
        "constant": constant(rate),
        "step": step_decay(rate, max(1, -(-steps // 3))),
    }
    if name not in schedules:
        raise ValueError(f"schedule: expected one of {', '.join(schedules)}, got {name!r}")
    rise = round(share * steps)
    return warm_up(schedules[name], rise) if rise else schedules[name]


def _optimizer(name: str, schedule: Schedule, weight_decay: float) -> Optimizer:
    if name == "adamw":
        return AdamW(schedule, weight_decay=weight_decay)
    if name == "sgd":
        return SGD(schedule, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    raise ValueError(f"optimizer: expected adamw or sgd, got {name!r}")
