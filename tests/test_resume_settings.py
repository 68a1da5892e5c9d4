"""What a resumed run must have in common with the one that was stopped, and where a checkpoint may be written."""

import functools
import json
import os
import warnings

import numpy as np
import pytest
from toy import NETS, C, D, H, Logits, N, same

import pymimic as pm
from pymimic import SGD, AdamW, Student, Trainer, TransferSet, files, ops
from pymimic.files import read_safetensors, write_safetensors
from pymimic.training.deepnet import DeepNet
from pymimic.training.history import History, Record


def steady(y, t, weights, factor=1.0):
    loss, dy = ops.mimic_loss(y, t, weights)
    return factor * loss, np.float32(factor) * dy


def shift(x, t, generator, by=0.0):
    return x + np.float32(by), t


def halves(step):
    return 0.01 if step < 6 else 0.005


FIRST = {
    "net": lambda: Student(D, H, C, rank=3, seed=5, dropout=0.2), "optimizer": lambda: AdamW(pm.warm_up(pm.cosine(0.01, 20), 2)),
    "epochs": 1, "batch_size": 32, "seed": 7, "loss": steady, "augment": shift, "ema": 0.9, "clip_norm": 9.0,
}  # fmt: skip


def fit(data=None, validation=None, resume=None, resume_with=(), overwrite=False, **changes):
    settings = FIRST | changes
    net, optimizer = settings.pop("net")(), settings.pop("optimizer")()
    trainer = Trainer(net, optimizer, **settings)
    trainer.fit(Logits() if data is None else data, validation, resume=resume, resume_with=resume_with, overwrite=overwrite)
    return net, optimizer


def changed_row():
    data = Logits()
    data.t[-1, 2] += 1
    return data


