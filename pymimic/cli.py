"""The command line: `pymimic demo`, `info`, `distill`, `predict` and `bench`. A user's mistake gives one line, and exit status 1 or 2."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, NoReturn, cast

import numpy as np
import typer

from . import __version__, backends
from .backends.interface import Array
from .bench.command import bench
from .data.transfer import TransferSet
from .errors import BackendUnavailableError, FileFormatError
from .exits import MISUSED, complain, finish, one_line, option, status_of
from .files import read_metadata
from .nets.student import Student
from .optimizer import SGD, AdamW, Optimizer, Schedule, constant, cosine, step_decay, warm_up
from .plan import plan
from .progress import Progress
from .targets import demand_distinct, demand_writable, expanded, replacing
from .threads import get_num_threads, set_num_threads
from .training.interrupt import terminable
from .training.trainer import Trainer

_PACKAGES = ("numpy", "safetensors", "ml-dtypes", "tqdm", "typer", "rich", "scikit-learn", "matplotlib", "numba", "torch", "cupy-cuda13x")
_SLAB = 16384  # rows that `predict` holds at once
_PCA_ROWS = 20_000
_UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])  # its home differs between versions of typer

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, help="Wide shallow nets that mimic deep ones, on the CPU and on NVIDIA GPUs."
)


def run(arguments: list[str]) -> NoReturn:
    """Run one command line, without the program's name, and exit."""
    for name in ("stdout", "stderr"):  # closed ones, as daemons have them: old versions of click want some
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (for as long as the program runs)
    try:
        with terminable():
            code = app(arguments or ["--help"], prog_name="pymimic", standalone_mode=False)
    except _UsageError as error:
        code = complain(getattr(error, "format_message", error.__str__)(), MISUSED)
    except typer.Abort:  # ctrl-C before the command began
        code = status_of(KeyboardInterrupt())
    sys.exit(finish(code if isinstance(code, int) else 0))


@app.command()
@one_line
def demo(
    data: Annotated[str, typer.Option(metavar="digits|letter|mnist", help="set of labelled rows")] = "digits",
    path: Annotated[Path | None, typer.Option(metavar="DIR", help="folder with the publisher's files, for letter and mnist")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="small nets and few epochs: seconds instead of minutes, and worse figures")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="everything random follows from it; at least 0")] = 0,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="where nets are trained and asked")] = "cpu",
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="write the figures here")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="draw validation accuracy against epochs here")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="save the mimic student here, as safetensors")] = None,
) -> None:
    """Train a teacher, a shallow net on labels, and the same shallow net as a mimic of the teacher; show what was won.

    Columns: parameters; bytes on disk; accuracy and agreement with the teacher as shares of the test rows; seconds of training;
    microseconds a row, for all test rows in one call.
    """
    from .demo import datasets, report, run_demo

    files = [] if path is None else [Path(expanded(path)) / name for name in datasets.FILES.get(data, ())]
    demand_distinct({f"path's {file.name}": file for file in files}, {"json": json, "plot": plot, "out": out})
    for name, file in (("json", json), ("plot", plot), ("out", out)):
        if file is not None:
            demand_writable(name, file)
    if plot is not None:
        report.demand_matplotlib()
    result = run_demo(data, None if path is None else expanded(path), fast=fast, seed=seed, device=device)
    try:
        if out is not None:
            result.student.save(out)
        if json is not None:
            report.write_json(result, json)
        if plot is not None:
            report.draw(result, plot)
    finally:
        report.show(result)


