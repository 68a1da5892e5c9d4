"""Stop a training run by ctrl-C, go on from its checkpoint, and get the bits of the run that was never stopped."""

import itertools
import signal
import tempfile
from pathlib import Path

import numpy as np

import pymimic as pm

x = np.random.default_rng(0).normal(size=(4096, 32)).astype(np.float32)
teacher = pm.from_callable(lambda rows: np.stack([rows[:, :16].max(axis=1), rows[:, 16:].max(axis=1)], axis=1))
cases = pm.TransferSet(x, teacher.logits(x))
keyboard = {"ctrl-C at step": None}


def run(checkpoint=None, resume=None):
    """Train a fresh student, and return it. The same seed, data and arguments give the same run."""
    steps = itertools.count(1)

    def loss(y, targets, weights):
        """`loss="mimic"`, and someone at the keyboard."""
        if next(steps) == keyboard["ctrl-C at step"]:
            signal.raise_signal(signal.SIGINT)
        return pm.ops.mimic_loss(y, targets, weights)

    student = pm.Student(inputs=32, hidden=256, outputs=2, rank=16, dropout=0.1)
    optimizer = pm.AdamW(pm.cosine(2e-3, steps=4 * 32))
    trainer = pm.Trainer(student, optimizer, epochs=4, batch_size=128, loss=loss, checkpoint=checkpoint)
    trainer.fit(cases, resume=resume)
    return student


whole = run()

with tempfile.TemporaryDirectory() as folder:
    checkpoint = Path(folder) / "run.checkpoint"
    keyboard["ctrl-C at step"] = 50
    try:
        run(checkpoint)
    except KeyboardInterrupt:
        print("stopped; the checkpoint has", checkpoint.stat().st_size, "bytes")
    keyboard["ctrl-C at step"] = None
    resumed = run(checkpoint, resume=checkpoint)

same = all(np.array_equal(array, resumed.arrays()[name]) for name, array in whole.arrays().items())
print("the resumed run has the bits of the whole one:", same)
