"""The student against its formula in float64, and its bad arguments."""

import math
import tracemalloc

import numpy as np
import pytest
from roundings import ROUNDING, assert_within_roundings
from small_students import inputs, same, trained

import pymimic
from pymimic.nets.student import Student

FUNCTIONS = {
    "relu": lambda a: np.maximum(a, 0),
    "identity": lambda a: a,
    "tanh": np.tanh,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "gelu": lambda a: a * 0.5 * (1 + np.vectorize(math.erf)(a / math.sqrt(2))),
}


def formula(student, x):
    """g(x) of Ba & Caruana 2014, section 2.2, in float64."""
    w = {name: array.astype(np.float64) for name, array in student.arrays().items()}
    x = x.astype(np.float64)
    if student.mean is not None:
        x = (x - student.mean) * student.scale.astype(np.float64)
    z = x @ w["V"].T if "V" in w else x
    return FUNCTIONS[student.activation](z @ w["U"].T + w["b"]) @ w["W"] + w["c"]


# Initial weights


def test_initial_weights_have_the_documented_variances():
    for activation, gain in (("relu", 2 / 64), ("gelu", 2 / 64), ("tanh", 2 / (64 + 4000)), ("identity", 2 / (64 + 4000))):
        arrays = Student(100, 4000, 30, rank=64, activation=activation, seed=3).arrays()
        assert arrays["V"].var() == pytest.approx(1 / 100, rel=0.1)
        assert arrays["U"].var() == pytest.approx(gain, rel=0.02)
        assert arrays["W"].var() == pytest.approx(2 / (4000 + 30), rel=0.02)
        assert all(abs(arrays[name].mean()) < 5 * arrays[name].std() / math.sqrt(arrays[name].size) for name in "VUW")
        assert not arrays["b"].any()
        assert not arrays["c"].any()


def test_initial_weights_are_drawn_as_documented():
    streams = [np.random.default_rng(stream) for stream in np.random.SeedSequence(7).spawn(3)]
    arrays = Student(6, 9, 4, rank=3, seed=7).arrays()
    for name, stream, variance in zip("VUW", streams, (1 / 6, 2 / 3, 2 / 13)):
        want = stream.standard_normal(arrays[name].shape, np.float32) * np.float32(math.sqrt(variance))
        assert np.array_equal(arrays[name], want), name


def test_the_seed_decides_the_weights_and_each_array_has_its_own_stream():
    first, again, other = (Student(8, 32, 8, rank=8, seed=seed).arrays() for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in "VUW")
    wider = Student(8, 64, 8, rank=8, seed=1).arrays()
    assert np.array_equal(first["V"], wider["V"])
    assert np.array_equal(first["U"], wider["U"][:32])


def test_arrays_shapes_and_counts():
    student = Student(11, 203, 7, rank=5)
    assert {name: array.shape for name, array in student.arrays().items()} == student.shapes
    assert student.shapes == {"V": (5, 11), "U": (203, 5), "b": (203,), "W": (203, 7), "c": (7,)}
    assert student.parameter_count == 5 * 11 + 203 * 5 + 203 + 203 * 7 + 7
    assert student.nbytes == 4 * student.parameter_count
    assert "V" not in Student(11, 203, 7).arrays()
    assert Student(11, 203, 7).parameter_count == 203 * 11 + 203 + 203 * 7 + 7


def test_paper_net_has_our_own_count_of_parameters():
    student = Student.__new__(Student)  # the weights would take 700 MB
    student._configure(1845, 400_000, 183, 250, "relu", 0.0, 0)
    assert student.parameter_count == 174_061_433
    student._configure(1 << 20, 1 << 30, 1000, None, "relu", 0.0, 0)
    assert student.parameter_count == (1 << 50) + (1 << 30) * 1001 + 1000  # past 2^31 by far


def test_arrays_are_copies():
    student = trained()
    for array in student.arrays().values():
        array[...] = 0
    assert all(array.any() for array in student.arrays().values())


