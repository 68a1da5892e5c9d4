"""Tasks that other programs do: the build, pytest and compute-sanitizer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu.session import ROOT

MODULES = ("_core", "_cuda")


def is_built() -> bool:
    """Whether the modules lie in the package, made for this Python, and no source is newer."""
    found = [ROOT / "pymimic" / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}" for name in MODULES]
    sources = [ROOT / "CMakeLists.txt", *(ROOT / "csrc").rglob("*"), *(ROOT / "kernels").rglob("*")]
    return all(path.exists() for path in found) and max(map(_age, sources)) <= min(map(_age, found))


def _age(path: Path) -> float:
    return path.stat().st_mtime


def build(in_place: bool = True) -> Iterator[dict[str, Any]]:
    """Both modules by CMake, without pip and without a network: into the package or, for a dry run, beside it."""
    import pybind11

    folder = ROOT / "build" / f"gpu-session-{sys.implementation.cache_tag}"
    target = ROOT / "pymimic" if in_place else folder / "pymimic"
    settings = {
        "CMAKE_BUILD_TYPE": "Release", "PYMIMIC_CUDA": "ON", "Python_EXECUTABLE": sys.executable, "pybind11_DIR": pybind11.get_cmake_dir(),
        "CMAKE_LIBRARY_OUTPUT_DIRECTORY": target,
    }  # fmt: skip
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    start = time.monotonic()
    configure = ("cmake", "-S", ROOT, "-B", folder, *generator, *(f"-D{name}={value}" for name, value in settings.items()))
    said = _run(*configure)
    configured = time.monotonic()
    _run("cmake", "--build", folder, "--target", *MODULES, "-j", str(len(os.sched_getaffinity(0))))
    about = re.search(r"CUDA kernels: (.*)", said)
    row = {"configure_seconds": round(configured - start, 1), "build_seconds": round(time.monotonic() - configured, 1)}
    modules = {path.name: path.stat().st_size for name in MODULES for path in target.glob(f"{name}*.so")}
    yield row | {"compiler": about[1] if about else "", "module_bytes": modules}


def pytest(folder: str) -> Iterator[dict[str, Any]]:
    """How many tests passed and were skipped, and the others' names and messages."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        # the options of pyproject.toml ask for plugins that may not be here
        options = ("-q", "-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider", "-m", "not slow", f"--junitxml={report}")
        subprocess.run([sys.executable, "-m", "pytest", folder, *options], cwd=ROOT)
        if not report.exists():
            raise RuntimeError("pytest wrote no report: see the log")
        yield counted(report.read_text())


def counted(report: str) -> dict[str, Any]:
    """The same of a report in JUnit's XML."""
    counts: dict[str, Any] = {"passed": 0, "skipped": 0, "failed": []}
    for case in ElementTree.fromstring(report).iter("testcase"):
        bad = next((child for child in case if child.tag in ("failure", "error")), None)
        if bad is not None:
            counts["failed"].append([f"{case.get('classname')}::{case.get('name')}", (bad.get("message") or "")[:500]])
        else:
            counts["skipped" if any(child.tag == "skipped" for child in case) else "passed"] += 1
    return counts | {"ok": not counts["failed"] and counts["passed"] > 0}


def sanitizer(tool: str) -> Iterator[dict[str, Any]]:
    """compute-sanitizer over `checks.small_calls`: how many errors, and the first of them; "skipped" where there is no such program."""
    program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if program is None:
        yield {"tool": tool, "skipped": "no compute-sanitizer on this machine"}
        return
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers"
        worker = (sys.executable, "-m", "gpu.worker", "checks:small_calls", "{}", answers)
        process = subprocess.Popen(
            [program, "--tool", tool, *worker], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        printed = []
        for line in process.stdout or ():  # as it comes: the log has it even where this is stopped
            print(line, end="")
            printed.append(line.rstrip())
        status = process.wait()
        calls = len(answers.read_text().splitlines()) if answers.exists() else 0
    complaints = [line for line in printed if line.startswith("=========")]
    summary = next((line for line in reversed(complaints) if "SUMMARY" in line), None)
    if summary is None or status != 0 or calls == 0:
        raise RuntimeError(f"{tool} did not get through (exit status {status}): {' '.join(complaints[:6]) or 'see the log'}")
    errors = re.search(r"(\d+) (?:errors?|hazards?)", summary)
    count = int(errors[1]) if errors else -1
    row = {"tool": tool, "calls": calls, "errors": count, "summary": summary.strip("= "), "ok": count == 0}
    yield row | ({"first": complaints[1:12]} if count else {})


def _run(*command: Any) -> str:
    """What it printed; RuntimeError with the end of it where it fails."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    if done.returncode:
        raise RuntimeError(f"{command[0]} {command[1]} exited with {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout
