"""benchmarks/gpu_session.py without a GPU: what is kept, what is done again, what a budget leaves, what hangs, and the table."""

import json
import os
import time
from pathlib import Path

import gpu_session
import pytest
from gpu import build, tasks, tools, watch
from gpu.session import GRACE, Session, Task, run_task
from gpu.table import table

TASKS = [Task("first", "a:b", limit=100, least=10), Task("second", "a:b", limit=100, least=10), Task("third", "a:b", limit=100, least=50)]
GATE = Task("gate", "a:b", gate=True)
EXAMPLE = Path(gpu_session.__file__).parent / "gpu" / "example.json"


class Runner:
    """Runs nothing: tells what is asked of it, and lets a clock go. A task's outcomes come one after the other, then all is well."""

    def __init__(self, seconds=20.0, **outcomes):
        self.asked, self.hung, self.outcomes, self.seconds, self.now, self.said = [], [], outcomes, seconds, 0.0, []

    def __call__(self, task, limit, hung):
        self.asked.append((task.name, limit))
        self.hung.append(hung)
        self.now += self.seconds
        outcome = self.outcomes.get(task.name) or [{}]
        return {"status": "ok", "seconds": self.seconds, "rows": [{"n": 1}], **outcome.pop(0)}, f"{task.name} printed"

    def of(self, session, budget, wanted=TASKS):
        return session.run(wanted, budget + GRACE, self.said.append, self, lambda: self.now)

    @property
    def names(self):
        return [name for name, _ in self.asked]


def test_a_call_goes_on_where_it_stopped(tmp_path):
    first = Runner(second=[{"status": "failed", "error": "boom"}])
    first.of(Session(tmp_path, "x"), 90.0)
    assert first.asked == [("first", 90.0), ("second", 70.0), ("third", 50.0)]
    assert json.loads(first.said[1]) == {
        "task": "second", "status": "failed", "seconds": 20.0, "rows": [{"n": 1}], "error": "boom", "of": "x"
    }  # fmt: skip
    again = Runner()
    again.of(Session(tmp_path, "x"), 90.0)
    assert again.names == ["second"]
    session = Session(tmp_path, "x")
    assert session.missing(TASKS) == []
    assert Session(tmp_path, "another build").missing(TASKS) == TASKS
    session.forget(TASKS)
    assert session.missing(TASKS) == TASKS
    assert (tmp_path / "session.log").read_text().count("printed") == 4


def test_tasks_that_the_budget_has_no_room_for(tmp_path):
    runner, session = Runner(), Session(tmp_path, "x")
    runner.of(session, 60.0)
    assert runner.asked == [("first", 60.0), ("second", 40.0)]
    assert session.missing(TASKS) == TASKS[2:]
    runner = Runner(third=[{"status": "timeout", "error": "slow", "rows": []}])
    runner.of(session, 60.0)
    assert Session(tmp_path, "x").records["third"]["error"] == "slow"


def test_those_never_tried_come_first_and_rows_are_not_lost(tmp_path):
    session = Session(tmp_path, "x")
    Runner(first=[{"status": "failed", "error": "boom", "rows": [{"n": 1}, {"n": 2}]}]).of(session, 99.0, TASKS[:1])
    later = Runner(first=[{"status": "failed", "error": "bang", "rows": []}])
    later.of(session, 99.0, [*TASKS, GATE])
    assert later.names == ["gate", "second", "third", "first"]
    assert session.records["first"]["rows"] == [{"n": 1}, {"n": 2}]
    assert session.records["first"]["error"] == "bang"


@pytest.mark.parametrize(
    "outcome", [{"rows": [{"ok": True}, {"ok": False}]}, {"status": "failed", "error": "boom"}, {"status": "hung", "hung": "a"}]
)
def test_nothing_passes_a_gate_that_fails(tmp_path, outcome):
    session = Session(tmp_path, "x")
    for _ in range(2):
        runner = Runner(gate=[outcome.copy()])
        assert runner.of(session, 99.0, [*TASKS, GATE]) is GATE
        assert runner.names == ["gate"]
    assert Runner(seconds=1.0).of(session, 99.0, [*TASKS, GATE]) is None
    assert Runner().of(Session(tmp_path / "short", "x"), 1.0, [*TASKS, GATE]) is GATE


