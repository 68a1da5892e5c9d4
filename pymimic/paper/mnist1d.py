"""MNIST-1D: labels, mimics and controls; equal parameters, how many cases, which loss, dropout (questions 1, 3, 4, 8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..backends.interface import Array
from ..data.cases import Cases, LabelledSet
from ..data.generators import Noise
from ..data.transfer import TransferSet
from ..demo import mnist1d
from ..demo.recipes import Recipe, recipe
from ..demo.setting import Setting, Shape
from ..demo.students import Training
from ..demo.teachers import ConvRecipe, DeepRecipe
from ..numerics import log_softmax
from ..training.convolution import Convolution
from .cases import copies_named, copies_of, named
from .experiment import Experiment, Run


def rolled(x: Array, rng: np.random.Generator) -> Array:
    """x (B, D), each row rolled by any number of samples: a curve's class does not depend on where it is."""
    shift = rng.integers(x.shape[1], size=(len(x), 1))
    return np.take_along_axis(x, (np.arange(x.shape[1]) - shift) % x.shape[1], axis=1)


_LABELS = Training("cross_entropy", 1e-2, 60, 256)
_NOISY = replace(_LABELS, learning_rate=2e-2, epochs=150, augment=Noise(0.2))
_REGULARISED = [replace(_NOISY, dropout=p) for p in (0.3, 0.5)]
_ROLLED = [replace(_LABELS, learning_rate=2e-2, epochs=300, augment=rolled, dropout=p) for p in (0.0, 0.2)]
_MIMIC = Training("mimic", 2e-2, 10, 256)
_HARD = replace(_MIMIC, loss="cross_entropy")
_T3 = replace(_MIMIC, loss="distillation", temperature=3.0)
_COPIES = (0, 1, 3, 8, 24)
_ROWS = (1_000, 4_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
_WIDTHS = (64, 256, 1024, 4096, 16384, 65536)
_WIDE_ENOUGH = 4096  # for all seeds
_DROPOUTS = (0.1, 0.3, 0.5)
_FULL_ROWS = 100_000
_WIDE = (Convolution(127, 5, 2, 2), Convolution(127, 3, 2, 1), Convolution(127, 3, 2, 1))
_DEEP = [DeepRecipe(hidden=(215, 215, 215), epochs=100, dropout=p, weight_decay=0.01, ema=0.99, augment=Noise(0.2)) for p in (0.1, 0.3)]


class MNIST1D(Experiment):
    """4,000 labelled rows of MNIST-1D; students 40-H-10, H = 2,048 but where it varies."""

    name = group = "mnist1d"
    title = "MNIST-1D"

    def recipe(self) -> Recipe:
        how = recipe(self.name, self.fast)
        return replace(how, teacher=self.kept(_nets(how)))

    def runs(self) -> Sequence[Run]:
        teacher = _nets(recipe(self.name, self.fast))
        table: dict[str, tuple[list[Training], Callable[[Setting], Cases]]] = {
            "labels": ([_LABELS], named("labels")),
            "labels, dropout and noise": (_REGULARISED, named("labels")),
            "labels, rows rolled at random": (_ROLLED, named("labels")),
            "mimic, MUNGE": ([_MIMIC], named("generated")),
            "T = 3, MUNGE": ([_T3], named("generated")),
            "teacher's choices, MUNGE": ([_HARD], _chosen),
            "mimic, unlabelled rows": ([_MIMIC], named("unlabelled")),
            "T = 3, unlabelled rows": ([_T3], named("unlabelled")),
            "teacher's choices": ([_HARD], named("teacher's choices")),
            "true labels": ([_HARD], named("true labels")),
        }
        runs = [self.student("table", name, cases, trainings) for name, (trainings, cases) in table.items()]
        runs.append(self.student("table", "mimic, training rows alone", copies_of(0), [_MIMIC], steps_of=_FULL_ROWS))
        runs.append(self.net("teachers", "one net", [teacher]))
        runs.append(self.net("teachers", "one net without dropout", [replace(teacher, dropout=0.0)]))
        runs.append(self.net("equal parameters", "convolutional net", [replace(teacher, convolutions=_WIDE)]))
        runs.append(self.net("equal parameters", "deep net without convolutions", _DEEP))
        for n in self.some(_COPIES):
            runs.append(self.student("MUNGE", copies_named(n), copies_of(n), [_MIMIC], 4_000 * (1 + n), steps_of=_FULL_ROWS))
        runs += [self.student("rows", f"{n:,} rows", _rows(n), [_MIMIC], n, steps_of=_FULL_ROWS) for n in self.some(_ROWS)]
        for H in self.some(_WIDTHS):
            mimic = self.student("width", f"H = {H:,}", named("unlabelled"), [_MIMIC], H, Shape(H))
            on_labels = self.student("width, labels", f"H = {H:,}", named("labels"), _REGULARISED[:1], H, Shape(H))
            runs += [replace(run, seeds=1 if H > _WIDE_ENOUGH else None) for run in (mimic, on_labels)]
        runs.append(self.student("loss", "squared error of probabilities", _probabilities, [_MIMIC]))
        for T in (1.0, 10.0):  # T = 3 and squared error of logits are in the table
            runs.append(self.student("loss", f"T = {T:g}", named("unlabelled"), [replace(_T3, temperature=T)]))
        for p in self.some(_DROPOUTS):
            runs.append(self.student("dropout", f"p = {p}", named("unlabelled"), [replace(_MIMIC, dropout=p)], p))
        return runs


def _nets(how: Recipe) -> ConvRecipe:
    assert isinstance(how.teacher, ConvRecipe)
    return how.teacher


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
