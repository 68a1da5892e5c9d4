"""Every kernel of the compiled core, on every instruction set that runs here, in odd shapes, held against the reference.

What `tools/sanitize.sh` runs: without pytest and hypothesis, whose own memory and threads a sanitizer would see too.
The package is that in the folder given as argument, whatever else is installed.
"""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

FOLDER = Path(sys.argv[1]).resolve()
sys.path[:0] = [str(FOLDER), str(Path(__file__).resolve().parents[1] / "tests" / "support")]
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ScikitBuildRedirectingFinder"]  # of editable installs

import wrong_calls

import pymimic as pm
from pymimic import _core, ops
from pymimic.backends import cpu_serving
from pymimic.nets.predictor import DTYPES

SHAPES = [
    (1, 1, 1, 1), (3, 5, 9, 3), (8, 64, 100, 16), (9, 33, 33, 33), (37, 11, 203, 7),
    (130, 5, 97, 40), (1100, 7, 70, 3), (40, 700, 40, 20), (5, 0, 3, 2), (4, 2, 0, 3),
]  # fmt: skip
ACTIVATIONS = ("relu", "identity", "tanh", "sigmoid", "gelu")


def close(got, expected, what):
    """Demand agreement to float64's rounding."""
    scale = np.abs(expected).max(initial=0) + 1
    assert np.abs(got - expected).max(initial=0) < 1e-9 * scale, what


def exercise(shape, activation, p, rng):
    """One shape through every op, in float64 against the reference and in float32 for the memory it touches."""
    B, k, H, C = shape
    wide = {"activation": activation, "dropout": p, "seed": 9, "offset": 4, "origin": (16, 64)}
    for dtype in (np.float64, np.float32):
        z, U, b, W, c, dy, dh = (rng.standard_normal(s).astype(dtype) for s in ((B, k), (H, k), H, (H, C), C, (B, C), (B, H)))
        results = {}
        for backend in ("cpu", "reference"):
            y, saved = ops.shallow_forward(z, U, b, W, c, save=True, backend=backend, **wide)
            grads = ops.shallow_backward(dy, z, U, b, W, saved=saved, backend=backend, **wide)
            again = ops.shallow_backward(dy, z, U, b, W, backend=backend, **wide)
            h = ops.linear_dropout(z, U, b, backend=backend, **wide)
            layer = ops.linear_dropout_backward(dh, z, U, h, bias=b, backend=backend, **wide)
            dropped = ops.dropout(z, p, seed=3, backend=backend)
            weights = pm.ShallowWeights(U, b, W, c, str(np.dtype(dtype)), activation=activation, backend=backend)
            dz = weights.step(dy, z, pm.AdamW(1e-3, weight_decay=0.1))
            narrow = weights.forward(z[:7])
            results[backend] = [y, *grads, *again, h, *layer, dropped, dz, narrow]
        if dtype is np.float64:
            for i, (got, expected) in enumerate(zip(results["cpu"], results["reference"])):
                close(got, expected, (shape, activation, p, i))


def exercise_bfloat16(shape, activation, p, rng):
    """The same in bfloat16, for the memory it touches, with sums that agree but for roundings of h and da to their neighbours."""
    B, k, H, C = shape
    mask = {"dropout": p, "seed": 9, "offset": 4, "origin": (16, 64)}
    z, U, b, W, c, dy = (rng.standard_normal(s).astype(np.float32) for s in ((B, k), (H, k), H, (H, C), C, (B, C)))
    results = {}
    for backend in ("cpu", "reference"):
        weights = pm.ShallowWeights(U, b, W, c, "bfloat16", activation=activation, backend=backend)
        y, grads = weights.forward(z, **mask), weights.backward(dy, z, **mask)
        kept = weights.backward(dy, z, saved=weights.forward(z, save=True, **mask)[1], **mask)
        results[backend] = [y, *grads, *kept, weights.step(dy, z, pm.SGD(1e-3, momentum=0.9), **mask)]
    for i, (got, expected) in enumerate(zip(results["cpu"], results["reference"])):
        assert np.linalg.norm(got - expected) <= 0.05 * (1 + np.linalg.norm(expected)), (shape, activation, p, i)


def exercise_bf16x3(shape, activation, p, rng):
    """Float32 as three bfloat16, where there are tiles: sums as close to the reference's as float32's are."""
    if not _core.has_tiles():
        return
    B, k, H, C = shape
    mask = {"activation": activation, "dropout": p, "seed": 9, "offset": 4, "origin": (16, 64)}
    z, U, b, W, c, dy, dh = (rng.integers(-4, 5, s).astype(np.float32) / 4 for s in ((B, k), (H, k), H, (H, C), C, (B, C), (B, H)))
    results = {}
    for backend in ("cpu-bf16x3", "reference"):
        h = ops.linear_dropout(z, U, b, backend=backend, **mask)
        layer = ops.linear_dropout_backward(dh, z, U, h, bias=b, backend=backend, **mask)
        y, grads = (
            ops.shallow_forward(z, U, b, W, c, backend=backend, **mask),
            ops.shallow_backward(dy, z, U, b, W, backend=backend, **mask),
        )
        weights = pm.ShallowWeights(U, b, W, c, activation=activation, backend=backend)
        for keep in ("float32", "bfloat16"):  # in bfloat16 it moves all but the gradient of c
            kept = pm.ShallowWeights(U, b, W, c, activation=activation, backend=backend, keep=keep)
            mine = {name: value for name, value in mask.items() if name != "activation"}
            again = kept.backward(dy, z, saved=kept.forward(z, save=True, **mine)[1], **mine)
            grads = (*grads, *(again if keep == "float32" else again[4:]))
        results[backend] = [h, *layer, y, *grads, weights.step(dy, z, pm.SGD(1e-3, momentum=0.9))]
    for i, (got, expected) in enumerate(zip(results["cpu-bf16x3"], results["reference"])):
        assert np.linalg.norm(got - expected) <= 1e-5 * (1 + np.linalg.norm(expected)), (shape, activation, p, i)


def exercise_predictors(shape, activation, rng):
    """A few rows in each storage, with and without a bottleneck and in float32 weights where they lie."""
    B, k, H, C = (max(1, size) for size in shape)
    for rank in (None, k + 2):
        student = pm.Student(k, H, C, rank, activation)
        x = rng.standard_normal((min(B, 70), k), dtype=np.float32)
        whole = student.predict(np.concatenate([x] * 9))[: len(x)]
        for dtype in DTYPES:
            got = pm.Predictor(student, dtype).predict(x)
            assert np.linalg.norm(got - whole) <= (0 if dtype == "float32" else 0.05 * (1 + np.linalg.norm(whole))), (shape, dtype)
        limit, cpu_serving._PANEL_BYTES = cpu_serving._PANEL_BYTES, 0
        assert np.array_equal(pm.Predictor(student).predict(x), whole)
        cpu_serving._PANEL_BYTES = limit


def at_once(*calls):
    """Each in a Python thread of its own; what one raises is raised here."""
    with ThreadPoolExecutor(len(calls)) as threads:
        for call in [threads.submit(call) for call in calls]:
            call.result()


def exercise_nets(rng):
    """Nets that several threads ask at once, quantised ones and one of convolutions too: the bits that each gives alone."""
    student, x = pm.Student(11, 203, 7, 5, "tanh"), rng.standard_normal((70, 11), dtype=np.float32)
    small = [pm.compress(student, bits=bits) for bits in (8, 4)]
    nets = [student, *small, pm.DeepNet([11, 40, 7]), pm.ConvNet((1, 11), [(8, 3, 1, 1), (8, 3, 2, 1)], 7)]
    asks = [net.predict for net in nets] + [pm.Predictor(net, dtype).predict for net in (student, *small) for dtype in DTYPES]
    alone = [[ask(x[:rows]) for rows in (1, 8, 70)] for ask in asks]

    def ask_all():
        for ask, answers in zip(asks, alone):
            assert all(np.array_equal(ask(x[: len(y)]), y) for y in answers)

    at_once(*[ask_all] * 4)


def exercise_training(rng):
    """Training runs at once, with h kept between the passes and made again, over dense layers and convolutions: the bits of one alone."""
    x = rng.standard_normal((70, 11), dtype=np.float32)
    cases = pm.TransferSet(x, np.tanh(x[:, :3]))
    wide = {"float32": {}, "made again": {"memory_budget": 0}, "kept in bfloat16": {"keep": "bfloat16"}, "bfloat16": {"dtype": "bfloat16"}}

    def learn(net, **how):
        pm.Trainer(net, pm.AdamW(1e-3), epochs=2, batch_size=33, ema=0.9, seed=3, progress=False, **how).fit(cases)
        return net.arrays()

    def runs():
        return [
            *(partial(learn, pm.Student(11, 203, 3, 5, dropout=0.4), **how) for how in wide.values()),
            partial(learn, pm.DeepNet([11, 40, 3], dropout=0.4)),
            partial(learn, pm.ConvNet((1, 11), [(8, 3, 1, 1), (8, 3, 2, 1)], 3, dropout=0.4)),
        ]

    def repeat(run, expected):
        assert all(np.array_equal(array, expected[name]) for name, array in run().items())

    alone = [run() for run in runs()]
    at_once(*(partial(repeat, run, expected) for run, expected in zip(runs(), alone)))


def main():
    """All of it, and several Python threads at once."""
    assert FOLDER in Path(_core.__file__).resolve().parents, f"{_core.__file__} is not in {FOLDER}"
    np.set_printoptions(threshold=1, edgeitems=1)  # pybind11's messages show whole arrays
    rng = np.random.default_rng(0)
    for isa, threads in itertools.product(_core.runnable_isas(), (1, 3)):
        _core.set_isa(isa)
        pm.set_num_threads(threads)
        for shape, activation, p in itertools.product(SHAPES, ACTIVATIONS, (0.0, 0.4)):
            exercise(shape, activation, p, rng)
            exercise_bfloat16(shape, activation, p, rng)
            exercise_bf16x3(shape, activation, p, rng)
        for shape, activation in itertools.product(SHAPES, ACTIVATIONS):
            exercise_predictors(shape, activation, rng)
        at_once(*(partial(exercise, SHAPES[4], "relu", 0.4, np.random.default_rng(i)) for i in range(4)))
        exercise_nets(rng)
        exercise_training(rng)
        refused = wrong_calls.main() if threads == 1 else 0
        agree = len(SHAPES) * len(ACTIVATIONS) * 2
        print(f"{isa}, {threads} threads: {agree} cases agree with the reference, {refused} wrong calls are refused", flush=True)


if __name__ == "__main__":
    main()
