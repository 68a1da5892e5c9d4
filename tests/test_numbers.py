"""NumPy's scalars are numbers everywhere; a bool is no number, and a number is no bool."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import C, D, H, Logits

import pymimic as pm
from pymimic import SGD, AdamW, ConvNet, DeepNet, Predictor, ShallowWeights, Student, Trainer, _check
from pymimic.files import read_safetensors

REALS = (np.float16, np.float32, np.float64, np.longdouble)
INTEGERS = (np.int8, np.uint8, np.int32, np.int64, np.uint64)


@given(value=st.floats(width=16, min_value=0, max_value=100), kind=st.sampled_from(REALS))
def test_a_real_of_any_type_is_a_number(value, kind):
    got = _check.number("name", kind(value), 0)
    assert type(got) is float
    assert got == value


@given(value=st.integers(0, 100), kind=st.sampled_from(INTEGERS))
def test_an_integer_of_any_type_is_one(value, kind):
    for got in (_check.integer("name", kind(value), 0, 101), _check.number("name", kind(value))):
        assert got == value
    assert type(_check.integer("name", kind(value), 0, 101)) is int


@given(low=st.floats(-9, 9), value=st.floats(allow_nan=True, allow_infinity=True), below=st.floats(-9, 9), open_=st.booleans())
def test_what_is_outside_is_refused(low, value, below, open_):
    limits = {"above": low} if open_ else {"low": low}
    inside = (low < value if open_ else low <= value) and value < below
    if inside:
        assert _check.number("name", value, below=below, **limits) == value
    else:
        with pytest.raises(ValueError, match=r"^name: expected a number .*, got "):
            _check.number("name", value, below=below, **limits)


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_, "1", None, 1j, np.complex64(1), [1], np.ones(1), np.ones(())])
def test_other_things_are_no_numbers(value):
    with pytest.raises(TypeError, match=rf"^name: expected a number, got {type(value).__name__}"):
        _check.number("name", value)
    with pytest.raises(TypeError, match=rf"^name: expected an int, got {type(value).__name__}"):
        _check.integer("name", value, 0, 9)


@pytest.mark.parametrize("value", [0, 1, 1.0, "yes", None, np.int64(1), np.ones((), bool)])
def test_a_number_is_no_flag(value):
    with pytest.raises(TypeError, match=rf"^name: expected True or False, got {type(value).__name__}"):
        _check.flag("name", value)


@pytest.mark.parametrize(("value", "limits"), [(1e39, {}), (1e-46, {"above": 0}), (1 - 1e-9, {"low": 0, "below": 1})])
def test_numbers_that_end_as_float32_are_checked_as_such(value, limits):
    _check.number("name", value, **limits)
    with pytest.raises(ValueError, match=r"^name: expected a number .* as float32, got "):
        _check.number("name", value, float32=True, **limits)


# Every number and flag that a user passes: name -> a function of it, and a good value

TRAINER = {
    "epochs": 1, "batch_size": 32, "seed": 3, "keep_best": True, "patience": 2, "clip_norm": 1.0, "accumulate": 1, "ema": 0.5,
    "checkpoint_every": 5, "memory_budget": 1 << 20, "standardise_targets": True, "standardise_inputs": True, "progress": False,
}  # fmt: skip


def trainer(**given):
    return Trainer(Student(D, H, C), given.pop("optimizer", None) or AdamW(), **{"epochs": 1} | given)


U, W = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
ARGUMENTS = [
    *((lambda value, name=name: trainer(**{name: value}), name, good) for name, good in TRAINER.items()),
    *((lambda value, name=name: trainer(loss="distillation", **{name: value}), name, good)
      for name, good in (("alpha", 0.5), ("temperature", 2.0))),
    *((lambda value, name=name: AdamW(1e-3, **{name: value}), name, 0.5) for name in ("beta1", "beta2", "epsilon", "weight_decay")),
    *((kind, "learning_rate", 0.5) for kind in (AdamW, SGD, pm.constant)),
    (lambda value: SGD(0.1, momentum=value), "momentum", 0.5),
    (lambda value: SGD(0.1, momentum=0.5, nesterov=value), "nesterov", True),
    (lambda value: pm.cosine(value, 3), "learning_rate", 0.5), (lambda value: pm.cosine(0.1, value), "steps", 3),
    (lambda value: pm.cosine(0.1, 3, value), "final", 0.5), (lambda value: pm.step_decay(value, 3), "learning_rate", 0.5),
    (lambda value: pm.step_decay(0.1, value), "every", 3), (lambda value: pm.step_decay(0.1, 3, value), "factor", 0.5),
    (lambda value: pm.warm_up(pm.constant(0.1), value), "steps", 3),
    *((lambda value, name=name: Student(**{"inputs": 5, "hidden": 4, "outputs": 3} | {name: value}), name, 3)
      for name in ("inputs", "hidden", "outputs", "rank", "seed")),
    (lambda value: Student(5, 4, 3, dropout=value), "dropout", 0.5),
    (lambda value: Student(5, 4, 3, 2).initialise_bottleneck(np.eye(5, dtype="f4"), value), "epsilon", 0.5),
    (lambda value: DeepNet([5, value, 3]), "layer_sizes", 3), (lambda value: DeepNet([5, 3], dropout=value), "dropout", 0.5),
    (lambda value: DeepNet([5, 3], input_dropout=value), "input_dropout", 0.5), (lambda value: DeepNet([5, 3], seed=value), "seed", 3),
    *((lambda value, name=name: ConvNet(**{"input_shape": (1, 8), "convolutions": [(2, 3)], "outputs": 3} | {name: value}), name, good)
      for name, good in (("outputs", 3), ("dropout", 0.5), ("input_dropout", 0.5), ("seed", 3))),
    (lambda value: ConvNet((1, value), [(2, 3)], 3), "input_shape", 5),
    (lambda value: ConvNet((1, 8), [(2, 3)], 3, [value]), "hidden", 5),
    (lambda value: ConvNet((1, 8), [(value, 3)], 3), r"convolutions\[0\].channels", 3),
    (lambda value: Predictor(Student(5, 4, 3), copy=value), "copy", True),
    (lambda value: ShallowWeights(U, U[:, 0], W, W[0], memory_budget=value), "memory_budget", 3),
    (lambda value: pm.ops.distillation_loss(W, W, value), "temperature", 0.5),
    (lambda value: pm.ops.distillation_loss(W, W, 1.0, labels=np.zeros(4, int), alpha=value), "alpha", 0.5),
]  # fmt: skip


@pytest.mark.parametrize(("call", "name", "good"), ARGUMENTS)
def test_each_argument_takes_numpys_scalars_and_no_other_kind(call, name, good):
    call(good)
    kinds = (np.bool_,) if isinstance(good, bool) else INTEGERS[1:] if isinstance(good, int) else REALS
    for kind in kinds:
        if not (isinstance(good, int) and good > np.iinfo(kind).max if kind in INTEGERS else False):
            call(kind(good))
    wrong = (1, 0.0, "yes", np.int64(1)) if isinstance(good, bool) else (True, np.True_, "1", [good])
    for value in wrong:
        if name == "standardise_inputs" and value == "yes":
            continue  # a name there, which is another error
        with pytest.raises(TypeError, match=rf"^{name}: expected .+, got "):
            call(value)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        *((call, name) for call, name, _ in ARGUMENTS if name in ("weight_decay", "learning_rate", "final")),
        (lambda value: AdamW(epsilon=value), "epsilon"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_ends_as_float32_must_be_held_by_it(call, name):
    call(3e38)
    with pytest.raises(ValueError, match=rf"^{name}: expected .+ as float32.*, got 1e\+39"):
        call(1e39)


def test_no_number_of_the_trainers_is_forgotten():
    kinds = {name: parameter.annotation for name, parameter in inspect.signature(Trainer).parameters.items()}
    numbers = {name for name, kind in kinds.items() if any(word in kind for word in ("int", "float", "bool"))}
    assert numbers == {*TRAINER, "alpha", "temperature", "reproducible"}  # the last for a Student alone, tested beside groups


def test_a_run_of_numpys_scalars_is_the_run_of_pythons(tmp_path):
    path = tmp_path / "c"
    kinds = {bool: np.bool_, int: np.int64, float: np.float64}
    settings = {name: value for name, value in TRAINER.items() if name != "progress"}
    optimizer = lambda kind: AdamW(pm.warm_up(pm.cosine(kind(0.01), 9, kind(0)), 2), beta1=kind(0.5), weight_decay=kind(0.1))  # noqa: E731
    trainer(optimizer=optimizer(np.float64), checkpoint=path, **{name: kinds[type(value)](value) for name, value in settings.items()}).fit(
        Logits(), Logits(30, seed=1)
    )
    settings["epochs"] = 2
    trainer(optimizer=optimizer(float), **settings).fit(Logits(), Logits(30, seed=1), resume=path)  # the same configuration
    assert read_safetensors(path)[1]["configuration"]["ema"] == 0.5


@pytest.mark.parametrize(
    "keywords", [{"ema": np.float32(0.9)}, {"clip_norm": np.float32(1)}, {"loss": "distillation", "temperature": np.float32(2)}]
)
def test_float32_scalars_can_be_saved(tmp_path, keywords):
    trainer(checkpoint=tmp_path / "c", **keywords).fit(Logits())


@pytest.mark.parametrize(("name", "value"), [("student", None), ("student", Student), ("optimizer", "adamw"), ("optimizer", AdamW)])
def test_nets_and_optimizers_are_demanded(name, value):
    with pytest.raises(TypeError, match=rf"^{name}: expected a pymimic (Net|Optimizer), got "):
        Trainer(**{"student": Student(D, H, C), "optimizer": AdamW(), "epochs": 1, name: value})


@pytest.mark.parametrize(("name", "value"), [("loss", None), ("loss", 3), ("augment", "flip"), ("augment", 1)])
def test_functions_are_demanded(name, value):
    with pytest.raises(TypeError, match=rf"^{name}: expected .*function.*, got "):
        trainer(**{name: value})
