"""Build, test and measure on a machine with a GPU, without a network: `python benchmarks/gpu_session.py --out DIR --call A`.

    --call A         at most 330 s: build, try each kernel once, accuracy, rates, ceilings, a profile, memcheck
    --call B         at most 420 s, on the same machine: steps beside torch.compile, and whether runs repeat bit for bit
    --call rest      all that these leave out, as often as there is time
    --task REGEX     of the call's tasks those with such names, after the build and the first try
    --budget SECONDS instead of the call's own
    --again          forget what DIR knows of these tasks, and what hung
    --data FOLDER    with MNIST's four files, to train on; else a generated set

DIR gets session.json, session.txt and session.log. Each task's record is printed as a line of JSON when it ends, a table at the end.
What failed or did not fit is done by the same call with the same DIR. Where the build or the first try fails, nothing else is run; a kind
of call that hangs is left out from then on. The exit status is 0 if all that was asked for is there and right, else 1; 2 without a GPU.
"""

from __future__ import annotations

import argparse
import re
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from gpu import build, tasks
from gpu.driver import compute_capability
from gpu.session import ROOT, Session
from gpu.table import table

MNIST = [folder / "shared" / "data" / "mnist" for folder in (ROOT, ROOT.parent)]


def main(words: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--call", choices=tasks.BUDGETS, required=True)
    parser.add_argument("--task", type=re.compile, default=re.compile(""), metavar="REGEX")
    parser.add_argument("--budget", type=float, metavar="SECONDS")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    given = parser.parse_args(words)
    if compute_capability() is None:
        print("no GPU on this machine (libcuda.so.1 finds none): nothing was run", file=sys.stderr)
        return 2
    session = Session(given.out, build.identity())
    folder = given.data or next((folder for folder in MNIST if folder.is_dir()), None)
    plans = {call: tasks.plan(call, given.out, None if folder is None else str(folder.resolve())) for call in tasks.BUDGETS}
    chosen = [task for task in plans[given.call] if task.gate or given.task.search(task.name)]
    if given.again:
        session.forget(chosen)
    session.records.pop("build", None)  # it is quick where nothing changed
    stopped_by = session.run(chosen, given.budget or tasks.BUDGETS[given.call], partial(print, flush=True))
    left = {call: [task.name for task in session.missing(plan) if not task.gate] for call, plan in plans.items()}
    groups = {call: [*dict.fromkeys(name.split(",")[0] for name in names)] for call, names in left.items()}
    text = table(session.state, groups | {given.call: left[given.call]})
    (given.out / "session.txt").write_text(text)
    print(text)
    if stopped_by:
        print(f"{stopped_by.name} failed: nothing after it was run", file=sys.stderr)
    return 1 if session.missing(chosen) or session.wrong(chosen) or session.left_out(chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
