"""What the figures were measured on, and how busy it is."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__, get_num_threads
from ..backends import cuda_devices, get
from ..errors import BackendUnavailableError

_MEMORY_SECONDS = 120.0


def busy_seconds() -> float | None:
    """Processor time that all processes and the hypervisor have taken since the system started; None where it is not told."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return float(user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def describe(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, instruction set, memory and software, as JSON has it.

    Raises
    ------
    BackendUnavailableError
        There is no compiled core.
    """
    get("cpu")  # obeys PYMIMIC_ISA
    from .. import _core

    return {
        **({"device": cuda_devices()[0]} if device == "cuda" else {}),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": get_num_threads(),
        "instruction_set": _core.isa(),
        "instruction_sets": _core.runnable_isas(),
        "caches": _caches(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
        "python": platform.python_version(),
        "pymimic": __version__,
    }


def ceilings(folder: Path, *, fast: bool = False, again: bool = False, device: str = "cpu") -> dict[str, Any]:
    """What ceilings.py measures, or ceilings_cuda.py, in a process of its own; `fast` gives rough figures, `again` tries less often.

    Raises
    ------
    BackendUnavailableError
        The compiled core is missing or too old for it.
    """
    command = [
        sys.executable,
        str(folder / ("ceilings_cuda.py" if device == "cuda" else "ceilings.py")),
        "--json",
        *(["--fast"] if fast else ["--again"] if again else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": python_path()})
    if done.returncode:
        raise BackendUnavailableError(f"ceilings: cannot be measured: {(done.stderr.strip().splitlines() or ['it died'])[-1]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def highest(*measured: dict[str, Any]) -> dict[str, Any]:
    """Of several measurements of the ceilings the highest of each: other load lowers a rate, and nothing raises it."""
    together: dict[str, Any] = {}
    for ceilings in measured:
        for name, rate in ceilings.items():
            together[name] = highest(together.get(name, {}), rate) if isinstance(rate, dict) else max(together.get(name, rate), rate)
    return together


class CoreSpeed:
    """How fast the cores are now, and the fastest that they have been of late: multiply-adds a second on every thread, by dtype.

    Other machines on the same cores slow them, for seconds and to less than half, and show in nothing that the system counts. A processor
    that was faster before it got warm is none of that, so that what is past is forgotten after two minutes.
    """

    def __init__(self, dtypes: Sequence[str] = ("float32", "bfloat16")) -> None:
        from .. import _core

        self._do = _core.multiply_adds
        self._steps = {dtype: self._steps_of(dtype) for dtype in dtypes if self._do(dtype, 1)}
        self._lately: deque[tuple[float, dict[str, float]]] = deque()
        self()

    def __call__(self) -> dict[str, float]:
        """The best of three tries, a millisecond for each dtype."""
        now = {dtype: max(self._rate(dtype, steps) for _ in range(3)) for dtype, steps in self._steps.items()}
        self._lately.append((time.monotonic(), now))
        while self._lately[0][0] < self._lately[-1][0] - _MEMORY_SECONDS:
            self._lately.popleft()
        self.best = {dtype: max(rates[dtype] for _, rates in self._lately) for dtype in now}
        return now

    def _steps_of(self, dtype: str) -> int:
        steps = 1
        while self._do(dtype, steps) / self._rate(dtype, steps) < 3e-4:
            steps *= 2
        return steps

    def _rate(self, dtype: str, steps: int) -> float:
        start = time.perf_counter()
        done: float = self._do(dtype, steps)
        return done / (time.perf_counter() - start)


def python_path() -> str:
    """PYTHONPATH with which a child finds this very package, installed or not."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))


def made_by(device: str = "cpu") -> str:
    """The version and the machine, in a line, as they stand beside a result."""
    threads = get_num_threads()
    where = f"{cpu_model()}, {threads} thread{'s' * (threads > 1)}"
    return f"pymimic {__version__}, {where}" + (f", {cuda_devices()[0]}" if device == "cuda" else "")


def cpu_model() -> str:
    """What this machine calls its processor."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^([^\t:]+)\s*: (.*)$", info, re.MULTILINE))
    name = fields.get("model name", platform.machine())
    numbers = [f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def _caches() -> dict[str, str]:
    """Size of each cache that processor 0 sees: {"L1d": "32K", ...}."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        found[f"L{level}{'' if kind == 'Unified' else kind[0].lower()}"] = size
    return found
