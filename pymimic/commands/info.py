"""`pymimic info`: what is installed, what runs here, and how an op would run."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from .. import __version__, _check, backends
from ..distributed.units import dealt
from ..errors import BackendUnavailableError
from ..plan import Plan, plan
from ..threads import get_num_threads

_PACKAGES = (
    "numpy",
    "safetensors",
    "ml-dtypes",
    "tqdm",
    "typer",
    "rich",
    "scikit-learn",
    "matplotlib",
    "numba",
    "onnx",
    "onnxruntime",
    "torch",
    "cupy-cuda13x",
)
_SHOWN = 8  # ranks, the last of them among these
_MODEL = "amx_model"  # an instruction set that is none: what AMX's tiles compute, computed without them


def info(
    shape: Annotated[
        str | None,
        typer.Option("--plan", metavar="B,D,k,H,C", help="say how a batch of this shape would run; k is none without a bottleneck"),
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(metavar="N", help="with --plan: which of N processes has which units, and what they send in a step")
    ] = None,
) -> None:
    """Version, instruction sets, threads, CUDA, and the optional packages at hand.

    With --plan: rows, inputs, bottleneck units, hidden units, outputs. "keep h" says that a training step keeps h between its passes, as
    it takes at most 256 MiB; "recompute h" that it makes h again, a part at a time. With --ranks as well: the same over processes.
    """
    lines = {"pymimic": __version__, "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}"}
    ops = backends.default_host().name
    lines["backend"] = f"{ops} for ops and predictions, {backends.for_training('cpu', 'float32') or ops} for a Trainer"
    try:
        backends.get("cpu")  # obeys PYMIMIC_ISA
        from .. import _core

        compiled, runnable = (", ".join(isa for isa in isas if isa != _MODEL) for isas in (_core.compiled_isas(), _core.runnable_isas()))
        lines["instruction sets"] = f"{compiled} compiled; {runnable} run here"
        lines["in use"] = _core.isa() + ", which computes as AMX's tiles do, without them: for tests" * (_core.isa() == _MODEL)
    except BackendUnavailableError as error:
        lines["instruction sets"] = f"none: {error}"
    lines["threads"] = str(get_num_threads())
    try:
        lines["cuda"] = "; ".join(backends.cuda_devices())
    except BackendUnavailableError as error:
        lines["cuda"] = f"no: {error}"
    lines["packages"] = ", ".join(f"{name} {_installed(name)}" for name in _PACKAGES)
    if shape is not None:
        planned = _planned(shape)
        lines |= {"plan": str(planned), **backends.passes(planned)}
        lines |= {} if ranks is None else _of_ranks(planned, ranks)
    elif ranks is not None:
        raise ValueError(f"ranks: expected --plan beside it, got --ranks {ranks} alone")
    width = max(map(len, lines)) + 2
    for name, value in lines.items():
        typer.echo(f"{name + ':':<{width}}{value}")


def _of_ranks(planned: Plan, ranks: int) -> dict[str, str]:
    """Whose the units are, what one process holds, and what it gives to the others in a training step."""
    B, D, k, H, C = planned.B, planned.D, planned.k, planned.H, planned.C
    units = dealt(H, _check.integer("ranks", ranks, 1, 1 << 20))
    lines = {f"rank {rank}": f"units {own.first} to {own.end}" for rank, own in enumerate(units)}
    if ranks > _SHOWN:
        lines = {name: line for i, (name, line) in enumerate(lines.items()) if i < _SHOWN - 1 or i == ranks - 1}
    weights = 4 * (max(map(len, units)) * (k + 1 + C) + (k * D if k != D else 0) + C)
    lines["a rank's weights"] = f"{weights / 2**20:.1f} MiB, with AdamW's slots {3 * weights / 2**20:.1f} MiB"
    lines["a rank sends"] = f"{4 * B * (k + C)} bytes a step: sums of y ({B} x {C}) and of dz ({B} x {k}), whatever H is"
    return lines


def _planned(shape: str) -> Plan:
    """The plan for five sizes with commas between them."""
    names, given = "BDkHC", [size.strip() for size in shape.split(",")]
    if len(given) != len(names):
        raise ValueError(f"plan: expected five sizes B,D,k,H,C, such as 512,784,64,8192,10 or 512,784,none,8192,10, got {shape!r}")
    sizes: dict[str, int] = {}
    for name, text in zip(names, given):
        if name == "k" and text.lower() == "none":
            sizes["k"] = sizes["D"]
        elif not text.isdecimal() or int(text) == 0:
            what = "a number of at least 1, or none for no bottleneck," if name == "k" else "a number of at least 1"
            raise ValueError(f"plan: expected {what} for {name} in B,D,k,H,C, got {text!r} in {shape!r}")
        else:
            sizes[name] = int(text)
    return plan(sizes["B"], sizes["D"], sizes["k"], sizes["H"], sizes["C"])


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"