# Prediction


@pytest.mark.parametrize("rank", [None, 5])
def test_predict_is_the_formula(backend, activation, rank):
    student = trained(rank=rank, activation=activation)
    x = inputs(37, 11)
    y = student.predict(x, backend=backend)
    assert y.dtype == np.float32
    assert_within_roundings(y, formula(student, x), 32)  # sums of 11, 5 and 203 terms


def test_predict_drops_no_units():
    student = trained(dropout=0.5)
    assert_within_roundings(student.predict(inputs(5, 11)), formula(student, inputs(5, 11)), 32)


@pytest.mark.parametrize("rank", [None, 5])
def test_a_row_has_the_same_bits_alone_and_in_any_batch(fast_backend, rank, monkeypatch):
    student = trained(rank=rank)
    x = inputs(700, 11)
    whole = student.predict(x, backend=fast_backend)
    for start, stop in ((0, 1), (5, 6), (31, 34), (100, 700), (699, 700), (0, 513)):
        assert np.array_equal(student.predict(x[start:stop], backend=fast_backend), whole[start:stop])
    assert np.array_equal(student.predict(x[::-1], backend=fast_backend), whole[::-1])
    monkeypatch.setattr("pymimic.nets.student._MOST_ROWS", 64)
    assert np.array_equal(student.predict(x, backend=fast_backend), whole)


def test_predict_takes_any_strides_and_float64_and_memory_maps(tmp_path):
    student = trained()
    x = inputs(50, 22)[::2, ::2]
    want = student.predict(np.ascontiguousarray(x))
    for other in (x, np.asfortranarray(x), x.astype(np.float64)):
        assert np.array_equal(student.predict(other), want)
    np.save(tmp_path / "x.npy", x)
    assert np.array_equal(student.predict(np.load(tmp_path / "x.npy", mmap_mode="r")), want)


def test_predict_of_no_rows():
    assert trained().predict(np.empty((0, 11), np.float32)).shape == (0, 7)
    assert trained().predict_proba(np.empty((0, 11), np.float32)).shape == (0, 7)


def test_predict_makes_no_second_copy_of_the_weights_and_no_array_as_long_as_the_input(fast_backend):
    student = Student(16, 120_000, 10, rank=64)  # 36 MB
    x = np.broadcast_to(inputs(1, 16), (200, 16))
    long = np.broadcast_to(inputs(1, 16), (150_000, 16))  # 9.6 MB in float32, 19 MB as z
    small = Student(16, 32, 2, rank=32)
    small.predict(x, backend=fast_backend)  # what is set up at first use does not count
    for net, rows, most in ((student, x, 4 << 20), (small, long, 8 << 20)):
        tracemalloc.start()
        y = net.predict(rows, backend=fast_backend)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak - y.nbytes < most


def test_predict_proba_is_softmax_without_overflow():
    student = trained()
    student.fold(np.zeros(7), np.full(7, 1e4))
    logits = student.predict(inputs(40, 11)).astype(np.float64)
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = student.predict_proba(inputs(40, 11))
    assert p.dtype == np.float32
    np.testing.assert_allclose(p, exp / exp.sum(axis=1, keepdims=True), atol=1e-6)


def test_fold_undoes_a_standardisation_of_the_targets():
    student, x = trained(), inputs(20, 11)
    before = student.predict(x)
    mean, scale = np.linspace(-3, 3, 7), np.linspace(0.1, 10, 7)
    student.fold(mean, scale)
    assert_within_roundings(student.predict(x), before * scale + mean, 24)  # a sum of 203 terms, scaled before and after


# PCA


@pytest.mark.parametrize("standardised", [False, True])
def test_bottleneck_by_pca_whitens(standardised):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3000, 12)) @ rng.standard_normal((12, 12)) + 7).astype(np.float32)
    student = Student(12, 32, 3, rank=4)
    mean, scale = x.mean(axis=0), 1 / x.std(axis=0) if standardised else np.ones(12)
    if standardised:
        student.set_standardisation(mean, scale)
    student.initialise_bottleneck(x, epsilon=0.05)
    np.testing.assert_allclose(student.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(student.scale, scale, rtol=1e-6)
    centred = (x.astype(np.float64) - mean) * scale
    _, singular, components = np.linalg.svd(centred, full_matrices=False)
    values = singular[:4] ** 2 / len(x)
    V = student.arrays()["V"]
    cosines = (V @ components[:4].T) * np.sqrt(values + 0.05)[:, None]
    atol = 256 * ROUNDING  # mean, scale and V are float32; the components' other errors are float64's
    np.testing.assert_allclose(np.abs(cosines), np.eye(4), atol=atol)  # the singular vectors, up to sign
    assert (V[np.arange(4), np.abs(V).argmax(axis=1)] > 0).all()
    z = student.standardise(x).astype(np.float64) @ V.T
    np.testing.assert_allclose(z.T @ z / len(x), np.diag(values / (values + 0.05)), atol=atol)


def test_bottleneck_by_pca_wants_a_bottleneck_and_good_rows():
    with pytest.raises(ValueError, match=r"rank: expected a student with a bottleneck, .*rank=None"):
        Student(6, 32, 3).initialise_bottleneck(inputs(9, 6))
    with pytest.raises(ValueError, match=r"rank: expected a bottleneck of at most 6 units.*got 7"):
        Student(6, 32, 3, rank=7).initialise_bottleneck(inputs(9, 6))
    student = Student(6, 32, 3, rank=2)
    with pytest.raises(ValueError, match="epsilon"):
        student.initialise_bottleneck(inputs(9, 6), epsilon=0)
    with pytest.raises(ValueError, match="x: expected at least 2 rows"):
        student.initialise_bottleneck(inputs(1, 6))
    x = inputs(9, 6)
    x[4, 2] = np.nan
    with pytest.raises(ValueError, match=r"x: expected finite values.*row 4"):
        student.initialise_bottleneck(x)
    with pytest.raises(ValueError, match="x: expected shape"):
        student.initialise_bottleneck(inputs(9, 5))


# Bad arguments


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"inputs": 0}, ValueError, "inputs: expected an int in"),
        ({"hidden": -1}, ValueError, "hidden: expected an int in"),
        ({"outputs": 2.0}, TypeError, "outputs: expected an int, got float"),
        ({"rank": 0}, ValueError, "rank: expected an int in"),
        ({"activation": "step"}, ValueError, "activation: expected one of"),
        ({"dropout": 1.0}, ValueError, r"dropout: expected a probability in \[0, 1\)"),
        ({"dropout": -0.1}, ValueError, "dropout: expected"),
        ({"seed": -1}, ValueError, "seed: expected an int in"),
    ],
)
def test_bad_configurations(change, error, message):
    with pytest.raises(error, match=message):
        Student(**({"inputs": 4, "hidden": 8, "outputs": 3} | change))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((3, 10), np.float32), ValueError, r"x: expected shape \(B, D\) = \(any, 11\), got \(3, 10\)"),
        (np.zeros(11, np.float32), ValueError, r"x: expected shape .* got \(11,\)"),
        (np.zeros((3, 11), np.int64), TypeError, "x: expected dtype float32 or float64, got int64"),
        (np.zeros((3, 11), np.float16), TypeError, "x: expected dtype float32 or float64, got float16"),
        (((0.0,) * 11,), TypeError, "x: expected a NumPy array, got builtins.tuple"),
    ],
)
def test_bad_inputs(x, error, message):
    with pytest.raises(error, match=message):
        trained().predict(x)


