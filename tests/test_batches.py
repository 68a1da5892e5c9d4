"""What a user's own `Cases`, augment and generator give: anything else than they promise is named before it is trained on."""

import re

import numpy as np
import pytest
from toy import NETS, C, D, Logits, same, trained

import pymimic as pm
from pymimic import LabelledSet, Student, Targets, TransferSet

X = np.random.default_rng(0).standard_normal((90, D), np.float32)
T = X[:, :C].copy()
CLASSES = np.arange(90) % C
TEACHER = pm.from_callable(lambda rows: rows[:, :C])


class Own(Logits):
    """Rows of which `change` makes what batch returns."""

    def __init__(self, change, targets=T):
        super().__init__()
        self.change, self.targets = change, targets

    def batch(self, indices):
        return self.change(X[indices], self.targets[indices], None)


def test_logits_of_float64_are_taken_as_float32():
    """As they are rounded, not as the loss would refuse them."""
    wide = Own(lambda x, t, weights: (x, t.astype(np.float64), weights))
    assert same(trained(wide)[0], trained(Own(lambda *given: given))[0])


def at(array, row, value):
    array = array.copy()
    array[row] = value
    return array


def ones(x):
    return np.ones(len(x), np.float32)


# what batch returns -> the error, and what is said of it
WRONG = {
    "None": (lambda x, t, w: None, TypeError, r"expected \(x, targets, weights\) from batch, got NoneType"),
    "a pair": (lambda x, t, w: (x, t), TypeError, r"expected \(x, targets, weights\) from batch, got tuple of 2"),
    "no x": (lambda x, t, w: (None, t, w), TypeError, "x: expected a NumPy array, got builtins.NoneType"),
    "x of ints": (lambda x, t, w: (x.astype(int), t, w), TypeError, "x: expected dtype float32 or float64, got int64"),
    "a row less": (lambda x, t, w: (x[1:], t, w), ValueError, r"x: expected shape \(\d+, 6\), got \(\d+, 6\)"),
    "a column less": (lambda x, t, w: (x[:, 1:], t, w), ValueError, r"x: expected shape \(\d+, 6\), got \(\d+, 5\)"),
    "no targets": (lambda x, t, w: (x, None, w), TypeError, "targets: expected a NumPy array, got builtins.NoneType"),
    "a plain pair of targets": (lambda x, t, w: (x, (t, t), w), TypeError, "targets: expected logits, or labels, or both as"),
    "masked logits": (lambda x, t, w: (x, np.ma.masked_greater(t, 0), w), TypeError, "targets: .* masked values nobody would heed"),
    "masked x": (lambda x, t, w: (np.ma.masked_greater(x, 0), t, w), TypeError, "x: .* masked values nobody would heed"),
    "logits of bools": (lambda x, t, w: (x, t > 0, w), TypeError, "targets: expected logits as floats, or labels as integers, got bool"),
    "three rows of logits": (lambda x, t, w: (x, t[:3], w), ValueError, r"logits: expected shape \(\d+, 4\), got \(3, 4\)"),
    "a class less": (lambda x, t, w: (x, t[:, 1:], w), ValueError, r"logits: expected shape \(\d+, 4\), got \(\d+, 3\)"),
    "labels in a column": (lambda x, t, w: (x, t.argmax(1)[:, None], w), ValueError, r"labels: expected shape \(\d+,\), got \(\d+, 1\)"),
    "labels of 99": (lambda x, t, w: (x, at(t.argmax(1), 0, 99), w), ValueError, r"labels: expected values in \[0, 4\), got 99 in row \d+"),
    "labels of -1": (lambda x, t, w: (x, Targets(t, at(t.argmax(1), 0, -1)), w), ValueError, r"labels: expected .*, got -1 in row \d+"),
    "weights below 0": (lambda x, t, w: (x, t, -ones(x)), ValueError, r"weights: expected values of at least 0, got -1.0 in row \d+"),
    "masked weights": (lambda x, t, w: (x, t, np.ma.masked_equal(ones(x), 1)), TypeError, "weights: .* masked values nobody would heed"),
    "a weight less": (lambda x, t, w: (x, t, ones(x)[1:]), ValueError, r"weights: expected shape \(\d+,\), got \(\d+,\)"),
    "weights as text": (lambda x, t, w: (x, t, ones(x).astype(str)), TypeError, "weights: expected numbers, got <U"),
}  # fmt: skip
NOT_FINITE = {
    "NaN logits": (lambda x, t, w: (x, at(t, 0, np.nan), w), "logits: expected finite values, got nan in row"),
    "infinite x": (lambda x, t, w: (at(x, 0, np.inf), t, w), "x: expected finite values, got inf in row"),
    "NaN weights": (lambda x, t, w: (x, t, ones(x) * np.float32(np.nan)), "weights: expected finite values, got nan in row"),
}


