"""Handles, students, the trainer and the feed on a device: the same as on the CPU, up to rounding."""

import itertools
import threading

import cases
import numpy as np
import pytest
import small_students
import toy
from on_device import close, moved, steps_without_memory

from pymimic import SGD, AdamW, ConvNet, DeepNet, LabelledSet, ShallowWeights, Student, Trainer, TransferSet
from pymimic.data.feed import feed
from pymimic.nets import student as student_module

OPTIMIZERS = {
    "sgd": lambda: SGD(0.01, weight_decay=0.1),
    "nesterov": lambda: SGD(0.01, momentum=0.9, nesterov=True),
    "adamw": lambda: AdamW(0.01, weight_decay=0.1),
}


@pytest.mark.parametrize(("backend", "dtype"), [("cuda", "float32"), ("cuda-tf32", "bfloat16")])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("units", [64, 65])
def test_steps_of_a_handle(device, backend, dtype, optimizer, units):
    arrays = cases.shallow({"B": 21, "k": 12, "H": units, "C": 9}, "float32")
    there = moved(device.xp, arrays)
    ours, theirs = (
        ShallowWeights(*some[2:], dtype, activation="tanh", backend=name) for some, name in ((there, backend), (arrays, "reference"))
    )
    backend = backend if dtype == "float32" else "cuda-bf16"  # of the bounds below
    rules = OPTIMIZERS[optimizer](), OPTIMIZERS[optimizer]()
    how = {"dropout": 0.25, "seed": 4}
    for step in range(3):
        close(ours.forward(there[1], **how, offset=step), theirs.forward(arrays.z, **how, offset=step), backend)
        dz = ours.step(there[0], there[1], rules[0], **how, offset=step)
        close(dz, theirs.step(arrays.dy, arrays.z, rules[1], **how, offset=step), backend)
    for name, array in ours.arrays().items():
        close(array, theirs.arrays()[name], "cuda-bf16" if optimizer == "adamw" else backend)
    assert ours.step(there[0], there[1], rules[0], need_dz=False) is None


def test_what_is_packed_follows_the_arrays(device):
    arrays = cases.shallow({"B": 5, "k": 12, "H": 40, "C": 9}, "float32")
    there = moved(device.xp, arrays)
    handle = ShallowWeights(*there[2:], "bfloat16")
    handle.forward(there[1])
    handle.arrays(copy=False)["U"][...] = 0
    handle.changed()
    expected = np.maximum(arrays.b, 0) @ arrays.W + arrays.c
    close(handle.forward(there[1]), np.broadcast_to(expected, (5, 9)), "cuda-bf16")
    assert not handle.keeps(1)


def test_a_step_without_memory_changes_nothing(device, monkeypatch):
    allowed, said = steps_without_memory(device, monkeypatch, {"B": 5, "k": 12, "H": 40, "C": 9})
    assert allowed > 2
    assert said == {"out of device memory"}


def test_students_move(device, tmp_path):
    student, x = small_students.trained(), small_students.inputs(50, 11)
    expected = student.predict(x)
    assert student.to("cuda") is student
    assert student.device == "cuda"
    y = student.predict(x)
    assert isinstance(y, np.ndarray)
    assert not hasattr(y, "__cuda_array_interface__")
    close(device.xp.asarray(y), expected, "cuda")
    close(student.predict(device.xp.asarray(x)), expected, "cuda")
    close(student.predict_proba(device.xp.asarray(x)), np.exp(expected) / np.exp(expected).sum(1, keepdims=True), "cuda")
    student.fold(device.xp.asarray(np.arange(7.0)), np.full(7, 2.0))
    student.save(tmp_path / "s.safetensors")
    loaded = Student.load(tmp_path / "s.safetensors")
    np.testing.assert_allclose(loaded.predict(x), expected * 2 + np.arange(7), rtol=1e-4, atol=1e-4)
    assert small_students.same(loaded, student.to("cpu"))
    with pytest.raises(ValueError, match=r"x: expected a NumPy array, as the student is on the CPU"):
        student.predict(device.xp.asarray(x))
    with pytest.raises(ValueError, match=r"device: expected one of cpu, cuda, got 'gpu'"):
        student.to("gpu")


