"""Bad input to the ops and the handle: the exception's type, and a message `argument: expected ..., got ...`."""

import dataclasses
import inspect
import re

import numpy as np
import pytest
from cases import shallow

import pymimic
from pymimic import (
    SGD,
    AdamW,
    BackendUnavailableError,
    DeepNet,
    Deform,
    LabelledSet,
    ShallowWeights,
    Student,
    TransferSet,
    backends,
    munge,
    ops,
    threads,
)
from pymimic.backends.interface import Backend

SIZE = {"B": 4, "k": 3, "H": 5, "C": 2}
DY, Z, U, B_, W, C_ = shallow(SIZE, "float32")
X, V = np.ones((4, 6), "float32"), np.ones((3, 6), "float32")
H = np.ones((4, 5), "float32")

CALLS = {
    "shallow_forward": (ops.shallow_forward, {"z": Z, "U": U, "b": B_, "W": W, "c": C_}),
    "shallow_backward": (ops.shallow_backward, {"dy": DY, "z": Z, "U": U, "b": B_, "W": W}),
    "linear_dropout": (ops.linear_dropout, {"x": Z, "weight": U, "bias": B_}),
    "linear_dropout_backward": (ops.linear_dropout_backward, {"dout": H, "x": Z, "weight": U, "out": H, "bias": B_}),
    "factorized_matmul": (ops.factorized_matmul, {"x": X, "V": V, "U": U, "b": B_}),
    "factorized_matmul_backward": (ops.factorized_matmul_backward, {"da": H, "x": X, "V": V, "U": U}),
    "mimic_loss": (ops.mimic_loss, {"y": DY, "t": DY, "weights": np.ones(4, "float32")}),
    "cross_entropy": (ops.cross_entropy, {"y": DY, "weights": np.ones(4, "float32"), "labels": np.zeros(4, int)}),
    "distillation_loss": (
        ops.distillation_loss,
        {"y": DY, "t": DY, "temperature": 2.0, "weights": np.ones(4, "float32"), "labels": np.zeros(4, int)},
    ),
    "dropout": (ops.dropout, {"x": H, "p": 0.5, "seed": 0}),
    "dropout_backward": (ops.dropout_backward, {"dy": H, "p": 0.5, "seed": 0}),
}
ARRAYS = [(name, arg) for name, (_, args) in CALLS.items() for arg, value in args.items() if isinstance(value, np.ndarray)]
# axes that no other argument has
FREE = {("shallow_forward", "z", 0), ("linear_dropout", "x", 0), ("factorized_matmul", "x", 0), ("cross_entropy", "y", 1)}
MASKED = ["shallow_forward", "shallow_backward", "linear_dropout", "linear_dropout_backward"]


def refuses(kind, name, call, *args, **keywords):
    """Demand that exception, with a message that names the argument, what was expected and what came."""
    with pytest.raises(kind) as caught:
        call(*args, **keywords)
    assert re.match(rf"{name}: expected .+, got .+", str(caught.value), re.DOTALL), str(caught.value)
    assert type(caught.value) is kind or issubclass(type(caught.value), kind)


def call(op, /, **changes):
    function, args = CALLS[op]
    return function(**{**args, **changes})


@pytest.mark.parametrize("op", CALLS)
def test_the_calls_below_are_right_but_for_one_argument(op):
    call(op)


@pytest.mark.parametrize(("op", "name"), ARRAYS)
def test_a_wrong_kind_of_array(op, name):
    good = CALLS[op][1][name]
    for bad in (good.tolist(), None, 3.0, "z"):
        if bad is None and (name in ("b", "bias", "weights") or (op, name) == ("distillation_loss", "labels")):
            continue  # these may be left out
        refuses(TypeError, name, call, op, **{name: bad})


@pytest.mark.parametrize(("op", "name"), ARRAYS)
def test_a_wrong_dtype(op, name):
    good = CALLS[op][1][name]
    kinds = ("float32", "complex64", "bool", "object") if name == "labels" else ("float16", "int64", "complex64", ">f4", "object")
    for kind in kinds:
        refuses(TypeError, name, call, op, **{name: good.astype(kind)})


@pytest.mark.parametrize(("op", "name"), [pair for pair in ARRAYS if pair[1] != "labels" and not pair[0].startswith("dropout")])
def test_dtypes_are_not_mixed(op, name):
    """The message names the first array that differs from those before it."""
    with pytest.raises(TypeError, match=r"^\w+: expected dtype float(32|64) as \w+ has, got float(32|64)"):
        call(op, **{name: CALLS[op][1][name].astype("float64")})


