"""Who may race: those whose results are the reference's."""

from pathlib import Path

import numpy as np
import pytest
from bench_cases import DENSE, TINY

from pymimic import ops
from pymimic.bench import race, verify, worker
from pymimic.bench.shapes import SHAPES, WHATS, arrays


@pytest.mark.parametrize("shape", [TINY, DENSE], ids=lambda shape: shape.name)
def test_reference_in_slabs_is_the_reference(shape, monkeypatch):
    monkeypatch.setattr(verify, "_SLAB_VALUES", 3 * shape.B)
    a = arrays(shape)
    found = verify.reference(a, backward=True)
    exact = {name: array.astype(np.float64) for name, array in a.items()}
    x, U, b, W = (exact[name] for name in "xUbW")
    z = x @ exact["V"].T if shape.k else x
    y = ops.shallow_forward(z, U, b, W, exact["c"], backend="reference")
    dy = (y - exact["t"]) / shape.B
    grads = ops.shallow_backward(dy, z, U, b, W, backend="reference")
    expected = {"y": y, "U": grads.U, "b": grads.b, "W": grads.W, "c": grads.c} | ({"V": grads.z.T @ x} if shape.k else {})
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=2e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("name", ["pymimic", "pymimic_bf16x3", "pymimic_keep", "pymimic_keep_bf16", "numpy", "sklearn", "onnxruntime"])
@pytest.mark.parametrize("shape", [SHAPES["timit-8k"].small(), SHAPES["letter-4k"].small()], ids=lambda shape: shape.name)
def test_contestants_compute_what_the_reference_computes(name, shape, tmp_path):
    try:
        peer = worker.load(name)
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
    verify.write_case(shape, tmp_path, set(WHATS))
    functions = worker.introduction(peer)["functions"]
    assert functions
    for what in WHATS:
        if ("forward" if what == "serving" else what) in functions:
            run, error = worker.make(peer, what, tmp_path, 1 if what == "serving" else shape.B)
            assert error < 2e-2
            run()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "torch_compile", "torch_bf16", "jax"])
def test_contestants_that_are_slow_to_load_do_so_too(name, tmp_path):
    shape = SHAPES["timit-8k"].small()
    verify.write_case(shape, tmp_path, set(WHATS))
    try:
        running = race.Contestant(name, tmp_path)
    except race.ContestantError as error:
        pytest.skip(str(error))
    with running:
        for what in WHATS:
            if running.can(what):
                assert running.ask(make=what, batch=1 if what == "serving" else shape.B)["error"] < 0.1


WRONG = """
import numpy as np
from pymimic import ops

TITLE = "wrong"

def versions():
    return "0"

def forward(a):
    z = a["x"] @ a["V"].T
    return lambda: ops.shallow_forward(z, a["U"], a["b"], a["W"], a["c"]) {wrong}
"""


@pytest.mark.parametrize("wrong", ["* 1.001", "+ np.eye(9, 2, dtype=np.float32)", "[:, :1]", "* np.nan"])
def test_a_wrong_result_does_not_race(case, peers, wrong):
    peers("liar", WRONG.format(wrong=wrong))
    with pytest.raises(verify.WrongResultError, match="y"):
        worker.make(worker.load("liar"), "forward", case, TINY.B)


@pytest.mark.parametrize("name", list("VUbWc"))
@pytest.mark.parametrize("what", ["step", "adamw"])
def test_one_wrong_array_is_found(case, what, name):
    run, _ = worker.make(worker.load("numpy"), what, case, TINY.B)
    result = {key: np.array(value) for key, value in run().items()}
    right = {key: np.load(case / (f"expected_{key}.npy" if what == "step" else f"{key}.npy")) for key in result}
    if what == "adamw":
        gradients = {key: np.load(case / f"expected_{key}.npy").astype(np.float64) for key in right}
        decays = {key: verify.WEIGHT_DECAY * (value.ndim > 1) for key, value in right.items()}
        right = {key: p - verify.LEARNING_RATE * (np.sign(gradients[key]) + decays[key] * p) for key, p in right.items()}
    verify.check(what, right, case)
    right[name] = np.load(case / f"{name}.npy") if what == "adamw" else 1.1 * right[name]
    with pytest.raises(verify.WrongResultError, match=f"{what}: {name} "):
        verify.check(what, right, case)


def test_a_missing_library_is_named(peers):
    peers("absent", "import a_library_that_nobody_has\n")
    messages = []
    worker.serve("absent", Path(), messages.append)
    assert messages == [{"skip": "a_library_that_nobody_has is not installed"}]
