"""The table of docs/howto/compress.md: one mimic on UCI Letter, compressed in several ways.

python benchmarks/compress_letter.py DIR [SEED], DIR being the folder with letter-recognition.data
"""

import sys
import time
from dataclasses import replace

import numpy as np

from pymimic import compress
from pymimic.demo import datasets
from pymimic.demo.measure import accuracy_of, agreement_of, choices
from pymimic.demo.recipes import Munged, recipe
from pymimic.demo.setting import Seeds, Setting, Shape

WAYS = (
    {"bits": 8}, {"bits": 4}, {"prune": 0.5}, {"rank": 12},
    {"bits": 8, "transfer": True}, {"bits": 4, "transfer": True}, {"prune": 0.5, "transfer": True}, {"rank": 12, "transfer": True},
    {"bits": 8, "prune": 0.5, "transfer": True}, {"bits": 4, "prune": 0.5, "transfer": True},
    {"bits": 4, "prune": 0.5, "rank": 12, "transfer": True},
)  # fmt: skip
WIDTHS = (512, 192)  # of nets trained anew, for comparison


def main(folder, seed=0):
    """A line for each net, with tabs between its figures."""
    started, seeds = time.process_time(), Seeds.of(int(seed))
    how = replace(recipe("letter", fast=False), generate=Munged(12, 0.1, 5.0), folds=3)  # a third of the demo's cases
    setting = Setting(datasets.load("letter", folder, seeds.split), how, seeds, "cpu")
    cases, trainings, test = setting.cases("generated"), how.students["mimic"].trainings, setting.data.test
    whole = setting.train(cases, trainings).net
    first = choices(whole.logits, test, 1)[0]

    def show(title, net):
        chosen = choices(net.logits, test, 1)[0]
        accuracy, error = accuracy_of(chosen, test)
        shares = (f"{100 * share:.2f}" for share in (accuracy, error, agreement_of(chosen, first)))
        print(title, net.parameter_count, net.stored_nbytes, net.multiply_adds, *shares, sep="\t", flush=True)

    print(f"seed {seed}: {len(cases)} rows of {setting.fitted.title}, {len(test.x)} test rows")
    print("net", "parameters", "bytes", "multiply-adds", "accuracy %", "+-", "as the first net %", sep="\t")
    show("float32", whole)
    for way in WAYS:
        show(
            ", ".join(f"{name} {value}" for name, value in way.items()),
            compress(whole, **way | {"transfer": cases if "transfer" in way else None}),
        )
    for hidden in WIDTHS:
        show(f"H = {hidden}, trained anew", setting.train(cases, trainings, Shape(hidden)).net)
    print(f"{time.process_time() - started:.0f} processor seconds, numpy {np.__version__}")


if __name__ == "__main__":
    main(*sys.argv[1:])