def test_bad_arrays_change_nothing():
    student, before = trained(), trained()
    good = np.zeros((203, 5))
    for arrays, error, message in (
        ({"U": good, "W": np.zeros((203, 6))}, ValueError, r"W: expected shape \(203, 7\), got \(203, 6\)"),
        ({"U": good, "b": np.zeros(203, int)}, TypeError, "b: expected dtype float32 or float64, got int64"),
        ({"U": good, "X": good}, ValueError, "arrays: expected names among V, U, b, W, c, got 'X'"),
    ):
        with pytest.raises(error, match=message):
            student.set_arrays(**arrays)
    for mean, scale, message in (
        (np.zeros(10), np.ones(10), r"mean: expected shape \(11,\)"),
        (np.zeros(11), np.full(11, np.inf), "scale: expected finite values"),
        (np.zeros(11), None, "scale: expected None if and only if mean is None"),
    ):
        with pytest.raises(ValueError, match=message):
            student.set_standardisation(mean, scale)
    with pytest.raises(ValueError, match=r"scale: expected shape \(7,\)"):
        student.fold(np.zeros(7), np.ones(6))
    with pytest.raises(ValueError, match="mean: expected finite"):
        student.fold(np.full(7, np.nan), np.ones(7))
    with pytest.raises(ValueError, match="scale: expected the last layer to stay finite"):
        student.fold(np.full(7, 3e38), np.full(7, 3e38))
    assert same(student, before)
    with pytest.raises(ValueError, match="'V'"):
        Student(4, 8, 3).set_arrays(V=np.zeros((4, 4)))


@pytest.mark.parametrize("ask", ["predict", "logits", "predict_proba"])
@pytest.mark.parametrize(
    "net", [Student(5, 4, 3), pymimic.DeepNet([5, 4, 3]), pymimic.ConvNet((1, 5), [(4, 2)], 3)], ids=lambda net: net.file_kind
)
def test_a_net_asks_the_backend_that_it_is_told(net, ask):
    with pytest.raises(ValueError, match="backend: expected one of"):
        getattr(net, ask)(np.ones((2, 5), np.float32), backend="tpu")


@pytest.mark.parametrize("epsilon", [1e-3, 0.05, 2.0])
def test_epsilon_is_added_to_the_eigenvalues(epsilon):
    x = np.random.default_rng(0).standard_normal((500, 5)).astype(np.float32) * np.float32([1, 2, 3, 4, 5])
    student = Student(5, 4, 3, rank=3)
    student.initialise_bottleneck(x, epsilon)
    values = np.sort(np.linalg.eigvalsh(np.cov(x.astype(np.float64).T, bias=True)))[::-1][:3]
    np.testing.assert_allclose(np.square(student.arrays()["V"], dtype=np.float64).sum(1), 1 / (values + epsilon), rtol=16 * ROUNDING)


@pytest.mark.parametrize(
    "net",
    [lambda: Student(3, 4, 2), lambda: pymimic.DeepNet([3, 4, 2]), lambda: pymimic.ConvNet((1, 3), [(4, 2)], 2)],
    ids=["student", "deep net", "convolutional net"],
)
def test_standardisations_are_checked_as_what_they_are_stored_as(net):
    """1 / 1e-40 is a finite float64, and as float32 infinite."""
    net = net()
    for mean, scale, name in (([0, 0, 0], [1, 1e40, 1], "scale"), ([1e39, 0, 0], [1, 1, 1], "mean"), ([0, 0, np.nan], [1, 1, 1], "mean")):
        with pytest.raises(ValueError, match=f"{name}: expected finite values, got"):
            net.set_standardisation(np.array(mean, float), np.array(scale, float))
        assert net.mean is None
    before = net.arrays()
    for mean, scale, name in (
        ([0, 0], [1, 1e40], "scale"),
        ([1e39, 0], [1, 1], "mean"),
        ([0, 0, 0], [1, 1], "mean"),
        ([0, 0], [1], "scale"),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            net.fold(np.array(mean, float), np.array(scale, float))
    assert all(np.array_equal(array, net.arrays()[name]) for name, array in before.items())