@app.command()
@one_line
def info(
    shape: Annotated[str | None, typer.Option("--plan", metavar="B,D,k,H,C", help="say how a batch of this shape would run")] = None,
) -> None:
    """Version, instruction sets, threads, CUDA, and the optional packages at hand."""
    lines = {"pymimic": __version__, "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}"}
    lines["backend"] = backends.default_host().name
    try:
        backends.get("cpu")  # obeys PYMIMIC_ISA
        from . import _core

        lines["instruction sets"] = f"{', '.join(_core.compiled_isas())} compiled; {', '.join(_core.runnable_isas())} run here"
        lines["in use"] = _core.isa()
    except BackendUnavailableError as error:
        lines["instruction sets"] = f"none: {error}"
    lines["threads"] = str(get_num_threads())
    try:
        lines["cuda"] = "; ".join(backends.cuda_devices())
    except BackendUnavailableError as error:
        lines["cuda"] = f"no: {error}"
    lines["packages"] = ", ".join(f"{name} {_installed(name)}" for name in _PACKAGES)
    if shape is not None:
        sizes = shape.split(",")
        if len(sizes) != 5 or not all(size.strip().isdecimal() for size in sizes):
            raise ValueError(f"plan: expected five sizes B,D,k,H,C, got {shape!r}")
        B, D, k, H, C = map(int, sizes)
        planned = plan(B, D, k, H, C)
        lines |= {"plan": str(planned), **backends.passes(planned)}
    width = max(map(len, lines)) + 2
    for name, value in lines.items():
        typer.echo(f"{name + ':':<{width}}{value}")


