"""Tasks that other programs do: pytest, compute-sanitizer and Nsight Compute; "skipped" says why one of them did nothing."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from gpu.session import ROOT
from gpu.watch import HUNG, LINES, about_to

# What the report says of each kernel, by the names of Nsight Compute's details page.
METRICS = ("Duration", "SM Frequency", "Compute (SM) Throughput", "Memory Throughput", "Achieved Occupancy", "Registers Per Thread")


def program(name: str) -> str | None:
    """Its path; the CUDA toolkit's folder need not be among those that are searched."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")


def lines_of(*command: Any, each: Callable[[], Any] = bool) -> tuple[list[str], int]:
    """What a program printed, which the log has as it came, and its exit status; `each` is called after each line."""
    words = [str(word) for word in command]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    printed = []
    for line in process.stdout or ():
        print(line, end="")
        printed.append(line.rstrip())
        each()
    return printed, process.wait()


def pytest(folder: str) -> Iterator[dict[str, Any]]:
    """How many tests passed and were skipped, and the others' names and messages. None takes a minute."""
    going_on = partial(about_to, "pytest", within=60.0)
    if not going_on():
        return
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        # the options of pyproject.toml ask for plugins that may not be here
        options = ("-v", "-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider", "-m", "not slow", f"--junitxml={report}")
        alone = ("env", "-u", LINES, "-u", HUNG)  # what a test is about to do is none of the session's business
        lines_of(*alone, sys.executable, "-m", "pytest", folder, *options, each=going_on)
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
    """compute-sanitizer over `smoke.small_calls`: how many errors, and the first of them."""
    path = program("compute-sanitizer")
    if path is None:
        yield {"tool": tool, "skipped": "no compute-sanitizer on this machine"}
        return
    script = f"from gpu import smoke\nfor call in smoke.small_calls({tool!r}): print('called', call, flush=True)"
    printed, status = lines_of(path, "--tool", tool, sys.executable, "-c", script)
    calls = sum(line.startswith("called ") for line in printed)
    complaints = [line for line in printed if line.startswith("=========")]
    summary = next((line for line in reversed(complaints) if "SUMMARY" in line), None)
    if summary is None or status != 0 or calls == 0:
        raise RuntimeError(f"{tool} did not get through (exit status {status}): {' '.join(complaints[:6]) or 'see the log'}")
    errors = re.search(r"(\d+) (?:errors?|hazards?)", summary)
    count = int(errors[1]) if errors else -1
    row = {"tool": tool, "calls": calls, "errors": count, "summary": summary.strip("= "), "ok": count == 0}
    yield row | ({"first": complaints[1:12]} if count else {})


def profile(report: str, shape: str, B: int) -> Iterator[dict[str, Any]]:
    """Nsight Compute's report of the three kernels of a step in bf16, in that file, and some of what it says."""
    path = program("ncu")
    if path is None:
        yield {"tool": "Nsight Compute", "skipped": "no ncu on this machine"}
        return
    script = f"from gpu import kernels\nkernels.once({shape!r}, {B}, 'Nsight Compute')"
    choice = ("--kernel-name", "regex:^shallow_", "--set", "full", "--force-overwrite", "--export", report)
    printed, status = lines_of(path, *choice, sys.executable, "-c", script)
    if any("ERR_NVGPUCTRPERM" in line for line in printed):
        yield {"tool": "Nsight Compute", "skipped": "this user may not read the GPU's performance counters (ERR_NVGPUCTRPERM)"}
        return
    if status != 0 or not Path(report).exists():
        raise RuntimeError(f"ncu did not get through (exit status {status}): see the log")
    about_to("Nsight Compute, reading its report")
    table = subprocess.run([path, "--import", report, "--page", "details", "--csv"], capture_output=True, text=True).stdout
    kernels: dict[str, dict[str, str]] = {}
    for line in csv.DictReader(table[max(0, table.find('"ID"')) :].splitlines()):
        if line.get("Metric Name") in METRICS:
            kernels.setdefault(line["Kernel Name"], {})[line["Metric Name"]] = f"{line['Metric Value']} {line['Metric Unit']}".strip()
    yield {"tool": "Nsight Compute", "report": Path(report).name, "shape": shape, "B": B, "kernels": kernels}
