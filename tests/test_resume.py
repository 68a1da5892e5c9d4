"""A run that is stopped and resumed gives the bits of one that never stopped, however it was stopped."""

import os
import resource
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pymimic import SGD, AdamW, cosine, warm_up
from pymimic.data.cases import LabelledSet
from pymimic.errors import FileFormatError
from pymimic.files import read_safetensors
from pymimic.nets.student import Student
from pymimic.training.convnet import ConvNet
from pymimic.training.deepnet import DeepNet
from pymimic.training.trainer import Trainer

D, H, C, N, EPOCHS = 6, 40, 4, 90, 3
STEPS = EPOCHS * 3  # batches of 32, 32 and 26 rows

rng = np.random.default_rng(0)
X = rng.standard_normal((N + 50, D), np.float32)
T = np.tanh(X @ rng.standard_normal((D, C)).astype(np.float32))


class Logits:
    """Logits, and something to do at one call of `batch`."""

    inputs, outputs = D, C

    def __init__(self, rows=slice(0, N), call=None, act=None):
        self.x, self.t = X[rows], T[rows]
        self.calls, self.call, self.act = 0, call, act

    def __len__(self):
        return len(self.x)

    def batch(self, indices):
        self.calls += 1
        if self.calls == self.call:
            self.act()
        return self.x[indices], self.t[indices], None


def jitter(x, t, generator):
    return x + 0.1 * generator.standard_normal(x.shape, np.float32), t


def everything():
    """Every part of the state in use."""
    optimizer = AdamW(warm_up(cosine(0.01, 40), 3), beta2=0.99, weight_decay=0.01)
    student = Student(D, H, C, rank=3, dropout=0.4, seed=5)
    more = {"ema": 0.9, "patience": 2, "augment": jitter, "standardise_inputs": True, "standardise_targets": True}
    return student, optimizer, more, Logits(slice(N, None))


def unfused():
    more = {"clip_norm": 0.5, "accumulate": 2, "batch_size": 16}
    return Student(D, H, C, rank=3, activation="gelu", dropout=0.4), SGD(0.05, momentum=0.9, nesterov=True), more, Logits(slice(N, None))


def plain():
    """No bottleneck, no slots, no validation."""
    return Student(D, H, C), SGD(0.05), {}, None


def monitored():
    """Early stopping on the accuracy, which comes."""
    labels = LabelledSet(X[N:], T[N:].argmax(1), C)
    return Student(D, H, C), AdamW(0.05), {"patience": 1, "monitor": "accuracy"}, labels


def deep_everything():
    _, optimizer, more, held_out = everything()
    return DeepNet([D, H, 9, C], dropout=0.4, input_dropout=0.2, seed=5), optimizer, more, held_out


def convolutional_everything():
    _, optimizer, more, held_out = everything()
    return ConvNet((2, 3), [(5, 2, 1, 1)], C, [9], dropout=0.4, input_dropout=0.2, seed=5), optimizer, more, held_out


def deep_unfused():
    _, optimizer, more, held_out = unfused()
    return DeepNet([D, H, C], "gelu", dropout=0.4), optimizer, more, held_out


def deep_plain():
    return DeepNet([D, H, C]), SGD(0.05), {}, None


RECIPES = [everything, unfused, plain, monitored, deep_everything, deep_unfused, deep_plain, convolutional_everything]


def run(recipe, path=None, data=None, resume=None, validation=None, **changes):
    """Returns the trained student and all there is to compare."""
    student, optimizer, more, held_out = recipe()
    trainer = Trainer(student, optimizer, **({"epochs": EPOCHS, "batch_size": 32, "seed": 7, "checkpoint": path} | more | changes))
    history = trainer.fit(data or Logits(), validation or held_out, resume=resume)
    return student, optimizer, history


def assert_same(first, second):
    (student, optimizer, history), (student2, optimizer2, history2) = first, second
    assert student.configuration() == student2.configuration()
    for mine, other in ((student.arrays(), student2.arrays()), (optimizer.state(), optimizer2.state())):
        assert mine.keys() == other.keys()
        assert all(np.array_equal(array, other[name]) for name, array in mine.items())
    assert np.array_equal(student.mean, student2.mean)
    assert np.array_equal(student.scale, student2.scale)
    assert [replace(record, seconds=0) for record in history] == [replace(record, seconds=0) for record in history2]
    assert (history.best_epoch, history.stopped_early) == (history2.best_epoch, history2.stopped_early)