@pytest.mark.parametrize(
    "backend", ["cuda-bf16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cuda", "cuda-tf32", "cuda-fp16"))]
)
@pytest.mark.parametrize(("rank", "slab_rows"), [(None, 32), (7, 32), (70, 32), (70, 8192)])
def test_a_predicted_row_does_not_depend_on_the_rows_beside_it(device, monkeypatch, backend, rank, slab_rows):
    """Nor on how many they are, which is what cuBLAS chooses an order of sums by."""
    monkeypatch.setattr(student_module, "_MOST_ROWS", slab_rows)
    student = Student(150, 2000, 11, rank=rank, activation="tanh")
    x = np.random.default_rng(0).standard_normal((140, 150), dtype=np.float32)
    expected = student.predict(x)
    student.to("cuda")
    y = student.predict(device.xp.asarray(x), backend).get()
    close(device.xp.asarray(y), expected, backend)
    for rows in (slice(0, 1), slice(139, 140), slice(3, 12), slice(17, 130)):
        assert np.array_equal(student.predict(device.xp.asarray(x[rows]), backend).get(), y[rows])
        assert np.array_equal(student.predict(x[rows], backend), y[rows])


def test_prediction_splits_h_by_the_net_alone(device, monkeypatch):
    """Not so by the rows, as where the weights learn: there memory for the parts would grow with them."""
    seen, real = [], device.core.shallow_forward
    monkeypatch.setattr(device.core, "shallow_forward", lambda how, *rest: (seen.append(how[2]), real(how, *rest))[1], raising=False)
    student = Student(15, 2000, 11, rank=7).to("cuda")
    for rows in (1, 140):
        student.predict(device.xp.zeros((rows, 15), np.float32))
    assert seen == [device.core.shallow_forward_splits(3, 7, 2000, 11)] * 2
    assert seen[0] > 1
    w = student.weights()
    ShallowWeights(w["U"], w["b"], w["W"], w["c"]).forward(device.xp.zeros((3, 7), np.float32))
    assert seen[2] == 0


@pytest.mark.parametrize("backend", ["cuda-tf32", "cuda-bf16", "cuda-fp16"])
def test_students_predict_in_other_precisions(device, backend):
    student, x = small_students.trained(), small_students.inputs(50, 11)
    expected = student.predict(x)
    close(student.to("cuda").predict(device.xp.asarray(x), backend), expected, backend)


@pytest.mark.parametrize(
    "keywords",
    [
        {}, {"clip_norm": 0.5, "accumulate": 2}, {"ema": 0.9, "standardise_inputs": True, "standardise_targets": True},
        {"loss": "distillation", "temperature": 2.0}, {"patience": 1, "monitor": "accuracy"},
    ],
    ids=lambda keywords: "-".join(keywords) or "plain",
)  # fmt: skip
def test_the_trainer_gives_the_cpus_student(device, keywords):
    validation = toy.Logits(30, seed=1)
    (ours, history), (theirs, expected) = (
        toy.trained(
            toy.Logits(),
            validation,
            student=Student(toy.D, toy.H, toy.C, rank=3, activation="tanh", dropout=0.25, seed=5),
            **where,
            **keywords,
        )
        for where in ({"device": "cuda", "backend": "cuda"}, {})
    )
    assert ours.device == "cpu"
    for name, array in ours.arrays().items():
        np.testing.assert_allclose(array, theirs.arrays()[name], rtol=2e-4, atol=2e-5, err_msg=name)
    for record, wanted in zip(history, expected):
        assert record.train_loss == pytest.approx(wanted.train_loss, rel=1e-4)
        assert record.validation_loss == pytest.approx(wanted.validation_loss, rel=1e-4)
        assert record.validation_accuracy == wanted.validation_accuracy


