"""Kills a process at random moments of its work, again and again: `python kills.py SCENARIO KILLS SEED`.

It imports everything once, and forks a child for each try. A killed child's work is gone on with by the next, and the end is compared with
work that nobody stopped. It prints one JSON object: `kills`, `runs` that came to their end in spite of them, and `problems`, lines.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from fault_scenarios import labelling, training
from forks import Fork, in_child

from pymimic.data.manifest import MANIFEST, read_manifest
from pymimic.files import read_safetensors

LONGER = 1.1  # than the work takes: a share of the kills come too late, so that runs end


def steps(folder):
    """Of the checkpoint; -1 where there is none."""
    return read_safetensors(folder / "run", "checkpoint")[1]["counters"]["step"] if (folder / "run").exists() else -1


def shards(folder):
    """That the manifest vouches for; -1 where there is none."""
    return read_manifest(folder / "set").shards if (folder / "set" / MANIFEST).exists() else -1


WORK = {
    "train": (training(every=1, threads=2, hidden=600), steps),
    "label": (labelling(), shards),
    "label compressed": (labelling(compress=True, logits_dtype="float16"), shards),
}


def look(scenario, progress, folder, reached, killed):
    """(what is reached now, what is wrong)."""
    try:
        problems, now = scenario.look(folder), progress(folder)
    except Exception:
        return reached, [f"lost: {traceback.format_exc()}"]
    if now < reached:
        problems.append(f"lost: {reached} steps or shards were there, {now} are")
    return now, [problem for problem in problems if not (killed and problem.endswith("is left there"))]  # the next run removes it


def run(name, kills, seed, folder):
    (scenario, progress), chance = WORK[name], random.Random(seed)
    start, folder, done, runs, found = folder / "start", folder / "work", 0, 0, []

    def work():
        return scenario.work(folder), scenario.files(folder)

    start.mkdir()
    in_child(lambda: scenario.prepare(start))
    shutil.copytree(start, folder)
    began = time.perf_counter()
    reference = in_child(work)
    longest = LONGER * (time.perf_counter() - began)
    while done < kills:
        shutil.rmtree(folder)
        shutil.copytree(start, folder)
        killed, reached = True, -1
        while killed:
            fork = Fork(work)
            killed = not fork.ends_within(chance.uniform(0, longest))
            if killed:
                fork.kill()
                done += 1
            elif fork.result() != reference:
                found.append(f"after {done} kills: other bits than those of work that nobody stopped")
            reached, problems = look(scenario, progress, folder, reached, killed)
            found += [f"after {done} kills: {problem}" for problem in problems]
        runs += 1
    return {"kills": done, "runs": runs, "problems": found}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(folder).resolve())))
