"""Checkpoints that somebody has written for a run: whatever does not fit it is refused, and nothing of it is taken over."""

import numpy as np
import pytest
from toy import C, D, H, Logits, N, same

from pymimic import AdamW, Student, Trainer
from pymimic.errors import FileFormatError, TrainingDivergedError
from pymimic.files import read_safetensors, write_safetensors
from pymimic.training.deepnet import DeepNet

ALL = {"ema": 0.9, "keep_best": True, "standardise_inputs": True, "standardise_targets": True}


def fit(net=None, epochs=2, **more):
    resume, validation = more.pop("resume", None), Logits()
    trainer = Trainer(net or Student(D, H, C, rank=3, seed=5), AdamW(0.01), epochs=epochs, batch_size=32, **ALL | more)
    trainer.fit(Logits(), validation if trainer.keep_best else None, resume=resume)
    return trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Arrays and metadata of a checkpoint after the first of two epochs."""
    path = tmp_path_factory.mktemp("whole") / "c"
    fit(epochs=1, checkpoint=path)
    return read_safetensors(path)


def forged(path, whole, arrays=None, **metadata):
    """The checkpoint with some arrays (None: without) and metadata changed, and a checksum that agrees; of dicts, some keys are changed."""
    kept, content = {**whole[0], **(arrays or {})}, whole[1] | {}
    for name, change in metadata.items():
        content[name] = content[name] | change if isinstance(change, dict) else change
    del content["format"]
    write_safetensors(path, {name: array for name, array in kept.items() if array is not None}, content)
    return path


def test_the_checkpoint_itself_goes_on(tmp_path, whole):
    assert same(fit(resume=forged(tmp_path / "c", whole)).student, fit().student)


def f(*shape, of=0.5):
    return np.full(shape, of, np.float32)


ARRAYS = {
    "one number in the place of U": {"weights.U": f(1, 1)},
    "a column": {"weights.U": f(H, 1)},
    "another shape": {"weights.V": f(D, 3)},
    "integers": {"weights.U": np.ones((H, 3), np.int64)},
    "float64": {"weights.b": np.ones(H)},
    "float16": {"average.b": np.ones(H, np.float16)},
    "NaN": {"weights.c": f(C, of=np.nan)},
    "infinity": {"optimizer.U.mean": f(H, 3, of=np.inf)},
    "no U": {"weights.U": None},
    "no average": {f"average.{name}": None for name in ("V", "U", "b", "W", "c")},
    "half an average": {"average.V": None},
    "no best": {f"best.{name}": None for name in ("V", "U", "b", "W", "c")},
    "half a best": {"best.W": None},
    "another best": {"best.W": f(H, C + 1)},
    "a best that no net has": {"best.X": f(3)},
    "no inputs": {"inputs.mean": None, "inputs.scale": None},
    "no scale": {"inputs.scale": None},
    "inputs of one number": {"inputs.mean": f(1)},
    "no targets": {"targets.mean": None, "targets.scale": None},
    "no mean of targets": {"targets.mean": None},
    "targets of one number": {"targets.scale": f(1)},
    "targets without a scale": {"targets.scale": f(C, of=0)},
    "targets the wrong way": {"targets.scale": f(C, of=-1)},
    "targets of hardly any deviation": {"targets.scale": f(C, of=1e-30)},
    "targets of half their deviation": {"targets.scale": f(C, of=1e-2)},
    "targets far from their mean": {"targets.mean": f(C, of=1e30)},
    "no slots": {f"optimizer.{name}.{slot}": None for name in ("V", "U", "b", "W", "c") for slot in ("mean", "square")},
    "a slot less": {"optimizer.U.square": None},
    "a slot more": {"optimizer.U.momentum": f(H, 3)},
    "slots of another array": {"optimizer.X.mean": f(3), "optimizer.X.square": f(3)},
    "a slot of one number": {"optimizer.U.mean": f(1, 1)},
    "a slot of integers": {"optimizer.U.mean": np.ones((H, 3), np.int32)},
    "no steps": {"optimizer.steps": None},
    "steps without end": {"optimizer.steps": np.array(2**62)},
    "steps below 0": {"optimizer.steps": np.array(-1)},
    "fewer steps than the run": {"optimizer.steps": np.array(1)},
    "several steps": {"optimizer.steps": np.array([3, 3])},
    "steps of floats": {"optimizer.steps": np.array(3.0)},
    "unsigned steps": {"optimizer.steps": np.array(3, np.uint64)},
    "an array of no group": {"x": f(3)},
    "another group": {"others.U": f(H, 3)},
    "an empty name": {"": f(3)},
}
RECORD = {
    "epoch": 1, "step": 3, "train_loss": 0.5, "validation_loss": 0.5, "validation_accuracy": 0.5, "learning_rate": 0.01, "seconds": 1.0,
}  # fmt: skip
NUMBERS = {
    "a position beyond the rows": {"counters": {"position": 10**9}},
    "a position below 0": {"counters": {"position": -1}},
    "a position that is no number": {"counters": {"position": "3"}},
    "a position between rows": {"counters": {"position": 0.5}},
    "an epoch below 0": {"counters": {"epoch": -1}},
    "an epoch that is True": {"counters": {"epoch": True}},
    "an epoch without a record": {"counters": {"epoch": 2}},
    "steps beyond a mask's offset": {"counters": {"step": 2**32}},
    "steps below 0": {"counters": {"step": -1}},
    "a loss of NaN": {"counters": {"loss_sum": float("nan")}},
    "a loss that is a list": {"counters": {"loss_sum": [0.0]}},
    "seconds without end": {"counters": {"seconds": float("inf")}},
    "seconds beyond floats": {"counters": {"seconds": 10**400}},
    "another counter": {"counters": {"steps": 3}},
    "counters that are a list": {"counters": []},
    "no counters": {"counters": None},
    "a history that is a list": {"history": []},
    "records that are no list": {"history": {"records": 3}},
    "a record that is no record": {"history": {"records": [3]}},
    "a record of another epoch": {"history": {"records": [RECORD | {"epoch": 2}]}},
    "a record of a later step": {"history": {"records": [RECORD | {"step": 10**9}]}},
    "a record of NaN": {"history": {"records": [RECORD | {"validation_loss": float("nan")}]}},
    "a record of text": {"history": {"records": [RECORD | {"train_loss": "low"}]}},
    "a best epoch to come": {"history": {"best_epoch": 2}},
    "a best epoch of text": {"history": {"best_epoch": "1"}},
    "weights of a best epoch, and no such epoch": {"history": {"best_epoch": None}},
    "stopped, or something": {"history": {"stopped_early": "no"}},
    "compared from later": {"history": {"compared_from": 5}},
    "compared from below 0": {"history": {"compared_from": -1}},
    "a configuration that is a list": {"configuration": []},
    "a student of nothing": {"configuration": {"student": {}}},
    "a student that is a list": {"configuration": {"student": []}},
}


@pytest.mark.parametrize("change", [{"arrays": a} for a in ARRAYS.values()] + list(NUMBERS.values()), ids=[*ARRAYS, *NUMBERS])
def test_what_does_not_fit_is_refused_before_anything_is_taken_over(tmp_path, whole, change):
    path, net = forged(tmp_path / "c", whole, **change), Student(D, H, C, rank=3, seed=5)
    before = net.arrays()
    with pytest.raises(ValueError, match=r"^resume: .*expected.*c'") as caught:
        fit(net, resume=path)
    assert str(caught.value).isprintable()
    assert all(np.array_equal(array, before[name]) for name, array in net.arrays().items())
    assert net.mean is None


@pytest.mark.parametrize("counters", [[], "x", None, {"step": "\x1b[31m"}, {"step": [[]] * 10**5}])
def test_a_place_whose_counters_are_damaged_is_still_taken(tmp_path, whole, counters):
    path = forged(tmp_path / "c", whole, counters=counters, finished=False)
    with pytest.raises(ValueError, match=r"^checkpoint: .*unfinished run after step") as caught:
        fit(checkpoint=path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 3000


def test_arrays_that_this_run_has_no_use_for_are_refused(tmp_path):
    path = tmp_path / "c"
    plain = {"ema": None, "keep_best": False, "standardise_inputs": False, "standardise_targets": False}
    fit(DeepNet([D, 4, C]), epochs=1, checkpoint=path, **plain)
    whole = read_safetensors(path)
    fit(DeepNet([D, 4, C]), resume=forged(path, whole, {"inputs.mean": f(D), "inputs.scale": f(D)}), **plain)  # the net's own
    for group in ("best.weight0", "targets.mean", "average.weight0"):
        with pytest.raises(FileFormatError, match=r"expected (no|an) array"):
            fit(DeepNet([D, 4, C]), resume=forged(path, whole, {group: f(4, D)}), **plain)


def test_the_rows_that_are_used_up_may_be_all(tmp_path, whole):
    forged(tmp_path / "c", whole, counters={"epoch": 0, "position": N}, history={"records": [], "best_epoch": None}, arrays=NO_BEST)
    fit(resume=tmp_path / "c")


NO_BEST = {f"best.{name}": None for name in ("V", "U", "b", "W", "c")}


def test_targets_of_an_absurd_scale_are_a_diverged_run(tmp_path, whole):
    """Nothing in the checkpoint says that it is wrong, but the weights overflow when the standardisation is undone."""
    path = forged(tmp_path / "c", whole, {"targets.scale": f(C, of=3e38), "weights.W": f(H, C, of=2), "best.W": f(H, C, of=2)})
    net = Student(D, H, C, rank=3, seed=5)
    with pytest.raises(TrainingDivergedError, match="finite weights for targets as they were given, got scale: expected the last layer"):
        fit(net, resume=path)
    assert all(np.isfinite(array).all() for array in net.arrays().values())
