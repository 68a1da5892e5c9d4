"""Work in forked children of a process that has imported everything: each begins in milliseconds, and may die, hang or be killed."""

import os
import pickle
import select
import signal
import traceback

PATIENCE = 60  # seconds, of a child that takes far less than one


class ChildError(Exception):
    """A child raised something, died or hung."""


class Fork:
    """A child that does `work()`."""

    def __init__(self, work):
        self._pipe, write = os.pipe()
        self._number = os.fork()
        if self._number == 0:
            os.close(self._pipe)
            try:
                result = work(), None
            except BaseException:
                result = None, traceback.format_exc()
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(result, pipe)
            os._exit(0)
        os.close(write)

    def ends_within(self, seconds):
        return bool(select.select([self._pipe], [], [], seconds)[0])

    def kill(self):
        os.kill(self._number, signal.SIGKILL)
        os.waitpid(self._number, 0)
        os.close(self._pipe)

    def result(self):
        """What the work returned."""
        if not self.ends_within(PATIENCE):
            self.kill()
            raise ChildError("it hangs")
        with os.fdopen(self._pipe, "rb") as pipe:
            content = pipe.read()
        status = os.waitpid(self._number, 0)[1]
        result, error = pickle.loads(content) if content else (None, f"it dies, status {status}")
        if error is not None:
            raise ChildError(error)
        return result


def in_child(work):
    """What `work()` returns in a forked child."""
    return Fork(work).result()
