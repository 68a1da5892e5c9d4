"""Accuracy against bytes of a shallow net and of a deep one, both made smaller (question 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ..data.cases import Cases
from ..demo.setting import Setting, Shape
from ..demo.students import Trained, Training
from ..demo.teachers import NetsRecipe
from ..devices import to
from ..nets.integers import integers, matrices
from ..nets.net import AnyNet
from ..nets.student import Student
from ..training.compress import compress
from . import letter, mnist
from .experiment import Experiment, Run

_EPOCHS = 3  # of training after units or ranks are gone
_HOWS: dict[str, dict[str, Any]] = {
    "8 bits": {"bits": 8},
    "4 bits": {"bits": 4},
    "1/2 of the units": {"prune": 0.5},
    "1/4 of the units": {"prune": 0.75},
    "1/2 of the units, 8 bits": {"prune": 0.5, "bits": 8},
    "1/2 of the units, 4 bits": {"prune": 0.5, "bits": 4},
    "1/4 of the units, 4 bits": {"prune": 0.75, "bits": 4},
}


class Compress(Experiment):
    """A student by all that `pymimic.compress` does; both nets by rounding alone, which needs no data."""

    group, needs_files = "compress", True
    notes = ("A net made smaller has the processor time of the net that it is made of.",)
    training: Training  # of the student
    shape: Shape
    rank: int  # that the student is brought to
    deep: NetsRecipe

    def cases(self, setting: Setting) -> Cases:
        """What the student is trained on, and again when it is smaller."""
        return setting.cases("generated")

    def runs(self) -> Sequence[Run]:
        cases = lru_cache(1)(self.cases)
        student = lru_cache(1)(lambda setting: setting.train(cases(setting), [self.shorter(self.training)], self.shape))
        deep = lru_cache(1)(lambda setting: self.alone(self.deep, setting))
        hows = _HOWS | {f"rank {self.rank}": {"rank": self.rank}, f"rank {self.rank}, 4 bits": {"rank": self.rank, "bits": 4}}
        runs = [self._run("student: as trained", student, cases)]
        runs += [self._run(f"student: {name}", self._smaller(student, cases, how), cases) for name, how in hows.items()]
        for what, made in (("student, rounded alone", student), ("deep net, rounded alone", deep)):
            runs += [self._run(f"{what}: {bits} bits", _rounded(made, bits), cases) for bits in (8, 4)]
        return [*runs, self._run("deep net, rounded alone: as trained", deep, cases)]

    def _run(self, name: str, make: Callable[[Setting], Trained[Any]], cases: Callable[[Setting], Cases]) -> Run:
        return Run("bytes", name, lambda setting: (make(setting), len(cases(setting))), "bytes")

    def _smaller(
        self, student: Callable[[Setting], Trained[Student]], cases: Callable[[Setting], Cases], how: dict[str, Any]
    ) -> Callable[[Setting], Trained[Student]]:
        def make(setting: Setting) -> Trained[Student]:
            small = compress(
                student(setting).net, transfer=cases(setting), epochs=_EPOCHS, seed=setting.seeds.student, progress=False, **how
            )
            return _as(student(setting), small, setting)

        return make


def _rounded(made: Callable[[Setting], Trained[AnyNet]], bits: int) -> Callable[[Setting], Trained[AnyNet]]:
    """To the nearest integers times a scale a row, whatever the inputs are."""

    def make(setting: Setting) -> Trained[AnyNet]:
        trained = made(setting)
        net = trained.net.as_it_is()
        net.set_integers(bits, **{name: integers(to("cpu", net.weights()[name]), bits) for name in matrices(net.shapes)})
        return _as(trained, net, setting)

    return make


def _as(trained: Trained[AnyNet], net: AnyNet, setting: Setting) -> Trained[AnyNet]:
    """Another net in the place of that which was trained."""
    return replace(trained, net=net, validation_accuracy=net.score(*setting.data.validation))


class CompressLetter(Compress, letter.Letter):
    """Of UCI Letter."""

    name, title, source, group = "compress-letter", "UCI Letter, made smaller", "letter", "compress"
    training, shape, rank, deep = letter._T3, Shape(1024), 12, letter._DEEP


class CompressMNIST(Compress, mnist.MNIST):
    """Of MNIST."""

    name, title, source, group, seeds = "compress-mnist", "MNIST, made smaller", "mnist", "compress", 1
    training, shape, rank, deep = mnist._SMALL_MIMIC, mnist._SMALL, 32, mnist._DEEPNET
    cases = mnist.MNIST.cases
