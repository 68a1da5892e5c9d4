"""Arguments of the wrong kind, one at a time: whatever is passed, an error of a kind that is documented names an argument."""

import re
import warnings

import numpy as np
import pytest

import pymimic as pm

X, T, LABELS = np.ones((8, 4), np.float32), np.ones((8, 2), np.float32), np.arange(8) % 2
WRONG = (None, 3, -1, 2.5, "text", b"text", (X, T), {"a": 1}, np.ones(3), X, object(), lambda *given: given, True, np.nan)
TEACHER = pm.from_callable(lambda rows: rows[:, :2])


def student():
    return pm.Student(4, 8, 2, 2)


def weights():
    return pm.ShallowWeights(*(np.ones(size, np.float32) for size in ((8, 4), (8,), (8, 2), (2,))))


def fit(**given):
    return pm.Trainer(student(), pm.AdamW(), epochs=1, progress=False).fit(**given)


# what is called -> arguments that are right
CALLS = {
    pm.Student: {"inputs": 4, "hidden": 8, "outputs": 2, "rank": 2, "activation": "relu", "dropout": 0.0, "seed": 0},
    pm.DeepNet: {"layer_sizes": [4, 8, 2], "activation": "relu", "dropout": 0.0, "input_dropout": 0.0, "seed": 0},
    pm.TransferSet: {"x": X, "logits": T, "weights": None, "labels": None},
    pm.LabelledSet: {"x": X, "labels": LABELS, "outputs": 2, "weights": None},
    pm.Trainer: {
        "student": student(), "optimizer": pm.AdamW(), "epochs": 1, "batch_size": 4, "loss": "mimic", "temperature": 1.0, "alpha": 1.0,
        "seed": 0, "patience": None, "monitor": "loss", "clip_norm": None, "accumulate": 1, "ema": None, "augment": None,
        "standardise_inputs": False, "standardise_targets": False, "checkpoint": None, "checkpoint_every": 9, "progress": False,
        "device": "cpu", "backend": None, "memory_budget": 1, "dtype": "float32", "keep": "float32",
    },
    fit: {"data": pm.TransferSet(X, T), "validation": None, "resume_with": (), "overwrite": False},
    pm.compress: {
        "student": student(), "bits": 8, "prune": 0.5, "rank": 1, "transfer": pm.TransferSet(X, T), "epochs": 1, "learning_rate": 1e-3,
        "batch_size": 4, "loss": "mimic", "temperature": 1.0, "validation": None, "seed": 0, "device": None, "progress": False,
    },
    pm.Predictor: {"student": student(), "dtype": "float32", "copy": None},
    pm.AdamW: {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.9, "epsilon": 1e-8, "weight_decay": 0.0},
    pm.SGD: {"learning_rate": 1e-3, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0},
    pm.cosine: {"learning_rate": 1e-3, "steps": 4, "final": 0.0}, pm.step_decay: {"learning_rate": 1e-3, "every": 4, "factor": 0.1},
    pm.warm_up: {"schedule": pm.constant(0.1), "steps": 4}, pm.constant: {"learning_rate": 0.1},
    pm.munge: {"x": X, "copies": 1, "p": 0.1, "s": 1.0, "seed": 0, "discrete": ()},
    pm.from_callable: {"function": TEACHER.logits, "description": None}, pm.Ensemble: {"members": [TEACHER]},
    pm.out_of_fold: {"make_teacher": lambda x, labels: TEACHER, "x": X, "labels": LABELS, "folds": 2, "seed": 0},
    pm.plan: {"B": 1, "D": 2, "k": 3, "H": 4, "C": 5, "dtype": "float32", "memory_budget": 4, "h": "auto"},
    pm.ShallowWeights: {
        **dict(zip("UbWc", weights().arrays().values())), "dtype": "float32", "activation": "relu", "backend": None, "memory_budget": 1,
        "keep": "float32",
    },
    student().predict: {"x": X, "backend": None}, student().to: {"device": "cpu"},
    student().fold: {"mean": T[0], "scale": T[0]}, student().initialise_bottleneck: {"x": X, "epsilon": 0.1},
    weights().step: {"dy": T, "z": X, "optimizer": pm.SGD(0.1)}, pm.DeepNet([4, 2]).logits: {"x": X, "backend": None},
    pm.TransferSet(X, T).batch: {"indices": [0]},
    pm.DeepNet([4, 2]).fit: {
        "x": X, "labels": LABELS, "validation": None, "epochs": 1, "batch_size": 4, "optimizer": None, "sample_weight": None, "ema": None,
        "monitor": "loss", "standardise": "each", "checkpoint": None, "resume_with": (), "overwrite": False, "progress": False,
    },
}  # fmt: skip


def message(call, arguments):
    """Of the error; None without one."""
    try:
        call(**arguments)
    except (TypeError, ValueError, OSError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__qualname__)
def test_an_argument_of_the_wrong_kind_is_named(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some of them are paths
    right = CALLS[call]
    for name in right:
        for wrong in WRONG:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                said = message(call, {**right, name: wrong})
            assert said is None or re.match(r"(\[Errno \d+\] )?([\w, ]+: )+(expected|'\w+' is not available)", said), (name, wrong, said)