def interrupt():
    """As ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


def stop():
    raise KeyboardInterrupt


# ctrl-C


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("act", [interrupt, stop])
def test_ctrl_c_at_any_step_and_resume(tmp_path, recipe, act):
    whole, path = run(recipe), tmp_path / "run.safetensors"
    calls = Logits()
    run(recipe, data=calls)
    for call in range(1, calls.calls + 1):
        path.unlink(missing_ok=True)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, path, Logits(call=call, act=act))
        started = call > (
            3 if recipe in (everything, deep_everything, convolutional_everything) else 1
        )  # a sample, and two passes for the standardisations
        assert os.listdir(tmp_path) == (["run.safetensors"] if started else [])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert_same(run(recipe, path, resume=path if started else None), whole)


@pytest.mark.parametrize("recipe", [plain, deep_plain])
@pytest.mark.parametrize("call", range(1, EPOCHS + 1))
def test_ctrl_c_while_validating(tmp_path, recipe, call):
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(recipe, path, validation=Logits(slice(N, None), call=1 + call, act=interrupt))  # the first call is for a sample
    counters = read_safetensors(path)[1]["counters"]
    assert (counters["epoch"], counters["position"]) == (call - 1, N)
    assert_same(run(recipe, path, resume=path, validation=Logits(slice(N, None))), run(recipe, validation=Logits(slice(N, None))))


@pytest.mark.parametrize("recipe", [plain, deep_plain])
def test_ctrl_c_waits_for_the_end_of_the_step_and_gives_the_student_the_weights(tmp_path, recipe):
    student, optimizer, _, _ = recipe()
    trainer = Trainer(student, optimizer, epochs=EPOCHS, batch_size=32, seed=7, checkpoint=tmp_path / "f")
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(Logits(call=1 + 3, act=interrupt))
    assert read_safetensors(tmp_path / "f")[1]["counters"]["step"] == 3
    one_epoch = run(recipe, epochs=1)[0]
    assert all(np.array_equal(array, one_epoch.arrays()[name]) for name, array in student.arrays().items())


def test_a_second_ctrl_c_acts_at_once():
    data = Logits(call=2, act=lambda: (interrupt(), interrupt(), pytest.fail("still here")))
    with pytest.raises(KeyboardInterrupt):
        run(plain, data=data)


def test_training_outside_the_main_thread_leaves_signals_alone():
    result = []
    thread = threading.Thread(target=lambda: result.append(run(plain)))
    thread.start()
    thread.join()
    assert_same(result[0], run(plain))


# Checkpoints every N steps


@pytest.mark.parametrize("recipe", [everything, unfused, deep_everything, deep_unfused])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_resume_from_a_checkpoint_of_any_step(tmp_path, recipe, every, monkeypatch):
    """Copies of the file after each time it is written are all resumed from."""
    from pymimic.nets import net

    whole, copies, path = run(recipe), [], tmp_path / "run.safetensors"
    write = net.write_safetensors

    def write_and_copy(path, *given):
        write(path, *given)
        copies.append(Path(path).read_bytes())

    monkeypatch.setattr(net, "write_safetensors", write_and_copy)
    assert_same(run(recipe, path, checkpoint_every=every), whole)  # writing changes nothing
    monkeypatch.undo()
    assert len(copies) == whole[1].steps // every + 1
    for copy in copies:
        path.write_bytes(copy)
        assert_same(run(recipe, resume=path), whole)
    arrays, metadata = read_safetensors(path)
    assert metadata["counters"]["step"] == whole[1].steps
    assert any(name.startswith("weights.") for name in arrays)


@pytest.mark.parametrize("recipe", [unfused, deep_unfused])
def test_a_run_goes_on_for_more_epochs(tmp_path, recipe):
    path = tmp_path / "run.safetensors"
    run(recipe, path, epochs=2)
    assert_same(run(recipe, path, resume=path, epochs=5), run(recipe, epochs=5))


def test_a_checkpoint_has_the_parts_that_earlier_versions_wrote(tmp_path):
    path = tmp_path / "run.safetensors"
    run(everything, path)
    arrays, metadata = read_safetensors(path)
    names = ("V", "U", "b", "W", "c")
    expected = {f"{group}.{name}" for group in ("weights", "average", "best") for name in names}
    expected |= {f"optimizer.{name}.{slot}" for name in names for slot in ("mean", "square")} | {"optimizer.steps"}
    assert set(arrays) == expected | {f"{group}.{name}" for group in ("inputs", "targets") for name in ("mean", "scale")}
    assert set(metadata) == {"format", "kind", "configuration", "counters", "history", "finished"}
    assert set(metadata["counters"]) == {"epoch", "position", "step", "loss_sum", "seconds"}
    assert set(metadata["configuration"]) == {
        "student", "optimizer", "slots", "rows", "augment", "keep_best", "batch_size", "accumulate", "loss", "temperature", "seed",
        "monitor", "clip_norm", "ema", "standardise_targets", "dtype", "keep",
        "learning_rate", "weight_decay", "beta1", "beta2", "epsilon", "alpha", "standardise_inputs", "data", "validation",
    }  # fmt: skip


def killed_at(seconds, work):
    """Run `work` in a forked child and kill it then; whether it was still running."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("recipe", [everything, deep_everything])
