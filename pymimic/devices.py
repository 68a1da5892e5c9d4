"""Where arrays live: NumPy's on the host, CuPy's on a device. Code above the backends asks here and is otherwise the same for both."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BackendUnavailableError

Array = NDArray[Any]
DEVICES = ("cpu", "cuda")


def cupy() -> Any:
    """CuPy; BackendUnavailableError says what to install where it is missing or broken."""
    try:
        return importlib.import_module("cupy")
    except Exception as error:  # CuPy's import fails in many ways where CUDA's libraries don't fit
        raise BackendUnavailableError(f'cuda: CuPy is not available: {error}; pip install "pymimic[gpu]"') from error


def is_device(value: object) -> bool:
    """Whether it is an array in a device's memory: CuPy's, or anyone's with `__cuda_array_interface__`."""
    return hasattr(value, "__cuda_array_interface__")


def module(array: object) -> Any:
    """numpy or cupy, whichever the array belongs to."""
    return cupy() if is_device(array) else np


def kind(array: object) -> str:
    """ "cpu" or "cuda"."""
    return "cuda" if is_device(array) else "cpu"


def place(array: Any) -> str:
    """Where the memory is, for messages: "the CPU" or "device 0"."""
    return f"device {array.device.id}" if is_device(array) else "the CPU"


def to(device: str, array: Any) -> Array:
    """The array there: itself, if it is there already."""
    if device not in DEVICES:
        raise ValueError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
    if device == "cuda":
        return cupy().asarray(array)  # type: ignore[no-any-return]
    return cupy().asnumpy(array) if is_device(array) else array  # type: ignore[no-any-return]


def like(other: object, array: Any) -> Array:
    """The array where the other one is."""
    return to(kind(other), array)


def capturing() -> bool:
    """Whether the work of CuPy's current stream is being captured into a CUDA graph."""
    return bool(cupy().cuda.get_current_stream().is_capturing())
