"""The command line: `pymimic demo`, `info`, `distill`, `predict` and `bench`. A user's mistake gives one line, and exit status 1 or 2."""

from __future__ import annotations

import functools
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, NoReturn, ParamSpec, cast

import numpy as np
import typer

from . import __version__, backends
from .backends.interface import Array
from .bench.command import bench
from .data.transfer import TransferSet
from .errors import BackendUnavailableError, FileFormatError
from .files import replacing
from .nets.student import Student
from .optimizer import SGD, AdamW, Optimizer, Schedule, constant, cosine, step_decay, warm_up
from .plan import plan
from .progress import Progress
from .threads import get_num_threads, set_num_threads
from .training.trainer import Trainer

P = ParamSpec("P")

_PACKAGES = ("numpy", "safetensors", "ml-dtypes", "tqdm", "typer", "rich", "scikit-learn", "matplotlib", "numba", "torch", "cupy-cuda13x")
_SLAB = 16384  # rows that `predict` holds at once
_PCA_ROWS = 20_000
_INTERRUPTED = 130  # as shells have it
_UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])  # its home differs between versions of typer

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, help="Wide shallow nets that mimic deep ones, on the CPU and on NVIDIA GPUs."
)


def run(arguments: list[str]) -> NoReturn:
    """Run one command line, without the program's name, and exit."""
    try:
        code = app(arguments or ["--help"], prog_name="pymimic", standalone_mode=False)
    except _UsageError as error:
        code = _complain(getattr(error, "format_message", error.__str__)(), 2)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: object, code: int) -> int:
    typer.echo(f"pymimic: {' '.join(str(message).split())}", err=True)
    return code


def _one_line(command: Callable[P, None]) -> Callable[P, None]:
    """What goes wrong by the user's hand as one line on standard error instead of a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(_complain("interrupted", _INTERRUPTED)) from None
        except OSError as error:
            where = f": {str(error.filename)!r}" if error.filename else ""
            raise typer.Exit(_complain(f"{error.strerror or error}{where}", 1)) from None
        except (ValueError, TypeError, MemoryError, ImportError) as error:
            raise typer.Exit(_complain(error, 1)) from None

    return wrapped


@app.command()
@_one_line
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
    from .demo import report, run_demo

    for file in (json, plot, out):
        _demand_folder(file)
    result = run_demo(data, path, fast=fast, seed=seed, device=device)
    report.show(result)
    if out is not None:
        result.student.save(out)
    if json is not None:
        report.write_json(result, json)
    if plot is not None:
        report.draw(result, plot)


@app.command()
@_one_line
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
@_one_line
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
    dtype: Annotated[str, typer.Option(metavar="float32|bfloat16", help="of the wide layer's products")] = "float32",
    threads: Annotated[int | None, typer.Option(metavar="N", help="of the kernels  [default: the cores at hand]")] = None,
) -> None:
    """Train a wide shallow student on a teacher's logits (Ba & Caruana 2014)."""
    if threads is not None:
        set_num_threads(threads)
    state = Path(f"{out}.checkpoint") if checkpoint is None else checkpoint
    _demand_folder(out)
    _demand_folder(state)
    cases = TransferSet(_open_npy("inputs", inputs), _open_npy("logits", logits))
    if (val_inputs is None) != (val_logits is None):
        raise ValueError("val-logits: expected it if and only if val-inputs is given, got one of them")
    validation = None
    if val_inputs is not None and val_logits is not None:
        validation = TransferSet(_open_npy("val-inputs", val_inputs), _open_npy("val-logits", val_logits))
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
        history = trainer.fit(cases, validation, resume=state if resume else None)
    except KeyboardInterrupt:
        hint = f"{str(state)!r} has the run's state: to go on, add --resume to the same command" if state.exists() else "no step was done"
        raise typer.Exit(_complain(f"interrupted; {hint}", _INTERRUPTED)) from None
    student.save(out)
    state.unlink(missing_ok=True)
    last = history[-1] if history else None
    seen = "" if last is None else f" in {last.epoch} epochs, {last.seconds:.1f} s; training loss {last.train_loss:.5g}"
    if history.best_epoch is not None:
        kept = history[history.best_epoch - 1 if patience is not None else -1]
        seen += f", validation loss {kept.validation_loss:.5g}, agreement with the teacher {kept.validation_accuracy:.4f}"
    typer.echo(f"{out}: {student.parameter_count} parameters, {len(cases)} rows{seen}")


@app.command()
@_one_line
def predict(
    student: Annotated[Path, typer.Argument(metavar="S.safetensors", help="a saved student")],
    inputs: Annotated[Path, typer.Option(metavar="X.npy", help="(N, D) float inputs; memory-mapped")],
    out: Annotated[Path, typer.Option(metavar="Y.npy", help="where to write (N, C) float32 logits")],
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="where to compute")] = "cpu",
    proba: Annotated[bool, typer.Option("--proba", help="write probabilities, the softmax of the logits")] = False,
    threads: Annotated[int | None, typer.Option(metavar="N", help="of the kernels  [default: the cores at hand]")] = None,
) -> None:
    """Write a student's logits for every row of a file that may be larger than memory."""
    if threads is not None:
        set_num_threads(threads)
    net = Student.load(student).to(device)
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
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FileFormatError(f"{name}: expected a whole .npy file, got a truncated or foreign one, {str(path)!r} ({error})") from None
    if not isinstance(array, np.ndarray):
        raise FileFormatError(f"{name}: expected a .npy file, got the archive {str(path)!r}")
    return array


app.command("bench")(_one_line(bench))


def _demand_folder(file: Path | None) -> None:
    """Find out before the work, not after it, that a result could not be written."""
    if file is not None and not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"expected a file in a folder that exists, got {str(file)!r}")


def _schedule(name: str, rate: float, steps: int, rise: int) -> Schedule:
    if rise < 0:
        raise ValueError(f"warm-up: expected at least 0 steps, got {rise}")
    if not 0 <= rate < float("inf"):
        raise ValueError(f"lr: expected a number of at least 0, got {rate}")
    schedules = {"cosine": cosine(rate, steps), "constant": constant(rate), "step": step_decay(rate, max(1, -(-steps // 3)))}
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