def test_twenty_kills_at_random_moments(tmp_path, recipe):
    whole = run(recipe, epochs=12, patience=12)
    load = type(whole[0]).load
    path, result = tmp_path / "run.safetensors", tmp_path / "student.safetensors"

    def go_on():
        student, _, _ = run(
            recipe, path, resume=path if path.exists() else None, epochs=12, patience=12, checkpoint_every=1, augment=slow_jitter
        )
        student.save(result)

    def slow_jitter(x, t, generator):
        time.sleep(0.002)
        return jitter(x, t, generator)

    moments, kills, finished = np.random.default_rng(1), 0, 0
    while kills < 20:
        if killed_at(moments.uniform(0.002, 0.1), go_on):
            kills += 1
        else:
            finished += 1
            assert_same_arrays(load(result), whole[0])
            path.unlink()
            result.unlink()
    go_on()
    assert_same_arrays(load(result), whole[0])
    assert sorted(os.listdir(tmp_path)) == ["run.safetensors", "student.safetensors"]
    assert finished < 20


def assert_same_arrays(student, other):
    assert all(np.array_equal(array, other.arrays()[name]) for name, array in student.arrays().items())
    assert np.array_equal(student.mean, other.mean)


def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(tmp_path):
    path = tmp_path / "run.safetensors"
    run(plain, path, epochs=1)
    before = path.read_bytes()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            run(plain, path, resume=path)
        except OSError as error:
            os._exit(17 if "run.safetensors" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.safetensors"]
    assert_same(run(plain, resume=path), run(plain))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 16}, "the checkpoint has batch_size = 32, this run has 16"),
        ({"seed": 8}, "seed = 7, this run has 8"),
        ({"clip_norm": 1.0}, "clip_norm = None, this run has 1.0"),
        ({"ema": 0.5}, "ema = None, this run has 0.5"),
        ({"data": Logits(slice(0, 40))}, "rows = 90, this run has 40"),
        ({"augment": jitter}, "augment = None, this run has 'jitter'"),
        ({"patience": 3, "validation": Logits(slice(N, None))}, "keep_best = False, this run has True"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, changes, message):
    path = tmp_path / "run.safetensors"
    run(plain, path, epochs=1)
    data = changes.pop("data", None)
    with pytest.raises(ValueError, match=message):
        run(plain, resume=path, data=data, **changes)


def test_a_checkpoint_of_another_net_or_optimizer_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    run(plain, path, epochs=1)
    with pytest.raises(ValueError, match=r"student.hidden = 40, this run has 41"):
        run(lambda: (Student(D, 41, C), SGD(0.05), {}, None), resume=path)
    with pytest.raises(ValueError, match=r"student = one with inputs, hidden, .*, this run has one with layer_sizes, "):
        run(deep_plain, resume=path)
    with pytest.raises(ValueError, match="optimizer = 'SGD', this run has 'AdamW'"):
        run(lambda: (Student(D, H, C), AdamW(), {}, None), resume=path)
    with pytest.raises(ValueError, match=r"slots = \[\], this run has \['momentum'\]"):
        run(lambda: (Student(D, H, C), SGD(0.1, momentum=0.9), {}, None), resume=path)


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(FileNotFoundError, match=r"run\.safetensors"):
        run(plain, resume=path)
    Student(D, H, C).save(path)
    with pytest.raises(FileFormatError, match="expected a checkpoint, got a 'student' file"):
        run(plain, resume=path)
    path.unlink()
    run(plain, path, epochs=1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileFormatError, match=r"run\.safetensors"):
        run(plain, resume=path)
