"""The bar: on terminals of any width it stays on its line, in notebooks it shows, elsewhere it is silent."""

import io
import os
import struct
import sys
import threading
import types
from contextlib import suppress

import pytest

from pymimic.progress import Progress

pty = pytest.importorskip("pty", reason="needs terminals")
termios, fcntl = pytest.importorskip("termios"), pytest.importorskip("fcntl")


def drawn(columns, term="xterm"):
    """What a bar writes to a terminal so wide, line feeds and all."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    before, parts = (os.environ.get("TERM"), sys.stderr), []

    def read():
        with suppress(OSError):  # as a terminal says that nobody writes to it any more
            while part := os.read(ours, 1 << 16):
                parts.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    os.environ["TERM"] = term
    try:
        with os.fdopen(theirs, "w") as sys.stderr, Progress(total=1234, unit="step", mininterval=0, miniters=1) as bar:
            bar.set_description("epoch 17/100", refresh=False)
            for _ in range(20):
                bar.set_postfix(loss="0.001234", refresh=False)
                bar.update(60)
        reader.join()
        return b"".join(parts).decode()
    finally:
        sys.stderr = before[1]
        os.environ.pop("TERM") if before[0] is None else os.environ.update(TERM=before[0])
        os.close(ours)


@pytest.mark.parametrize("columns", [20, 50, 80, 200])
def test_no_state_of_the_bar_is_wider_than_the_terminal(columns):
    text = drawn(columns)
    states = [state for state in text.replace("\n", "\r").split("\r") if state]
    assert len(states) >= 20
    assert max(map(len, states)) <= columns
    assert text.count("\n") == 1
    assert "epoch 17/100" in states[-1]


def test_a_terminal_that_cannot_go_back_is_spared():
    assert drawn(80, "dumb") == ""


class Kernel:
    """A notebook's standard error."""

    closed = False

    def __init__(self):
        self.text = io.StringIO()
        self.write, self.flush = self.text.write, self.text.flush

    def isatty(self):
        return False


def test_a_notebook_shows_it_without_more_packages(monkeypatch):
    shell = types.SimpleNamespace(get_ipython=type("ZMQInteractiveShell", (), {}))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setattr(sys, "stderr", Kernel())
    for _ in Progress(iterable=range(3), desc="labelling"):
        pass
    assert "labelling: 100%" in sys.stderr.text.getvalue()
    log = io.StringIO()
    for _ in Progress(iterable=range(3), file=log):
        pass
    assert log.getvalue() == ""


def test_a_terminal_session_of_ipython_is_no_notebook(monkeypatch):
    shell = types.SimpleNamespace(get_ipython=type("TerminalInteractiveShell", (), {}))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setattr(sys, "stderr", Kernel())
    for _ in Progress(iterable=range(3)):
        pass
    assert sys.stderr.text.getvalue() == ""


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_it_is_silent_without_a_terminal(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    for _ in Progress(iterable=range(3)):
        pass
    if stream is not None:
        assert stream.getvalue() == ""


def test_it_is_silent_when_told_so(monkeypatch):
    terminal = Kernel()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    for _ in Progress(iterable=range(3), disable=True):
        pass
    assert terminal.text.getvalue() == ""
