"""Build, test and measure on a machine with a GPU, without a network: `python benchmarks/gpu_session.py --out DIR`.

    --only build,test,bench,train   some of the parts; each ends within nine minutes
    --again                         forget what DIR knows of these parts
    --budget SECONDS                for each part; what does not fit is done by the next call
    --data FOLDER                   with MNIST's four files, to train on; else a generated set
    --dry-run                       without a GPU: the build, apart from the package, and a table of made-up figures

DIR gets session.json, session.txt and session.log. A part that was interrupted goes on where it stopped: give the same DIR.
The exit status is 0 if all is there and right, 1 if a task failed, is left or found something wrong, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from gpu import tasks, tools
from gpu.session import ROOT, Session
from gpu.table import table

MNIST = [folder / "shared" / "data" / "mnist" for folder in (ROOT, ROOT.parent)]
EXAMPLE = Path(__file__).parent / "gpu" / "example.json"


def gpu_count() -> int:
    """As the driver says; 0 without one."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def dry_run(folder: Path, budget: float) -> int:
    """What needs no device."""
    session = Session(folder, "dry-run")
    session.forget("build")
    done = session.run("build", tasks.build(in_place=False), budget)
    (folder / "dry-run.txt").write_text(table(session.state) + "\nMade-up figures:\n\n" + table(json.loads(EXAMPLE.read_text())))
    print((folder / "dry-run.txt").read_text())
    return 0 if done else 1


def main(words: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--only", default=",".join(tasks.PARTS), metavar="PARTS")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--budget", type=float, default=510.0, metavar="SECONDS")
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args(words)
    parts = given.only.split(",")
    if unknown := set(parts) - set(tasks.PARTS):
        parser.error(f"--only: expected some of {', '.join(tasks.PARTS)}, got {', '.join(sorted(unknown))}")
    if given.dry_run:
        return dry_run(given.out, given.budget)
    if gpu_count() == 0:
        print("no GPU on this machine (libcuda.so.1 finds none): nothing was run; --dry-run does what needs none", file=sys.stderr)
        return 2
    session = Session(given.out)
    folder = given.data or next((folder for folder in MNIST if folder.is_dir()), None)
    done = True
    for part in tasks.PARTS:
        if part not in parts and not (part == "build" and not tools.is_built()):
            continue
        if given.again or part == "build":  # a build is quick where nothing changed, and this may be another machine
            session.forget(part)
        done &= session.run(part, tasks.tasks(part, None if folder is None else str(folder.resolve())), given.budget)
        (given.out / "session.txt").write_text(table(session.state))
        if part == "build" and not done:
            break
    print(table(session.state))
    return 0 if done and not any(map(session.wrong, parts)) else 1


if __name__ == "__main__":
    sys.exit(main())