@pytest.mark.parametrize(("op", "name"), ARRAYS)
def test_a_wrong_number_of_axes(op, name):
    good = CALLS[op][1][name]
    refuses(ValueError, name, call, op, **{name: good[..., 0]})
    if not op.startswith("dropout"):
        refuses(ValueError, name, call, op, **{name: good[None]})


@pytest.mark.parametrize(("op", "name"), [pair for pair in ARRAYS if not pair[0].startswith("dropout")])
def test_a_wrong_size(op, name):
    """Some argument is named: where two disagree, either may be the wrong one."""
    good = CALLS[op][1][name]
    for axis in range(good.ndim):
        if (op, name, axis) in FREE:
            continue
        with pytest.raises(ValueError, match=r"^\w+: expected (shape \(.*\) = \(.*\)|values in .*), got "):
            call(op, **{name: np.concatenate([good, good], axis)})


@pytest.mark.parametrize("op", [op for op in CALLS if "activation" in inspect.signature(CALLS[op][0]).parameters])
@pytest.mark.parametrize("activation", ["swish", "", "ReLU", None, 0])
def test_an_unknown_activation(op, activation):
    refuses(ValueError, "activation", call, op, activation=activation)


@pytest.mark.parametrize("op", CALLS)
def test_an_unknown_or_absent_backend(op):
    refuses(ValueError, "backend", call, op, backend="gpu")
    with pytest.raises(BackendUnavailableError, match=r"^backend: 'cuda' is not available: \w+"):
        call(op, backend="cuda")


def test_numbers_and_names_of_the_wrong_kind():
    for value in ("0.5", None, True):
        refuses(TypeError, "dropout", call, "shallow_forward", dropout=value)
    refuses(TypeError, "backend", call, "shallow_forward", backend=["cpu"])
    assert call("dropout", p=np.float32(0.5)) is not None


def test_a_backend_that_cannot_be_imported_says_why(monkeypatch):
    def broken(name):
        raise ImportError("libnowhere.so: cannot open shared object file")

    monkeypatch.setattr(backends.importlib, "import_module", broken)
    with pytest.raises(BackendUnavailableError, match=r"^backend: 'numba' is not available: libnowhere.so: cannot open"):
        backends._load.__wrapped__("numba")


@pytest.mark.parametrize("op", MASKED)
@pytest.mark.parametrize("p", [1.0, -0.1, 1.5, float("nan"), float("inf"), -1])
def test_dropout_outside_its_interval(op, p):
    refuses(ValueError, "dropout", call, op, dropout=p)
    for other in ("dropout", "dropout_backward"):
        with pytest.raises(ValueError, match=r"^p: expected .*, got "):
            call(other, p=p)


@pytest.mark.parametrize("op", [*MASKED, "dropout", "dropout_backward"])
@pytest.mark.parametrize(
    ("keywords", "kind"),
    [
        ({"seed": -1}, ValueError),
        ({"seed": 2**64}, ValueError),
        ({"seed": 1.0}, TypeError),
        ({"seed": None}, TypeError),
        ({"seed": True}, TypeError),
        ({"offset": -1}, ValueError),
        ({"offset": 2**32}, ValueError),
        ({"offset": "3"}, TypeError),
        ({"origin": (8, 0)}, ValueError),
        ({"origin": (0, 16)}, ValueError),
        ({"origin": (-16, 0)}, ValueError),
        ({"origin": (2**36, 0)}, ValueError),
        ({"origin": (0, 2**37)}, ValueError),
        ({"origin": (0, 0, 0)}, ValueError),
        ({"origin": 16}, ValueError),
        ({"origin": (16.0, 0)}, TypeError),
    ],
    ids=str,
)
def test_bad_numbers_of_the_mask(op, keywords, kind):
    refuses(kind, next(iter(keywords)), call, op, **keywords)


TO_WRITE = [("shallow_forward", (4, 2)), *((op, (4, 5)) for op in ("linear_dropout", "factorized_matmul", "dropout", "dropout_backward"))]


