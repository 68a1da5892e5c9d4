"""The implementations of `pymimic.ops`, selectable by name. Nothing here knows what is above."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from typing import Literal, cast

from ..devices import is_device
from ..errors import BackendUnavailableError, CudaError
from ..plan import Plan
from .interface import Backend

BackendName = Literal["cpu", "cpu-bf16x3", "cpu-bf16", "cuda", "cuda-tf32", "cuda-bf16", "cuda-fp16", "numba", "reference"]
# Where each name's class is: module in this package, and class. A backend is one file and its lines here.
_CLASSES: dict[BackendName, tuple[str, str]] = {
    "cpu": ("cpu", "Cpu"),
    "cpu-bf16x3": ("cpu", "Cpu"),
    "cpu-bf16": ("cpu", "Cpu"),
    "cuda": ("cuda.backend", "Cuda"),
    "cuda-tf32": ("cuda.backend", "Cuda"),
    "cuda-bf16": ("cuda.backend", "Cuda"),
    "cuda-fp16": ("cuda.backend", "Cuda"),
    "numba": ("numba", "Numba"),
    "reference": ("reference", "Reference"),
}
NAMES = tuple(_CLASSES)
_HOST_ORDER: tuple[BackendName, ...] = ("cpu", "numba", "reference")  # fastest first


def get(name: str) -> Backend:
    """The backend of that name; BackendUnavailableError says why where it cannot run."""
    if not isinstance(name, str):
        raise TypeError(f"backend: expected a name, got {type(name).__name__}")
    return _load(name)


@cache
def _load(name: str) -> Backend:
    if name not in _CLASSES:
        raise ValueError(f"backend: expected one of {', '.join(NAMES)}, got {name!r}")
    try:
        if name.startswith("cuda"):
            _demand_kernels()
        module, cls = _CLASSES[name]
        return cast(Backend, getattr(importlib.import_module(f"{__name__}.{module}"), cls)(name))
    except (ImportError, BackendUnavailableError) as error:
        raise BackendUnavailableError(f"backend: {name!r} is not available: {error}") from error


@cache
def default_host() -> Backend:
    """The fastest backend for NumPy arrays that this installation can run."""
    for name in _HOST_ORDER:
        try:
            return get(name)
        except BackendUnavailableError:
            continue
    raise AssertionError("the reference backend needs NumPy alone")


def for_training(device: str, dtype: str) -> BackendName | None:
    """The fastest backend of float32's exactness to train by, see `pymimic.Trainer`; None leaves it to the arrays."""
    if device == "cuda":
        return "cuda-tf32" if dtype == "bfloat16" else None
    return "cpu-bf16x3" if default_host().name == "cpu" else None


def passes(plan: Plan) -> dict[str, str]:
    """How a plan's passes run on this machine, by "backend, pass": on the backends that ops and a trainer take by themselves."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(("cpu", for_training("cpu", "float32") or "cpu", "cuda")):
        try:
            found |= {f"{name}, {which}": words for which, words in get(name).passes(plan).items()}
        except BackendUnavailableError:
            continue
    return found


def instruction_set() -> str:
    """Which of the compiled core's instruction sets is in use, by which bits may differ from machine to machine; "" without a core."""
    if default_host().name != "cpu":
        return ""
    from .. import _core

    return _core.isa()


def _demand_kernels() -> None:
    if "pymimic._cuda" not in sys.modules and importlib.util.find_spec("pymimic._cuda") is None:
        raise BackendUnavailableError("this installation was made without CUDA's nvcc, and so without pymimic._cuda")


def choose(given: str | None, array: object) -> Backend:
    """The backend of that name, or the one that the array's kind asks for; TypeError where the two don't go together."""
    on_device = is_device(array)
    if given is None:
        return get("cuda") if on_device else default_host()
    chosen = get(given)
    if chosen.name.startswith("cuda") != on_device:
        want, have = ("CuPy arrays", "NumPy arrays") if on_device is False else ("NumPy arrays", "arrays on a device")
        raise TypeError(f"backend: expected {want} with {chosen.name!r}, got {have}")
    return chosen


def cuda_devices() -> list[str]:
    """One line for each device that the CUDA backend can use; BackendUnavailableError says why there is none."""
    get("cuda")
    from .. import _cuda

    try:
        return _cuda.devices()
    except CudaError as error:
        raise BackendUnavailableError(f"backend: 'cuda' is not available: {error}") from error
