"""Tasks in processes of their own, within a budget of time; what they found is kept in a file and not asked for again."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu import watch

BENCHMARKS = Path(__file__).parents[1]
ROOT = BENCHMARKS.parent
LOG_BYTES = 200_000  # of one task's output that the log keeps: its end
FORMAT = 2
GRACE = 5.0  # seconds that a killed process has to end: one that waits for the device may never do so

Record = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A generator function of a module of this folder, "module:function", and how long it may take, and takes at least, in seconds.

    Where a gate fails, or says that something is wrong, nothing else is run.
    """

    name: str
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    limit: float = 60.0
    least: float = 5.0
    gate: bool = False


class Lines:
    """What a task has told so far (`gpu.watch`), and until when the next line must come."""

    def __init__(self, path: Path) -> None:
        self._path, self._read, self._rest = path, 0, ""
        self.rows: list[Any] = []
        self.left_out: list[str] = []
        self.error: str | None = None
        self.call, self.deadline = "", math.inf

    def read(self) -> None:
        """The new ones; what is not a whole line yet is left for later."""
        with open(self._path) as file:
            file.seek(self._read)
            *whole, self._rest = (self._rest + file.read()).split("\n")
            self._read = file.tell()
        for line in map(json.loads, whole):
            self.call, self.deadline = line.get("about to", ""), time.monotonic() + line.get("within", math.inf)
            self.error = line.get("error", self.error)
            self.rows += [line["row"]] if "row" in line else []
            self.left_out += [line["left out"]] if "left out" in line else []


def run_task(task: Task, limit: float, hung: list[str]) -> tuple[Record, str]:
    """What the task found, and the end of what it printed. It, and what it started, is killed after `limit` seconds, or when it hangs.

    The record has "status" ("ok", "failed", "timeout", "hung"), "seconds", "rows" (those that it found before it ended,
    however it ended), and where there is such a thing "error", "hung" (the kind of call) and "left out" (calls of kinds that hung before).
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pymimic-gpu-", ignore_cleanup_errors=True) as folder:
        path, printed = Path(folder) / "lines", Path(folder) / "printed"
        path.touch()
        lines = Lines(path)
        paths = os.pathsep.join(filter(None, [str(ROOT), str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]))
        with open(printed, "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gpu.worker", task.function, json.dumps(task.arguments)],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env=os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", watch.LINES: str(path), watch.HUNG: json.dumps(hung)},
            )  # fmt: skip
        try:
            while (status := process.poll()) is None and time.monotonic() < min(started + limit, lines.deadline):
                time.sleep(0.05)
                lines.read()
            call = lines.call if status is None and time.monotonic() >= lines.deadline else ""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        lines.read()
        outcome, error = "failed", lines.error
        if call:
            outcome, error = "hung", f"nothing came back from {call}"
        elif status is None:
            outcome, error = "timeout", f"stopped after {limit:.0f} s" + (f", during {lines.call}" if lines.call else "")
        elif error is None and status != 0:
            error = f"died of {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
        if process.returncode is None:
            error = f"{error}, and its process does not end"
        record = {"status": outcome if error else "ok", "seconds": round(time.monotonic() - started, 1)}
        about = {"error": error, "hung": call, "left out": lines.left_out}
        record |= {"rows": lines.rows} | {name: value for name, value in about.items() if value}
        return record, printed.read_bytes()[-LOG_BYTES:].decode(errors="replace")


class Session:
    """A folder's session.json: {"format", "hung": {kind of calls: of}, "tasks": {name: record}}.

    `of` stands for what is run and where: what is known of something else is shown, but done again.
    """

    def __init__(self, folder: Path, of: str) -> None:
        self.of = of
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.log = folder / "session.json", folder / "session.log"
        self.state: Record = {"format": FORMAT, "hung": {}, "tasks": {}}
        if self.path.exists():
            self.state = json.loads(self.path.read_text())
            if self.state.get("format") != FORMAT:
                raise SystemExit(f"{self.path}: expected format {FORMAT}, got {self.state.get('format')}; give another folder")
        self.records: dict[str, Record] = self.state["tasks"]

    def forget(self, tasks: list[Task]) -> None:
        """What they found, and which kinds of calls hung."""
        self.state["hung"] = {}
        for task in tasks:
            self.records.pop(task.name, None)

    def done(self, task: Task) -> bool:
        record = self.records.get(task.name, {})
        return record.get("status") == "ok" and record["of"] == self.of and not (task.gate and self.wrong([task]))

    def missing(self, tasks: list[Task]) -> list[Task]:
        """Those to do, gates first, then those that were never tried."""
        left = [task for task in tasks if not self.done(task)]
        return sorted(left, key=lambda task: (not task.gate, task.name in self.records))

    def run(
        self, tasks: list[Task], budget: float, say: Callable[[str], None] = print,
        run: Callable[[Task, float, list[str]], tuple[Record, str]] = run_task, clock: Callable[[], float] = time.monotonic,
    ) -> Task | None:  # fmt: skip
        """Run what is missing, and never longer than `budget` seconds; the gate that stopped it, if one did. Says each record as JSON.

        A task begins only where at least `least` seconds are left for it. One that hung is run again, without calls of that kind. One
        that fails again keeps what it had found before, if that was more.
        """
        end = clock() + budget
        queue = self.missing(tasks)
        while queue:
            task = queue.pop(0)
            left = end - clock() - GRACE
            if left >= task.least:
                hung = [] if task.gate else [kind for kind, of in self.state["hung"].items() if of == self.of]
                record, printed = run(task, min(task.limit, left), hung)
                before = self.records.get(task.name)
                if record["status"] != "ok" and before and len(before["rows"]) > len(record["rows"]):
                    record["rows"] = before["rows"]
                if record["status"] == "hung" and not task.gate:
                    self.state["hung"][record["hung"]] = self.of
                    queue.append(task)
                record["of"] = self.of
                self.records[task.name] = record
                self.save()
                with open(self.log, "a") as log:
                    log.write(f"==== {task.name}: {record['status']} after {record['seconds']} s\n{printed}\n")
                say(json.dumps({"task": task.name, **record}))
            if task.gate and not self.done(task):
                return task
        return None

    def wrong(self, tasks: list[Task]) -> list[Record]:
        """Rows that say of themselves that something is not as it must be."""
        return [row for task in tasks for row in self.records.get(task.name, {}).get("rows", []) if row.get("ok") is False]

    def left_out(self, tasks: list[Task]) -> list[str]:
        """Calls that were not made, as such a call hung before."""
        return [call for task in tasks for call in self.records.get(task.name, {}).get("left out", [])]

    def save(self) -> None:
        """Whole or not at all."""
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(self.state, indent=1) + "\n")
        draft.replace(self.path)
