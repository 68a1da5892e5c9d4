"""Batches where the net is: on the host as they are asked for; on a device read ahead, and copied there while it computes."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import numpy as np

from ..backends.interface import Array
from ..devices import cupy
from .cases import Cases, Rows, Targets, counted, demand_pair, read

Batch = tuple[Array, Array | None, Array | None, Array | None]
"""x (n, D), logits (n, C) or None, labels (n,) or None, weights (n,) or None."""

Augment = Callable[[Array, Any, np.random.Generator], tuple[Array, Any]]
"""(x, targets, rng) -> (x, targets) of the same number of rows; NumPy arrays, or `pymimic.Targets` where the data have both kinds."""

_SLOTS = 3  # one batch is used, one is copied to the device, one is read


def shuffled(
    data: Cases, seed: int, epoch: int, position: int, batch_size: int, accumulate: int, augment: Augment | None
) -> Iterator[Rows]:
    """What is left of an epoch behind `position`, in the epoch's order: `accumulate` batches a step, and a generator for each step."""
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,))).permutation(len(data))
    for first in range(position, len(data), batch_size * accumulate):
        stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, first)))
        rows = order[first : first + batch_size * accumulate]
        for start in range(0, len(rows), batch_size):
            numbers = rows[start : start + batch_size]
            x, targets, weights = read("data", data, numbers)
            if augment is not None:
                made = augment(x.copy(), targets.copy(), stream)  # copies: it may change them
                x, targets = _augmented(made, x, data.outputs, numbers)
            yield x, targets, weights


def _augmented(made: Any, x: Array, outputs: int, numbers: Array) -> tuple[Array, Array | Targets]:
    """Demand what an `Augment` makes of rows x."""
    if not isinstance(made, (tuple, list)) or isinstance(made, Targets) or len(made) != 2:
        raise TypeError(f"augment: expected (x, targets) from it, got {counted(made)}")
    if np.shape(made[0]) != x.shape:
        raise ValueError(f"augment: expected x of shape {x.shape} from it, got {np.shape(made[0])}")
    return demand_pair("augment", made[0], made[1], (*x.shape, outputs), numbers)


def feed(batches: Iterable[Batch], device: str) -> Generator[Batch, None, None]:
    """The batches, host arrays, as arrays of the device: each lasts until the next is asked for. To be closed if it is left early.

    For "cuda" a thread runs the iterable, at most two batches ahead; what it raises is raised here, in its place.
    """
    if device == "cpu":
        yield from batches
        return
    cuda = cupy().cuda
    here = cuda.Device()
    copying, slots = _copying_stream(cuda, here.id), [_Slot() for _ in range(_SLOTS)]
    filled: queue.Queue[tuple[_Slot | None, Any]] = queue.Queue()
    free: queue.Queue[_Slot | None] = queue.Queue()
    for slot in slots:
        free.put(slot)

    def read() -> None:
        try:
            with here:  # a new thread would use device 0
                for batch in batches:
                    slot = free.get()
                    if slot is None:
                        return
                    filled.put((slot, slot.fill(batch, copying)))
            filled.put((None, None))
        except BaseException as error:
            filled.put((None, error))

    reader = threading.Thread(target=read, name="pymimic-feed", daemon=True)
    reader.start()
    try:
        while True:
            filled_slot, content = filled.get()
            if filled_slot is None:
                if content is not None:
                    raise content
                return
            computing = cuda.get_current_stream()
            computing.wait_event(filled_slot.copied)
            yield content
            filled_slot.used.record(computing)
            free.put(filled_slot)
    finally:
        free.put(None)
        reader.join()
        left = cuda.Event(disable_timing=True)  # whatever still reads the last batch; the next feed copies into the same memory
        left.record(cuda.get_current_stream())
        copying.wait_event(left)
        for slot in slots:
            slot.copied.synchronize()  # only then may pinned memory go back to its pool


@functools.cache
def _copying_stream(cuda: Any, device: int) -> Any:
    """One a device for good: CuPy gives memory out again to the stream that had it, and to one made later that has its handle."""
    with cuda.Device(device):
        return cuda.Stream(non_blocking=True)


class _Slot:
    """Room for one batch, pinned on the host and again on the device; it grows with the batches."""

    def __init__(self) -> None:
        event = cupy().cuda.Event
        self.copied, self.used = event(disable_timing=True), event(disable_timing=True)
        self._rooms: dict[int, tuple[Array, Any]] = {}

    def fill(self, batch: Batch, copying: Any) -> tuple[Any, ...]:
        """The batch in this slot's device memory, once `copied` has happened."""
        self.copied.synchronize()  # the last copy has read all of the pinned memory
        copying.wait_event(self.used)
        with copying:
            moved = tuple(None if array is None else self._move(place, array, copying) for place, array in enumerate(batch))
        self.copied.record(copying)
        return moved

    def _move(self, place: int, array: Array, copying: Any) -> Any:
        if place not in self._rooms or self._rooms[place][0].nbytes < array.nbytes:
            pinned = np.frombuffer(cupy().cuda.alloc_pinned_memory(max(1, array.nbytes)), np.uint8, max(1, array.nbytes))
            self._rooms[place] = pinned, cupy().empty(pinned.size, np.uint8)
        rooms: list[Any] = [room[: array.nbytes].view(array.dtype).reshape(array.shape) for room in self._rooms[place]]
        pinned, there = rooms
        pinned[...] = array
        there.set(pinned, stream=copying)
        return there
