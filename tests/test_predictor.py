"""A few rows at a time: the bits of the big path in float32, and known errors with smaller weights."""

import copy
import pickle
import threading
import time

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from instruction_sets import INSTRUCTION_SETS, use_backend
from roundings import assert_within_roundings

import pymimic
from pymimic import Predictor, Student
from pymimic.backends import cpu_serving
from pymimic.nets.predictor import DTYPES

NETS = st.fixed_dictionaries(
    {
        "inputs": st.sampled_from([1, 5, 33, 600, 1100]),
        "hidden": st.integers(1, 700),
        "outputs": st.sampled_from([1, 3, 10, 16, 17, 183, 300]),
        "rank": st.sampled_from([None, 1, 7, 64, 530]),
        "activation": st.sampled_from(["relu", "gelu", "tanh", "sigmoid", "identity"]),
        "seed": st.integers(0, 9),
    }
)


@pytest.fixture(params=INSTRUCTION_SETS)
def isa(request):
    with use_backend(request.param):
        yield request.param


def random_student(standardised=True, **configuration):
    student = Student(**configuration)
    r = np.random.default_rng(configuration["seed"])
    student.set_arrays(b=r.standard_normal(student.hidden), c=r.standard_normal(student.outputs))
    if standardised:
        student.set_standardisation(r.standard_normal(student.inputs), r.random(student.inputs) + 0.5)
    return student


def inputs(student, rows, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, student.inputs), dtype=np.float32)


def exact(student, x):
    """Logits in float64."""
    w = {name: array.astype(float) for name, array in student.arrays().items()}
    z = (x - student.mean) * student.scale if student.mean is not None else x
    return pymimic.ops.shallow_forward(
        z @ w["V"].T if "V" in w else z.astype(float), w["U"], w["b"], w["W"], w["c"], activation=student.activation, backend="reference"
    )


@given(configuration=NETS, rows=st.integers(1, 8), standardised=st.booleans())
def test_float32_has_the_bits_of_the_big_path(isa, configuration, rows, standardised):
    student = random_student(standardised, **configuration)
    x = inputs(student, 40)
    whole = student.predict(x)
    np.testing.assert_array_equal(Predictor(student).predict(x[:rows]), whole[:rows])
    np.testing.assert_array_equal(student.predict(x[:rows]), whole[:rows])
    np.testing.assert_array_equal(Predictor(student).predict(x), whole)


@given(configuration=NETS)
def test_large_weights_are_read_where_they_lie(isa, configuration):
    student = random_student(**configuration)
    x = inputs(student, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_serving, "_PANEL_BYTES", 0)
        in_place = Predictor(student)
    assert in_place.nbytes == student.nbytes + student.mean.nbytes + student.scale.nbytes
    np.testing.assert_array_equal(in_place.predict(x), Predictor(student).predict(x))


@given(configuration=NETS, rows=st.integers(1, 9))
def test_bfloat16_rounds_weights_alone(isa, configuration, rows):
    student = random_student(**configuration)
    rounded = copy.deepcopy(student)
    rounded.set_arrays(
        **{name: array.astype(ml_dtypes.bfloat16).astype(np.float32) for name, array in student.arrays().items() if name in "VUW"}
    )
    x = inputs(student, 9)
    y = Predictor(student, "bfloat16").predict(x[:rows])
    want = exact(rounded, x[:rows])
    # sums of at most 1100, 530 and 700 terms in float32
    assert_within_roundings(y, want, 128, least=1 + np.abs(want).max())
    np.testing.assert_array_equal(y, Predictor(student, "bfloat16").predict(x)[:rows])


@given(configuration=NETS, rows=st.integers(1, 9))
def test_int8_rounds_weights_to_steps_of_their_row(isa, configuration, rows):
    student = random_student(**configuration)
    rounded = copy.deepcopy(student)
    arrays = {name: array for name, array in student.arrays().items() if name in "VUW"}
    for name, array in arrays.items():
        scale = np.abs(array).max(axis=1, keepdims=True) / 127
        arrays[name] = np.where(scale > 0, np.rint(array / np.where(scale > 0, scale, 1)) * scale, 0)
    rounded.set_arrays(**arrays)
    x = inputs(student, 9)
    y = Predictor(student, "int8").predict(x[:rows])
    want = exact(rounded, x[:rows])
    # x and z are taken to 16 bits of a row's largest value: 1.5e-5 each of sums over up to 1100 of them
    np.testing.assert_allclose(y, want, rtol=2e-3, atol=2e-3 * (1 + np.abs(want).max()))
    np.testing.assert_array_equal(y, Predictor(student, "int8").predict(x)[:rows])


@pytest.mark.parametrize("outputs", [3, 40, 250])
def test_many_hidden_units(isa, outputs):
    """Enough of them that slabs are worked on in groups and in pairs, with some left over."""
    student = random_student(inputs=20, hidden=40_033, outputs=outputs, seed=3)
    x = inputs(student, 20)
    whole, want = student.predict(x), exact(student, x[:3])
    np.testing.assert_array_equal(student.predict(x[:3]), whole[:3])
    for copied in (False, True):
        np.testing.assert_array_equal(Predictor(student, copy=copied).predict(x[:3]), whole[:3])
    for dtype, error in (("bfloat16", 4e-3), ("int8", 1e-2)):
        assert np.linalg.norm(Predictor(student, dtype).predict(x[:3]) - want) < error * np.linalg.norm(want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_for_any_number_of_threads(dtype):
    student = random_student(inputs=300, hidden=9000, outputs=40, rank=70, seed=1)
    few = Predictor(student, dtype)
    x = inputs(student, 5)
    before = pymimic.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            pymimic.set_num_threads(threads)
            results.append(few.predict(x))
    finally:
        pymimic.set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize(("dtype", "value"), [("float32", np.nan), ("bfloat16", np.nan), ("int8", np.nan), ("int8", np.inf)])
def test_nan_reaches_the_row_it_is_in_and_no_other(isa, dtype, value):
    student = random_student(inputs=20, hidden=50, outputs=3, rank=8, activation="gelu", seed=1)
    x = inputs(student, 4)
    x[2, 5] = value
    y = Predictor(student, dtype).predict(x)
    np.testing.assert_array_equal(np.isnan(y).all(axis=1), [False, False, True, False])
    assert np.isfinite(np.delete(y, 2, axis=0)).all()


def test_a_row_of_zeros_is_no_division_by_zero(isa):
    student = random_student(inputs=20, hidden=50, outputs=3, rank=8, seed=1, standardised=False)
    student.set_arrays(U=np.zeros((50, 8)), b=np.zeros(50))
    y = Predictor(student, "int8").predict(np.zeros((2, 20), np.float32))
    np.testing.assert_array_equal(y, np.tile(student.arrays()["c"], (2, 1)))


def test_smaller_weights_take_less_memory():
    student = random_student(inputs=784, hidden=8192, outputs=10, rank=64, seed=0)
    sizes = [Predictor(student, dtype).nbytes for dtype in DTYPES]
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[2] < 0.4 * sizes[0]


def test_weights_are_shared_or_copied_as_asked():
    student = random_student(inputs=20, hidden=50, outputs=3, rank=8, seed=1)
    U = student.arrays()["U"]
    x, y = inputs(student, 2), student.predict(inputs(student, 2))
    shares, copies, small = (Predictor(student, copy=copied) for copied in (False, True, None))
    assert shares.nbytes < copies.nbytes == small.nbytes  # padded to whole panels
    for few in (shares, copies, small):
        np.testing.assert_array_equal(few.predict(x), y)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_serving, "_PANEL_BYTES", U.nbytes - 1)
        assert Predictor(student).nbytes == shares.nbytes


def test_changes_to_the_student_are_seen_by_it_and_not_by_its_predictor():
    student = random_student(inputs=20, hidden=50, outputs=3, rank=8, seed=1)
    x = inputs(student, 2)
    old, few = student.predict(x), Predictor(student, "bfloat16")
    kept = few.predict(x)
    for change in (
        lambda: student.set_arrays(c=np.ones(3)),
        lambda: student.set_standardisation(None, None),
        lambda: student.fold(np.ones(3), np.full(3, 2.0)),
        lambda: student.set_arrays(U=student.arrays()["U"] * 2),
    ):
        change()
        new = student.predict(x)
        assert not np.array_equal(new, old)
        np.testing.assert_array_equal(new, student.predict(np.repeat(x, 20, axis=0))[::20])
        old = new
    np.testing.assert_array_equal(few.predict(x), kept)


def test_a_copy_and_attributes_are_seen_too():
    student = random_student(inputs=20, hidden=50, outputs=3, rank=8, seed=1)
    x = inputs(student, 2)
    before = student.predict(x)
    other = copy.copy(student)
    other.set_arrays(U=student.arrays()["U"] * 2)
    np.testing.assert_array_equal(student.predict(x), before)
    student.activation = "tanh"
    student.mean = student.mean + 1
    np.testing.assert_array_equal(student.predict(x), student.predict(np.repeat(x, 20, axis=0))[::20])
    assert not np.array_equal(student.predict(x), before)


def test_threads_that_predict_while_weights_change_leave_nothing_stale():
    student = random_student(inputs=20, hidden=3000, outputs=3, rank=8, seed=1)
    x, stop = inputs(student, 1), threading.Event()

    def predict():
        while not stop.is_set():
            student.predict(x)

    threads = [threading.Thread(target=predict) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for i in range(50):
            student.set_arrays(c=np.full(3, float(i)))
            time.sleep(0.001)
            np.testing.assert_array_equal(student.predict(x), student.predict(np.repeat(x, 20, axis=0))[:1])
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_int8_sums_end_where_32_bits_do():
    x = np.ones((1, 65_536), np.float32)
    for inputs_ in (65_536, 65_537):
        student = Student(inputs_, 4, 2, activation="identity")
        student.set_arrays(U=np.full((4, inputs_), 1 / inputs_), W=np.ones((4, 2)))
        if inputs_ == 65_536:
            # 65536 equal weights are exact as integers, and only their scale and the sum's are rounded
            assert_within_roundings(Predictor(student, "int8").predict(x), np.full((1, 2), 4), 8)
        else:
            with pytest.raises(ValueError, match=r"^dtype: expected .* with more than 65536 inputs or .*, got 'int8' with 65537"):
                Predictor(student, "int8")


def test_rows_too_small_for_steps_are_zeros():
    student = random_student(inputs=20, hidden=50, outputs=3, rank=8, seed=1, standardised=False)
    tiny = np.full((1, 20), 1e-36, np.float32)
    np.testing.assert_array_equal(Predictor(student, "int8").predict(tiny), Predictor(student, "int8").predict(tiny * 0))


def test_a_student_that_has_predicted_can_be_copied_and_pickled():
    student = random_student(inputs=20, hidden=50, outputs=3, rank=8, seed=1)
    x = inputs(student, 2)
    y = student.predict(x)
    for other in (copy.deepcopy(student), pickle.loads(pickle.dumps(student))):
        np.testing.assert_array_equal(other.predict(x), y)


def test_bad_input():
    student = random_student(inputs=20, hidden=50, outputs=3, rank=8, seed=1)
    with pytest.raises(ValueError, match=r"^dtype: expected one of float32, bfloat16, int8, got 'int4'"):
        Predictor(student, "int4")
    few = Predictor(student)
    for predict in (few.predict, student.predict):
        with pytest.raises(TypeError, match=r"^x: expected a NumPy array, got builtins.tuple"):
            predict(((0.0,) * 20,))
        with pytest.raises(TypeError, match=r"^x: expected dtype float32 or float64, got int64"):
            predict(np.zeros((1, 20), np.int64))
        with pytest.raises(ValueError, match=r"^x: expected shape \(B, D\) = \(any, 20\), got \(1, 19\)"):
            predict(np.zeros((1, 19), np.float32))
        assert predict(np.zeros((0, 20), np.float32)).shape == (0, 3)
        np.testing.assert_array_equal(predict(np.ones((2, 40))[:, ::2]), predict(np.ones((2, 20), np.float32)))


def test_the_compiled_class_refuses_what_it_would_read_outside_of():
    from pymimic import _core

    b, c, U, W = (np.zeros(shape, np.float32) for shape in (32, 16, (32, 4), (32, 16)))
    good = ("float32", 4, 4, 32, 16, 32, 0, None, [U], [W], b, c, None, None)
    few = _core.Predictor(*good)
    assert few.predict(np.zeros((1, 4), np.float32)).shape == (1, 16)
    for at, bad in [
        (0, "int4"),
        (1, 5),
        (3, 33),
        (4, 17),
        (5, 31),
        (6, 9),
        (8, [U[:31]]),
        (8, [U, U]),
        (9, [W.astype(float)]),
        (12, c[:4]),
    ]:
        with pytest.raises((ValueError, TypeError)):
            _core.Predictor(*good[:at], bad, *good[at + 1 :])
    with pytest.raises(ValueError, match="x: expected shape"):
        few.predict(np.zeros((1, 5), np.float32))
    with pytest.raises(TypeError, match="x: dtype"):
        few.predict(np.zeros((1, 4)))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 8])
def test_weights_laid_out_for_few_rows_are_not_slow(isa, dtype, rows, threads):
    """Vectors that are longer than a register cost eight times as much and more, when compilers put them into memory."""
    student = Student(784, 8192, 10, rank=128, seed=0)
    x = np.random.default_rng(0).standard_normal((rows, 784), np.float32)

    def seconds(predictor):
        took = []
        for _ in range(30):
            started = time.thread_time()
            predictor.predict(x)
            took.append(time.thread_time() - started)
        return min(took)

    threads(1)
    assert seconds(Predictor(student, dtype=dtype)) < 4 * seconds(Predictor(student, copy=False))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [63, 64, 65, 128, 129, 1000])
def test_any_number_of_rows(dtype, rows):
    student = random_student(inputs=20, hidden=50, outputs=3, rank=8, seed=1)
    x, few = inputs(student, rows), Predictor(student, dtype)
    y = few.predict(x)
    np.testing.assert_array_equal(y, np.concatenate([few.predict(x[i : i + 1]) for i in range(rows)]))
    if dtype == "float32":
        np.testing.assert_array_equal(y, student.predict(x))


@pytest.mark.parametrize("name", ["mean", "scale", "activation", "set_standardisation"])
def test_each_attribute_is_seen_by_few_rows_and_many(name):
    student = random_student(inputs=20, hidden=50, outputs=3, rank=8, seed=1)
    x = inputs(student, 40)
    few, many = student.predict(x[:2]), student.predict(x)  # both have been made ready
    if name == "activation":
        student.activation = "tanh"
    elif name == "set_standardisation":
        student.set_standardisation(student.mean + 1, student.scale)
    else:
        setattr(student, name, getattr(student, name) * 2)
    fresh = copy.deepcopy(student)
    np.testing.assert_array_equal(student.predict(x[:2]), fresh.predict(x[:2]))
    np.testing.assert_array_equal(student.predict(x), fresh.predict(x))
    assert not np.array_equal(student.predict(x[:2]), few)
    assert not np.array_equal(student.predict(x), many)
