"""The same inputs give the same bits: run after run, for any number of threads, in any batch, in any process."""

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bits
import numpy as np
import pytest
from bits import DROPOUT, SIZES, digest, results
from cases import shallow

import pymimic
from pymimic import ops

fork_is_meant = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
QUICK = SIZES[:1]


def test_run_after_run(fast_backend):
    first = [array.copy() for array in results(fast_backend)]
    for _ in range(2):
        for got, want in zip(results(fast_backend), first, strict=True):
            np.testing.assert_array_equal(got, want)


def test_for_any_number_of_threads(fast_backend, threads):
    digests = {}
    for n in (1, 2, 5, 3, 1):
        threads(n)
        assert pymimic.get_num_threads() == n
        digests[n] = digest(fast_backend)
    assert len(set(digests.values())) == 1, digests


def test_in_another_process(fresh_backend):
    """Also with other numbers of threads from the start, and with inputs elsewhere in memory."""
    script = "import sys, bits; print(bits.digest(sys.argv[1]))"
    here = digest(fresh_backend)
    for n in ("1", "5"):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(bits.__file__).parent), os.environ.get("PYTHONPATH", "")]),
            "PYMIMIC_NUM_THREADS": n,
            "NUMBA_NUM_THREADS": n,
        }
        run = [sys.executable, "-c", script, fresh_backend]
        assert subprocess.run(run, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout.strip() == here


def test_wherever_the_inputs_lie(fast_backend, dtype):
    """Kernels that treat aligned and unaligned memory differently must not round differently."""
    args = shallow({"B": 45, "k": 37, "H": 203, "C": 19}, dtype)
    y = ops.shallow_forward(*args.forward, activation="tanh", backend=fast_backend, **DROPOUT)
    grads = ops.shallow_backward(*args.backward, activation="tanh", backend=fast_backend, **DROPOUT)
    for shift in (1, 2, 3, 5):
        moved = type(args)(*(_shifted(array, shift) for array in args))
        np.testing.assert_array_equal(ops.shallow_forward(*moved.forward, activation="tanh", backend=fast_backend, **DROPOUT), y)
        for g, w in zip(ops.shallow_backward(*moved.backward, activation="tanh", backend=fast_backend, **DROPOUT), grads):
            np.testing.assert_array_equal(g, w)


def _shifted(array, elements):
    memory = np.empty(array.size + elements, array.dtype)
    memory[elements:] = array.ravel()
    return memory[elements:].reshape(array.shape)


@pytest.mark.parametrize("size", [{"k": 33, "H": 530, "C": 19}, {"k": 64, "H": 97, "C": 10}, {"k": 7, "H": 1301, "C": 183}], ids=str)
def test_a_row_has_the_same_bits_alone_and_in_any_batch(fast_backend, activation, dtype, size):
    args = shallow({"B": 75, **size}, dtype)
    how = {"activation": activation, "backend": fast_backend}
    V = np.ones((13, size["k"]), dtype) / 8
    calls = {
        "shallow_forward": lambda z: ops.shallow_forward(z, *args.forward[1:], **how),
        "linear_dropout": lambda z: ops.linear_dropout(z, args.U, args.b, **how),
        "factorized_matmul": lambda z: ops.factorized_matmul(z, V, args.U[:, :1] + V[:, 0], args.b, **how),
    }
    for name, call in calls.items():
        whole = call(args.z)
        for rows in (*([row] for row in range(0, 75, 7)), range(3), range(40, 75), range(74, -1, -1), [7] * 33, [1, 73, 2]):
            np.testing.assert_array_equal(call(args.z[list(rows)]), whole[list(rows)], err_msg=f"{name} {rows}")


def test_batches_split_at_tiles_have_the_wholes_bits(fast_backend, activation):
    args = shallow({"B": 120, "k": 33, "H": 530, "C": 19}, "float32")
    how = {"activation": activation, "dropout": 0.4, "seed": 5, "backend": fast_backend}
    y = ops.shallow_forward(*args.forward, **how)
    for start, stop in ((0, 16), (16, 64), (64, 120), (112, 120), (32, 33)):
        part = ops.shallow_forward(args.z[start:stop], *args.forward[1:], origin=(start, 0), **how)
        np.testing.assert_array_equal(part, y[start:stop])


def test_several_python_threads_at_once(fast_backend):
    want = digest(fast_backend)
    with ThreadPoolExecutor(5) as pool:
        assert set(pool.map(digest, [fast_backend] * 5, timeout=240)) == {want}


def test_the_number_of_threads_may_change_while_ops_run(fast_backend, threads):
    want = digest(fast_backend, QUICK)
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(digest, fast_backend, QUICK) for _ in range(8)]
        for n in (1, 5, 2, 3) * 5:
            threads(n)
        assert {future.result(timeout=120) for future in running} == {want}


@needs_fork
@fork_is_meant
def test_a_forked_child_can_call_the_ops(fresh_backend, threads):
    """Also a child of a child, after the parent's threads have run."""
    threads(2)
    want = digest(fresh_backend, QUICK)
    assert _in_fork(_digest_in_fork_too, fresh_backend) == want
    assert digest(fresh_backend, QUICK) == want  # and the parent still can


@needs_fork
@fork_is_meant
def test_fork_while_other_threads_are_inside_ops(fresh_backend):
    want = digest(fresh_backend, QUICK)
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            digest(fresh_backend, QUICK)

    workers = [threading.Thread(target=busy) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(5):
            assert _in_fork(digest, fresh_backend, QUICK) == want
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def _digest_in_fork_too(backend):
    own, childs = digest(backend, QUICK), _in_fork(digest, backend, QUICK)
    return own if own == childs else f"{own} in the child, {childs} in its child"


def _in_fork(function, *args):
    """What `function(*args)` returns in a forked child; a child that hangs is killed and fails the test."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(function(*args)))
    child.start()
    sender.close()
    try:
        assert receiver.poll(60), "the forked child hangs"
        return receiver.recv()
    except EOFError:
        child.join()
        raise AssertionError(f"the forked child died with exit code {child.exitcode}") from None
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("kind", ["loky", "multiprocessing", "threading"])
@fork_is_meant
def test_joblib_workers(fresh_backend, kind):
    joblib = pytest.importorskip("joblib")
    want = digest(fresh_backend, QUICK)
    with joblib.parallel_config(kind, n_jobs=2):
        assert set(joblib.Parallel(timeout=120)(joblib.delayed(digest)(fresh_backend, QUICK) for _ in range(4))) == {want}
