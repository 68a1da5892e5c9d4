"""The build in place, by CMake, without pip and without a network; nothing where contents and settings are those of the last one."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu.driver import compute_capability
from gpu.session import ROOT

MODULES = ("_core", "_cuda")
FOLDER = ROOT / "build" / f"gpu-session-{sys.implementation.cache_tag}"
STAMP = FOLDER / "built.json"  # {"settings", "sources": {path: [digest, time]}, "modules": {path: digest}} of the last build
LISTED = 5  # units that took longest to compile


def settings() -> dict[str, str]:
    """Of CMake. The core is for one instruction set: AVX-512 takes four times as long to compile as AVX2, and the GPU needs neither."""
    import pybind11

    major, minor = compute_capability() or (9, 0)
    return {
        "CMAKE_BUILD_TYPE": "Release", "PYMIMIC_CUDA": "ON", "PYMIMIC_ISAS": instruction_set(),
        "CMAKE_CUDA_ARCHITECTURES": "90a-real" if (major, minor) == (9, 0) else f"{major}{minor}-real",
        "CMAKE_LIBRARY_OUTPUT_DIRECTORY": str(ROOT / "pymimic"), "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }  # fmt: skip


def instruction_set(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    return "avx2" if flags and {"avx2", "fma"} <= set(flags[1].split()) else "baseline"


def sources() -> dict[str, str]:
    """A digest of each file that the modules are built from, by its path."""
    files = [ROOT / "CMakeLists.txt", *(path for folder in ("csrc", "kernels") for path in (ROOT / folder).rglob("*") if path.is_file())]
    return {str(path.relative_to(ROOT)): _digest(path) for path in sorted(files)}


def identity() -> str:
    """One digest of sources, settings and the machine: results of another one are of something else."""
    return hashlib.sha256(json.dumps([sources(), settings(), platform.node()]).encode()).hexdigest()[:12]


def modules() -> dict[str, str]:
    """A digest of each module that is there, by its path."""
    paths = [ROOT / "pymimic" / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}" for name in MODULES]
    return {str(path.relative_to(ROOT)): _digest(path) for path in paths if path.exists()}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build() -> Iterator[dict[str, Any]]:
    """Both modules, unless they are those of the last build, of the same sources with the same settings."""
    last = json.loads(STAMP.read_text()) if STAMP.exists() else {"settings": {}, "sources": {}, "modules": {}}
    found = {path: [digest, _time(path, digest, last["sources"])] for path, digest in sources().items()}
    now = {"settings": settings(), "sources": found}
    if len(last["modules"]) == len(MODULES) and last == now | {"modules": modules()}:
        yield {"built": False}
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    STAMP.write_text(json.dumps(now | {"modules": {}}))
    for path, digest in modules().items():
        if last["modules"].get(path) != digest:  # of another build: CMake would take it for its own
            (ROOT / path).unlink()
    start = time.monotonic()
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    said = run("cmake", "-S", ROOT, "-B", FOLDER, *generator, *(f"-D{name}={value}" for name, value in now["settings"].items()))
    configured = time.monotonic()
    run("cmake", "--build", FOLDER, "--target", *MODULES, "-j", str(len(os.sched_getaffinity(0))))
    built = time.monotonic()
    STAMP.write_text(json.dumps(now | {"modules": modules()}))
    compiler = re.search(r"CUDA kernels: (.*)", said)
    yield {
        "built": True, "configure_seconds": round(configured - start, 1), "build_seconds": round(built - configured, 1),
        "compiler": compiler[1] if compiler else "", "instruction_set": now["settings"]["PYMIMIC_ISAS"], "slowest": slowest(),
    }  # fmt: skip


def _time(path: str, digest: str, last: dict[str, Any]) -> int:
    """When the file changed its contents, in nanoseconds: what CMake's programs go by, whenever the file was copied here."""
    before, then = last.get(path, (None, 0))
    changed = then if before == digest else time.time_ns()
    os.utime(ROOT / path, ns=(changed, changed))
    return (ROOT / path).stat().st_mtime_ns


def slowest() -> dict[str, float]:
    """The units that took longest to compile, and their seconds, as Ninja's log has them."""
    log = FOLDER / ".ninja_log"
    lines = [line.split("\t") for line in log.read_text().splitlines()[1:]] if log.exists() else []
    taken = {Path(words[3]).parent.name + "/" + Path(words[3]).stem: (int(words[1]) - int(words[0])) / 1e3 for words in lines}
    return dict(sorted(taken.items(), key=lambda item: -item[1])[:LISTED])


def run(*command: Any) -> str:
    """What it printed; RuntimeError with the end of it where it fails."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    if done.returncode:
        raise RuntimeError(f"{command[0]} {command[1]} exited with {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout
