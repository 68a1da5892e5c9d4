"""Arrays of other libraries are used where they lie; DataFrames and lists are taken where a user brings data, and nowhere else."""

import array
import ctypes

import numpy as np
import pytest
from ml_dtypes import bfloat16

import pymimic as pm
from pymimic import _check, ops

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
T = X[:, :2] * 2
LABELS = np.arange(8) % 2
TEACHER = pm.from_callable(lambda rows: rows[:, :2] * 2)


class Interface:
    """Has `__array_interface__` alone."""

    def __init__(self, values):
        self.values, self.__array_interface__ = values, values.__array_interface__


class DLPack:
    """Has DLPack alone."""

    def __init__(self, values):
        self.values = values

    def __dlpack__(self, **keywords):
        return self.values.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


def ctypes_array(values):
    kind = ctypes.c_float if values.dtype == np.float32 else ctypes.c_int64
    for size in reversed(values.shape):
        kind = kind * size
    return kind.from_buffer_copy(np.ascontiguousarray(values))


def of_torch(values):
    return pytest.importorskip("torch").from_numpy(values.copy())


def of_jax(values):
    return pytest.importorskip("jax.numpy").asarray(values)


KINDS = {
    "torch": of_torch, "jax": of_jax, "interface": lambda v: Interface(v.copy()), "dlpack": lambda v: DLPack(v.copy()),
    "ctypes": ctypes_array, "memoryview": lambda v: memoryview(v.copy()),
}  # fmt: skip


@pytest.fixture(params=KINDS)
def other(request):
    """What makes an array of another library of one of NumPy's."""
    return KINDS[request.param]


def address(values):
    return values.__array_interface__["data"][0]


# On the CPU, without a copy


def test_the_memory_is_the_owners(other):
    owner = other(X)
    seen = _check.host_array("x", owner)
    assert type(seen) is np.ndarray
    assert np.array_equal(seen, X)
    assert address(seen) == address(_check.host_array("x", owner))
    if hasattr(owner, "data_ptr"):
        assert address(seen) == owner.data_ptr()
    elif hasattr(owner, "values"):
        assert address(seen) == address(owner.values)
    elif isinstance(owner, ctypes.Array):
        assert address(seen) == ctypes.addressof(owner)
    elif isinstance(owner, memoryview):
        assert address(seen) == address(owner.obj)


def test_ops_take_them_and_give_numpys(other):
    U, b, W, c = (np.ones(shape, np.float32) for shape in ((6, 4), (6,), (6, 2), (2,)))
    wanted = ops.shallow_forward(X, U, b, W, c)
    y = ops.shallow_forward(*map(other, (X, U, b, W, c)))
    assert type(y) is np.ndarray
    assert np.array_equal(y, wanted)
    assert np.array_equal(ops.cross_entropy(other(T), other(LABELS))[1], ops.cross_entropy(T, LABELS)[1])


def test_a_transfer_set_keeps_their_memory(other):
    owner, logits = other(X), other(T)
    cases = pm.TransferSet(owner, logits, other(np.ones(8, np.float32)), other(LABELS))
    assert address(cases._rows.shards[0][0]) == address(_check.host_array("x", owner))
    assert address(cases._rows.shards[0][1]) == address(_check.host_array("x", logits))
    labelled = pm.TransferSet.from_teacher(TEACHER, owner)
    assert address(labelled._rows.shards[0][0]) == address(_check.host_array("x", owner))
    assert np.array_equal(labelled.batch(np.arange(8))[1], T)


def test_what_is_written_is_seen_on_the_other_side(torch):
    x, out = torch.zeros(8, 4), torch.zeros(8, 2)
    cases = pm.TransferSet(x, T)
    x += 1
    assert (cases.batch(np.arange(8))[0] == 1).all()
    U, b, W, c = (np.ones(shape, np.float32) for shape in ((6, 4), (6,), (6, 2), (2,)))
    y = ops.shallow_forward(X, U, b, W, c, out=out)
    assert address(y) == out.data_ptr()
    assert np.array_equal(out.numpy(), ops.shallow_forward(X, U, b, W, c))
    weight = torch.ones(3, 3)
    pm.SGD(0.5).update("U", weight, torch.ones(3, 3))
    assert (weight == 0.5).all()


def test_read_only_memory_is_not_written_to():
    U, b, W, c = (np.ones(shape, np.float32) for shape in ((6, 4), (6,), (6, 2), (2,)))
    with pytest.raises(ValueError, match="out: expected a writable array"):
        ops.shallow_forward(X, U, b, W, c, out=memoryview(bytes(64)).cast("B").cast("f", (8, 2)))


def test_bfloat16_tensors_keep_their_bits(torch):
    tensor = torch.from_numpy(X).to(torch.bfloat16)
    seen = _check.host_array("z", tensor)
    assert seen.dtype == bfloat16
    assert np.array_equal(seen.astype(np.float32), tensor.float().numpy())
    assert address(seen) == tensor.data_ptr()


def test_strided_and_one_dimensional_ones(torch):
    assert np.array_equal(_check.host_array("x", torch.from_numpy(X).T), X.T)
    assert np.array_equal(_check.host_array("b", array.array("f", [1, 2, 3])), [1, 2, 3])


def test_nets_take_them(other):
    net = pm.Student(4, 8, 2)
    assert np.array_equal(net.predict(other(X)), net.predict(X))
    assert np.array_equal(net.predict_proba(other(X)), net.predict_proba(X))
    assert np.array_equal(pm.Predictor(net).predict(other(X)), net.predict(X))
    assert net.score(other(X), other(LABELS)) == net.score(X, LABELS)
    net.set_arrays(U=other(np.ones((8, 4), np.float32)))
    assert (net.arrays()["U"] == 1).all()


def test_cases_and_augment_of_ones_own_may_use_tensors(torch):
    class Tensors:
        inputs, outputs = 4, 2

        def __len__(self):
            return 8

        def batch(self, indices):
            return torch.from_numpy(X[indices]), torch.from_numpy(T[indices]), None

    def trained(cases):
        net = pm.Student(4, 8, 2)
        pm.Trainer(net, pm.SGD(0.01), epochs=2, batch_size=4, progress=False).fit(cases)
        return net.predict(X)

    assert np.array_equal(trained(Tensors()), trained(pm.TransferSet(X, T)))


# What is refused


def test_gradients_are_not_lost_silently(torch):
    tensor = torch.from_numpy(X).requires_grad_()
    said = r"got torch\.Tensor that requires them: pass \.detach\(\), or use pymimic\.torch"
    with pytest.raises(TypeError, match=f"^x: expected an array without gradients, {said}"):
        pm.TransferSet(tensor, T)
    with pytest.raises(TypeError, match=f"^z: expected an array without gradients, {said}"):
        ops.shallow_forward(tensor, *(np.ones(shape, np.float32) for shape in ((6, 4), (6,), (6, 2), (2,))))


def test_tensors_without_such_memory_are_refused(torch):
    for bad in (torch.from_numpy(X).to_sparse(), torch.zeros(8, 4, device="meta"), torch.Tensor):
        with pytest.raises(TypeError, match=r"^x: expected an? (array whose memory NumPy can share|NumPy array), got "):
            pm.TransferSet(bad, T)


@pytest.mark.parametrize("value", [b"text" * 8, "text", np.float32(1), 3, object(), iter([X])], ids=lambda value: type(value).__name__)
def test_what_is_no_array_is_refused(value):
    with pytest.raises(TypeError, match=r"^x: expected a NumPy array, got "):
        _check.host_array("x", value)


# DataFrames and lists


@pytest.fixture(scope="module")
def pandas():
    return pytest.importorskip("pandas")


def brings(frame, labels):
    """What TransferSet, from_teacher, predict, score ... make of the same data in another form."""
    net = pm.Student(4, 8, 2)
    cases = pm.TransferSet(frame, T)
    return [
        cases.batch(np.arange(8))[0], pm.TransferSet.from_teacher(TEACHER, frame).batch(np.arange(8))[1], net.predict(frame),
        net.score(frame, labels), pm.label(TEACHER, frame), pm.LabelledSet(frame, labels, 2).batch(np.arange(8))[1],
        pm.TransferSet(X, T, labels=labels).batch(np.arange(8))[1].labels, pm.DeepNet([4, 2]).logits(frame),
        np.concatenate(list(pm.gaussian_noise(frame, 1, 0.1, seed=0))), pm.out_of_fold(lambda x, y: TEACHER, frame, labels, 2),
    ]  # fmt: skip


def assert_same(one, other):
    for a, b in zip(one, other):
        assert np.array_equal(a, b)


def test_frames_and_series_are_data(pandas):
    wanted = brings(X, LABELS)
    assert_same(brings(pandas.DataFrame(X), pandas.Series(LABELS)), wanted)
    mixed = pandas.DataFrame(X).astype({0: "float64", 1: "Float32"})
    assert_same(brings(mixed, pandas.Series(LABELS, dtype="Int64")), wanted)


def test_lists_are_data():
    assert_same(brings(X.tolist(), LABELS.tolist()), brings(X, LABELS))
    assert_same(brings(list(X), LABELS.tolist()), brings(X, LABELS))
    assert pm.Student(4, 8, 2).predict([[0, 1, 2, 3]]).shape == (1, 2)


def test_whole_numbers_and_flags_become_floats(pandas):
    frame = pandas.DataFrame({"a": [1, 2, 3], "b": [True, False, True], "c": [0.5, 1.5, 2.5], "d": [1, 2, 3]})
    wanted = frame.astype(np.float64).to_numpy()
    assert np.array_equal(pm.TransferSet(frame, np.ones((3, 1), np.float32)).batch(np.arange(3))[0], wanted)
    whole = frame[["a", "d"]]
    assert np.array_equal(pm.TransferSet(whole, whole).batch(np.arange(3))[1], whole.to_numpy())


def test_a_frame_of_float32_is_not_copied(pandas):
    frame = pandas.DataFrame(X)
    assert np.shares_memory(pm.TransferSet(frame, T)._rows.shards[0][0], frame.to_numpy())


def test_frames_label_into_a_folder(pandas, tmp_path):
    frame = pandas.DataFrame(X)
    made = pm.TransferSet.create(tmp_path / "a", TEACHER, frame, pandas.Series(np.ones(8)), progress=False)
    assert np.array_equal(made.batch(np.arange(8))[0], X)
    for folder, inputs, weights in (
        ("b", [frame[:3], frame[3:]], None), ("c", X.tolist(), [1.0] * 8), ("d", [X[:3].tolist(), X[3:].tolist()], [[1.0] * 3, [1.0] * 5]),
        ("e", iter([X[:3], frame[3:]]), None), ("f", [X[:3], X[3:]], [np.ones(3), np.ones(5)]),
    ):  # fmt: skip
        made = pm.TransferSet.create(tmp_path / folder, TEACHER, inputs, weights, progress=False)
        assert np.array_equal(made.batch(np.arange(8))[1], T)
        assert (made.batch(np.arange(8))[2] is None) == (weights is None)


@pytest.mark.parametrize(
    ("columns", "error", "says"),
    [
        ({"town": ["Bern"] * 8}, TypeError, r"x: expected columns of numbers, got 'town' of dtype (str|object|string)"),
        ({"town": np.array([object()] * 8)}, TypeError, "x: expected columns of numbers, got 'town' of dtype object"),
        ({"when": np.zeros(8, "datetime64[s]")}, TypeError, "x: expected columns of numbers, got 'when' of dtype datetime64"),
        ({"z": np.zeros(8, complex)}, TypeError, "x: expected columns of numbers, got 'z' of dtype complex128"),
    ],
)
def test_columns_of_no_numbers_are_named(pandas, columns, error, says):
    frame = pandas.DataFrame({"a": X[:, 0], "b": X[:, 1], **columns})
    with pytest.raises(error, match=f"^{says}"):
        pm.TransferSet(frame, T)


def test_a_category_is_no_number(pandas):
    frame = pandas.DataFrame({"a": X[:, 0], "kind": pandas.Categorical(LABELS)})
    with pytest.raises(TypeError, match=r"^x: expected columns of numbers, got 'kind' of dtype category"):
        pm.Student(2, 8, 2).predict(frame)


def test_missing_values_are_named(pandas):
    frame = pandas.DataFrame({"a": X[:, 0], "n": pandas.array([1, 2, None, 4, None, 6, 7, 8], "Int64")})
    with pytest.raises(ValueError, match=r"^x: expected values, got a missing one in column 'n' in row 2"):
        pm.TransferSet(frame, T)
    with pytest.raises(ValueError, match=r"^inputs: expected values, got a missing one in column 'n' in row 2"):
        pm.TransferSet.from_teacher(TEACHER, frame)
    with pytest.raises(ValueError, match=r"^labels: expected values, got a missing one in row 2"):
        pm.LabelledSet(X, frame["n"], 9)
    with pytest.raises(ValueError, match=r"^x: expected finite values, got nan in row 2"):
        pm.TransferSet(pandas.DataFrame(np.where(X[2, 1] == X, np.nan, X)), T)


def test_labels_that_are_names_are_told_their_cure(pandas):
    with pytest.raises(TypeError, match=r"^labels: expected an integer dtype, got \S+: pass np.unique\(labels"):
        pm.LabelledSet(X, pandas.Series(["a", "b"] * 4), 2)
    with pytest.raises(TypeError, match=r"^labels: expected an integer dtype, got <U1: pass np.unique\(labels"):
        pm.LabelledSet(X, ["a", "b"] * 4, 2)


def test_uneven_lists_and_lists_of_other_things_are_refused():
    for bad in ([[1.0, 2.0], [3.0]], [[1.0, "a"]], [[1.0, None]], []):
        with pytest.raises((TypeError, ValueError), match=r"^x: expected "):
            pm.TransferSet(bad, T[: len(bad)])
        with pytest.raises((TypeError, ValueError), match=r"^inputs: expected "):
            pm.TransferSet.from_teacher(TEACHER, bad)


def test_ops_take_neither_frames_nor_lists(pandas):
    rest = [np.ones(shape, np.float32) for shape in ((6, 4), (6,), (6, 2), (2,))]
    with pytest.raises(TypeError, match=r"^z: expected a NumPy array, got pandas\.\S*DataFrame: pass \.to_numpy\(\)"):
        ops.shallow_forward(pandas.DataFrame(X), *rest)
    with pytest.raises(TypeError, match=r"^z: expected a NumPy array, got builtins\.list: pass numpy\.asarray"):
        ops.shallow_forward(X.tolist(), *rest)
