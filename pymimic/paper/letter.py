"""UCI Letter with 4,000 labelled rows: how small a student can get, and what generated cases give (questions 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..data.cases import Cases, LabelledSet
from ..data.folds import out_of_fold
from ..data.generators import Noise
from ..data.transfer import TransferSet
from ..demo.recipes import Munged, Recipe
from ..demo.setting import Setting, Shape
from ..demo.students import Training
from ..demo.teachers import DeepRecipe, ForestRecipe
from ..numerics import less_row_means
from .cases import copies_named, copies_of, named
from .experiment import Experiment, Run
from .teachers import Together

_LABELS = Training("cross_entropy", 1e-2, 200, 128)
_MIMIC = Training("mimic", 1.4e-2, 20, 256)
_T3 = replace(_MIMIC, loss="distillation", temperature=3.0)
_NOISE = Noise(0.03)
_REGULARISED = [replace(_LABELS, dropout=p, augment=_NOISE) for p in (0.0, 0.2, 0.4)] + [replace(_LABELS, weight_decay=0.1, dropout=0.2)]
_WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
_COPIES = (0, 1, 3, 10, 30)
_MUNGES = ((0.1, 5.0), (0.2, 1.0), (0.2, 5.0), (0.2, 20.0), (0.5, 5.0))
_SWEEP = 10  # copies, where p and s vary
_DEEP = DeepRecipe(
    hidden=(512, 512), epochs=120, nets=4, learning_rate=2e-3, weight_decay=0.01, beta2=0.99, ema=0.99, dropout=0.3, augment=_NOISE
)


class Letter(Experiment):
    """Students 16-H-26, H = 1,024 but where it varies."""

    name = group = "letter"
    title, needs_files = "UCI Letter", True

    def recipe(self) -> Recipe:
        deep, trees = (replace(_DEEP, nets=1), 20) if self.fast else (_DEEP, 500)
        copies = 2 if self.fast else _COPIES[-1]
        return Recipe(1024, None, Together((self.kept(deep), ForestRecipe(trees))), Munged(copies, 0.2, 5.0))

    def runs(self) -> Sequence[Run]:
        rows = 4_000 * (1 + _COPIES[-1])  # of which 20 epochs are trained
        runs = [
            self.net("teachers", "one deep net", [_DEEP]),
            self.net("teachers", "one deep net without dropout", [replace(_DEEP, dropout=0.0)]),
            self.net("teachers", "one deep net without noise", [replace(_DEEP, augment=None)]),
        ]
        for H in self.some(_WIDTHS):
            runs.append(self.student("width, mimic", f"H = {H:,}", named("generated"), [_MIMIC, _T3], H, Shape(H)))
            runs.append(self.student("width, labels", f"H = {H:,}", named("labels"), _REGULARISED, H, Shape(H)))
        for n in self.some(_COPIES):
            runs.append(self.student("MUNGE, copies", copies_named(n), copies_of(n), [_MIMIC], 4_000 * (1 + n), steps_of=rows))
        for p, s in self.some(_MUNGES):
            runs.append(self.student("MUNGE, p and s", f"p = {p:g}, s = {s:g}", _munged(p, s), [_MIMIC], steps_of=rows))
        cases = {
            "MUNGE, own rows labelled out of fold": _out_of_fold,
            "labelled and unlabelled rows": _unlabelled,
            "as many by MUNGE": _as_many,
            "all of these": _everything,
            "control: true labels of labelled and unlabelled rows": _true_labels,
        }
        for name, make in cases.items():
            how = replace(_MIMIC, loss="cross_entropy") if name.startswith("control") else _MIMIC
            runs.append(self.student("cases", name, make, [how], steps_of=rows))
        return runs


def _munged(p: float, s: float) -> Callable[[Setting], Cases]:
    def make(setting: Setting) -> Cases:
        x = setting.data.train.x
        return TransferSet(*setting.answers(np.concatenate([x, *Munged(_SWEEP, p, s)(x, setting.seeds.cases)])))

    return make


def _out_of_fold(setting: Setting) -> Cases:
    """The generated cases, but the labelled rows' logits are those of teachers that have not seen them."""
    (x, logits), train = setting.generated, setting.data.train
    own = out_of_fold(setting.fit, *train, 3, setting.seeds.folds)
    return TransferSet(x, np.concatenate([less_row_means(own), logits[len(own) :]]))


def _unlabelled(setting: Setting) -> Cases:
    return TransferSet(*setting.answers(np.concatenate([setting.data.train.x, setting.data.unlabelled.x])))


def _as_many(setting: Setting) -> Cases:
    count = len(setting.data.train.x) + len(setting.data.unlabelled.x)
    return TransferSet(setting.generated.x[:count], setting.generated.logits[:count])


def _everything(setting: Setting) -> Cases:
    """The cases that the others choose from, and the unlabelled rows."""
    return TransferSet(*(np.concatenate(arrays) for arrays in zip(setting.generated, setting.unlabelled)))


def _true_labels(setting: Setting) -> Cases:
    train, more = setting.data.train, setting.data.unlabelled
    return LabelledSet(np.concatenate([train.x, more.x]), np.concatenate([train.labels, more.labels]), setting.data.outputs)
