"""UCI Letter with 4,000 labelled rows: how small a student can get, and what generated cases give (questions 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..data.cases import Cases
from ..demo import datasets
from ..demo.recipes import recipe
from ..demo.setting import Seeds, Setting
from ..demo.students import Trained, Training
from .experiment import Experiment, Run

_LABELS = Training("cross_entropy", 1e-2, 100, 128, beta2=0.999, ema=None)
_MIMIC = Training("mimic", 1.4e-2, 40, 256, beta2=0.999, ema=None)
_REGULARISED = [
    replace(_LABELS, dropout=0.3), replace(_LABELS, dropout=0.5), replace(_LABELS, weight_decay=0.1), replace(_LABELS, noise=0.03),
]  # fmt: skip
_WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Letter(Experiment):
    """Students 16-H-26."""

    name, title = "letter", "UCI Letter"

    def demand(self) -> None:
        recipe(self.name, self.fast).teacher.demand_packages()
        datasets.load(self.name, self.path, 0)

    def setting(self, seed: int) -> Setting:
        seeds = Seeds.of(seed)
        how = recipe(self.name, self.fast)
        return Setting(self.fewer(datasets.load(self.name, self.path, seeds.split)), how, seeds, self.device)

    def runs(self) -> Sequence[Run]:
        runs = []
        for H in self.some(_WIDTHS):
            runs.append(self._run("width, mimic", f"H = {H:,}", lambda setting: setting.cases("generated"), [_MIMIC], H))
            runs.append(self._run("width, labels", f"H = {H:,}", lambda setting: setting.cases("labels"), _REGULARISED, H))
        return runs

    def _run(
        self, part: str, name: str, make: Callable[[Setting], Cases], trainings: Sequence[Training], hidden: int
    ) -> Run:  # fmt: skip
        def train(setting: Setting) -> tuple[Trained, int]:
            cases = make(setting)
            return setting.train(cases, [self.shorter(training) for training in trainings], hidden), len(cases)

        return Run(part, name, train, hidden)