# name of the setting -> what it is changed to
CHANGES = {
    "learning_rate": [
        {"optimizer": lambda: AdamW(0.01)}, {"optimizer": lambda: AdamW(pm.warm_up(pm.cosine(0.01, 21), 2))},
        {"optimizer": lambda: AdamW(pm.warm_up(pm.cosine(0.01, 20), 3))}, {"optimizer": lambda: AdamW(pm.cosine(0.01, 20))},
        {"optimizer": lambda: AdamW(pm.step_decay(0.01, 20))}, {"optimizer": lambda: AdamW(halves)},
    ],
    "weight_decay": [{"optimizer": lambda: AdamW(pm.warm_up(pm.cosine(0.01, 20), 2), weight_decay=0.1)}],
    "beta1": [{"optimizer": lambda: AdamW(pm.warm_up(pm.cosine(0.01, 20), 2), beta1=0.8)}],
    "beta2": [{"optimizer": lambda: AdamW(pm.warm_up(pm.cosine(0.01, 20), 2), beta2=0.8)}],
    "epsilon": [{"optimizer": lambda: AdamW(pm.warm_up(pm.cosine(0.01, 20), 2), epsilon=1e-3)}],
    "batch_size": [{"batch_size": 16}], "accumulate": [{"accumulate": 2}], "seed": [{"seed": 8}], "ema": [{"ema": 0.8}, {"ema": None}],
    "clip_norm": [{"clip_norm": 8.0}, {"clip_norm": None}], "loss": [{"loss": functools.partial(steady, factor=2.0)}, {"loss": "mimic"}],
    "augment": [{"augment": None}, {"augment": functools.partial(shift, by=0.5)}],
    "data": [{"data": changed_row()}, {"data": Logits(seed=1)}, {"data": Logits(weights=np.ones(N, np.float32))}],
    "student.dropout": [{"net": lambda: Student(D, H, C, rank=3, seed=5, dropout=0.4)}], "dtype": [{"dtype": "bfloat16"}],
}  # fmt: skip
FIXED = {
    "rows": {"data": Logits(N + 1)}, "standardise_inputs": {"standardise_inputs": "all"},
    "standardise_targets": {"standardise_targets": True},
    "student.rank": {"net": lambda: Student(D, H, C, rank=4, seed=5, dropout=0.2)}, "optimizer": {"optimizer": lambda: SGD(0.01)},
    "keep_best": {"patience": 2, "validation": Logits(seed=3)},
    "student": {"net": lambda: DeepNet([D, H, C])},
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "checkpoint"
    fit(checkpoint=path)
    return path


@pytest.mark.parametrize(("name", "change"), [(name, change) for name, changes in CHANGES.items() for change in changes])
def test_each_setting_is_compared_and_may_differ_by_name(checkpoint, name, change):
    with pytest.raises(ValueError, match=rf"the checkpoint has {name} = .*, this run has .* pass resume_with=\['{name}'\]"):
        fit(resume=checkpoint, epochs=2, **change)
    net, _ = fit(resume=checkpoint, epochs=2, resume_with={name}, **change)
    assert not same(net, fit(epochs=1)[0])


@pytest.mark.parametrize("name", FIXED)
def test_what_the_state_has_the_shape_of_stays(checkpoint, name):
    with pytest.raises(
        ValueError,
        match=rf"resume: expected a checkpoint of a run with the same settings, got .*the checkpoint has {name} = .*, this run has",
    ) as caught:
        fit(resume=checkpoint, epochs=2, **FIXED[name])
    assert "resume_with" not in str(caught.value)
    with pytest.raises(ValueError, match=rf"resume_with: expected names among .*, got {name}"):
        fit(resume=checkpoint, epochs=2, resume_with=name, **FIXED[name])


def test_a_temperature_is_compared(tmp_path):
    fit(loss="distillation", checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match=r"temperature = 1.0, this run has 2.0; .*resume_with=\['temperature'\]"):
        fit(loss="distillation", temperature=2.0, resume=tmp_path / "c", epochs=2)
    fit(loss="distillation", temperature=2.0, resume=tmp_path / "c", epochs=2, resume_with="temperature")


def test_resume_with_is_for_a_run_that_goes_on():
    with pytest.raises(ValueError, match="resume_with: expected it with resume only, got seed without"):
        fit(resume_with="seed")


def test_all_differences_are_listed_at_once(checkpoint):
    with pytest.raises(
        ValueError,
        match=r"has batch_size = 32, this run has 16; the checkpoint has seed = 7, this run has 8; .*resume_with=\['batch_size', 'seed'\]",
    ):
        fit(resume=checkpoint, seed=8, batch_size=16)
    with pytest.raises(ValueError, match=": the checkpoint has seed = 7, this run has 8;"):
        fit(resume=checkpoint, seed=8, batch_size=16, resume_with="batch_size")
    fit(resume=checkpoint, seed=8, batch_size=16, resume_with=("batch_size", "seed", "learning_rate"))


def test_the_message_says_what_each_has(checkpoint):
    with pytest.raises(ValueError, match="learning_rate") as caught:
        fit(resume=checkpoint, optimizer=lambda: AdamW(0.5))
    text = "'warm_up(schedule=cosine(learning_rate=0.01, steps=20, final=0.0), steps=2)', this run has 'constant(learning_rate=0.5)'"
    assert text in str(caught.value)


def test_names_that_are_none_are_refused(checkpoint):
    with pytest.raises(ValueError, match=r"resume_with: expected names among accumulate, .*, got everything"):
        fit(resume=checkpoint, resume_with=["everything", "seed"])
    with pytest.raises(ValueError, match=r"resume_with: expected names among accumulate, .*, got \['seed'\]"):
        fit(resume=checkpoint, resume_with=[["seed"]])
    with pytest.raises(TypeError, match="resume_with: expected a sequence of names of settings, got int"):
        fit(resume=checkpoint, resume_with=1)


def test_functions_of_one_name_are_told_apart_by_their_rates(tmp_path):
    def schedule(factor):
        return lambda step: factor / (1 + step)

    fit(optimizer=lambda: AdamW(schedule(0.01)), checkpoint=tmp_path / "c")
    fit(optimizer=lambda: AdamW(schedule(0.01)), resume=tmp_path / "c", epochs=2)
    with pytest.raises(
        ValueError,
        match=r"learning_rate = '.*<locals>.<lambda>\(factor=0.01\) with rates 0.01, 0.005, .*, this run has '.* with rates 0.02, 0.01,",
    ):
        fit(optimizer=lambda: AdamW(schedule(0.02)), resume=tmp_path / "c")
    table = [0.01] * 9
    fit(optimizer=lambda: AdamW(table.__getitem__), checkpoint=tmp_path / "table")  # it has no rate for a late step
    fit(optimizer=lambda: AdamW(table.__getitem__), resume=tmp_path / "table", epochs=3)


def test_the_watched_validation_rows_are_compared(tmp_path):
    held_out, more = Logits(40, seed=1), {"patience": 3}
    fit(validation=held_out, checkpoint=tmp_path / "c", **more)
    fit(validation=held_out, resume=tmp_path / "c", epochs=2, patience=5)
    with pytest.raises(ValueError, match="the checkpoint has validation = 'sha256"):
        fit(validation=Logits(40, seed=2), resume=tmp_path / "c", epochs=2, **more)
    fit(validation=Logits(40, seed=2), resume=tmp_path / "c", epochs=2, resume_with="validation", **more)


MEASURES = {
    "validation": ({}, {"validation": Logits(40, seed=2)}),
    "monitor": ({}, {"monitor": "accuracy"}),
    "loss": ({}, {"loss": "distillation"}),
    "temperature": ({"loss": "distillation", "temperature": 1.0}, {"loss": "distillation", "temperature": 3.0}),
}


@pytest.mark.parametrize(("first", "then"), MEASURES.values(), ids=MEASURES)
def test_a_best_epoch_by_another_measure_is_forgotten(tmp_path, first, then, request):
    """Its value cannot be compared with those to come; an old epoch would be kept for good, or patience run out."""
    path, setting = tmp_path / "c", request.node.callspec.id
    shared = {"loss": "mimic", "keep_best": True, "ema": None, "validation": Logits(40, seed=1)}
    fit(checkpoint=path, **shared | first)
    tensors, metadata = read_safetensors(path)
    kept = {name: array * 0 for name, array in tensors.items() if name.startswith("best.")}
    metadata["history"]["records"][0] |= {"validation_loss": -1e9, "validation_accuracy": 2.0}  # better than whatever comes
    write_safetensors(path, tensors | kept, metadata)

    same_measure, _ = fit(resume=path, epochs=3, **shared | first)
    assert not any(array.any() for array in same_measure.arrays().values())  # the kept weights
    net, optimizer = fit(resume=path, epochs=3, checkpoint=path, resume_with=setting, **shared | then)
    assert optimizer.steps == 9
    assert any(array.any() for array in net.arrays().values())
    history = read_safetensors(path)[1]["history"]
    monitored = "validation_accuracy" if setting == "monitor" else "validation_loss"
    values = [record[monitored] for record in history["records"][1:]]
    best = max(values) if setting == "monitor" else min(values)
    assert history["best_epoch"] == 2 + values.index(best)
    again, _ = fit(resume=path, epochs=4, **shared | then)  # what was forgotten stays so
    assert any(array.any() for array in again.arrays().values())


def test_a_history_comes_back_whole():
    """As a checkpoint holds it, in JSON."""
    history = History()
    for epoch, loss in enumerate((1.0, 3.0, 2.0), 1):
        if epoch == 2:
            history.forget_best()
        history.add(Record(epoch, 3 * epoch, loss, loss, 0.5, 0.1, 9.0), "loss")
    history.stopped_early = True
    again = History.from_dict(json.loads(json.dumps(history.as_dict())))
    assert list(again) == list(history)
    assert vars(again) == vars(history) == {"best_epoch": 3, "stopped_early": True, "compared_from": 1}
    old = {name: value for name, value in history.as_dict().items() if name != "compared_from"}
    assert History.from_dict(old).compared_from == 0  # of an earlier version
    assert again.add(Record(4, 12, 1.5, 1.5, 0.5, 0.1, 9.0), "loss")  # the best of those that are compared


@pytest.mark.parametrize("then", [{"loss": "distillation"}, {"seed": 8}])
def test_a_best_epoch_by_the_same_measure_stays(tmp_path, then):
    """Accuracy is what it is with any loss."""
    shared = {"loss": "mimic", "keep_best": True, "monitor": "accuracy", "validation": Logits(40, seed=1)}
    fit(checkpoint=tmp_path / "c", **shared)
    tensors, metadata = read_safetensors(tmp_path / "c")
    metadata["history"]["records"][0]["validation_accuracy"] = 2.0
    write_safetensors(tmp_path / "c", tensors, metadata)
    net, _ = fit(resume=tmp_path / "c", epochs=3, resume_with=list(then), **shared | then)
    assert all(np.array_equal(array, tensors[f"best.{name}"]) for name, array in net.arrays().items())


def test_a_running_average_may_begin_late(tmp_path):
    fit(ema=None, checkpoint=tmp_path / "c")
    plain, _ = fit(ema=None, resume=tmp_path / "c", epochs=2)
    averaged, _ = fit(ema=0.9, resume=tmp_path / "c", epochs=2, resume_with="ema")
    assert not same(plain, averaged)


def test_memory_mapped_data_are_the_data_in_memory(tmp_path):
    data = Logits(700)
    np.save(tmp_path / "x.npy", data.x)
    np.save(tmp_path / "t.npy", data.t)
    fit(data=TransferSet(data.x, data.t), checkpoint=tmp_path / "c")
    mapped = TransferSet(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xt"))
    fit(data=mapped, resume=tmp_path / "c", epochs=2)
    wide = TransferSet(data.x.astype(np.float64), data.t.astype(np.float64))
    fit(data=wide, resume=tmp_path / "c", epochs=2)


def test_few_rows_of_a_huge_set_are_read(tmp_path):
    class Huge(Logits):
        def __len__(self):
            return 10**9

        def batch(self, indices):
            self.calls.append(indices)
            if len(self.calls) > 1:
                raise ZeroDivisionError
            return self.x[indices % N], self.t[indices % N], None

    data = Huge()
    with pytest.raises(ZeroDivisionError):
        Trainer(Student(D, H, C), SGD(0.1), epochs=1, batch_size=10**9, standardise_targets=True, checkpoint=tmp_path / "c").fit(data)
    assert len(data.calls[0]) == 256
    assert data.calls[0][[0, -1]].tolist() == [0, 10**9 - 1]


def older(path):
    """Rewrite a checkpoint as the version before wrote it."""
    arrays, metadata = read_safetensors(path)
    known = {
        "student", "optimizer", "slots", "rows", "augment", "keep_best", "batch_size", "accumulate", "loss", "temperature", "seed",
        "monitor", "clip_norm", "ema", "standardise_targets", "dtype", "keep",
    }  # fmt: skip
    configuration = {name: value for name, value in metadata["configuration"].items() if name in known}
    configuration |= {"augment": configuration["augment"] is not None, "loss": configuration["loss"].partition("(")[0].rpartition(".")[2]}
    del metadata["finished"], metadata["format"]
    write_safetensors(path, arrays, metadata | {"configuration": configuration})


def test_checkpoints_of_earlier_versions_still_resume(tmp_path):
    path, whole = tmp_path / "c", fit(epochs=2)[0]
    fit(checkpoint=path)
    older(path)
    resumed, _ = fit(resume=path, epochs=2)
    assert same(resumed, whole)
    with pytest.raises(ValueError, match="batch_size = 32, this run has 16"):
        fit(resume=path, epochs=2, batch_size=16)
    with pytest.raises(ValueError, match="augment = True, this run has False"):
        fit(resume=path, epochs=2, augment=None)


def test_a_deep_net_compares_too(tmp_path):
    x, labels = Logits().x, Logits().t.argmax(1)

    def learn(rate=1e-2, **more):
        return DeepNet([D, 9, C]).fit(
            x, labels, optimizer=AdamW(rate), augment=lambda rows, labels, rng: (rows, labels), batch_size=32, **more
        )

    learn(epochs=1, checkpoint=tmp_path / "c")
    learn(epochs=2, resume=tmp_path / "c")
    with pytest.raises(ValueError, match=r"this run has 'constant\(learning_rate=0.5\)'"):
        learn(0.5, epochs=2, resume=tmp_path / "c")
    learn(0.5, epochs=2, resume=tmp_path / "c", resume_with="learning_rate")


# Where a checkpoint may be written


class StopError(Exception):
    pass


def stopped(path, **changes):
    """A run that ends after its first checkpoint."""

    class Stops(Logits):
        def batch(self, indices):
            self.calls.append(indices)
            if len(self.calls) > 3:
                raise StopError
            return self.x[indices], self.t[indices], None

    with pytest.raises(StopError):
        fit(data=Stops(), checkpoint=path, checkpoint_every=1, **changes)


def test_an_unfinished_run_is_not_overwritten(tmp_path):
    path = tmp_path / "c"
    stopped(path)
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"checkpoint: expected a file that is not there yet, got '.*c', which has an unfinished run after step 2"
    ):
        fit(checkpoint=path)
    with pytest.raises(ValueError, match=r"fit\(resume='.*c'\) goes on with it; fit\(overwrite=True\) starts anew"):
        fit(checkpoint=path)
    os.symlink(path, tmp_path / "link")
    with pytest.raises(ValueError, match="unfinished run"):
        fit(checkpoint=tmp_path / "link")
    assert path.read_bytes() == before
    resumed, _ = fit(checkpoint=path, resume=tmp_path / "link")
    assert same(resumed, fit()[0])
    fit(checkpoint=path)  # that one was finished
    stopped(path)
    fit(checkpoint=path, overwrite=np.True_)
    assert read_safetensors(path)[1]["finished"]


def test_another_runs_unfinished_checkpoint_is_not_overwritten_by_one_that_goes_on(tmp_path):
    stopped(tmp_path / "mine")
    stopped(tmp_path / "other")
    with pytest.raises(ValueError, match="unfinished run"):
        fit(checkpoint=tmp_path / "other", resume=tmp_path / "mine")


class Meanwhile(Logits):
    """Rows, and something that happens when the batch of one step is read."""

    def __init__(self, act, step):
        super().__init__()
        self.act, self.step = act, step

    def batch(self, indices):
        if len(self.calls) == self.step:  # the first call is for a sample
            self.act()
        return super().batch(indices)


@pytest.mark.parametrize("began", ["anew", "over a finished run", "over a stopped run", "from a stopped run"])
@pytest.mark.parametrize("other", [stopped, lambda path, **how: fit(checkpoint=path, **how)], ids=["stopped", "finished"])
@pytest.mark.parametrize(("step", "epochs"), [(1, 1), (4, 2)])
def test_what_another_run_writes_meanwhile_is_not_overwritten(tmp_path, began, other, step, epochs):
    """Before this run's first checkpoint, or after it. The net has the weights of the steps that were taken."""
    path, net, written = tmp_path / "c", FIRST["net"](), []
    if began == "over a finished run":
        fit(checkpoint=path)
    elif began != "anew":
        stopped(path)

    def meanwhile():
        other(path, seed=2, overwrite=True)
        written.append(path.read_bytes())

    how = {"resume": path} if "from" in began else {"overwrite": began == "over a stopped run"}
    with pytest.raises(ValueError, match=r"^checkpoint: expected no file, or this run's, in '.*c', got one that another run has written"):
        fit(Meanwhile(meanwhile, step), net=lambda: net, checkpoint=path, checkpoint_every=3, epochs=3, **how)
    assert written == [path.read_bytes()]
    assert os.listdir(tmp_path) == ["c"]
    assert same(net, fit(epochs=epochs)[0])


def test_of_two_first_checkpoints_at_one_moment_the_first_stays(tmp_path, monkeypatch):
    readable, written = files._demand_readable, []

    def meanwhile(part, content):
        readable(part, content)
        monkeypatch.undo()
        stopped(tmp_path / "c", seed=2)
        written.append((tmp_path / "c").read_bytes())

    monkeypatch.setattr(files, "_demand_readable", meanwhile)
    with pytest.raises(ValueError, match="another run has written since"):
        fit(checkpoint=tmp_path / "c")
    assert written == [(tmp_path / "c").read_bytes()]
    assert os.listdir(tmp_path) == ["c"]


def test_ctrl_c_does_not_overwrite_what_another_run_wrote(tmp_path):
    def meanwhile():
        stopped(tmp_path / "c")
        raise KeyboardInterrupt

    with pytest.raises(ValueError, match="another run has written since") as found:
        fit(data=Meanwhile(meanwhile, 2), checkpoint=tmp_path / "c")
    assert isinstance(found.value.__context__, KeyboardInterrupt)
    assert read_safetensors(tmp_path / "c")[1]["counters"]["step"] == 2


def test_a_checkpoint_that_is_moved_away_is_written_again(tmp_path):
    path = tmp_path / "c"
    fit(data=Meanwhile(lambda: path.rename(tmp_path / "moved"), 5), checkpoint=path, checkpoint_every=1, epochs=2)
    assert read_safetensors(path)[1]["finished"]


def test_other_files_are_not_overwritten(tmp_path):
    Student(D, H, C).save(tmp_path / "student")
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "empty").touch()
    for path in (tmp_path / "student", tmp_path / "x.npy", tmp_path / "empty"):
        before = path.read_bytes()
        with pytest.raises(ValueError, match=rf"checkpoint: expected a file that is not there yet, or a checkpoint, got .*{path.name}"):
            fit(checkpoint=path, overwrite=True)
        assert path.read_bytes() == before


