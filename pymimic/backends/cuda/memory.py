"""Device memory for results and scratch: CuPy's pool, or a workspace that the caller keeps."""

from __future__ import annotations

import math
import threading
from types import TracebackType
from typing import Any

import numpy as np

from ...devices import capturing, cupy
from ...errors import CudaError
from ..interface import Array

_active = threading.local()
_SHORT = 2  # cudaErrorMemoryAllocation


class Workspace:
    """Device memory that the same calls use again each time, as a CUDA graph needs it.

    Inside `with workspace:` everything that the ops allocate comes from it, and so do results without an `out`. Each request gets the
    buffer that the same request got the last time, so a result lasts until the workspace is entered again.

    Run the calls once to fill the workspace, then capture them on the same stream. `seed` and `offset` can be 0-d int64 device arrays,
    which you change between replays. A captured `ShallowWeights.step` or `Optimizer.update` takes no step: `optimizer.advance()` begins one
    and sends its numbers to the device, and a replay does it:

        with stream:
            with workspace:
                dz = handle.step(dy, z, optimizer)
            stream.begin_capture()
            with workspace:
                dz = handle.step(dy, z, optimizer)
            graph = stream.end_capture()
            for _ in range(100):
                optimizer.advance()
                graph.launch()

    A graph keeps nothing alive: keep the workspace, the handle, the optimizer and the arguments as long as you may launch it. It writes to
    the handle's weights and to the optimizer's slots, so capture it anew after `Optimizer.load_state`.
    """

    def __init__(self) -> None:
        self._buffers: list[Any] = []
        self._next = 0
        self._captured = False

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return sum(int(buffer.nbytes) for buffer in self._buffers)

    def __enter__(self) -> Workspace:
        if getattr(_active, "workspace", None) is not None:
            raise ValueError("workspace: expected none to be in use, got one inside another")
        _active.workspace, self._next = self, 0
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _active.workspace = None

    def take(self, nbytes: int) -> Any:
        """The next buffer, as bytes; made, or made larger, unless a graph knows its address or is being captured."""
        place, self._next = self._next, self._next + 1
        capture = capturing()
        self._captured |= capture
        if place < len(self._buffers) and self._buffers[place].nbytes >= nbytes:
            return self._buffers[place][:nbytes]
        if self._captured:
            raise ValueError(
                f"workspace: expected the calls, and the shapes, that it was filled with before the capture, got one that needs {nbytes} "
                f"bytes more: run the calls inside it once, then capture them"
            )
        self._buffers[place : place + 1] = [allocate((nbytes,), np.uint8)]
        return self._buffers[place]


def in_workspace() -> bool:
    """Whether results come from a workspace, which has memory for each call already."""
    return getattr(_active, "workspace", None) is not None


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """A device array of anything: from the workspace in use, else from CuPy's pool.

    Raises
    ------
    CudaError
        There is not so much device memory.
    ValueError
        A graph is being captured, outside a workspace or with other calls than it was filled with.
    """
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    workspace: Workspace | None = getattr(_active, "workspace", None)
    if workspace is not None:
        return workspace.take(max(1, nbytes))[:nbytes].view(dtype).reshape(shape)  # type: ignore[no-any-return]
    if capturing():
        raise ValueError("workspace: expected a pymimic.Workspace around calls that are captured into a CUDA graph, got none")
    return allocate(shape, dtype)  # type: ignore[no-any-return]


def allocate(shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    """A device array of anything, from CuPy's pool."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        return cupy().empty(shape, dtype)
    except (MemoryError, cupy().cuda.runtime.CUDARuntimeError) as error:  # of its pool, or of CUDA where it has none
        if getattr(error, "status", _SHORT) != _SHORT:
            raise
        raise CudaError(
            f"out of device memory: {nbytes} bytes more are needed ({error}): take fewer rows at once, or free what other arrays hold "
            f"(cupy.get_default_memory_pool().free_all_blocks()); nothing was changed"
        ) from error


def scratch(nbytes: int) -> Array | None:
    """So many bytes, or None where none are needed."""
    return empty((nbytes,), np.uint8) if nbytes else None


def copied(array: Array, dtype: Any = np.float32) -> Array:
    """A C-contiguous copy."""
    copy = empty(array.shape, dtype)
    copy[...] = array
    return copy


def stream() -> int:
    """CuPy's current stream."""
    return int(cupy().cuda.get_current_stream().ptr)
