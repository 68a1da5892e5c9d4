"""benchmarks/gpu_session.py without a GPU: what is kept, what is done again, what a budget leaves, and the table."""

import json
import time

import gpu_session
import pytest
from gpu import tasks, tools
from gpu.session import Session, Task, run_task
from gpu.table import table

TASKS = [Task("first", "a:b", limit=100, least=10), Task("second", "a:b", limit=100, least=10), Task("third", "a:b", limit=100, least=50)]


class Runner:
    """Runs nothing: tells what is asked of it, and lets a clock go."""

    def __init__(self, outcomes=(), seconds=20.0):
        self.asked, self.outcomes, self.seconds, self.now = [], dict(outcomes), seconds, 0.0

    def __call__(self, task, limit):
        self.asked.append((task.name, limit))
        self.now += self.seconds
        return {"status": "ok", "seconds": self.seconds, "rows": [{"n": 1}], **self.outcomes.get(task.name, {})}, f"{task.name} printed"

    def of(self, session, budget, wanted=TASKS):
        self.said = []
        return session.run("part", wanted, budget, self.said.append, self, lambda: self.now)


def test_a_part_goes_on_where_it_stopped(tmp_path):
    first = Runner({"second": {"status": "failed", "error": "boom"}})
    assert not first.of(Session(tmp_path), 90.0)
    assert first.asked == [("first", 90.0), ("second", 70.0), ("third", 50.0)]
    again = Runner()
    assert again.of(Session(tmp_path), 90.0)
    assert [name for name, _ in again.asked] == ["second"]
    nothing = Runner()
    assert nothing.of(Session(tmp_path), 90.0)
    assert nothing.asked == []
    session = Session(tmp_path)
    session.forget("part")
    assert [task.name for task in session.missing("part", TASKS)] == ["first", "second", "third"]
    assert (tmp_path / "session.log").read_text().count("printed") == 4


def test_tasks_that_the_budget_has_no_room_for(tmp_path):
    runner = Runner()
    assert not runner.of(Session(tmp_path), 60.0)
    assert [name for name, _ in runner.asked] == ["first", "second"]
    assert "third: 20 s are left" in runner.said[-1]
    assert runner.asked[1] == ("second", 40.0)
    failing = Runner({"third": {"status": "timeout", "error": "slow", "rows": []}})
    assert not failing.of(Session(tmp_path), 60.0)
    assert Session(tmp_path).records("part")["third"]["error"] == "slow"


def test_those_never_tried_come_first_and_rows_are_not_lost(tmp_path):
    session = Session(tmp_path)
    Runner({"first": {"status": "failed", "error": "boom", "rows": [{"n": 1}, {"n": 2}]}}).of(session, 99.0, TASKS[:1])
    later = Runner({"first": {"status": "failed", "error": "bang", "rows": []}})
    later.of(session, 99.0)
    assert [name for name, _ in later.asked] == ["second", "third", "first"]
    assert session.records("part")["first"] == {"status": "failed", "seconds": 20.0, "rows": [{"n": 1}, {"n": 2}], "error": "bang"}


def test_a_row_that_is_wrong(tmp_path):
    session = Session(tmp_path)
    Runner({"first": {"rows": [{"ok": True}, {"n": 1}, {"ok": False, "n": 2}]}}).of(session, 99.0, TASKS[:1])
    assert session.wrong("part") == [{"ok": False, "n": 2}]
    assert session.wrong("other") == []


@pytest.mark.parametrize(
    ("summary", "errors"), [("RACECHECK SUMMARY: 2 hazards displayed (1 error)", 2), ("ERROR SUMMARY: 0 errors", 0), ("", None)]
)
def test_a_sanitizer(tmp_path, monkeypatch, summary, errors):
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\nfor last; do :; done\necho '{{}}' > $last\necho '========= {summary}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    if errors is None:
        with pytest.raises(RuntimeError, match="racecheck did not get through"):
            list(tools.sanitizer("racecheck"))
    else:
        (row,) = tools.sanitizer("racecheck")
        assert (row["errors"], row["ok"], row["calls"]) == (errors, errors == 0, 1)