@pytest.mark.parametrize("place", ["nowhere/c", ".", "file/c"])
def test_a_place_that_cannot_be_written_to_is_found_before_the_first_step(tmp_path, place):
    (tmp_path / "file").touch()
    data = Logits()
    with pytest.raises(OSError, match=place.split("/")[-1]):
        fit(data=data, checkpoint=tmp_path / place)
    assert len(data.calls) <= 1  # a sample


@pytest.mark.parametrize("place", [3, b"c", True])
def test_what_is_no_path_is_refused(place):
    with pytest.raises(TypeError, match="checkpoint: expected a path"):
        fit(checkpoint=place)
    with pytest.raises(TypeError, match="resume: expected a path"):
        fit(resume=place)


def test_home_is_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fit(checkpoint="~/c")
    fit(checkpoint="~/c", resume="~/c", epochs=2)
    assert os.listdir(tmp_path) == ["c"]


def test_a_configuration_that_json_cannot_hold_is_found_at_construction():
    class Odd(Student):
        def configuration(self):
            return super().configuration() | {"seed": np.float32(3)}

    with pytest.raises(TypeError, match="student: expected what JSON can hold, for checkpoints, got"):
        Trainer(Odd(D, H, C), SGD(0.1), epochs=1, checkpoint="c")


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_seconds_go_on(tmp_path, net):
    fit(net=net, checkpoint=tmp_path / "c")
    arrays, metadata = read_safetensors(tmp_path / "c")
    metadata["counters"]["seconds"] = 1000.0
    del metadata["format"]
    write_safetensors(tmp_path / "c", arrays, metadata)
    again = net()
    trainer = Trainer(again, FIRST["optimizer"](), **{k: v for k, v in FIRST.items() if k not in ("net", "optimizer")} | {"epochs": 2})
    trainer.fit(Logits(), resume=tmp_path / "c")
    assert trainer.history[0].seconds < 1000 < trainer.history[1].seconds < 1900


