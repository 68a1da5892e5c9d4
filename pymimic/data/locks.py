"""Locks on files and folders, between processes and threads; the kernel releases those of a process that dies."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..targets import naming

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_open = set[int]()  # descriptors of this process's locks


class Lock:
    """A file, or a folder, that one holds alone (`take()`), or several share (`take(shared=True)`).

    Parameters
    ----------
    path : a file that is not there is made

    Raises
    ------
    OSError
        There is neither a file nor a folder of that name, but a link, or no folder around it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with naming(os.fspath(path)):
            flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            self._descriptor = os.open(path, flags, 0o666)
        _open.add(self._descriptor)

    def take(self, shared: bool = False, wait: bool = False) -> bool | None:
        """Hold it. False where another does, and None where the system or the folder knows no locks. What was held before is let go."""
        if fcntl is None:
            return None
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:  # some network file systems
            return None
        return True

    def there(self) -> bool:
        """Whether the file still has its name."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let it go. It can be taken again."""
        if fcntl is not None and self._descriptor in _open:  # a forked child has none
            with suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let it go for good."""
        self.release()
        if self._descriptor in _open:
            _open.discard(self._descriptor)
            with suppress(OSError):  # nothing was written to it
                os.close(self._descriptor)


@contextmanager
def alone(directory: Path, shared: bool = False) -> Iterator[None]:
    """Keep other processes, and other threads, from labelling into the folder; BlockingIOError where one does.

    Those who share the folder keep out only those who do not. Where the system or the folder knows no locks there is none.
    """
    lock = Lock(directory)
    try:
        if lock.take(shared) is False:
            raise BlockingIOError(errno.EAGAIN, "expected a folder that nobody else labels into, got one in use", os.fspath(directory))
        yield
    finally:
        lock.close()


def _after_fork() -> None:
    """A child that the teacher forked, and that outlives this process, must hold none of its locks."""
    for descriptor in _open:
        os.close(descriptor)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
