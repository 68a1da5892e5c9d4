"""CIFAR-10, the paper's second field: convolutional teachers, and shallow nets with and without one convolution in front (question 1)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ..data.cases import Cases, LabelledSet
from ..data.teacher import Ensemble
from ..demo.datasets import Dataset, Rows
from ..demo.recipes import Recipe
from ..demo.setting import Setting
from ..demo.students import Trained, Training
from ..demo.teachers import SeveralNets
from .cases import copies_in, named
from .cifar10_images import OUTPUTS, SHAPE, cifar10
from .crop import Crop
from .experiment import Experiment, Run
from .teachers import Kept
from .torch_net import TorchNet, demand_torch


@dataclass(frozen=True)
class Scale:
    """What the reduced experiment and the full one differ in.

    Attributes
    ----------
    labelled : images with labels; the other training images have none
    widths, stride : of the teachers' layers, and of the first
    teaching : how one of the four is trained
    front : filters, their side and stride, and the pooling behind them
    hidden, rank : H and k
    copies : of all images, which the teachers label
    images : so many a student sees for each epoch of its training
    batch_size : of the students
    """

    labelled: int
    widths: tuple[int, int, int, int]
    stride: int
    teaching: Training
    front: dict[str, int]
    hidden: int
    rank: int
    copies: int
    images: int
    batch_size: int


_CROP = Crop()  # keeps classes
_CASES = Crop(mixup=0.3)  # only a teacher can label these
_TEACHING = Training("cross_entropy", 4e-3, 60, 128, weight_decay=0.05, beta2=0.999, augment=_CROP)
_REDUCED = Scale(4_000, (32, 48, 96, 192), 2, _TEACHING, {"filters": 64, "kernel": 6, "stride": 2, "pool": 2}, 4000, 200, 4, 180_000, 256)
_FULL = Scale(
    45_000, (64, 128, 256, 512), 1, _TEACHING, {"filters": 128, "kernel": 6, "stride": 1, "pool": 4}, 30_000, 1200,
    40, 6_000_000, 512,
)  # fmt: skip
_FAST = replace(_REDUCED, widths=(4, 8, 8, 8), hidden=64, rank=16, front={**_REDUCED.front, "filters": 8}, copies=1, images=2_000)
_NETS = 4
_NO_FRONT = {"filters": 0, "kernel": 1, "stride": 1, "pool": 1}
_PLAIN = Training("cross_entropy", 1e-3, 1, 256)
_REGULARISED = replace(_PLAIN, epochs=3, dropout=0.5, weight_decay=0.1, augment=_CROP)
_FLIP = Crop(shift=0)
_MIMIC = Training("mimic", 2.5e-3, 3, 256, augment=_FLIP)
_T3 = replace(_MIMIC, loss="distillation", temperature=3.0)


@dataclass(frozen=True)
class ConvnetsOfTorch(SeveralNets):
    """Convolutional nets with dropout."""

    widths: tuple[int, int, int, int]
    stride: int
    how: Training
    nets: int
    dropout: float = 0.3
    noun, kind = "convolutional net", TorchNet

    def demand_packages(self) -> None:
        demand_torch()

    def fit_one(self, data: Dataset, train: Rows, seed: int, device: str = "cpu") -> TorchNet:
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = TorchNet("deep", SHAPE, OUTPUTS, widths=list(self.widths), stride=self.stride, dropout=self.dropout)
        net.fit(LabelledSet(*train, data.outputs), self.how, seed, device)
        return net


class CIFAR10(Experiment):
    """Reduced, for the CPU: 4,000 labelled images, and students of k = 200, H = 4,000 and 64 filters."""

    name = group = "cifar10"
    title, seeds, needs_files, devices = "CIFAR-10 (JPEG), reduced", 1, True, ("cpu",)
    sizes = _REDUCED

    @property
    def source(self) -> str:
        """The name of the set."""
        return self.group

    @property
    def scale(self) -> Scale:
        """Its sizes, or small ones if it is to be fast."""
        return _FAST if self.fast else self.sizes

    def data(self, seed: int) -> Dataset:
        """Alike for all seeds."""
        return cifar10(self.path, self.scale.labelled)

    def recipe(self) -> Recipe:
        scale = self.scale
        nets = ConvnetsOfTorch(scale.widths, scale.stride, self.shorter(scale.teaching), _NETS)
        return Recipe(scale.hidden, scale.rank, Kept(nets, self.folder / "nets" / f"{self._file}-teachers"))

    def runs(self) -> Sequence[Run]:
        cases, labels = lru_cache(1)(self.cases), named("labels")
        runs = [Run("teachers", "one of the four nets", _first_net)]
        for part, front in (("with a convolution", self.scale.front), ("without convolution", _NO_FRONT)):
            for name, make, how in (
                ("labels", labels, _PLAIN),
                ("labels, regularised", labels, _REGULARISED),
                ("mimic", cases, _MIMIC),
                ("T = 3", cases, _T3),
            ):
                runs.append(Run(part, name, self._shallow(make, how, front)))
        return runs

    def cases(self, setting: Setting) -> Cases:
        """Flips, crops and mixtures of all training images, labelled once, in a folder: images as bytes, logits as float16."""
        x = np.concatenate([setting.data.train.x, setting.data.unlabelled.x])
        folder = self.folder / "cases" / f"{self._file}-{setting.seeds.split}"
        return copies_in(folder, setting.fitted.teacher, _CASES, x, self.scale.copies, setting.seeds.cases)

    def _shallow(self, make: Any, how: Training, front: dict[str, int]) -> Any:
        def train(setting: Setting) -> tuple[Trained[TorchNet], int]:
            cases, scale = make(setting), self.scale
            epochs = max(1, round(how.epochs * scale.images / len(cases)))
            started, cpu_started = time.perf_counter(), time.process_time()
            settings = {**front, "rank": scale.rank, "hidden": scale.hidden, "dropout": how.dropout, "seed": setting.seeds.student}
            net = TorchNet("shallow", SHAPE, OUTPUTS, **settings)
            net.fit(cases, replace(how, epochs=epochs, batch_size=scale.batch_size), setting.seeds.student, setting.device)
            seconds = time.perf_counter() - started, time.process_time() - cpu_started
            return Trained(net, [], net.score(*setting.data.validation), *seconds), len(cases)

        return train


class CIFAR10Full(CIFAR10):
    """Of the paper's size, for a GPU: 45,000 labelled images, and students of k = 1,200, H = 30,000 and 128 filters."""

    name, title, devices, sizes = "cifar10-full", "CIFAR-10 (JPEG), full", ("cuda",), _FULL


def _first_net(setting: Setting) -> tuple[Trained[TorchNet], int]:
    """It was trained with the teacher, whose seconds are beside it."""
    teacher = setting.fitted.teacher
    assert isinstance(teacher, Ensemble)
    net = teacher.members[0]
    assert isinstance(net, TorchNet)
    return Trained(net, [], net.score(*setting.data.validation), 0.0, 0.0), len(setting.data.train.x)
