"""Teachers that are trained once: an experiment that goes on, or opens its test rows, reads them from files."""

from __future__ import annotations

import hashlib
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..data.locks import Lock
from ..data.teacher import Ensemble
from ..demo.datasets import Dataset, Rows
from ..demo.measure import Size
from ..demo.teachers import FittedTeacher, SeveralNets, TeacherRecipe
from ..errors import FileFormatError
from ..nets.net import Net


@dataclass(frozen=True)
class Kept(TeacherRecipe):
    """Nets of a recipe, each kept as soon as it is trained, in a folder by recipe, seed and training rows."""

    recipe: SeveralNets
    folder: Path

    @property
    def title(self) -> str:
        return self.recipe.title

    def demand_packages(self) -> None:
        self.recipe.demand_packages()

    def _keep(self, net: Net, path: Path) -> None:
        """Write the net, unless another process, of an experiment on the same set, has written its own meanwhile: all read the first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with closing(Lock(self.folder)) as lock:
            lock.take(wait=True)
            if not path.exists():
                net.save(path)

    def __call__(self, data: Dataset, train: Rows, seed: int, device: str = "cpu") -> FittedTeacher:
        started = time.perf_counter()
        digest = hashlib.sha256(repr((self.recipe, seed, train.x.shape)).encode())
        for array in train:
            digest.update(array.tobytes())
        nets = []
        for i, own in enumerate(self.recipe.seeds(seed)):
            path = self.folder / f"{digest.hexdigest()[:16]}-{i}.safetensors"
            if not path.exists():
                self._keep(self.recipe.fit_one(data, train, own, device), path)
            net = self.recipe.kind.load(path).to(device)
            if (net.inputs, net.outputs) != (data.inputs, data.outputs):
                got, expected = (f"{one.inputs} inputs and {one.outputs} outputs" for one in (net, data))
                raise FileFormatError(f"out: {str(path)!r}: expected a net of {expected}, got {got}")
            nets.append(net)
        return FittedTeacher(self.title, Ensemble(nets), Size.of(*nets), time.perf_counter() - started, [])


@dataclass(frozen=True)
class Together(TeacherRecipe):
    """Teachers of several recipes, whose logits are averaged."""

    recipes: tuple[TeacherRecipe, ...]

    @property
    def title(self) -> str:
        return " and ".join(recipe.title for recipe in self.recipes)

    def demand_packages(self) -> None:
        for recipe in self.recipes:
            recipe.demand_packages()

    def __call__(self, data: Dataset, train: Rows, seed: int, device: str = "cpu") -> FittedTeacher:
        started = time.perf_counter()
        fitted = [recipe(data, train, seed, device) for recipe in self.recipes]
        size = Size(None, None, sum(one.size.bytes for one in fitted), sum(one.size.file_bytes for one in fitted))
        return FittedTeacher(self.title, Ensemble([one.teacher for one in fitted]), size, time.perf_counter() - started, [])
