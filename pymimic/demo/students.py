"""One shallow net, trained in one way: the rate warms up over 3 % of the steps and falls along a cosine; the best epoch is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Generic

from ..data.cases import Cases
from ..data.generators import Generate, fresh_cases
from ..nets.net import AnyNet
from ..nets.student import Student
from ..optimizer import AdamW, cosine, warm_up
from ..training.trainer import Trainer


@dataclass(frozen=True)
class Training:
    """How a student is trained, by AdamW."""

    loss: str  # "cross_entropy", "mimic" or "distillation"
    learning_rate: float
    epochs: int
    batch_size: int
    temperature: float = 1.0
    weight_decay: float = 0.0
    beta2: float = 0.99
    ema: float | None = 0.99
    dropout: float = 0.0
    augment: Generate | None = None  # makes new inputs of each batch's; their targets stay


@dataclass(frozen=True)
class Trained(Generic[AnyNet]):
    """A net, and how it came to be."""

    net: AnyNet
    curve: list[float]  # validation accuracy after each epoch
    validation_accuracy: float  # of the epoch that was kept
    seconds: float
    cpu_seconds: float  # of all threads


def train(
    student: Student, cases: Cases, validation: Cases, how: Training, seed: int, device: str = "cpu", **more: Any
) -> Trained[Student]:
    """Train it, and keep the epoch with the best validation accuracy. `more` goes to the trainer."""
    steps = -(-len(cases) // how.batch_size) * how.epochs
    rate = warm_up(cosine(how.learning_rate, steps), round(0.03 * steps))
    trainer = Trainer(
        student.to(device), AdamW(rate, beta2=how.beta2, weight_decay=how.weight_decay), epochs=how.epochs, batch_size=how.batch_size,
        loss=how.loss, temperature=how.temperature, seed=seed, keep_best=True, monitor="accuracy", ema=how.ema,
        augment=fresh_cases(how.augment) if how.augment else None, device=device, **more,
    )  # fmt: skip
    started, cpu_started = time.perf_counter(), time.process_time()
    history = trainer.fit(cases, validation)
    curve = [record.validation_accuracy or 0.0 for record in history]
    return Trained(student, curve, max(curve, default=0.0), time.perf_counter() - started, time.process_time() - cpu_started)
