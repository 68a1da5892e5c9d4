"""Runs a scenario again and again, each time with another call of the system failing, and says what went wrong.

`python faults.py SCENARIO KIND[:PLACE,PLACE...]...`, with the library of faults.cpp preloaded. It imports everything once, and forks a
child for each fault. It prints one JSON object: for each kind `faults`, how many were made, and `problems`, lines.
"""

import contextlib
import ctypes
import errno
import gc
import itertools
import json
import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from fault_scenarios import SCENARIOS
from forks import ChildError, in_child

ERRORS = {"open": errno.EMFILE, "write": errno.ENOSPC, "thread": errno.EAGAIN}
MEMORY = {"mmap", "allocate"}
MOST_PROBLEMS = 50


class Faults:
    """The preloaded library."""

    def __init__(self):
        self._library = ctypes.CDLL(None)
        self._library.faults_where.restype = ctypes.c_char_p
        self._library.faults_stop.restype = ctypes.c_long

    def start(self, kind, first, lasting, folder):
        code = errno.ENOMEM if kind in MEMORY else ERRORS.get(kind, errno.EIO)
        assert self._library.faults_start(kind.encode(), ctypes.c_long(first), int(lasting), code, os.fsencode(folder)) == 0
        return code

    def stop(self):
        return self._library.faults_stop()

    @property
    def where(self):
        return self._library.faults_where().decode()


def open_files():
    """By number and name."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
    return {name for name in found if "/proc/" not in name}


def problems_of(error, code, folder):
    """What is wrong with the error that a fault led to."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) and code == errno.ENOMEM:
        return []
    if not isinstance(error, OSError):
        return [f"neither an OSError nor a MemoryError: {text}"]
    found = [f"not the error's number: {text}"] if error.errno not in (code, errno.EIO) else []
    named = os.fspath(error.filename or "")
    if not named.startswith(os.fspath(folder)) or ".part" in named:
        found.append(f"does not name the file: {text}")
    return found


def at_fault(scenario, start, kind, first, lasting, reference, folder):
    """(how many calls failed, what went wrong) of one run in which the `first` such call fails, and of the run after it."""
    shutil.copytree(start, folder)
    faults, found = Faults(), []
    open_before = open_files()
    code = faults.start(kind, first, lasting, folder)
    try:
        result = scenario.work(folder)
        failed = faults.stop()
        if (result, scenario.files(folder)) != reference:
            found.append("no error, and another result")
    except Exception as error:
        failed = faults.stop()
        found += problems_of(error, code, folder) if failed else [traceback.format_exc()]
    gc.collect()
    found += [f"{name} is left open" for name in open_files() - open_before]
    found += scenario.look(folder)
    if failed:
        if (scenario.work(folder), scenario.files(folder)) != reference:
            found.append("the next run has another result")
        found += scenario.look(folder)
    where = faults.where.replace(os.fspath(folder), "")
    return failed, [f"{kind} {first}{' and on' * lasting}, {where}: {problem}" for problem in found]


def run(scenario, kinds, folder):
    """All faults of each kind at those places: 1, 2 and so on until a run passes, where none are named."""
    start, results = folder / "start", {}
    start.mkdir()
    in_child(lambda: scenario.prepare(start))
    shutil.copytree(start, folder / "whole")
    reference = in_child(lambda: (scenario.work(folder / "whole"), scenario.files(folder / "whole")))
    for kind, places in kinds.items():
        made, found = 0, []
        for lasting in (False, True):
            for first in places or itertools.count(1):
                failed, problems = one_fault(scenario, start, kind, first, lasting, reference, folder / "work")
                found += problems
                if not failed or len(found) > MOST_PROBLEMS:
                    break
                made += 1
        results[kind] = {"faults": made, "problems": found}
    return results


def one_fault(scenario, start, kind, first, lasting, reference, folder):
    """As `at_fault`, in a child."""
    try:
        return in_child(lambda: at_fault(scenario, start, kind, first, lasting, reference, folder))
    except ChildError as error:
        return True, [f"{kind} {first}{' and on' * lasting}: {error}"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(name, *kinds):
    parts = [kind.partition(":") for kind in kinds]
    wanted = {kind: [int(place) for place in places.split(",") if place] for kind, _, places in parts}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        print(json.dumps(run(SCENARIOS[name], wanted, Path(folder).resolve())))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
