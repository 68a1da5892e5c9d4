"""What users pass to workers comes whole out of a pickle and of deepcopy."""

import contextlib
import copy
import functools
import importlib
import multiprocessing
import pickle
import pkgutil

import numpy as np
import pytest
from toy import C, D, H, Logits, trained

import pymimic as pm
from pymimic import SGD, AdamW, ConvNet, DeepNet, Predictor, ShallowWeights, Student, Trainer, TransferSet, ops
from pymimic.errors import BackendUnavailableError

COPIES = {
    "deepcopy": copy.deepcopy, "copy": copy.copy,
    **{f"pickle {n}": lambda value, p=n: pickle.loads(pickle.dumps(value, p)) for n in range(2, pickle.HIGHEST_PROTOCOL + 1)},
}  # fmt: skip
SCHEDULES = [
    pm.constant(0.1), pm.cosine(0.1, 9, 0.01), pm.step_decay(0.1, 3, 0.5), pm.warm_up(pm.cosine(0.1, 9), 3),
    pm.warm_up(pm.warm_up(pm.constant(1.0), 2), 3),
]  # fmt: skip


@pytest.fixture(params=COPIES.values(), ids=COPIES)
def copied(request):
    return request.param


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_schedules(copied, schedule):
    other = copied(schedule)
    assert other == schedule
    assert hash(other) == hash(schedule)
    assert [other(step) for step in range(20)] == [schedule(step) for step in range(20)]
    assert eval(repr(schedule), vars(pm)) == schedule
    assert all(schedule != another for another in SCHEDULES if another is not schedule)


@pytest.mark.parametrize(
    "make", [lambda: AdamW(pm.cosine(0.1, 90)), lambda: SGD(0.01, momentum=0.9), lambda: AdamW(0.01, weight_decay=0.1)]
)
def test_optimizers_go_on(copied, make):
    optimizer, arrays = make(), {"U": np.ones((3, 2), np.float32)}
    student, _ = trained(Logits(), optimizer=optimizer)
    other, twin = copied(optimizer), copy.deepcopy(student)
    assert repr(other) == repr(optimizer)
    assert other.steps == optimizer.steps == 9
    if copied is copy.copy:
        return  # it shares the slots
    for net, mover in ((student, optimizer), (twin, other)):
        trained(Logits(), student=net, optimizer=mover)
    assert all(np.array_equal(array, twin.arrays()[name]) for name, array in student.arrays().items())
    assert arrays.keys() <= other.slots.keys() or not other.slot_names


@pytest.mark.parametrize(
    "keywords",
    [
        {}, {"loss": "distillation", "temperature": 3.0}, {"loss": ops.mimic_loss},
        {"loss": functools.partial(ops.mimic_loss, backend="reference")},
        {"ema": 0.9, "clip_norm": 1.0, "standardise_inputs": True, "standardise_targets": True},
    ],
)  # fmt: skip
def test_trainers(copied, keywords):
    whole = Trainer(Student(D, H, C, rank=3), AdamW(pm.cosine(0.01, 9)), epochs=2, batch_size=32, **keywords)
    other = copied(whole)
    if copied is copy.copy:
        return  # it shares the student
    histories = [trainer.fit(Logits()) for trainer in (whole, other)]
    assert [record.train_loss for record in histories[0]] == [record.train_loss for record in histories[1]]
    assert other.student is not whole.student
    again = copied(histories[0])
    assert again == histories[0]
    assert (again.best_epoch, again.stopped_early) == (histories[0].best_epoch, histories[0].stopped_early)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("rank", "hidden", "copy_weights"), [(7, 300, None), (None, 65, False), (33, 40, True)])
def test_predictors(copied, dtype, rank, hidden, copy_weights):
    pytest.importorskip("pymimic._core")
    student, _ = trained(Logits(), student=Student(D, hidden, C, rank=rank), optimizer=AdamW(), standardise_inputs=True)
    served, x = Predictor(student, dtype, copy_weights), Logits(150).x
    other = copied(served)
    assert np.array_equal(other.predict(x), served.predict(x))
    assert (other.nbytes, other.dtype, other.inputs, other.outputs) == (served.nbytes, served.dtype, served.inputs, served.outputs)
    if dtype != "float32":  # the float32 weights have gone
        assert len(pickle.dumps(served)) < served.nbytes + 4096


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_handles(copied, dtype, backend):
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal(shape).astype("float64" if dtype == "float64" else "float32")
        for shape in ((40, 5), (40,), (40, 3), (3,), (9, 5), (9, 3))
    ]
    weights = ShallowWeights(*arrays[:4], dtype=dtype, backend=backend if dtype != "bfloat16" or backend.startswith("cpu") else None)
    other = copied(weights)
    assert other.backend == weights.backend
    z, dy = arrays[4:]
    assert np.array_equal(other.forward(z), weights.forward(z))
    if copied is not copy.copy:
        other.step(dy, z, SGD(0.1))
        assert not np.array_equal(other.forward(z), weights.forward(z))
    first, second = AdamW(), AdamW()
    for handle, optimizer in ((weights, first), (copied(weights), second)):
        if copied is not copy.copy:
            handle.step(dy, z, optimizer)


@pytest.mark.parametrize("make", [lambda: Student(D, H, C, rank=3), lambda: DeepNet([D, 8, C]), lambda: ConvNet((2, D // 2), [(4, 2)], C)])
def test_nets(copied, make):
    net, x = make(), Logits().x

    def y(net):
        return net.predict(x) if isinstance(net, Student) else net.logits(x)

    before = y(net)
    assert np.array_equal(y(copied(net)), before)


def exceptions():
    """Every exception class of the package."""
    for module in pkgutil.walk_packages(pm.__path__, "pymimic."):
        with contextlib.suppress(ImportError, BackendUnavailableError):  # of what is not installed
            found = vars(importlib.import_module(module.name)).values()
            yield from (kind for kind in found if isinstance(kind, type) and issubclass(kind, BaseException))


@pytest.mark.parametrize("kind", sorted({kind for kind in exceptions() if kind.__module__.startswith("pymimic.")}, key=repr))
def test_exceptions(copied, kind):
    """A pool that cannot read a worker's exception waits for ever."""
    arguments = {"OtherRunError": ("c", [("seed", "1", "2")], True), "Terminated": (15,)}
    error = kind(*arguments.get(kind.__name__, ("what is wrong",)))
    other = copied(error)
    assert type(other) is kind
    assert str(other) == str(error)
    assert vars(other) == vars(error)


def test_the_package_has_the_exceptions_that_it_is_known_to_have():
    names = {kind.__name__ for kind in exceptions()}
    assert names >= {"OtherRunError", "Terminated", "CudaError", "ManifestError", "FileFormatError", "TrainingDivergedError"}


def test_a_spawned_worker_trains():
    """It gets all by pickle, and its answer comes by pickle."""
    cases = TransferSet(Logits().x, Logits().t)
    trainer = Trainer(Student(D, H, C, rank=3), AdamW(pm.warm_up(pm.cosine(0.01, 9), 2)), epochs=2, batch_size=32)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        history = pool.apply(trainer.fit, (cases,))
        y = pool.apply(Predictor(trainer.student).predict, (cases.batch([0])[0],))
    np.testing.assert_array_equal(y, trainer.student.predict(cases.batch([0])[0]))
    at_home = trainer.fit(cases)
    assert [record.train_loss for record in history] == [record.train_loss for record in at_home]
