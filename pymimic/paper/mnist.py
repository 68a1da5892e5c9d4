"""MNIST: what a bottleneck costs and gives, deformed images as cases, what hidden units have learnt (questions 2 and 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from ..backends.interface import Array
from ..data.cases import Cases
from ..data.images import Deform
from ..demo.recipes import Recipe, recipe
from ..demo.setting import Setting, Shape
from ..demo.students import Training
from ..demo.teachers import ConvRecipe, DeepRecipe
from ..nets.student import Student
from ..training.convolution import Convolution
from .cases import copies_in, named
from .experiment import Experiment, Run
from .ledger import Ledger

_DEFORM = Deform(28, thicken=0.2)  # keeps classes
_CASES = Deform(28, thicken=0.2, blend=0.1, stitch=0.1)  # only a teacher can label these
_COPIES = 40  # of 50,000 images
_CONVNET = ConvRecipe(
    convolutions=(Convolution(32, 5, 2, 2), Convolution(64, 3, 2, 1), Convolution(128, 3, 1, 1)),
    epochs=20, nets=2, batch_size=128, learning_rate=2e-3, weight_decay=0.01, ema=0.995, augment=_DEFORM,
)  # fmt: skip
_DEEPNET = DeepRecipe(
    hidden=(1200, 1200), epochs=40, batch_size=256, learning_rate=1e-3, dropout=0.3, input_dropout=0.1, ema=0.995, augment=_DEFORM
)
_LARGE, _SMALL = Shape(8192, 128), Shape(2048, 64)
_MIMIC = Training("mimic", 3e-3, 2, 512, ema=0.995)  # of two million cases
_SMALL_MIMIC = replace(_MIMIC, learning_rate=5e-3)
_SOFT: dict[str, Any] = {"loss": "distillation", "temperature": 3.0}
_PLAIN = Training("cross_entropy", 1e-3, 20, 512, ema=0.995)
_REGULARISED = [replace(_PLAIN, dropout=0.5), replace(_PLAIN, weight_decay=0.1, dropout=0.2)]
_DEFORMED = replace(_MIMIC, loss="cross_entropy", epochs=80, augment=_DEFORM)  # as many as the mimic sees
_RANKS = (8, 16, 32, 64, 128, 256, None)


class MNIST(Experiment):
    """Students 784-k-H-10 with V from PCA, on 50,000 images; mimics on two million deformed, blended and stitched ones."""

    name = group = "mnist"
    title, seeds, needs_files = "MNIST", 3, True

    def recipe(self) -> Recipe:
        return replace(recipe(self.source, self.fast), teacher=self.kept(_CONVNET), hidden=_LARGE.hidden, rank=_LARGE.rank)

    def runs(self) -> Sequence[Run]:
        cases = lru_cache(1)(self.cases)
        labels = named("labels")
        runs = [
            self.student("table", "labels", labels, [_PLAIN]),
            self.student("table", "labels, dropout and weight decay", labels, _REGULARISED),
            self.student("table", "labels, deformed images", labels, [_DEFORMED]),
            self.student("table", "mimic, deformed images", cases, [_MIMIC]),
            self.student("table", "T = 3, deformed images", cases, [replace(_MIMIC, **_SOFT)]),
            self.student("table, small", "labels, deformed images", labels, [replace(_DEFORMED, learning_rate=5e-3)], shape=_SMALL),
            self.student("table, small", "T = 3, deformed images", cases, [replace(_SMALL_MIMIC, **_SOFT)], shape=_SMALL),
        ]
        once = [
            self.student("table, small", "mimic, V random", cases, [_SMALL_MIMIC], shape=_SMALL._replace(whitened=False)),
            self.net("teachers", "one convolutional net", [_CONVNET]),
            self.net("teachers", "one convolutional net without dropout", [replace(_CONVNET, dropout=0.0)]),
            self.net("teachers", "one convolutional net without deformations", [replace(_CONVNET, augment=None)]),
            self.net("teachers", "deep net", [_DEEPNET]),
            self.net("teachers", "deep net without dropout", [replace(_DEEPNET, dropout=0.0, input_dropout=0.0)]),
        ]
        for k in self.some(_RANKS):
            name = "no bottleneck" if k is None else f"k = {k}"
            (runs if k == _SMALL.rank else once).append(self.student("rank", name, cases, [_SMALL_MIMIC], k, Shape(_SMALL.hidden, k)))
        return runs + [replace(run, seeds=1) for run in once]

    def images(self, ledger: Ledger) -> dict[str, Array]:
        """The first rows of V, and of U V those of the units that weigh most in the answers."""
        for line in ledger.lines:
            if (line["part"], line["name"]) == ("table", "mimic, deformed images") and ledger.keeps(line):
                net = ledger.net(line)
                assert isinstance(net, Student)
                a = net.arrays()
                units = np.argsort(-np.linalg.norm(a["U"] @ a["V"], axis=1) * np.linalg.norm(a["W"], axis=1))[:64]
                return {"V": a["V"][:64].reshape(-1, 28, 28), "U V": (a["U"][units] @ a["V"]).reshape(-1, 28, 28)}
        return {}

    def cases(self, setting: Setting) -> Cases:
        """Labelled once, in a folder: images as bytes, logits as float16."""
        folder = self.folder / "cases" / f"{self.stem}-{setting.seeds.split}"
        count = 2 if self.fast else _COPIES
        return copies_in(folder, setting.fitted.teacher, _CASES, setting.data.train.x, count, setting.seeds.cases)