@pytest.mark.parametrize(("change", "error", "said"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("name", ["data", "validation"])
def test_batches_that_are_not_what_cases_promise(name, change, error, said):
    with pytest.raises(error, match=rf"^{name}: {said}"):
        trained(**{"data": Logits(), name: Own(change)}, epochs=1)


@pytest.mark.parametrize(("change", "error", "said"), WRONG.values(), ids=WRONG)
def test_batches_that_are_wrong_later_only(change, error, said):
    """The trainer looks at a sample before the first step; here the sample is right."""

    class Later(Own):
        seen = 0

        def batch(self, indices):
            self.seen += 1
            return super().batch(indices) if self.seen > 1 else (X[indices], T[indices], None)

    later = Later(change)
    with pytest.raises(error, match=rf"^data: ({said}|expected a teacher's logits)"):
        trained(later, epochs=1)
    assert later.seen > 1
    with pytest.raises(error, match=rf"^validation: {said}"):
        trained(Logits(), Later(change), epochs=1)


@pytest.mark.parametrize(("change", "said"), NOT_FINITE.values(), ids=NOT_FINITE)
@pytest.mark.parametrize("loss", ["mimic", "cross_entropy"])
def test_validation_is_of_finite_values(change, said, loss):
    """Or its accuracy says nothing: argmax takes NaN for the largest."""
    data = Logits() if loss == "mimic" else LabelledSet(X, CLASSES, C)
    with pytest.raises(ValueError, match=f"^validation: {said} 0$"):
        trained(data, Own(change), epochs=1, loss=loss)


def test_validation_logits_may_rule_out_classes():
    own = Own(lambda x, t, w: (x, at(t, 0, [-np.inf, 1, 2, 3]), w))
    _, history = trained(own, own, epochs=1, loss="distillation")
    assert np.isfinite(history[0].validation_loss)
    with pytest.raises(ValueError, match=r"^validation: logits: expected finite values, got -inf in row 0"):
        trained(Logits(), own, epochs=1)


def test_weights_of_any_float_type():
    """As `Cases` promises."""
    rng = np.random.default_rng(0)
    weights = rng.random(90, np.float32)
    nets = [trained(Logits(weights=weights.astype(dtype)), Logits(weights=weights.astype(dtype)))[0] for dtype in ("f4", "f8")]
    assert all(np.array_equal(array, nets[1].arrays()[name]) for name, array in nets[0].arrays().items())


# What augment returns

AUGMENTED = {
    "no targets": (lambda x, t, g: (x, None), TypeError, "targets: expected a NumPy array, got builtins.NoneType"),
    "Targets alone": (lambda x, t, g: Targets(x, t), TypeError, r"expected \(x, targets\) from it, got Targets of 2"),
    "three": (lambda x, t, g: (x, t, None), TypeError, r"expected \(x, targets\) from it, got tuple of 3"),
    "three rows of logits": (lambda x, t, g: (x, t[:3]), ValueError, r"logits: expected shape \(32, 4\), got \(3, 4\)"),
    "labels for logits": (lambda x, t, g: (x, t.argmax(1)), TypeError, "expected a teacher's logits, .* got labels"),
    "masked logits": (lambda x, t, g: (x, np.ma.masked_greater(t, 0)), TypeError, "targets: .* masked values nobody would heed"),
    "masked x": (lambda x, t, g: (np.ma.masked_greater(x, 0), t), TypeError, "x: .* masked values nobody would heed"),
    "x of ints": (lambda x, t, g: (x.astype(int), t), TypeError, "x: expected dtype float32 or float64, got int64"),
}  # fmt: skip


@pytest.mark.parametrize(("augment", "error", "said"), AUGMENTED.values(), ids=AUGMENTED)
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_what_augment_returns_is_demanded(augment, error, said, net):
    with pytest.raises(error, match=rf"^augment: {said}"):
        trained(Logits(), student=net(), augment=augment)


def test_a_teacher_of_fresh_cases_where_the_loss_takes_labels():
    with pytest.raises(TypeError, match=r"^augment: expected labels, .* with loss 'cross_entropy', got logits"):
        trained(LabelledSet(X, CLASSES, C), loss="cross_entropy", augment=pm.fresh_cases(pm.Noise(0.1), TEACHER))


def test_nan_that_augment_makes_is_not_put_down_to_the_data():
    with pytest.raises(pm.TrainingDivergedError, match="as inputs of its rows from `augment` are not finite"):
        trained(TransferSet(X, T), augment=lambda x, t, g: (x * np.float32(np.nan), t))


@pytest.mark.parametrize("augment", [lambda x, t: (x, t), pm.Noise(0.1), lambda: None], ids=["two", "a generator", "none"])
def test_a_function_of_other_arguments_is_no_augment(augment):
    with pytest.raises(TypeError, match=r"^augment: expected a function of \(x, targets, rng\), got"):
        pm.Trainer(Student(D, 8, C), pm.SGD(0.1), epochs=1, augment=augment)


@pytest.mark.parametrize("generator", [pm.Mixup, pm.Noise, pm.Munge, pm.Deform, pm.Masks, lambda x: x, lambda x, y, z: x])
def test_a_class_or_a_function_of_other_arguments_is_no_generator(generator):
    said = re.escape(f"the class {generator.__name__}: make one, {generator.__name__}(...)" if isinstance(generator, type) else "")
    for call in (lambda: pm.fresh_cases(generator), lambda: pm.copies(generator, X, 1)):
        with pytest.raises(TypeError, match=rf"^generator: expected a function .*got {said}"):
            call()