@app.command()
@one_line
def distill(
    inputs: Annotated[Path, typer.Option(metavar="X.npy", help="(N, D) float inputs; memory-mapped")],
    logits: Annotated[Path, typer.Option(metavar="T.npy", help="(N, C) float logits of the teacher; memory-mapped")],
    hidden: Annotated[int, typer.Option(metavar="H", help="hidden units")],
    out: Annotated[Path, typer.Option(metavar="S.safetensors", help="where to save the student")],
    val_inputs: Annotated[Path | None, typer.Option(metavar="X.npy", help="(M, D) inputs to validate on")] = None,
    val_logits: Annotated[Path | None, typer.Option(metavar="T.npy", help="(M, C) logits to validate on")] = None,
    rank: Annotated[int | None, typer.Option(metavar="k", help="units of the linear bottleneck  [default: no bottleneck]")] = None,
    activation: Annotated[str, typer.Option(metavar="NAME", help="relu, identity, tanh, sigmoid or gelu")] = "relu",
    dropout: Annotated[float, typer.Option(metavar="P", help="probability in [0, 1) that a hidden unit is dropped in training")] = 0.0,
    epochs: Annotated[int, typer.Option(metavar="N", help="passes over the rows")] = 20,
    batch_size: Annotated[int, typer.Option(metavar="B", help="rows of a step")] = 512,
    optimizer: Annotated[str, typer.Option(metavar="adamw|sgd", help="sgd is with Nesterov momentum 0.9")] = "adamw",
    lr: Annotated[float, typer.Option(metavar="RATE", help="learning rate, the schedule's highest")] = 1e-3,
    schedule: Annotated[
        str, typer.Option(metavar="cosine|constant|step", help="cosine falls to 0, step to a tenth at each third")
    ] = "cosine",
    warm_up_steps: Annotated[int, typer.Option("--warm-up", metavar="STEPS", help="steps in which the rate rises linearly")] = 100,
    weight_decay: Annotated[float, typer.Option(metavar="RATE", help="of V, U and W, times the learning rate a step")] = 0.0,
    loss: Annotated[str, typer.Option(metavar="mimic|distillation", help="squared error of logits, or cross-entropy (KL)")] = "mimic",
    temperature: Annotated[float, typer.Option(metavar="T", help="of distillation")] = 1.0,
    ema: Annotated[float | None, typer.Option(metavar="D", help="keep a running average of the weights, decay D a step")] = None,
    patience: Annotated[int | None, typer.Option(metavar="N", help="stop after N epochs without a better validation loss")] = None,
    standardise_inputs: Annotated[bool, typer.Option(help="let the student see inputs of mean 0 and deviation 1")] = True,
    standardise_targets: Annotated[bool, typer.Option(help="train on logits of mean 0 and deviation 1; predictions are not")] = False,
    pca: Annotated[bool, typer.Option("--pca", help="start the bottleneck from whitened principal components")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="of weights, batches and dropout; at least 0")] = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="state of the run, removed at its end  [default: OUT.checkpoint]")
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(metavar="STEPS", help="how often to write it")] = 1000,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="where to train")] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="go on from the checkpoint, bit for bit")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="start anew where there is a checkpoint, which is overwritten")] = False,
    dtype: Annotated[str, typer.Option(metavar="float32|bfloat16", help="of the wide layer's products")] = "float32",
    threads: Annotated[int | None, typer.Option(metavar="N", help="of the kernels  [default: the cores at hand]")] = None,
) -> None:
    """Train a wide shallow student on a teacher's logits (Ba & Caruana 2014)."""
    _use_threads(threads)
    state = Path(expanded(f"{out}.checkpoint" if checkpoint is None else checkpoint))
    if (val_inputs is None) != (val_logits is None):
        raise ValueError("val-logits: expected it if and only if val-inputs is given, got one of them")
    reads = {"inputs": inputs, "logits": logits, "val-inputs": val_inputs, "val-logits": val_logits}
    demand_distinct(reads, {"out": out, "checkpoint": state})
    demand_writable("out", out)
    demand_writable("checkpoint", state)
    _demand_clear_start(state, resume, fresh)
    cases = _transfer_set("inputs", inputs, "logits", logits)
    validation = None
    if val_inputs is not None and val_logits is not None:
        validation = _transfer_set("val-inputs", val_inputs, "val-logits", val_logits)
    student = Student(cases.inputs, hidden, cases.outputs, rank, activation, dropout, seed)
    if pca:
        student.initialise_bottleneck(cases.batch(np.linspace(0, len(cases) - 1, min(len(cases), _PCA_ROWS)).astype(np.int64))[0])
    steps = -(-len(cases) // max(1, batch_size)) * epochs
    trainer = Trainer(
        student, _optimizer(optimizer, _schedule(schedule, lr, steps, warm_up_steps), weight_decay), epochs=epochs, batch_size=batch_size,
        loss=loss, temperature=temperature, seed=seed, ema=ema, patience=patience, standardise_inputs=standardise_inputs,
        standardise_targets=standardise_targets, checkpoint=state, checkpoint_every=checkpoint_every, dtype=dtype,
        device=device,
    )  # fmt: skip
    try:
        with option("checkpoint", validation="val-inputs"):
            history = trainer.fit(cases, validation, resume=state if resume else None, overwrite=fresh)
    except KeyboardInterrupt as signal:
        hint = f"{str(state)!r} has the run's state: to go on, add --resume to the same command" if state.exists() else "no step was done"
        raise typer.Exit(complain(f"interrupted; {hint}", status_of(signal))) from None
    try:
        student.save(out)
    except OSError as error:
        what = f"out: {error.strerror} (the run is in {str(state)!r}: mend this, and add --resume to the same command)"
        raise OSError(error.errno, what, error.filename) from error
    state.unlink(missing_ok=True)
    last = history[-1] if history else None
    seen = "" if last is None else f" in {last.epoch} epochs, {last.seconds:.1f} s; training loss {last.train_loss:.5g}"
    if history.best_epoch is not None:
        kept = history[history.best_epoch - 1 if patience is not None else -1]
        seen += f", validation loss {kept.validation_loss:.5g}, agreement with the teacher {kept.validation_accuracy:.4f}"
    typer.echo(f"{out}: {student.parameter_count} parameters, {len(cases)} rows{seen}")


@app.command()
@one_line
def predict(
    student: Annotated[Path, typer.Argument(metavar="S.safetensors", help="a saved student")],
    inputs: Annotated[Path, typer.Option(metavar="X.npy", help="(N, D) float inputs; memory-mapped")],
    out: Annotated[Path, typer.Option(metavar="Y.npy", help="where to write (N, C) float32 logits")],
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="where to compute")] = "cpu",
    proba: Annotated[bool, typer.Option("--proba", help="write probabilities, the softmax of the logits")] = False,
    threads: Annotated[int | None, typer.Option(metavar="N", help="of the kernels  [default: the cores at hand]")] = None,
) -> None:
    """Write a student's logits for every row of a file that may be larger than memory."""
    _use_threads(threads)
    demand_distinct({"student": student, "inputs": inputs}, {"out": out})
    demand_writable("out", out)
    with option("student", path="student"):
        net = Student.load(student)
    net.to(device)
    x = _open_npy("inputs", inputs)
    if x.ndim != 2 or x.shape[1] != net.inputs:
        raise ValueError(f"inputs: expected shape (N, {net.inputs}), as the student has, got {x.shape}")
    form = {"descr": "<f4", "fortran_order": False, "shape": (len(x), net.outputs)}
    answer = net.predict_proba if proba else net.predict
    with replacing(out) as file, Progress(total=len(x), unit="row", unit_scale=True, disable=None) as bar:
        np.lib.format.write_array_header_1_0(file, form)
        for start in range(0, len(x), _SLAB):
            slab = x[start : start + _SLAB]
            file.write(answer(slab).astype("<f4", copy=False).data)
            bar.update(len(slab))
    typer.echo(f"{out}: {len(x)} rows of {net.outputs} {'probabilities' if proba else 'logits'}")


