"""Streams that do at once what they are told or, while they are captured, when the graph is launched."""

import ctypes
import threading
import time
import types

_turn = threading.RLock()


class Stream:
    """Copies from the host wait until someone asks for them, by an event or `synchronize`; all else happens at once."""

    def __init__(self, non_blocking=False):
        self.ptr = id(self)
        self.capturing, self.captured = False, []
        self.asked, self.done = [], 0

    def later(self, work):
        with _turn:
            self.asked.append(work)

    def run(self, count):
        with _turn:
            while self.done < count:
                self.asked[self.done]()
                self.asked[self.done] = None
                self.done += 1

    def is_capturing(self):
        return self.capturing

    def begin_capture(self):
        self.capturing, self.captured = True, []

    def end_capture(self):
        self.capturing = False
        return Graph(self.captured)

    def wait_event(self, event):
        event.synchronize()

    def synchronize(self):
        assert not self.capturing, "operation not permitted when stream is capturing"
        self.run(len(self.asked))

    def __enter__(self):
        _current.streams = [*_streams(), self]
        return self

    def __exit__(self, *_):
        _current.streams.pop()


class Graph:
    """What a stream was told while it was captured."""

    def __init__(self, work):
        self.work = work

    def launch(self, stream=None):
        stream = stream or get_current_stream()
        stream.run(len(stream.asked))  # as the stream was told before
        for work in self.work:
            work()


def do(work):
    """What works on arrays, now or when the graph is launched."""
    stream = get_current_stream()
    if stream.capturing:
        stream.captured.append(work)
    else:
        work()


def demand_no_capture(why="operation not permitted when stream is capturing"):
    """Allocations of arrays aren't told to streams."""
    if get_current_stream().capturing:
        raise RuntimeError(why)


class Event:
    """Has happened when it was never recorded."""

    def __init__(self, disable_timing=False):
        self.after = self.time = None

    def record(self, stream=None):
        self.time = time.perf_counter()
        stream = stream or get_current_stream()
        self.after = stream, len(stream.asked)

    def synchronize(self):
        if self.after is not None:
            stream, count = self.after
            stream.run(count)


_null, _current = Stream(), threading.local()
_null.ptr = 0


def _streams():
    return getattr(_current, "streams", [_null])


def get_current_stream():
    return _streams()[-1]


def alloc_pinned_memory(nbytes):
    return (ctypes.c_char * max(1, nbytes))()


class Device:
    id = 0

    def __init__(self, number=0):
        self.id = number

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


device = types.SimpleNamespace(get_cublas_handle=lambda: 1)


def get_elapsed_time(start, stop):
    """Milliseconds."""
    return 1e3 * (stop.time - start.time)


def set_allocator(allocator):
    """There is one."""


class CUDARuntimeError(RuntimeError):
    """With the number of what went wrong."""

    def __init__(self, status):
        super().__init__(f"CUDA error {status}")
        self.status = status


runtime = types.SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    deviceSynchronize=lambda: None,
    memGetInfo=lambda: (1 << 30, 2 << 30),
    driverGetVersion=lambda: 0,
    runtimeGetVersion=lambda: 0,
)