def test_seconds_begin_at_0(monkeypatch):
    monkeypatch.setattr("pymimic.training.loop.time.perf_counter", lambda: 5.0)
    trainer = Trainer(Student(D, H, C), SGD(0.1), epochs=1)
    trainer.fit(Logits())
    assert trainer.history[0].seconds == 0


def test_a_run_that_stopped_early_stays_stopped(tmp_path):
    held_out = Logits(40, seed=1)
    more = {"optimizer": lambda: SGD(0.0), "patience": 1, "validation": held_out}  # nothing gets better
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(epochs=9, checkpoint=tmp_path / "c", **more)
    _, metadata = read_safetensors(tmp_path / "c")
    assert metadata["history"]["stopped_early"]
    assert len(metadata["history"]["records"]) == 2
    data = Logits()
    fit(data=data, epochs=9, resume=tmp_path / "c", **more)
    assert len(data.calls) == 1  # a sample


def test_slots_that_are_not_finite_are_not_saved(tmp_path):
    """Squares of gradients overflow before weights do."""

    def steep(y, t, weights):
        return 1.0, np.full_like(y, 1e25)

    net = Student(D, H, C)
    with (
        np.errstate(all="ignore"),
        pytest.raises(pm.TrainingDivergedError, match=r"diverged at step 1: expected finite values in optimizer\.\w\.square, got NaN"),
    ):
        fit(
            net=lambda: net,
            optimizer=lambda: AdamW(1e-3),
            loss=steep,
            clip_norm=None,
            ema=None,
            checkpoint=tmp_path / "c",
            checkpoint_every=1,
        )
    assert os.listdir(tmp_path) == []
    assert same(net, Student(D, H, C))


