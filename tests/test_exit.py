"""Native code's life beside Python's: processes that end, fork or start others while threads are inside ops."""

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import bits
import busy_threads
import pytest
import wrong_calls
from instruction_sets import use_backend

SUPPORT = Path(busy_threads.__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])}
ENDINGS = {
    "return": 0,
    "sys.exit": 3,
    "sys.exit in a thread": 0,
    "exception": 1,
    "os._exit": 4,
    "os._exit in a thread": 4,
    "SIGTERM": -signal.SIGTERM,
    "SIGINT": -signal.SIGINT,
}


@pytest.fixture(params=["cpu", pytest.param("numba", marks=pytest.mark.slow)])
def fresh_backend(request):
    """As in conftest.py; Numba, whose kernels every process compiles or loads, in the slow tests."""
    with use_backend(request.param) as name:
        yield name


def run(*command):
    """A Python of its own; where it does not end, it and its children are killed."""
    how = {"env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, *command], **how) as process:
        try:
            stdout, stderr = process.communicate(timeout=250)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def script(text, *arguments):
    """What the script printed, which has to end well."""
    done = run("-c", textwrap.dedent(text), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("ending", ENDINGS)
def test_daemon_threads_inside_ops_when_the_process_ends(fresh_backend, ending):
    """The exit code is the one that Python gives without them, and nothing is said."""
    done = run(busy_threads.__file__, fresh_backend, ending)
    assert done.returncode == ENDINGS[ending], done.stderr
    assert "terminate" not in done.stderr
    assert "Fatal" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_it_ends_so_every_time(fresh_backend, ending):
    for _ in range(20):
        test_daemon_threads_inside_ops_when_the_process_ends(fresh_backend, ending)


def test_calls_of_the_compiled_core_import_nothing():
    """An import gives up the interpreter's lock inside pybind11, where a daemon thread at the process's end would abort it."""
    pytest.importorskip("pymimic._core")
    printed = script(
        """
        import builtins
        import numpy
        from pymimic import _core
        plain, names = builtins.__import__, []
        def noted(name, *others, **more):
            names.append(name)
            return plain(name, *others, **more)
        x, y = numpy.ones((2, 3), "f4"), numpy.zeros((2, 3), "f4")
        builtins.__import__ = noted
        _core.dropout(x, y, (256, 0, 0, 0, 0))  # keeps all
        builtins.__import__ = plain
        assert (y == x).all()
        print(names)
        """
    )
    assert printed == ["[]"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_fork_while_daemon_threads_are_inside_ops(fresh_backend, where):
    """From the main thread and from another; a child of the main thread ends as Python does, under a busy thread of its own."""
    printed = script(
        """
        import os, sys, threading, warnings
        import bits, busy_threads
        import pymimic as pm
        warnings.simplefilter("ignore", DeprecationWarning)
        pm.set_num_threads(3)
        backend, entered = sys.argv[1], threading.Event()
        want = bits.digest(backend, bits.SIZES[:1])
        for call in busy_threads.calls(backend)[:3]:
            threading.Thread(target=busy_threads.forever, args=(call, entered), daemon=True).start()
        entered.wait()
        def fork(end):
            for _ in range(3):
                child = os.fork()
                if child == 0:
                    threading.Thread(target=busy_threads.forever, args=(call, threading.Event()), daemon=True).start()
                    end(bits.digest(backend, bits.SIZES[:1]) != want)
                print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        if sys.argv[2] == "main":
            fork(sys.exit)
        else:
            thread = threading.Thread(target=fork, args=(os._exit,))
            thread.start()
            thread.join()
        """,
        fresh_backend,
        where,
    )
    assert printed == ["0", "0", "0"]


@pytest.mark.parametrize("kind", ["fork", "forkserver", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_worker_processes(fresh_backend, kind, monkeypatch):
    if kind not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {kind}")
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    want = bits.digest(fresh_backend, bits.SIZES[:1])
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context(kind)) as pool:
        assert set(pool.map(bits.digest, [fresh_backend] * 4, [bits.SIZES[:1]] * 4, timeout=120)) == {want}


def test_thread_pools_that_are_left_alone(fresh_backend):
    """Python waits for their threads, which are inside ops, when it ends."""
    printed = script(
        """
        import sys
        from concurrent.futures import ThreadPoolExecutor
        import bits
        pool = ThreadPoolExecutor(3)
        for _ in range(6):
            pool.submit(lambda: print(bits.digest(sys.argv[1], bits.SIZES[:1])[:4] + "\\n", end="", flush=True))
        pool.shutdown(wait=False)
        """,
        fresh_backend,
    )
    assert len(printed) == 6
    assert len(set(printed)) == 1


def test_sub_interpreters_are_refused():
    """Loading the compiled core in one would wait forever."""
    printed = script(
        """
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        try:
            failure = interpreters.run_string(interpreters.create(), "import pymimic")
        except interpreters.RunFailedError as error:
            failure = error
        print(str(failure).count("pymimic: expected the main interpreter, got a sub-interpreter") > 0)
        """
    )
    assert printed == ["True"]


def test_wrong_calls_of_the_compiled_core_are_refused():
    """Whatever Python passes: an exception, and never a crash."""
    pytest.importorskip("pymimic._core")
    done = run("-X", "faulthandler", wrong_calls.__file__)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 4000