def _open_npy(name: str, path: Path) -> Array:
    """The array in a .npy file, memory-mapped."""
    try:
        with option(name):
            array = np.load(expanded(path), mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FileFormatError(f"{name}: expected a whole .npy file, got a truncated or foreign one, {str(path)!r} ({error})") from None
    if not isinstance(array, np.ndarray):
        raise FileFormatError(f"{name}: expected a .npy file, got the archive {str(path)!r}")
    return array


app.command("bench")(one_line(bench))


def _transfer_set(inputs: str, x: Path, logits: str, t: Path) -> TransferSet:
    """Two files as a set; errors name the options that they came by."""
    arrays = _open_npy(inputs, x), _open_npy(logits, t)
    with option(inputs, x=inputs, logits=logits):
        return TransferSet(*arrays)


def _demand_clear_start(checkpoint: Path, resume: bool, fresh: bool) -> None:
    """Overwrite no checkpoint that nobody said to overwrite, and no other file at all."""
    if resume and fresh:
        raise ValueError("fresh: expected it or --resume, got both")
    if not os.path.exists(checkpoint):
        if resume:
            raise ValueError(f"resume: expected a checkpoint in {str(checkpoint)!r}, got no file")
        return
    with option("checkpoint", path="checkpoint"):
        read_metadata(checkpoint, "checkpoint")
    if not (resume or fresh):
        raise ValueError(
            f"checkpoint: expected no file, got the state of an earlier run in {str(checkpoint)!r}: to go on from it, add --resume; "
            "to start anew, --fresh"
        )


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        with option("threads", n="threads"):
            set_num_threads(threads)


def _schedule(name: str, rate: float, steps: int, rise: int) -> Schedule:
    if rise < 0:
        raise ValueError(f"warm-up: expected at least 0 steps, got {rise}")
    if not 0 <= rate < float("inf"):
        raise ValueError(f"lr: expected a number of at least 0, got {rate}")
    schedules: dict[str, Schedule] = {
        "cosine": cosine(rate, max(1, steps)),
        "constant": constant(rate),
        "step": step_decay(rate, max(1, -(-steps // 3))),
    }
    if name not in schedules:
        raise ValueError(f"schedule: expected one of {', '.join(schedules)}, got {name!r}")
    return warm_up(schedules[name], rise) if rise else schedules[name]


def _optimizer(name: str, schedule: Schedule, weight_decay: float) -> Optimizer:
    if name == "adamw":
        return AdamW(schedule, weight_decay=weight_decay)
    if name == "sgd":
        return SGD(schedule, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    raise ValueError(f"optimizer: expected adamw or sgd, got {name!r}")


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"
