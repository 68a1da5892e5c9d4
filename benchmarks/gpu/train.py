"""The mnist student trained to the end on one device, on the logits of a net that was trained on the GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpu.watch import about_to
from pymimic import AdamW, DeepNet, LabelledSet, Student, Trainer, TransferSet, cosine
from pymimic.demo import datasets
from pymimic.demo.datasets import Dataset, Rows

EPOCHS, BATCH, LEARNING_RATE, SHOWN = 12, 512, 1e-3, 32


def generated(train: int = 50_000, test: int = 10_000) -> Dataset:
    """A set of mnist's sizes: three prototypes a class, mixed, noisy, cut to [0, 1]."""
    rng = np.random.default_rng(0)
    prototypes = rng.standard_normal((10, 3, 784), np.float32)

    def rows(count: int) -> Rows:
        labels = rng.integers(0, 10, count)
        mix = rng.dirichlet(np.ones(3), count).astype(np.float32)
        x = np.einsum("bm,bmd->bd", mix, prototypes[labels], optimize=True) * np.float32(0.15)
        x += rng.standard_normal(x.shape, np.float32) * np.float32(0.5)
        return Rows(np.clip(x + np.float32(0.5), 0, 1), labels.astype(np.int64))

    return Dataset("generated", 10, rows(train), rows(test), rows(test), rows(0))


def student(device: str, dtype: str, folder: str | None) -> Iterator[dict[str, Any]]:
    """Losses, accuracies, seconds, and the first logits. The teacher is the same in every process: its training is deterministic."""
    data = datasets.mnist(Path(folder)) if folder else generated()
    about_to("training a teacher", within=120)
    started = time.perf_counter()
    teacher = DeepNet([784, 512, 512, 10], dropout=0.25, seed=1).to("cuda")
    teacher.fit(data.train.x, data.train.labels, epochs=6, batch_size=256, standardise="all", progress=False)
    logits = teacher.logits(data.train.x)
    teacher_seconds = time.perf_counter() - started
    steps = EPOCHS * -(-len(data.train.x) // BATCH)
    net = Student(784, 8192, 10, rank=64, seed=2)
    schedule = cosine(LEARNING_RATE, steps)

    def watched(step: int) -> float:
        if step % 10 == 0:
            about_to(f"training, {device}, {dtype}")
        return schedule(step)

    trainer = Trainer(
        net, AdamW(watched), epochs=EPOCHS, batch_size=BATCH, seed=3, standardise_inputs=True,
        standardise_targets=True, device=device, dtype=dtype, progress=False,
    )  # fmt: skip
    started = time.perf_counter()
    history = trainer.fit(TransferSet(data.train.x, logits), LabelledSet(data.validation.x, data.validation.labels, 10))
    seconds = time.perf_counter() - started
    y, right = net.predict(data.test.x), data.test.labels
    yield {
        "data": data.name, "device": device, "dtype": dtype, "epochs": len(history), "seconds": seconds, "steps": steps,
        "teacher_seconds": teacher_seconds, "teacher_accuracy": float((teacher.logits(data.test.x).argmax(1) == right).mean()),
        "train_losses": [record.train_loss for record in history],
        "validation_accuracies": [record.validation_accuracy for record in history],
        "test_accuracy": float((y.argmax(1) == right).mean()), "logits": np.round(y[:SHOWN].astype(np.float64), 5).tolist(),
    }  # fmt: skip
