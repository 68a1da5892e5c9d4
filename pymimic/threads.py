"""How many threads the CPU kernels use. The bits of a result do not depend on it."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from . import _check

try:
    from . import _core
except ImportError:  # no compiled core: the other backends ask get_num_threads()
    _core = None  # type: ignore[assignment]

_MOST = 1024
_VARIABLES = ("PYMIMIC_NUM_THREADS", "OMP_NUM_THREADS")  # the first that is set; joblib and others set the second


def default_num_threads() -> int:
    """From PYMIMIC_NUM_THREADS or OMP_NUM_THREADS, else the cores that this process may use now (affinity and cgroup quota).

    A value that is no number of threads is left aside with a warning: an import should not fail over it.
    """
    for variable in _VARIABLES:
        value = os.environ.get(variable, "").split(",")[0].strip()
        if not value:
            continue
        if value.isdecimal() and len(value) < 10 and 1 <= int(value) <= _MOST:
            return int(value)
        warnings.warn(f"{variable}: expected a number of threads in [1, {_MOST}], got {value[:40]!r}", RuntimeWarning, stacklevel=2)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota(), _MOST))


def _quota(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that the CPU quotas of this process's control groups are worth, rounded up; many where there is none."""
    cores = _MOST
    try:
        lines = groups.read_text().splitlines()
    except (OSError, ValueError):  # no Linux
        return cores
    for line in lines:  # "0::/a/b", or of version 1 "4:cpu,cpuacct:/a/b"; a quota of /a holds for /a/b
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        group = top / path.lstrip("/")
        for folder in (group, *group.parents[: len(Path(path).parts) - 1]):
            cores = min(cores, _quota_of(folder))
    return cores


def _quota_of(group: Path) -> int:
    """The same for the quota of one group."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:  # version 1
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return -(-int(quota) // int(period)) if int(quota) > 0 else _MOST
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or no limit: "max"
        return _MOST


_threads = 1


def set_num_threads(n: int) -> None:
    """Let each op use up to n threads (1 to 1024). More than there are cores is allowed, and slow."""
    global _threads
    _threads = _check.integer("n", n, 1, _MOST + 1)
    if _core is not None:
        _core.set_num_threads(_threads)


def share_openmp(directory: str) -> bool:
    """Run on the threads of the OpenMP library that is loaded from under `directory`; whether there is one.

    For hosts whose own loops run on those, such as torch: two pools in one process would wait for each other's spinning threads. Ops then
    take at most as many threads as OpenMP gives the calling thread.
    """
    if _core is None:
        return False
    try:
        loaded = {line.split(maxsplit=5)[5].strip() for line in Path("/proc/self/maps").read_text().splitlines() if line.count("/")}
    except OSError:  # no Linux
        return False
    names = ("libgomp", "libomp", "libiomp5")
    found = sorted(path for path in loaded if path.startswith(directory) and Path(path).name.split(".")[0].split("-")[0] in names)
    if found:
        _core.run_on_openmp(found[0])
    return bool(found)


def get_num_threads() -> int:
    """The number of threads that an op may use."""
    return _threads


set_num_threads(default_num_threads())