def test_what_hangs_is_left_out_and_its_task_done_again(tmp_path):
    session = Session(tmp_path, "x")
    runner = Runner(first=[{"status": "hung", "hung": "bf16 units", "error": "nothing came back"}, {"left out": ["bf16 units"]}])
    runner.of(session, 200.0)
    assert runner.names == ["first", "second", "third", "first"]
    assert runner.hung == [[], ["bf16 units"], ["bf16 units"], ["bf16 units"]]
    assert session.left_out(TASKS) == ["bf16 units"]
    another_build = Runner()
    another_build.of(Session(tmp_path, "y"), 99.0, TASKS[:1])
    assert another_build.hung == [[]]


def test_a_row_that_is_wrong(tmp_path):
    session = Session(tmp_path, "x")
    Runner(first=[{"rows": [{"ok": True}, {"n": 1}, {"ok": False, "n": 2}]}]).of(session, 99.0, TASKS[:1])
    assert session.wrong(TASKS) == [{"ok": False, "n": 2}]
    assert session.wrong(TASKS[1:]) == []


@pytest.mark.parametrize(
    ("summary", "errors"), [("RACECHECK SUMMARY: 2 hazards displayed (1 error)", 2), ("ERROR SUMMARY: 0 errors", 0), ("", None)]
)
def test_a_sanitizer(tmp_path, monkeypatch, summary, errors):
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\necho called\necho 'called bf16 units'\necho '========= {summary}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    if errors is None:
        with pytest.raises(RuntimeError, match="racecheck did not get through"):
            list(tools.sanitizer("racecheck"))
    else:
        (row,) = tools.sanitizer("racecheck")
        assert (row["errors"], row["ok"], row["calls"]) == (errors, errors == 0, 1)


NCU = """#!/bin/sh
case "$1" in
  --import) printf '%s\\n' 'a line' '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"' '"0","rows_90","Duration","ms","1.5"' ;;
  *) while [ "$1" != --export ]; do shift; done; touch "$2"; echo '{said}' ;;
esac
"""


@pytest.mark.parametrize("said", ["==PROF== Report", "==ERROR== ERR_NVGPUCTRPERM - no permission"])
def test_a_profile(tmp_path, monkeypatch, said):
    program = tmp_path / "ncu"
    program.write_text(NCU.format(said=said))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (row,) = tools.profile(str(tmp_path / "kernels.ncu-rep"), "mnist-8k", 512)
    assert row.get("kernels") == (None if "ERROR" in said else {"rows_90": {"Duration": "1.5 ms"}})
    assert ("ERR_NVGPUCTRPERM" in row.get("skipped", "")) == ("ERROR" in said)


def test_results_of_another_format(tmp_path):
    (tmp_path / "session.json").write_text('{"format": 1}')
    with pytest.raises(SystemExit, match="expected format 2, got 1"):
        Session(tmp_path, "x")


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """Runs a task whose function goes on, after a row, with these lines, in a process of its own."""

    def run(ending, limit=2.0, hung=()):
        (tmp_path / "gpu").mkdir()
        imports = "import os, subprocess, time\nfrom gpu.watch import about_to\n"
        text = f"{imports}def work(n):\n    print('hello')\n    yield {{'n': n}}\n    {ending}\n"
        (tmp_path / "gpu" / "made_up.py").write_text(text)
        for name in ("__init__.py", "worker.py", "watch.py"):
            (tmp_path / "gpu" / name).write_text((EXAMPLE.parent / name).read_text())
        monkeypatch.setattr("gpu.session.BENCHMARKS", tmp_path)
        started = time.monotonic()
        record, printed = run_task(Task("a", "made_up:work", {"n": 4}), limit, list(hung))
        assert time.monotonic() - started < 20
        assert "hello" in printed
        return record

    return run