def test_what_a_checkpoint_holds_is_json(checkpoint):
    _, metadata = read_safetensors(checkpoint)
    assert json.loads(json.dumps(metadata, allow_nan=False)) == metadata


@pytest.mark.parametrize("stop_in", [1, 3])
def test_fewer_epochs_than_the_checkpoint_has_are_refused(tmp_path, stop_in):
    def stop(y, t, weights):
        calls.append(1)
        if len(calls) == 2 * stop_in:
            raise KeyboardInterrupt
        return 0.5 * float(np.square(y - t).sum()) / len(y), (y - t) / np.float32(len(y))

    calls, path = [], str(tmp_path / "c")
    data = pm.TransferSet(np.eye(8, 3, dtype=np.float32), np.eye(8, 2, dtype=np.float32))

    def trainer(epochs):
        return pm.Trainer(pm.Student(3, 8, 2), pm.SGD(0.1), epochs=epochs, batch_size=4, loss=stop, checkpoint=path, progress=False)

    said = rf"^stopped in epoch {stop_in}, state in '.*c': go on with fit\(resume=\.\.\.\)$"
    with pytest.raises(KeyboardInterrupt, match=said):
        trainer(9).fit(data)
    before, calls = (tmp_path / "c").read_bytes(), []
    for epochs in range(stop_in):
        again = trainer(epochs)
        with pytest.raises(ValueError, match=rf"^epochs: expected at least {stop_in}, as .* in epoch {stop_in}, got {epochs}$"):
            again.fit(data, resume=path)
        assert again.optimizer.steps == 0
        assert (tmp_path / "c").read_bytes() == before
    calls.extend([1] * 99)
    assert len(trainer(stop_in).fit(data, resume=path)) == stop_in