@pytest.mark.parametrize(("op", "shape"), TO_WRITE)
def test_a_bad_out(op, shape):
    rows, columns = shape
    refuses(ValueError, "out", call, op, out=np.empty((rows + 1, columns), "float32"))
    refuses(ValueError, "out", call, op, out=np.empty(rows * columns, "float32"))
    refuses(TypeError, "out", call, op, out=np.empty(shape, "float64"))
    refuses(TypeError, "out", call, op, out=[[0.0] * columns] * rows)
    refuses(ValueError, "out", call, op, out=np.empty((rows, 2 * columns), "float32")[:, ::2])
    refuses(ValueError, "out", call, op, out=np.empty(shape, "float32", order="F"))
    read_only = np.empty(shape, "float32")
    read_only.flags.writeable = False
    refuses(ValueError, "out", call, op, out=read_only)
    name, *_ = CALLS[op][1]
    memory = np.ones(100, "float32")
    first = CALLS[op][1][name]
    overlapping = memory[3 : 3 + first.size].reshape(first.shape)
    refuses(ValueError, "out", call, op, **{name: overlapping, "out": memory[: rows * columns].reshape(shape)})


def test_a_bad_out_of_gradients():
    def refused(kind, name, keywords=None, **arrays):
        refuses(kind, name, call, "shallow_backward", out=ops.ShallowGrads(**arrays), **keywords or {})

    good = call("shallow_backward")
    for key, grad in good._asdict().items():
        refused(ValueError, f"out.{key}", **{key: np.empty((7, *grad.shape), "float32")})
        refused(TypeError, f"out.{key}", **{key: np.empty(grad.shape, "float64")})
        refused(TypeError, f"out.{key}", **{key: grad.tolist()})
        refused(ValueError, f"out.{key}", {"needs": set("zUbWc") - {key}}, **{key: grad})
    refused(ValueError, "out.U", U=U)
    memory = np.empty(15, "float32")
    refused(ValueError, "out.U", z=memory[:12].reshape(4, 3), U=memory.reshape(5, 3))
    refuses(TypeError, "out", call, "shallow_backward", out=tuple(good))


@pytest.mark.parametrize(
    ("op", "known"),
    [("shallow_backward", "zUbWc"), ("linear_dropout_backward", ["x", "weight", "bias"]), ("factorized_matmul_backward", "xVUb")],
)
def test_unknown_needs(op, known):
    refuses(ValueError, "needs", call, op, needs=("V" if "V" not in known else "W",))
    refuses(ValueError, "needs", call, op, needs=(*known, "everything"))
    refuses(ValueError, "needs", call, op, needs=[[known[0]]])
    refuses(TypeError, "needs", call, op, needs=1)


@pytest.mark.parametrize("op", ["shallow_forward", "shallow_backward"])
def test_a_plan_for_another_shape(op):
    right = {"B": 4, "D": 9, "k": 3, "H": 5, "C": 2}
    call(op, plan=pymimic.plan(**right))
    for axis in "BkHC":
        refuses(ValueError, "plan", call, op, plan=pymimic.plan(**{**right, axis: right[axis] + 1}))
    refuses(ValueError, "plan", call, op, plan=pymimic.plan(**right, dtype="float64"))
    refuses(TypeError, "plan", call, op, plan="keep")


def test_saved_from_another_call():
    how = {"activation": "tanh", "dropout": 0.5, "seed": 1, "offset": 2, "origin": (16, 32), "backend": "reference"}
    _, saved = call("shallow_forward", save=True, **how)
    call("shallow_backward", saved=saved, **how)
    others = [{"activation": "gelu"}, {"dropout": 0.0}, {"seed": 2}, {"offset": 3}, {"origin": (16, 64)}]
    for other in others:
        refuses(ValueError, "saved", call, "shallow_backward", saved=saved, **{**how, **other})
    refuses(ValueError, "saved", call, "shallow_backward", **{**how, "dy": DY[:2], "z": Z[:2]}, saved=saved)
    refuses(ValueError, "saved", call, "shallow_backward", **how, saved=dataclasses.replace(saved, backend="cpu"))


def test_saved_of_another_kind():
    for bad in ("keep", 1, np.ones((4, 5), "float32")):
        refuses(TypeError, "save", call, "shallow_forward", save=bad)
    refuses(TypeError, "saved", call, "shallow_backward", saved=np.ones((4, 5), "float32"))


@pytest.mark.parametrize("backend", ["cpu", "numba", "reference"])
def test_saved_with_another_array_in_it(backend):
    if backend == "numba":
        pytest.importorskip("numba")
    _, saved = call("shallow_forward", save=True, backend=backend)
    for bad in (None, "keep", [1.0]):
        forged = dataclasses.replace(saved, array=bad)
        refuses(TypeError, "saved", call, "shallow_backward", saved=forged, backend=backend)
        refuses(TypeError, "save", call, "shallow_forward", save=forged, backend=backend)
    if backend != "reference":  # NumPy's own errors are good enough there
        refuses(ValueError, "saved", call, "shallow_backward", saved=dataclasses.replace(saved, array=saved.array[:1]), backend=backend)


@pytest.mark.parametrize("labels", [[0, 1, 2, 0], [0, -1, 0, 0]])
def test_labels_outside_the_classes(labels):
    refuses(ValueError, "labels", call, "cross_entropy", labels=np.array(labels))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bad_temperature(temperature):
    refuses(ValueError, "temperature", call, "distillation_loss", temperature=temperature)


@pytest.mark.parametrize("temperature", [100.001, 1e5, np.float32(1e6), 10**9])
def test_a_temperature_that_float32_cannot_bear_is_refused(temperature):
    with pytest.raises(
        ValueError, match=r"temperature: expected a number in \(0, 100\], as .* loss 'mimic' with pymimic.centred\(teacher\); got"
    ):
        call("distillation_loss", temperature=temperature)


def test_nothing_is_written_to_out_when_an_argument_is_bad():
    out = np.full((4, 2), 7, "float32")
    refuses(ValueError, "W", call, "shallow_forward", W=W[:3], out=out)
    refuses(ValueError, "activation", call, "shallow_forward", activation="swish", out=out)
    assert (out == 7).all()


# The handle, and optimizers


def weights(**changes):
    return ShallowWeights(**{"U": U, "b": B_, "W": W, "c": C_, **changes})


def test_the_handles_arguments():
    refuses(ValueError, "b", weights, b=B_[:4])
    refuses(ValueError, "W", weights, W=W[:4])
    refuses(ValueError, "c", weights, c=np.ones(3, "float32"))
    refuses(TypeError, "U", weights, U=U.tolist())
    refuses(ValueError, "dtype", weights, dtype="float16")
    refuses(ValueError, "activation", weights, activation="swish")
    refuses(ValueError, "keep", weights, keep="float16")
    refuses(ValueError, "backend", weights, backend="gpu")
    handle = weights()
    refuses(ValueError, "z", handle.forward, Z[:, :2])
    refuses(TypeError, "z", handle.forward, Z.astype("float64"))
    refuses(ValueError, "dy", handle.backward, DY[:, :1], Z)


def test_a_refused_step_changes_nothing():
    handle, optimizer = weights(), AdamW()
    refuses(ValueError, "dy", handle.step, DY[:, :1], Z, optimizer)
    refuses(ValueError, "z", handle.step, DY, Z[:3], optimizer)
    refuses(TypeError, "dy", handle.step, DY.astype("float64"), Z.astype("float64"), optimizer)
    refuses(ValueError, "dropout", handle.step, DY, Z, optimizer, dropout=1.0)
    other = AdamW()
    weights(U=U[:4], b=B_[:4], W=W[:4]).step(DY, Z, other)
    refuses(ValueError, "optimizer", handle.step, DY, Z, other)
    assert optimizer.steps == 0
    for name, array in handle.arrays().items():
        np.testing.assert_array_equal(array, {"U": U, "b": B_, "W": W, "c": C_}[name])


def test_optimizers_arguments():
    refuses(ValueError, "learning_rate", SGD, -0.1)
    refuses(ValueError, "learning_rate", SGD, float("nan"))
    refuses(ValueError, "weight_decay", SGD, 0.1, weight_decay=-1)
    refuses(ValueError, "momentum", SGD, 0.1, momentum=1.0)
    refuses(ValueError, "nesterov", SGD, 0.1, nesterov=True)
    refuses(ValueError, "beta1", AdamW, beta1=1.0)
    refuses(ValueError, "beta2", AdamW, beta2=-0.1)
    refuses(ValueError, "epsilon", AdamW, epsilon=0.0)
    refuses(ValueError, "every", pymimic.step_decay, 0.1, 0)


def test_an_array_that_cannot_be_updated_in_place():
    optimizer = SGD(0.1)
    optimizer.advance()
    refuses(ValueError, "w", optimizer.update, "w", np.asfortranarray(U), U)
    refuses(ValueError, "w", optimizer.update, "w", U, U)  # U is read-only
    refuses(ValueError, "grad", optimizer.update, "w", U.copy(), U[:4])
    refuses(ValueError, "grad", optimizer.update, "w", U.copy(), U.astype("float64"))


@pytest.mark.parametrize("n", [0, -1, 1.5, None])
def test_a_bad_number_of_threads(n):
    before = pymimic.get_num_threads()
    with pytest.raises((ValueError, TypeError), match=r"^n: expected .*, got "):
        pymimic.set_num_threads(n)
    assert pymimic.get_num_threads() == before


def test_every_backend_has_the_whole_protocol(backend):
    module = backends.get(backend)
    assert module.name == backend
    for name, function in inspect.getmembers(Backend, inspect.isfunction):
        if not name.startswith("_"):
            want = [parameter for parameter in inspect.signature(function).parameters if parameter != "self"]
            assert list(inspect.signature(getattr(module, name)).parameters) == want, name


@pytest.mark.parametrize("value", ["none", "0", "-3", "1.5", "5000", "1000000", "9" * 5000, "０"])
def test_a_number_of_threads_that_is_none_is_left_aside(monkeypatch, value):
    monkeypatch.setenv("PYMIMIC_NUM_THREADS", value)
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    with pytest.warns(RuntimeWarning, match=r"^PYMIMIC_NUM_THREADS: expected a number of threads in \[1, 1024\], got"):
        assert threads.default_num_threads() == 3
    monkeypatch.setenv("PYMIMIC_NUM_THREADS", " 7 ")
    assert threads.default_num_threads() == 7


@pytest.mark.parametrize(
    ("labels", "cure"),
    [
        (np.array(["a", "b", "c", "a"]), r"got <U1: pass np\.unique\(labels, return_inverse=True\)\[1\]"),
        (np.array(["a", "b", "c", "a"], object), r"got object: pass np\.unique"),
        (np.eye(4, 3), r"got float64 of shape \(4, 3\): pass \.argmax\(axis=1\) of one-hot labels"),
        (np.eye(4, 3, dtype=int), r"pass \.argmax\(axis=1\) of one-hot labels"),
        (np.ones((4, 1), int), r"got int64 of shape \(4, 1\): pass \.reshape\(-1\)"),
        (np.array([1, 2, 3, 1]), r"got \[1, 3\]: classes count from 0, pass labels - 1"),
        (np.array([-1, 1, 1, -1]), r"got \[-1, 1\]: np\.unique\(labels, return_inverse=True\)\[1\] numbers"),
        (np.array([0, 1, 2, 3]), r"got \[0, 3\]$"),
    ],
)
def test_labels_of_other_kinds_are_told_their_cure(labels, cure):
    x, t = np.ones((4, 2), np.float32), np.ones((4, 3), np.float32)
    for call in (
        lambda: LabelledSet(x, labels, 3), lambda: TransferSet(x, t, labels=labels), lambda: DeepNet([2, 3]).fit(x, labels),
        lambda: Student(2, 4, 3).score(x, labels), lambda: ops.cross_entropy(t, labels),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=rf"^labels: expected .*{cure}"):
            call()


def test_rows_of_images_are_told_how_to_be_rows():
    images, t = np.ones((9, 8, 8), np.float32), np.ones((9, 3), np.float32)
    for call in (
        lambda: TransferSet(images, t), lambda: LabelledSet(images, np.zeros(9, int), 3), lambda: next(munge(images, 1)),
        lambda: Student(64, 4, 3).predict(images), lambda: DeepNet([64, 3]).logits(images),
        lambda: Deform(8)(images, np.random.default_rng(0)),
    ):  # fmt: skip
        with pytest.raises(
            ValueError, match=r"^x: expected shape \([NB], D\).*, got \(9, 8, 8\): pass \.reshape\(len\(x\), -1\)$"
        ) as caught:
            call()
        assert "any, any" not in str(caught.value)
    with pytest.raises(ValueError, match=r"got \(9, 8, 8\)$"):
        Student(63, 4, 3).predict(images)
    with pytest.raises(ValueError, match=r"got \(64,\): pass x\[None\] for one row$"):
        Student(64, 4, 3).predict(images[0].ravel())
