"""Makes the files that every later version must read: `python make_formats.py FOLDER`, run by version 0.1.0 for support/formats.

Beside them it keeps what they hold, in expected.npz, as it was in memory before it was written. Files that are there are never made again:
a format that changes gets a folder of its own.
"""

import contextlib
import itertools
import sys
from pathlib import Path

import numpy as np

import pymimic as pm
from pymimic.data.manifest import read_manifest
from pymimic.nets.integers import integers

D, H, C, K, N = 5, 24, 4, 3, 60
X = ((np.arange(N * D) * 37 % 101) / 128).astype(np.float32).reshape(N, D)  # exact on any machine
T = ((np.arange(N * C) * 53 % 89) / 32 - 1).astype(np.float32).reshape(N, C)
WEIGHTS = (np.arange(N) % 4 / 2).astype(np.float32)
RUNS = {
    "adamw": {
        "optimizer": lambda: pm.AdamW(pm.cosine(1e-2, 9), weight_decay=0.01), "ema": 0.9, "patience": 3, "standardise_targets": True,
        "dropout": 0.25, "clip_norm": 1.0,
    },
    "sgd-bfloat16": {"optimizer": lambda: pm.SGD(1e-2, momentum=0.9, nesterov=True), "dtype": "bfloat16", "rank": None},
}  # fmt: skip
SETS = {
    "plain": {"source": {"rows": N}, "standardise": True},
    "float16": {"inputs_dtype": "float16", "logits_dtype": "float16"},
    "uint8": {"inputs_dtype": "uint8", "inputs_range": (-0.25, 1.5)},
    "compressed": {"compress": True},
    "top": {"top_logits": 2},
    "top-compressed": {"top_logits": 1, "logits_dtype": "float16", "compress": 9, "inputs_dtype": "uint8"},
}
STOP = 5  # steps of a run of nine that its checkpoint has


def filled(net):
    """The net with weights that are exact fractions, none of them 0 throughout, and a standardisation."""
    for number, (name, shape) in enumerate(net.shapes.items()):
        values = (np.arange(np.prod(shape)) * (41 + 2 * number) % 97 - 48) / 64
        net.set_arrays(**{name: values.astype(np.float32).reshape(shape)})
    net.set_standardisation((np.arange(net.inputs) / 8).astype(np.float32), (1 + np.arange(net.inputs) / 4).astype(np.float32))
    return net


def rounded(bits, hidden=H):
    net = filled(pm.Student(D, hidden, C, K))
    net.set_integers(bits, **{name: integers(array, bits) for name, array in net.arrays().items() if array.ndim == 2})
    return net


def trained_in_bfloat16():
    net = pm.Student(D, H, C, K, "gelu", seed=1)
    pm.Trainer(net, pm.AdamW(1e-2), epochs=2, batch_size=20, dtype="bfloat16", standardise_inputs=True, progress=False).fit(
        pm.TransferSet(X, T)
    )
    return net


NETS = {
    "student": lambda: filled(pm.Student(D, H, C, K)),
    "student-without-bottleneck": lambda: pm.Student(D, H, C, activation="tanh", dropout=0.5, seed=2**63),
    "student-bfloat16": trained_in_bfloat16,
    "student-8-bits": lambda: rounded(8),
    "student-4-bits": lambda: rounded(4),
    "student-4-bits-odd": lambda: rounded(4, 23),
    "deepnet": lambda: filled(pm.DeepNet((D, 9, 7, C), "sigmoid", dropout=0.5)),
    "convnet": lambda: filled(pm.ConvNet((2, 4, 3), [(3, (2, 3), 1, (0, 1)), (2, 2, 2, 1)], C, [6], "relu")),
}


def trainer(name, **more):
    run = dict(RUNS[name])
    student = pm.Student(D, H, C, run.pop("rank", K), dropout=run.pop("dropout", 0.0), seed=3)
    return pm.Trainer(
        student,
        run.pop("optimizer")(),
        epochs=3,
        batch_size=20,
        checkpoint_every=1,
        seed=7,
        standardise_inputs=True,
        progress=False,
        **run,
        **more,
    )


class Stopped(pm.TransferSet):
    """The rows, but for one batch: ctrl-C comes in its place."""

    def batch(self, indices):
        if len(indices) == 20 and next(self.calls) == STOP:
            raise KeyboardInterrupt
        return super().batch(indices)


def data(kind=pm.TransferSet):
    return kind(X, T, WEIGHTS)


def make(folder):
    expected = {}

    def keep(name, net):
        expected.update({f"{name}/{key}": array for key, array in net.arrays().items()})
        if net.mean is not None:
            expected.update({f"{name}/mean": net.mean, f"{name}/scale": net.scale})

    for name, made in NETS.items():
        net = made()
        net.save(folder / f"{name}.safetensors")
        keep(name, net)
    for name in RUNS:
        begun, rows = trainer(name, checkpoint=folder / f"{name}.checkpoint"), data(Stopped)
        rows.calls = itertools.count()
        with contextlib.suppress(KeyboardInterrupt):
            begun.fit(rows, pm.TransferSet(X[:20], T[:20]) if "patience" in RUNS[name] else None)
        whole = trainer(name)
        whole.fit(data(), pm.TransferSet(X[:20], T[:20]) if "patience" in RUNS[name] else None)
        keep(f"{name}-end", whole.student)
        expected.update({f"{name}/optimizer.{key}": array for key, array in begun.optimizer.state().items()})
    for name, settings in SETS.items():
        recorded = pm.TransferSet(X, T, WEIGHTS if name in ("plain", "compressed") else None)
        made = recorded.save(folder / name, rows_per_shard=40, progress=False, **settings)
        x, t, weights = made.batch(np.arange(N))
        expected.update({f"{name}/inputs": x, f"{name}/logits": t, **({} if weights is None else {f"{name}/weights": weights})})
        assert read_manifest(folder / name).complete
    np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir()
    make(target)
