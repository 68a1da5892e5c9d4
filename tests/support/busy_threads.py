"""Daemon threads inside every op, and a way for the process to end under them: `busy_threads.py BACKEND ENDING`."""

import os
import random
import signal
import sys
import threading
import time

import numpy as np

import pymimic as pm
from pymimic import ops

B, k, H, C = 96, 24, 1200, 10


def calls(backend):
    """Functions without arguments, one an op; each has arrays of its own."""
    rng = np.random.default_rng(0)

    def arrays(*shapes):
        return [rng.standard_normal(shape, np.float32) for shape in shapes]

    z, dy, U, b, W, c = arrays((B, k), (B, C), (H, k), H, (H, C), C)
    weights = pm.ShallowWeights(*(array.copy() for array in (U, b, W, c)), backend=backend)
    rounded = pm.ShallowWeights(*(array.copy() for array in (U, b, W, c)), "bfloat16", backend=backend) if backend == "cpu" else weights
    rate = pm.SGD(1e-6)
    h = ops.linear_dropout(z, U, b, backend=backend)
    student = pm.Student(k, H, C)
    predictor = pm.Predictor(student, "int8")
    values, grad = arrays((1 << 16,), (1 << 16,))
    return [
        lambda: ops.shallow_forward(z, U, b, W, c, backend=backend),
        lambda: ops.shallow_backward(dy, z, U, b, W, backend=backend),
        lambda: weights.step(dy, z, rate),
        lambda: rounded.forward(z),
        lambda: ops.linear_dropout(z, U, b, dropout=0.5, backend=backend),
        lambda: ops.linear_dropout_backward(h, z, U, h, backend=backend),
        lambda: ops.dropout(h, 0.5, seed=1, backend=backend),
        lambda: pm.SGD(1e-6).update("p", values, grad),
        lambda: student.predict(z),
        lambda: predictor.predict(z[:3]),
    ]


def forever(call, entered):
    call()
    entered.set()
    while True:
        call()


def main(backend, ending):
    pm.set_num_threads(3)
    waits = []
    for call in calls(backend):
        waits.append(threading.Event())
        threading.Thread(target=forever, args=(call, waits[-1]), daemon=True).start()
    for entered in waits:
        entered.wait()
    time.sleep(random.random() / 20)
    if ending == "return":
        return
    if ending == "sys.exit":
        sys.exit(3)
    if ending == "sys.exit in a thread":
        thread = threading.Thread(target=sys.exit, args=(3,))
        thread.start()
        thread.join()
    elif ending == "exception":
        raise KeyError("on purpose")
    elif ending == "os._exit":
        os._exit(4)
    elif ending == "os._exit in a thread":
        threading.Thread(target=os._exit, args=(4,)).start()
        time.sleep(60)
    elif ending == "SIGTERM":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    elif ending == "SIGINT":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
