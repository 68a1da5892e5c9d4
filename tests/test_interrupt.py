"""Signals that end a program: the first waits for a good moment, the second does not; whoever has a handler keeps it."""

import os
import signal
import threading
from contextlib import suppress

import numpy as np
import pytest
from children import in_child

from pymimic import SGD, Student, Trainer, TransferSet
from pymimic.files import read_safetensors
from pymimic.training.interrupt import DeferredInterrupt, Terminated, terminable

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends signals")
ENDING = [signal.SIGTERM, signal.SIGHUP]


def send(number):
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def _handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("number", [signal.SIGINT, *ENDING])
def test_the_first_waits_for_a_check(number):
    with terminable(), DeferredInterrupt() as interrupt:
        send(number)
        with pytest.raises(KeyboardInterrupt) as caught:
            interrupt.check()
    assert getattr(caught.value, "signum", signal.SIGINT) == number
    assert isinstance(caught.value, Terminated) == (number != signal.SIGINT)


def test_the_end_of_the_context_is_a_check():
    with pytest.raises(Terminated), terminable(), DeferredInterrupt():
        send(signal.SIGTERM)


@pytest.mark.parametrize("number", ENDING)
def test_a_second_one_ends_the_program_at_once(number):
    child = os.fork()
    if child == 0:
        try:
            with terminable(), DeferredInterrupt():
                send(number)
                send(number)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -number


def test_a_second_ctrl_c_or_another_signal_acts_at_once():
    for second in (signal.SIGINT, signal.SIGTERM):
        with terminable(), suppress(KeyboardInterrupt), DeferredInterrupt():
            send(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                send(second)


def test_outside_of_a_deferral_it_acts_at_once():
    with terminable(), pytest.raises(Terminated):
        send(signal.SIGTERM)


def test_a_library_leaves_signals_to_the_program():
    def handled():
        with DeferredInterrupt():
            return signal.getsignal(signal.SIGTERM)

    assert handled() is signal.SIG_DFL


def test_python_s_own_handler_makes_any_signal_a_ctrl_c():
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with DeferredInterrupt() as interrupt:
            send(signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                interrupt.check()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None])
def test_who_ignores_or_handles_a_signal_goes_on(handler):
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, *ENDING)}
    try:
        with terminable(), DeferredInterrupt() as interrupt:
            for number in before:
                send(number)
            interrupt.check()
            assert all(signal.getsignal(number) is handler for number in before)
    finally:
        for number, was in before.items():
            signal.signal(number, was)


def test_other_threads_have_no_signals():
    seen = []

    def work():
        with terminable(), DeferredInterrupt() as interrupt:
            interrupt.check()
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


@pytest.mark.parametrize("number", [signal.SIGINT, *ENDING])
def test_fit_leaves_a_checkpoint_of_whole_steps(tmp_path, number):
    def stop_in_the_third_step(y, t, weights):
        steps.append(1)
        if len(steps) == 3:
            send(number)
        return 0.5 * float(np.square(y - t).sum()) / len(y), (y - t) / np.float32(len(y))

    steps = []
    data = TransferSet(np.eye(16, 3, dtype=np.float32), np.eye(16, 2, dtype=np.float32))
    trainer = Trainer(
        Student(3, 8, 2), SGD(0.1), epochs=9, batch_size=4, loss=stop_in_the_third_step, checkpoint=tmp_path / "c", progress=False
    )

    def work():
        with terminable():
            try:
                trainer.fit(data)
            except KeyboardInterrupt as stopped:
                return getattr(stopped, "signum", signal.SIGINT) == number

    assert in_child(work) == "True"
    assert read_safetensors(tmp_path / "c", "checkpoint")[1]["counters"]["step"] == 3