def test_a_run_without_epochs_writes_no_checkpoint(tmp_path):
    data = pm.TransferSet(np.eye(8, 3, dtype=np.float32), np.eye(8, 2, dtype=np.float32))
    for epochs, there in ((0, False), (1, True), (0, True)):
        trainer = pm.Trainer(pm.Student(3, 8, 2), pm.SGD(0.1), epochs=epochs, checkpoint=tmp_path / "c", progress=False)
        before = (tmp_path / "c").read_bytes() if (tmp_path / "c").exists() else b""
        trainer.fit(data)
        assert (tmp_path / "c").exists() == there
        assert epochs or not there or (tmp_path / "c").read_bytes() == before


@pytest.mark.parametrize("call", [
    lambda path: pm.Trainer(pm.Student(3, 8, 2), pm.SGD(0.1), epochs=1).fit(pm.TransferSet(np.ones((2, 3)), np.ones((2, 2))), resume=path),
    lambda path: pm.DeepNet([3, 2]).fit(np.ones((2, 3)), np.zeros(2, int), resume=path),
])  # fmt: skip
def test_a_missing_checkpoint_names_the_argument(tmp_path, call):
    with pytest.raises(FileNotFoundError, match="resume: No such file") as found:
        call(tmp_path / "nope")
    assert found.value.errno == 2
    assert found.value.filename == str(tmp_path / "nope")
