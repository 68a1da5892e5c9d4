"""Where arrays live: NumPy's on the host, CuPy's on a device. Code above the backends asks these functions, and is the same for both."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BackendUnavailableError

Array = NDArray[Any]
DEVICES = ("cpu", "cuda")
_DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged


def cupy() -> Any:
    """CuPy; BackendUnavailableError says what to install where it is missing or broken."""
    try:
        import cupy as found  # the statement, as import_module takes ten times as long and a step asks often

        return found
    except Exception as error:  # CuPy's import fails in many ways where CUDA's libraries don't fit
        raise BackendUnavailableError(f"cuda: CuPy is not available: {error}; pip install cupy-cuda13x") from error


def is_device(value: object) -> bool:
    """Whether it is an array in a device's memory: CuPy's, or anyone's that says so by DLPack or `__cuda_array_interface__`."""
    if type(value) is np.ndarray:
        return False
    dlpack_device = getattr(value, "__dlpack_device__", None)
    if dlpack_device is not None:
        try:
            return int(dlpack_device()[0]) in _DLPACK_CUDA
        except Exception:  # a class, or a tensor without memory
            return False
    return hasattr(value, "__cuda_array_interface__")


def shared(name: str, value: Any) -> Array:
    """An array in a device's memory as CuPy's, over the same memory; TypeError names the argument where its owner or CuPy objects.

    DLPack comes first where the owner offers both: with it CuPy's current stream waits for the owner's unfinished work.
    """
    xp = cupy()
    if isinstance(value, xp.ndarray):
        return value  # type: ignore[no-any-return]
    try:
        return xp.from_dlpack(value) if hasattr(value, "__dlpack__") else xp.asarray(value)  # type: ignore[no-any-return]
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        owner = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(f"{name}: expected a device array whose memory CuPy can share, got {owner}: {error}") from error


def module(array: object) -> Any:
    """The module, numpy or cupy, that the array belongs to."""
    return cupy() if is_device(array) else np


def kind(array: object) -> str:
    """The device of an array: "cpu" or "cuda"."""
    return "cuda" if is_device(array) else "cpu"


def place(array: Any) -> str:
    """Where the memory is, for messages: "the CPU" or "device 0"."""
    return f"device {array.device.id}" if is_device(array) else "the CPU"


def to(device: str, array: Any) -> Array:
    """The array on that device. An array that is on it already is returned itself."""
    if not isinstance(device, str) or device not in DEVICES:
        raise ValueError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
    if is_device(array):
        on_device = shared("array", array)
        return on_device if device == "cuda" else cupy().asnumpy(on_device)
    return cupy().asarray(array) if device == "cuda" else array  # type: ignore[no-any-return]


def like(other: object, array: Any) -> Array:
    """The array on the device of the other one."""
    return to(kind(other), array)


def wait(device: str) -> None:
    """Wait for the work of CuPy's current stream, unless it is being captured."""
    if device == "cuda" and not capturing():
        cupy().cuda.get_current_stream().synchronize()


def capturing() -> bool:
    """Whether the work of CuPy's current stream is being captured into a CUDA graph."""
    stream = cupy().cuda.get_current_stream()
    return bool(stream.ptr and stream.is_capturing())  # the null stream cannot be captured, and asking it is an error


def overlap(a: Any, b: Any) -> bool:
    """Whether two arrays on one device may share memory. Arrays on a GPU are C-contiguous here."""
    if not is_device(a):
        return np.may_share_memory(a, b)
    return bool(a.data.ptr < b.data.ptr + b.nbytes and b.data.ptr < a.data.ptr + a.nbytes)