def test_results_of_another_format(tmp_path):
    (tmp_path / "session.json").write_text('{"format": 0}')
    with pytest.raises(SystemExit, match="expected format 1, got 0"):
        Session(tmp_path)


@pytest.mark.parametrize(
    ("ending", "status", "error"),
    [
        ("", "ok", None),
        ("raise ValueError('no')", "failed", "ValueError: no"),
        ("os._exit(3)", "failed", "exited with 3"),
        ("os.kill(os.getpid(), 11)", "failed", "died of SIGSEGV"),
        ("subprocess.Popen(['sleep', '60']); time.sleep(60)", "timeout", "stopped after 2 s"),
    ],
)
def test_a_task_however_it_ends(tmp_path, monkeypatch, ending, status, error):
    """In a process of its own, from a module that is not there elsewhere; the rows so far are kept."""
    (tmp_path / "gpu").mkdir()
    text = f"import os, subprocess, time\ndef work(n):\n    print('hello')\n    yield {{'n': n}}\n    {ending or 'pass'}\n"
    (tmp_path / "gpu" / "made_up.py").write_text(text)
    for name in ("__init__.py", "worker.py"):
        (tmp_path / "gpu" / name).write_text((gpu_session.EXAMPLE.parent / name).read_text())
    monkeypatch.setattr("gpu.session.BENCHMARKS", tmp_path)
    started = time.monotonic()
    record, printed = run_task(Task("a", "made_up:work", {"n": 4}), 2.0)
    assert time.monotonic() - started < 20
    assert (record["status"], record.get("error"), record["rows"]) == (status, error, [{"n": 4}])
    assert "hello" in printed


def test_the_table_of_made_up_figures():
    text = table(json.loads(gpu_session.EXAMPLE.read_text()))
    for words in (
        "nvcc 1.2.3", "a made-up GPU", "bf16 product 100 TFLOP/s", "3 passed, 1 skipped, 1 failed", "test_ops::test_x: assert 1 == 2",
        "accuracy, mnist-8k: 1 of 2 right", "wrong: {'shape': 'mnist-8k', 'B': 129", "memcheck: ERROR SUMMARY: 0 errors", "50%", "2 MiB",
        "120 us", "2.50", "0.75", "WRONG", "a generated set", "logits off by 0.02", "NOT FINISHED: test, racecheck: stopped after 150 s",
        "NOT FINISHED: bench, step, mnist-8k, torch_cuda_bf16: RuntimeError: made up (1 rows before that)",
    ):  # fmt: skip
        assert words in text
    assert table({"format": 1, "parts": {}}).strip() == ""


def test_the_parts():
    for part in tasks.PARTS:
        named = tasks.tasks(part)
        assert len({task.name for task in named}) == len(named)
        assert all(task.limit <= 510 and task.least <= task.limit for task in named)
        for task in named:
            module, function = task.function.split(":")
            assert f"def {function}(" in (gpu_session.EXAMPLE.parent / f"{module}.py").read_text()


def test_a_report_of_pytest():
    report = """<testsuites><testsuite><testcase classname="a" name="x"/><testcase classname="a" name="y"><skipped/></testcase>
        <testcase classname="a" name="z"><failure message="no">long</failure></testcase></testsuite></testsuites>"""
    assert tools.counted(report) == {"passed": 1, "skipped": 1, "failed": [["a::z", "no"]], "ok": False}


def test_without_a_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_session, "gpu_count", lambda: 0)
    assert gpu_session.main(["--out", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("no GPU on this machine")
    assert said.count("\n") == 1
    assert not (tmp_path / "none").exists()
    with pytest.raises(SystemExit):
        gpu_session.main(["--out", str(tmp_path), "--only", "bench,sing"])
