"""Feed files and calls that strangers might make to the library, and see that it refuses them as it says.

    python tools/fuzz                               10,000 inputs for each target, each target in a process of its own
    python tools/fuzz --target nets --runs 1000000
    python tools/fuzz --target nets --replay FILE   one input that was kept, with its traceback

Inputs are mutations of small files and calls that are right. Where atheris is installed, those that reach new lines are mutated again.
An input fails when the process dies, when it takes too long or too much memory, when a file outside of its folder is written, and when
an exception is not one of the documented, or doesn't say what was expected. It is kept, and its path printed; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import watch

NAMES = ("nets", "sets", "labelling", "parts", "checkpoints", "npy", "idx", "idx.gz", "letter", "ledger", "core", "ops")
_REPOSITORY = Path(__file__).resolve().parents[2]
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # no disk has to be waited for


def main() -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="tools/fuzz")
    parser.add_argument("--target", action="append", choices=NAMES, help="one of them; again for more; default: all")
    parser.add_argument("--runs", type=int, default=10_000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=30.0, help="that an input may take")
    parser.add_argument("--keep", type=Path, default=_REPOSITORY / "build" / "fuzz", help="folder for inputs that fail")
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--package", type=Path, help="folder of the pymimic to be tried, if not the one that is installed")
    parser.add_argument("--first", type=Path, help="a Python file that is run first: tests put faults in by it")
    parser.add_argument("--replay", type=Path, help="an input to be run alone, of the one target")
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.plain = asked.plain or importlib.util.find_spec("atheris") is None
    if asked.home or asked.replay:
        return work(asked)
    if asked.plain:
        print("without coverage: " + ("as asked" if "--plain" in sys.argv else "atheris is not installed"))
    return max([drive(name, asked) for name in asked.target or NAMES])


def drive(name: str, asked: argparse.Namespace) -> int:
    """A target in a process of its own; 1 where an input failed."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_MEMORY) as home:
        options = [f"--target={name}", f"--runs={asked.runs}", f"--seed={asked.seed}", f"--seconds={asked.seconds}", f"--keep={asked.keep}"]
        more = [f"--{key}={value}" for key in ("package", "first") if (value := getattr(asked, key))] + ["--plain"] * asked.plain
        environment = {"PYMIMIC_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **os.environ}
        with open(Path(home, "log"), "w+") as log:
            code = subprocess.call([sys.executable, __file__, *options, *more, f"--home={home}"], stderr=log, stdout=log, env=environment)
            log.seek(0)
            said = log.read()[-6000:]
        hand = Path(home, "input").read_bytes() if Path(home, "input").exists() else bytes(16)
        count, length, busy = int.from_bytes(hand[:8], "little"), int.from_bytes(hand[8:12], "little"), hand[12]
        found = Path(home, "failures").read_text().splitlines() if Path(home, "failures").exists() else []
        failures: list[dict[str, Any]] = [json.loads(line) for line in found]
    if busy:
        path = watch.kept(asked.keep, name, hand[16 : 16 + length])
        failures.append({"why": f"the process ended with {code} in this input\n{said}", "where": "", "input": str(path)})
    elif code:
        failures.append({"why": f"the process ended with {code} after {count} inputs\n{said}", "where": "", "input": "none"})
    print(f"{name}: {count} inputs in {time.monotonic() - began:.0f} s, {len(failures)} kinds of failure", flush=True)
    for failure in failures:
        print(f"  FAILED {failure['why']}\n    at {failure['where']}\n    input {failure['input']}", flush=True)
    return int(bool(failures))


def work(asked: argparse.Namespace) -> int:
    """One target in this process."""
    if asked.package:
        sys.path.insert(0, str(asked.package.resolve()))
        editable = "ScikitBuildRedirectingFinder"
        sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != editable]
    with nullcontext() if asked.plain else instrumented():
        from calls import CALLS
        from files import TARGETS
    target = {**TARGETS, **CALLS}[asked.target[0]]
    if asked.first:
        exec(compile(asked.first.read_text(), asked.first, "exec"), {})
    if asked.replay:
        with tempfile.TemporaryDirectory() as folder:
            target.run(asked.replay.read_bytes(), Path(folder))
        return 0
    seeds = list(target.seeds())
    watched = watch.Watch(asked.target[0], target, asked.home, asked.keep, asked.seconds)
    tempfile.tempdir = str(watched.work)
    if asked.plain:
        watch.plain(watched, seeds, asked.runs, asked.seed)
    else:
        watch.by_coverage(watched, seeds, asked.runs, asked.seed, asked.home)
    return 0


def instrumented() -> Any:
    """Count the lines that are reached, of pymimic and of what it reads files with."""
    import atheris

    return atheris.instrument_imports(include=["pymimic", "numpy.lib.format", "csv", "gzip"])


if __name__ == "__main__":
    sys.exit(main())
