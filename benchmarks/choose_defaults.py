"""How good a mimic gets by learning rate, beta2 and running average: what the defaults were chosen by.

    python benchmarks/choose_defaults.py --path DIR

DIR has folders `letter` and `mnist` with the publishers' files. Writes benchmarks/results/defaults/adamw.json, which `make_tables.py` puts
into docs/howto/choose.md. Accuracy is on validation rows; test rows are not looked at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from pymimic.data.cases import Cases
from pymimic.demo import datasets
from pymimic.demo.recipes import Deformed, Munged, recipe
from pymimic.demo.setting import Seeds, Setting, Shape
from pymimic.demo.students import Training

RESULT = Path(__file__).parent / "results" / "defaults" / "adamw.json"
RATES = (1e-3, 3e-3, 5e-3, 1e-2, 2e-2)
WAYS = ((0.999, None), (0.99, None), (0.99, 0.99))  # beta2 and the running average's decay


def sets(path: Path) -> Iterator[tuple[str, Setting, Cases, Training, Shape]]:
    """The three, with small teachers: their students learn from the same cases whatever the rate."""
    seeds = Seeds.of(0)
    how = recipe("mnist1d", fast=False)
    setting = Setting(datasets.load("mnist1d", None, seeds.split), how, seeds, "cpu")
    yield "MNIST-1D", setting, setting.cases("unlabelled"), Training("mimic", 0, 7, 256), Shape(2048)
    how = replace(recipe("letter", fast=True), generate=Munged(10, 0.2, 5.0), folds=0)
    setting = Setting(datasets.load("letter", path / "letter", seeds.split), how, seeds, "cpu")
    yield "UCI Letter", setting, setting.cases("generated"), Training("mimic", 0, 30, 256), Shape(1024)
    how = replace(recipe("mnist", fast=True), generate=Deformed(3))
    setting = Setting(datasets.load("mnist", path / "mnist", seeds.split), how, seeds, "cpu")
    yield "MNIST", setting, setting.cases("generated"), Training("mimic", 0, 4, 512), Shape(2048, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, required=True, help="folder with letter and mnist")
    results: list[dict[str, Any]] = []
    for name, setting, cases, training, shape in sets(parser.parse_args().path):
        for rate, (beta2, ema) in product(RATES, WAYS):
            trained = setting.train(cases, [replace(training, learning_rate=rate, beta2=beta2, ema=ema)], shape)
            found = {"set": name, "rows": len(cases), "epochs": training.epochs, "batch_size": training.batch_size, "shape": shape[:2]}
            results.append(found | {"learning_rate": rate, "beta2": beta2, "ema": ema, "validation_accuracy": trained.validation_accuracy})
            print(f"{name}: {rate:g}, beta2 {beta2}, average {ema}: {100 * trained.validation_accuracy:.2f} %", flush=True)
            RESULT.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
