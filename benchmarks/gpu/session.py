"""Tasks in processes of their own, within a part's budget of time; what they found is kept in a file and not asked for again."""

from __future__ import annotations

import contextlib
import json
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

BENCHMARKS = Path(__file__).parents[1]
ROOT = BENCHMARKS.parent
LOG_BYTES = 200_000  # of one task's output that the log keeps: its end
FORMAT = 1

Record = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A generator function of a module of this folder, "module:function", and how long it may take, and takes at least, in seconds."""

    name: str
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    limit: float = 120.0
    least: float = 10.0


def run_task(task: Task, limit: float) -> tuple[Record, str]:
    """What the task found, and the end of what it printed. It, and what it started, is killed after `limit` seconds.

    The record has "status" ("ok", "failed", "timeout"), "seconds", "rows" (those that it found before it ended, however it ended)
    and, unless it is ok, "error".
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pymimic-gpu-") as folder:
        answers, printed = Path(folder) / "answers", Path(folder) / "printed"
        answers.touch()
        command = [sys.executable, "-m", "gpu.worker", task.function, json.dumps(task.arguments), str(answers)]
        paths = os.pathsep.join(filter(None, [str(ROOT), str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]))
        with open(printed, "wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env=os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
            error = None
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                error = f"stopped after {limit:.0f} s"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        timed_out = error is not None
        rows = []
        for line in answers.read_text().splitlines():
            with contextlib.suppress(ValueError):  # the last one may be cut
                answer = json.loads(line)
                error = answer.get("error", error)
                if "row" in answer:
                    rows.append(answer["row"])
        if error is None and status != 0:
            error = f"died of {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
        seconds = round(time.monotonic() - started, 1)
        record = {"status": "timeout" if timed_out else "failed" if error else "ok", "seconds": seconds, "rows": rows}
        return record | ({"error": error} if error else {}), printed.read_bytes()[-LOG_BYTES:].decode(errors="replace")


class Session:
    """The folder's `NAME.json` (all results) and `NAME.log` (what tasks printed)."""

    def __init__(self, folder: Path, name: str = "session") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.log = folder / f"{name}.json", folder / f"{name}.log"
        self.state: Record = {"format": FORMAT, "parts": {}}
        if self.path.exists():
            self.state = json.loads(self.path.read_text())
            if self.state.get("format") != FORMAT:
                raise SystemExit(f"{self.path}: expected format {FORMAT}, got {self.state.get('format')}; give another folder")

    def records(self, part: str) -> dict[str, Record]:
        records: dict[str, Record] = self.state["parts"].setdefault(part, {})
        return records

    def forget(self, part: str) -> None:
        self.state["parts"].pop(part, None)

    def missing(self, part: str, tasks: list[Task]) -> list[Task]:
        """Those without a good result, never tried ones first."""
        records = self.records(part)
        left = [task for task in tasks if records.get(task.name, {}).get("status") != "ok"]
        return sorted(left, key=lambda task: task.name in records)

    def run(
        self, part: str, tasks: list[Task], budget: float, say: Callable[[str], None] = print,
        run: Callable[[Task, float], tuple[Record, str]] = run_task, clock: Callable[[], float] = time.monotonic,
    ) -> bool:  # fmt: skip
        """Run what is missing of a part, until `budget` seconds are over; whether all of it is good now.

        A task begins only where at least `least` seconds are left for it. One that fails again keeps what it had found before, if that
        was more.
        """
        end = clock() + budget
        for task in self.missing(part, tasks):
            left = end - clock()
            if left < task.least:
                say(f"{part}, {task.name}: {left:.0f} s are left; run this part again to go on")
                continue
            record, printed = run(task, min(task.limit, left))
            before = self.records(part).get(task.name)
            if record["status"] != "ok" and before and len(before["rows"]) > len(record["rows"]):
                record["rows"] = before["rows"]
            self.records(part)[task.name] = record
            self.save()
            with open(self.log, "a") as log:
                log.write(f"==== {part}, {task.name}: {record['status']} after {record['seconds']} s\n{printed}\n")
            say(f"{part}, {task.name}: {record['status']} after {record['seconds']} s {record.get('error', '')}".rstrip())
        return not self.missing(part, tasks)

    def wrong(self, part: str) -> list[Record]:
        """Rows that say of themselves that something is not as it must be."""
        return [row for record in self.records(part).values() for row in record["rows"] if row.get("ok") is False]

    def save(self) -> None:
        """Whole or not at all."""
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(self.state, indent=1) + "\n")
        draft.replace(self.path)
