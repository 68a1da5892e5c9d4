"""What teachers return: taken where it is an array of numbers, whosever; else the error names the teacher. They cannot harm their rows."""

import collections
import types

import ml_dtypes
import numpy as np
import pytest

from pymimic import SGD, DeepNet, LabelledSet, Student, Trainer, TransferSet
from pymimic.data.classifier import from_sklearn
from pymimic.data.folds import out_of_fold
from pymimic.data.teacher import Ensemble, from_callable, label

X = np.random.default_rng(0).standard_normal((6, 4), np.float32)
WANTED = X[:, :3]


# What is taken


def test_tensors_of_torch_of_every_kind(torch):
    net = torch.nn.Linear(4, 3)
    want = net(torch.from_numpy(X)).detach().numpy()
    assert np.array_equal(from_callable(lambda x: net(torch.from_numpy(x))).logits(X), want)  # it requires a gradient
    assert np.array_equal(from_callable(lambda x: torch.nn.Parameter(torch.from_numpy(x))).logits(X), X)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        got = from_callable(lambda x, dtype=dtype: torch.from_numpy(x).to(dtype)).logits(X)
        assert got.dtype == np.float32
        assert np.array_equal(got, torch.from_numpy(X).to(dtype).float().numpy())
    assert np.array_equal(from_callable(lambda x: torch.from_numpy(x).to_sparse()).logits(X), X)
    assert np.array_equal(from_callable(lambda x: torch.from_numpy(x).t().contiguous().t()).logits(X), X)


def test_a_tensor_that_lies_elsewhere_is_fetched():
    """As torch's on a GPU: NumPy cannot read it where it is."""

    class Tensor:
        layout, is_quantized = "torch.strided", False

        def __init__(self, values, where="cuda"):
            self.values, self.where = values, where

        def detach(self):
            return self

        def is_floating_point(self):
            return True

        def element_size(self):
            return 4

        def cpu(self):
            return Tensor(self.values, "cpu")

        def numpy(self):
            assert self.where == "cpu"
            return self.values

    assert np.array_equal(from_callable(lambda x: Tensor(x)).logits(X), X)


@pytest.mark.parametrize(
    "form",
    [
        lambda y: y.tolist(), lambda y: y.astype(np.float64), np.asfortranarray, lambda y: y.astype(ml_dtypes.bfloat16).astype(np.float32),
        list,
    ],
)  # fmt: skip
def test_lists_and_arrays(form):
    assert np.array_equal(from_callable(lambda x: form(x[:, :3])).logits(X), np.asarray(form(WANTED), np.float32))


def test_bfloat16_of_ml_dtypes_is_widened_and_sparse_matrices_are_filled():
    rounded = WANTED.astype(ml_dtypes.bfloat16)
    assert np.array_equal(from_callable(lambda x: rounded).logits(X), rounded.astype(np.float32))
    sparse = pytest.importorskip("scipy.sparse")
    for form in (sparse.csr_matrix, sparse.coo_array):
        assert np.array_equal(from_callable(lambda x, form=form: form(x[:, :3])).logits(X), WANTED)


# What is not


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda x: (x, x), TypeError, "got builtins.tuple of 2"),
        (lambda x: {"logits": x, "hidden": x}, TypeError, r"got builtins.dict of \['logits', 'hidden'\]"),
        (lambda x: collections.OrderedDict(logits=x), TypeError, r"got collections.OrderedDict of \['logits'\]"),
        (lambda x: types.SimpleNamespace(logits=x), TypeError, "got types.SimpleNamespace"),
        (lambda x: None, TypeError, "got builtins.NoneType of dtype object"),
        (lambda x: "none", TypeError, "got builtins.str of dtype <U4"),
        (lambda x: x + 1j, TypeError, "got numpy.ndarray of dtype complex64"),
        (lambda x: [[1, 2], [3]], TypeError, "got builtins.list: "),
        (lambda x: np.ma.masked_greater(x, 1), TypeError, "got a masked array"),
        (lambda x: x[:, 0], ValueError, r"expected shape \(6, C\) from the teacher, got \(6,\)"),
        (lambda x: x[:5], ValueError, r"expected shape \(6, C\) from the teacher, got \(5, 4\)"),
        (lambda x: x[None], ValueError, r"expected shape \(6, C\) from the teacher, got \(1, 6, 4\)"),
        (lambda x: 1.0, ValueError, r"expected shape \(6, C\) from the teacher, got \(\)"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_in_the_teachers_name(answer, error, message):
    for call in (from_callable(answer, "odd").logits, lambda x: label(from_callable(answer, "odd"), x)):
        with pytest.raises(error, match=f"^logits: .*{message}") as caught:
            call(X)
        assert "'odd'" in str(caught.value)


def test_an_answer_inside_torch_that_numpy_cannot_have(torch):
    for answer in (lambda x: [torch.ones(3, requires_grad=True)] * 6, lambda x: torch.empty(6, 3, device="meta")):
        with pytest.raises(
            TypeError, match=r"^logits: expected one array of numbers from the teacher 'odd', got (builtins.list|torch.Tensor): "
        ):
            from_callable(answer, "odd").logits(X)


def test_an_error_of_the_function_is_its_own():
    def broken(x):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match=r"^mine$"):
        from_callable(broken).logits(X)


def test_columns_are_as_many_as_the_classes():
    with pytest.raises(ValueError, match=r"logits: expected shape \(6, 2\) from the teacher, got \(6, 4\)"):
        from_callable(lambda x: x, classes=["a", "b"]).logits(X)
    with pytest.raises(ValueError, match=r"classes: expected each class once, got \['a'\] again"):
        from_callable(lambda x: x, classes=["a", "b", "a"])


def test_what_is_no_teacher_is_refused(tmp_path):
    for call, name in (
        (lambda: TransferSet.create(tmp_path, len, X), "teacher"),
        (lambda: Ensemble([DeepNet([4, 3]), len]), "members"),
        (lambda: out_of_fold(lambda x, y: len, X, np.zeros(6, int), 2), "make_teacher"),
    ):
        with pytest.raises(TypeError, match=f"^{name}: expected a teacher, .*, got builtins.builtin_function_or_method: see from_callable"):
            call()


# Rows are safe


def shifts(x):
    x -= 5
    return x[:, :3]


class Shifts:
    """A teacher of a user's own."""

    def logits(self, x):
        return shifts(x)

    def describe(self):
        return {}


class InPlace:
    """As a pipeline whose first step works in place."""

    classes_ = np.arange(3)

    def predict_proba(self, x):
        x[...] = 0
        return np.full((len(x), 3), 1 / 3)


TEACHERS = [
    (from_callable(shifts), WANTED - 5),
    (Shifts(), WANTED - 5),
    (Ensemble([Shifts(), from_callable(shifts)]), WANTED - 5),
    (from_sklearn(InPlace()), np.zeros((6, 3))),
]


@pytest.mark.parametrize(("teacher", "want"), TEACHERS)
def test_a_teacher_that_changes_its_rows_changes_copies(tmp_path, teacher, want):
    x = X.copy()
    ts = TransferSet.create(tmp_path, teacher, x)
    assert np.array_equal(x, X)
    assert np.array_equal(ts.batch(np.arange(6))[0], X)
    assert np.allclose(ts.batch(np.arange(6))[1], want, atol=1e-6)
    assert np.allclose(out_of_fold(lambda x, y: teacher, x, np.zeros(6, int), 2), want, atol=1e-6)
    assert np.array_equal(x, X)
    x.flags.writeable = False  # a map that is read only does not trouble the teacher
    assert np.allclose(label(teacher, x), want, atol=1e-6)
    if not isinstance(teacher, Shifts):  # whose logits are nobody's business but its own
        assert np.allclose(teacher.logits(x), want, atol=1e-6)


def test_a_teacher_fitted_in_place_leaves_the_rows_of_the_other_folds():
    x, labels = X.astype(np.float32), np.arange(6) % 2
    before = labels.copy()

    def fit(rows, classes):
        rows[...] = 0
        classes[...] = 7
        return Shifts()

    assert np.array_equal(out_of_fold(fit, x, labels, 3), WANTED - 5)
    assert np.array_equal(x, X)
    assert np.array_equal(labels, before)


def test_an_augmentation_in_place_leaves_data_that_hands_out_its_own_memory():
    class Views:
        """A user's rows, of which each batch is a view."""

        inputs, outputs, x, t = 4, 3, X.copy(), WANTED.copy()

        def __len__(self):
            return 6

        def batch(self, indices):
            return self.x[: len(indices)], self.t[: len(indices)], None

    def blank(x, t, rng):
        x[...] = 0
        t[...] = 0
        return x, t

    data = Views()
    Trainer(Student(4, 8, 3), SGD(0.1), epochs=2, batch_size=4, augment=blank, progress=False).fit(data)
    assert np.array_equal(data.x, X)
    assert np.array_equal(data.t, WANTED)


# Masked and other arrays that are none


@pytest.mark.parametrize("kind", ["masked", "matrix", "tuple", "sparse", "frame"])
def test_an_array_of_another_kind_is_refused_with_what_to_do(kind):
    good = np.ones((6, 4), np.float32)
    if kind == "masked":
        bad, cure = np.ma.masked_greater(good, 0.5), r"masked values nobody would heed: drop them, or fill them in with \.filled"
    elif kind == "matrix":
        bad, cure = good.view(np.matrix), r"pass numpy.asarray"
    elif kind == "tuple":
        bad, cure = tuple(good), r"pass numpy.asarray"
    elif kind == "sparse":
        bad, cure = pytest.importorskip("scipy.sparse").csr_matrix(good), r"pass .toarray\(\)"
    else:
        bad, cure = types.new_class("DataFrame", (), {}, lambda body: body.update(to_numpy=lambda self: good))(), r"pass .to_numpy\(\)"
    for name, call in (
        ("x", lambda: TransferSet(bad, good)),
        ("logits", lambda: TransferSet(good, bad)),
        ("x", lambda: LabelledSet(bad, np.zeros(6, int), 2)),
        ("weights", lambda: LabelledSet(good, np.zeros(6, int), 2, bad)),
        ("x", lambda: out_of_fold(lambda x, y: Shifts(), bad, np.zeros(6, int), 2)),
        ("x", lambda: DeepNet([4, 3]).logits(bad)),
    ):
        with pytest.raises(TypeError, match=f"^{name}: expected a NumPy array, got .*{cure}"):
            call()


def test_masked_indices_and_rows_of_a_teacher_are_refused():
    masked = np.ma.masked_greater(X, 0)
    with pytest.raises(TypeError, match=r"^x: expected a NumPy array"):
        from_callable(shifts).logits(masked)
    with pytest.raises(TypeError, match=r"^indices: expected a NumPy array"):
        TransferSet(X, WANTED).batch(np.ma.masked_greater(np.arange(6), 3))
