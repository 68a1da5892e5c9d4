"""MNIST-1D: labels, mimics and controls; how many cases, how wide, which loss, dropout (questions 3, 4, 8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..data.cases import Cases, LabelledSet
from ..data.transfer import TransferSet
from ..demo import datasets, mnist1d
from ..demo.recipes import recipe
from ..demo.setting import Seeds, Setting
from ..demo.students import Trained, Training
from ..numerics import log_softmax
from .experiment import Experiment, Run

_LABELS = Training("cross_entropy", 1e-2, 60, 256)
_REGULARISED = replace(_LABELS, learning_rate=2e-2, epochs=150, dropout=0.3, noise=0.2)
_MIMIC = Training("mimic", 2e-2, 10, 256)
_HARD = replace(_MIMIC, loss="cross_entropy")
_T3 = replace(_MIMIC, loss="distillation", temperature=3.0)
_COPIES = (0, 1, 3, 8, 24)
_ROWS = (1_000, 4_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
_WIDTHS = (64, 256, 1024, 4096, 16384, 65536)
_DROPOUTS = (0.1, 0.3, 0.5)
_FULL_ROWS = 100_000


class MNIST1D(Experiment):
    """4,000 labelled rows of MNIST-1D; students 40-H-10, H = 2,048 but where it varies."""

    name, title = "mnist1d", "MNIST-1D"

    def setting(self, seed: int) -> Setting:
        seeds = Seeds.of(seed)
        data = datasets.mnist1d(seeds.split)
        return Setting(self.fewer(data), recipe(self.name, self.fast), seeds, self.device)

    def runs(self) -> Sequence[Run]:
        table = {
            "labels": (_LABELS, _named("labels")),
            "labels, dropout and noise": (_REGULARISED, _named("labels")),
            "mimic, MUNGE": (_MIMIC, _named("generated")),
            "T = 3, MUNGE": (_T3, _named("generated")),
            "teacher's choices, MUNGE": (_HARD, _chosen),
            "mimic, unlabelled rows": (_MIMIC, _named("unlabelled")),
            "T = 3, unlabelled rows": (_T3, _named("unlabelled")),
            "teacher's choices": (_HARD, _named("teacher's choices")),
            "true labels": (_HARD, _named("true labels")),
        }
        runs = [self._run("table", name, cases, training) for name, (training, cases) in table.items()]
        runs.append(self._run("table", "mimic, training rows alone", _copies(0), _MIMIC, equal_steps=True))
        runs += [self._run("MUNGE", f"{n} copies", _copies(n), _MIMIC, 4_000 * (1 + n), equal_steps=True) for n in self.some(_COPIES)]
        runs += [self._run("rows", f"{n:,} rows", _rows(n), _MIMIC, n, equal_steps=True) for n in self.some(_ROWS)]
        runs += [self._run("width", f"H = {H:,}", _named("unlabelled"), _MIMIC, H, hidden=H) for H in self.some(_WIDTHS)]
        runs += [self._run("width, labels", f"H = {H:,}", _named("labels"), _REGULARISED, H, hidden=H) for H in self.some(_WIDTHS)]
        runs.append(self._run("loss", "squared error of probabilities", _probabilities, _MIMIC))
        runs += [
            self._run("loss", f"T = {T:g}", _named("unlabelled"), replace(_T3, temperature=T)) for T in (1.0, 10.0)
        ]  # T = 3 and squared error of logits are in the table
        runs += [self._run("dropout", f"p = {p}", _named("unlabelled"), replace(_MIMIC, dropout=p), p) for p in self.some(_DROPOUTS)]
        return runs

    def _run(
        self, part: str, name: str, make: Callable[[Setting], Cases], training: Training, value: float | None = None,
        hidden: int | None = None, equal_steps: bool = False,
    ) -> Run:  # fmt: skip
        """With `equal_steps` there are as many as 100,000 cases would have: for fewer cases more epochs, unless it is to be fast."""

        def train(setting: Setting) -> tuple[Trained, int]:
            cases = make(setting)
            share = _FULL_ROWS / len(cases) if equal_steps else 1.0
            return setting.train(cases, [self.shorter(training, min(share, 1.0) if self.fast else share)], hidden), len(cases)

        return Run(part, name, train, value)


def _named(name: str) -> Callable[[Setting], Cases]:
    return lambda setting: setting.cases(name)


def _copies(count: int) -> Callable[[Setting], Cases]:
    return lambda setting: setting.part(count)


def _rows(count: int) -> Callable[[Setting], Cases]:
    """So many rows, of which the first 100,000 are the set's own."""

    def make(setting: Setting) -> Cases:
        own = setting.unlabelled
        if count <= len(own.x):
            return TransferSet(own.x[:count], own.logits[:count])
        more, _ = mnist1d.rows(count - len(own.x), np.random.SeedSequence(setting.seeds.split, spawn_key=(99,)))
        new = setting.answers(more)
        return TransferSet(np.concatenate([own.x, new.x]), np.concatenate([own.logits, new.logits]))

    return make


def _chosen(setting: Setting) -> Cases:
    """MUNGE's cases with the classes that the teacher chooses."""
    return LabelledSet(setting.generated.x, setting.generated.logits.argmax(axis=1), setting.data.outputs)


def _probabilities(setting: Setting) -> Cases:
    x, logits = setting.unlabelled
    return TransferSet(x, np.exp(log_softmax(logits)))
