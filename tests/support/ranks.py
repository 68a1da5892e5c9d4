"""Processes of a torch.distributed group for tests: each calls one function of a module, and keeps what it returns in a file."""

import importlib
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np

SECONDS = 120  # after which a group counts as hung


def begin(size, function, folder, patience=SECONDS, **given):
    """Start `size` processes that call `function` with (group, folder) and what is given, which JSON can hold; returns them.

    They wait `patience` seconds for each other.
    """
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    for old in folder.glob("rank-*"):
        old.unlink()
    (folder / "meeting").unlink(missing_ok=True)
    told = [function.__module__, function.__name__, str(size), str(folder), str(patience), json.dumps(given)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYMIMIC_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen([sys.executable, __file__, str(rank), *told], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(size)
    ]


def end(processes):
    """Wait for them; their exit codes and what they wrote to standard error."""
    said = [process.communicate(timeout=SECONDS)[1] for process in processes]
    return [process.returncode for process in processes], said


def results(size, folder):
    """What each process returned."""
    found = []
    for rank in range(size):
        with np.load(Path(folder) / f"rank-{rank}.npz") as file:
            found.append(dict(file))
    return found


def together(size, function, folder, **given):
    """Start the processes, demand that all of them end well, and give what each returned."""
    codes, said = end(begin(size, function, folder, **given))
    assert codes == [0] * size, "\n".join(said)
    return results(size, folder)


def _main(rank, module, name, size, folder, patience, given):
    from torch import distributed

    from pymimic.distributed import ProcessGroup

    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=int(rank), world_size=int(size), timeout=timedelta(seconds=float(patience))
    )
    returned = getattr(importlib.import_module(module), name)(ProcessGroup(), Path(folder), **json.loads(given))
    np.savez(Path(folder) / f"rank-{rank}.npz", **returned)
    distributed.destroy_process_group()


if __name__ == "__main__":
    _main(*sys.argv[1:])