@pytest.mark.parametrize(
    ("ending", "status", "error"),
    [
        ("pass", "ok", None),
        ("raise ValueError('no')", "failed", "ValueError: no"),
        ("os._exit(3)", "failed", "exited with 3"),
        ("os.kill(os.getpid(), 11)", "failed", "died of SIGSEGV"),
        ("subprocess.Popen(['sleep', '60']); time.sleep(60)", "timeout", "stopped after 2 s"),
        ("about_to('b', within=60); time.sleep(60)", "timeout", "stopped after 2 s, during b"),
        ("about_to('b', within=0.2); yield {}; time.sleep(1)", "ok", None),
        ("about_to('b', within=60); about_to('c', within=0.2); time.sleep(60)", "hung", "nothing came back from c"),
    ],
)
def test_a_task_however_it_ends(made_up, ending, status, error):
    """The rows so far are kept."""
    record = made_up(ending)
    assert (record["status"], record.get("error"), record["rows"][0]) == (status, error, {"n": 4})
    assert record.get("hung") == ("c" if status == "hung" else None)


def test_a_call_with_a_part_that_hung_is_left_out(made_up):
    record = made_up("yield {'made': [about_to('a'), about_to('step', 'b'), about_to('b', 'c')]}", hung=["b"])
    assert record["rows"][1] == {"made": [True, False, False]}
    assert record["left out"] == ["step", "b"]


def test_a_process_that_outlives_its_end_is_not_waited_for(made_up, monkeypatch):
    kill, spared = os.killpg, []
    monkeypatch.setattr("gpu.session.os.killpg", lambda *process: spared.append(process))
    monkeypatch.setattr("gpu.session.GRACE", 0.2)
    record = made_up("about_to('c', within=0.2); time.sleep(60)")
    kill(*spared[0])
    assert record["error"] == "nothing came back from c, and its process does not end"