def test_training_on_labels_in_bfloat16(device):
    student = Student(toy.D, toy.H, toy.C, rank=3, seed=5)
    x = toy.Logits().x
    labels = (x[:, 0] > 0).astype(np.int64)
    trainer = Trainer(student, SGD(0.05), epochs=2, batch_size=32, loss="cross_entropy", device="cuda", dtype="bfloat16")
    assert trainer.backend == "cuda-tf32"
    history = trainer.fit(LabelledSet(x, labels, toy.C), LabelledSet(x, labels, toy.C))
    assert history[-1].train_loss < history[0].train_loss
    assert history[-1].validation_accuracy is not None


@pytest.mark.parametrize("net", toy.NETS.values(), ids=toy.NETS)
def test_a_run_goes_on_from_its_checkpoint(device, tmp_path, net):

    def run(epochs, **keywords):
        student = net(dropout=0.5)
        trainer = Trainer(
            student, AdamW(0.01), epochs=epochs, batch_size=32, seed=7, ema=0.9, device="cuda", checkpoint=tmp_path / "run", progress=False
        )
        trainer.fit(toy.Logits(), **keywords)
        return student

    whole = run(4)
    assert whole.device == "cpu"
    run(2)
    assert toy.same(run(4, resume=tmp_path / "run"), whole)


def test_a_transfer_set_on_disk_is_fed(device, tmp_path):
    """Every row comes once, in order, although three buffers hold them in turn."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((100, 5)).astype(np.float32)
    stored = TransferSet(rows, rows[:, :2].copy())
    batches = (stored.batch(np.arange(start, min(start + 9, 100))) for start in range(0, 100, 9))
    seen = [(x.get(), t.get(), w) for x, t, w in feed(batches, "cuda")]
    assert np.array_equal(np.concatenate([x for x, _, _ in seen]), rows)
    assert np.array_equal(np.concatenate([t for _, t, _ in seen]), rows[:, :2])
    assert all(w is None for _, _, w in seen)


def test_what_goes_wrong_while_reading_is_raised_in_its_place(device):
    def batches():
        yield np.zeros((2, 3), np.float32), np.zeros(2, np.int64), None
        raise OSError("the disk is gone")

    before = threading.active_count()
    stream = feed(batches(), "cuda")
    assert next(stream)[0].shape == (2, 3)
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)
    endless = feed(((np.zeros((2, 3), np.float32), np.zeros(2, np.int64), None) for _ in itertools.count()), "cuda")
    next(endless)
    endless.close()
    assert threading.active_count() == before


DEEP = {
    "deep net": lambda: DeepNet([7, 20, 2], "tanh", dropout=0.25, input_dropout=0.125, seed=3),
    "signals": lambda: ConvNet((1, 7), [(8, 3, 2, 1), (6, 2)], 2, (), "tanh", dropout=0.25, input_dropout=0.125, seed=3),
    "images": lambda: ConvNet((1, 1, 7), [(8, (1, 3), 1, (0, 1)), (6, (1, 2), (1, 2))], 2, (9,), "tanh", dropout=0.25, seed=3),
}


@pytest.mark.parametrize("make", DEEP.values(), ids=DEEP)
def test_deep_nets_move(device, tmp_path, make):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 7)).astype(np.float32)
    labels = (x[:, 0] > 0).astype(np.int64)
    nets = []
    for where in ("cpu", "cuda"):
        net = make().to(where)
        net.fit(x, labels, validation=(x, labels), epochs=3, batch_size=16, optimizer=AdamW(0.01), ema=0.9, progress=False)
        nets.append(net)
    on_cpu, net = nets
    assert net.device == "cuda"
    np.testing.assert_allclose(net.logits(x), on_cpu.logits(x), rtol=1e-3, atol=1e-4)
    close(net.logits(device.xp.asarray(x)), net.logits(x), "cuda")
    assert net.history[-1].validation_accuracy == on_cpu.history[-1].validation_accuracy
    assert net.score(device.xp.asarray(x), labels) == net.score(x, labels) == net.history[-1].validation_accuracy
    net.save(tmp_path / "net.safetensors")
    loaded = type(net).load(tmp_path / "net.safetensors")
    assert loaded.describe() == net.describe()
    assert all(np.array_equal(array, net.to("cpu").arrays()[name]) for name, array in loaded.arrays().items())