def test_outside_of_a_session_every_call_is_made(monkeypatch):
    monkeypatch.delenv(watch.LINES, raising=False)
    monkeypatch.delenv(watch.HUNG, raising=False)
    assert watch.about_to("a", "b")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder of sources, and what a stand-in for CMake, which writes the modules, is asked for."""
    for name in ("CMakeLists.txt", "csrc/a.h", "kernels/b.cu"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "pymimic").mkdir()
    asked, suffix = [], build.sysconfig.get_config_var("EXT_SUFFIX")

    def cmake(*words):
        asked.append(words[1])
        if words[1] == "--build":
            for module in build.MODULES:
                (tmp_path / "pymimic" / f"{module}{suffix}").write_text(module)
        return "-- CUDA kernels: nvcc"

    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "FOLDER", tmp_path / "build")
    monkeypatch.setattr(build, "STAMP", tmp_path / "build" / "built.json")
    monkeypatch.setattr(build, "settings", lambda: {"PYMIMIC_ISAS": "avx2"})
    monkeypatch.setattr(build, "run", cmake)
    return tmp_path, asked


def test_a_build_goes_by_contents(tree, monkeypatch):
    folder, asked = tree
    files = [folder / name for name in ("CMakeLists.txt", "csrc/a.h", "kernels/b.cu")]

    def built():
        asked.clear()
        (row,) = build.build()
        assert asked == (["-S", "--build"] if row["built"] else [])
        return row["built"]

    assert built()
    before = [path.stat().st_mtime_ns for path in files]
    for path in files:
        os.utime(path)  # sent again
    assert not built()
    files[2].write_text("something else")
    os.utime(files[2], (1, 1))
    os.utime(files[1])
    assert built()
    after = [path.stat().st_mtime_ns for path in files]
    assert after[:2] == before[:2]  # what depends on these alone is not compiled again
    assert after[2] > before[2]
    next((folder / "pymimic").glob("_core*")).write_text("of another build")
    assert built()
    monkeypatch.setattr(build, "settings", lambda: {"PYMIMIC_ISAS": "baseline"})
    assert built()
    assert not built()


@pytest.mark.parametrize(("flags", "isa"), [("fpu avx2 fma avx512f", "avx2"), ("fpu avx2", "baseline"), (None, "baseline")])
def test_the_instruction_set(tmp_path, flags, isa):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n" if flags else "processor : 0\n")
    assert build.instruction_set(tmp_path / "cpuinfo") == isa


def test_the_table_of_made_up_figures():
    text = table(json.loads(EXAMPLE.read_text()), {"A": [], "B": ["ways", "serving"]})
    for words in (
        "nvcc 1.2.3", "cpu/isa.cpp 30 s", "Driver 13000", "binaryVersion 90, numRegs 168", "bf16 rows: WRONG", "a made-up GPU",
        "bf16 product 100 TFLOP/s", "3 passed, 1 skipped, 1 failed", "test_ops::test_x: assert 1 == 2", "Duration 1.2 ms",
        "accuracy, mnist-8k: 1 of 2 right", "wrong: {'shape': 'mnist-8k', 'B': 129", "memcheck: ERROR SUMMARY: 0 errors", "50%", "2 MiB",
        "120 us", "2.50", "0.75", "WRONG", "a generated set", "logits off by 0.02", "NOT FINISHED: racecheck: stopped after 150 s",
        "NOT FINISHED: step, mnist-8k, torch_cuda_bf16: RuntimeError: made up (1 rows before that)",
        "LEFT OUT of same bits, mnist-8k, bfloat16, as such calls hung: bf16 step",
    ):  # fmt: skip
        assert words in text
    assert text.endswith("left for the next time, B: ways; serving\n")
    assert table({"format": 2, "hung": {}, "tasks": {}}, {}).strip() == ""


@pytest.mark.parametrize("call", tasks.BUDGETS)
def test_the_plan(tmp_path, call):
    plan = tasks.plan(call, tmp_path)
    assert [task.name for task in plan if task.gate] == ["build", "smoke"]
    assert all(task.least + GRACE <= task.limit <= tasks.BUDGETS[call] for task in plan)
    for task in plan:
        module, function = task.function.split(":")
        assert f"def {function}(" in (EXAMPLE.parent / f"{module}.py").read_text()


def test_the_plans_together(tmp_path):
    names = [task.name for call in tasks.BUDGETS for task in tasks.plan(call, tmp_path) if not task.gate]
    assert len(names) == len(set(names))
    assert tasks.BUDGETS["A"] + tasks.BUDGETS["B"] <= 750  # of fifteen minutes, with two starts


def test_a_report_of_pytest():
    report = """<testsuites><testsuite><testcase classname="a" name="x"/><testcase classname="a" name="y"><skipped/></testcase>
        <testcase classname="a" name="z"><failure message="no">long</failure></testcase></testsuite></testsuites>"""
    assert tools.counted(report) == {"passed": 1, "skipped": 1, "failed": [["a::z", "no"]], "ok": False}


def test_the_tests_are_watched_line_by_line(tmp_path, monkeypatch):
    lines = tmp_path / "lines"
    monkeypatch.setenv(watch.LINES, str(lines))
    monkeypatch.setattr(tools, "ROOT", tmp_path)
    (tmp_path / "test_a.py").write_text(f"import os\ndef test_b():\n    assert {watch.LINES!r} not in os.environ\n")
    assert list(tools.pytest("test_a.py")) == [{"passed": 1, "skipped": 0, "failed": [], "ok": True}]
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(told) > 3
    assert all(line == {"about to": "pytest", "within": 60.0} for line in told)
    monkeypatch.setenv(watch.HUNG, '["pytest"]')
    assert list(tools.pytest("test_a.py")) == []


def test_without_a_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_session, "compute_capability", lambda: None)
    assert gpu_session.main(["--out", str(tmp_path / "none"), "--call", "A"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("no GPU on this machine")
    assert said.count("\n") == 1
    assert not (tmp_path / "none").exists()
    with pytest.raises(SystemExit):
        gpu_session.main(["--out", str(tmp_path), "--call", "C"])
