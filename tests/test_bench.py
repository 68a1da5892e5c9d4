"""`pymimic bench`: what it counts, whom it lets race, which rounds it counts, and what it prints."""

import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

from rich.console import Console

from pymimic import ops
from pymimic.bench import command, machine, plot, race, report, suite, verify, worker
from pymimic.bench.shapes import SHAPES, WHATS, Shape, arrays

TINY = Shape("tiny", 9, 7, 3, 40, 2)
DENSE = Shape("dense", 9, 7, None, 40, 2)


@pytest.fixture(scope="module")
def ceilings():
    """Rough ones, in no time."""
    return machine.ceilings(worker.peers_folder(), fast=True)


@pytest.fixture
def case(tmp_path):
    """A folder with a tiny case, all results expected."""
    verify.write_case(TINY, tmp_path, set(WHATS))
    return tmp_path


@pytest.fixture
def peers(tmp_path_factory, monkeypatch):
    """Writes a contestant's file into a folder of its own, in place of the real ones."""
    folder = tmp_path_factory.mktemp("benchmarks")
    (folder / "peers").mkdir()
    monkeypatch.setattr(worker, "peers_folder", lambda: folder)
    monkeypatch.syspath_prepend(str(folder))
    yield lambda name, text: (folder / "peers" / f"{name}.py").write_text(text)
    for module in [name for name in sys.modules if name == "peers" or name.startswith("peers.")]:
        del sys.modules[module]


# What is counted


def count_products(shape, what):
    """Multiplications and additions of every matrix product of the reference, written down one by one."""
    B, D, k, H, C = shape.B, shape.D, shape.rank, shape.H, shape.C
    bottleneck = [(B, D, k)] if shape.k else []
    products = [*bottleneck, (B, k, H), (B, H, C)]  # z, a, y
    if what in ("step", "adamw"):
        products += [(B, C, H), (H, B, C), (H, B, k)]  # dh, dW, dU
        products += [(B, H, k), (k, B, D)] if shape.k else []  # dz, dV
    return sum(2 * m * n * p for m, n, p in products)


@pytest.mark.parametrize("what", WHATS)
@pytest.mark.parametrize("shape", [TINY, DENSE, *SHAPES.values()], ids=lambda shape: shape.name)
def test_operations(shape, what):
    assert shape.operations(what) == count_products(shape, what)
    again = shape.operations(what, recompute=True) - shape.operations(what)
    assert again == (2 * shape.B * shape.H * shape.rank if what in ("step", "adamw") else 0)


@pytest.mark.parametrize("shape", [TINY, DENSE], ids=lambda shape: shape.name)
def test_least_bytes(shape):
    a = arrays(shape)
    rows, weights = a["x"].nbytes + a["t"].nbytes, sum(a[name].nbytes for name in "VUbWc" if name in a)
    assert shape.parameters * 4 == weights
    assert shape.least_bytes("forward") == rows + weights
    assert shape.least_bytes("step") == rows + 2 * weights  # weights in, gradients out
    assert shape.least_bytes("adamw") == rows + 6 * weights  # weights, mean and square in and out
    assert shape.least_bytes("forward", weight_bytes=2) == rows + weights / 2


def test_timit_400k_has_the_parameters_of_the_paper():
    assert SHAPES["timit-400k"].parameters == 174_061_433


def test_bounds_take_the_ceilings_of_the_precision_and_of_the_nearest_size():
    ceilings = {"float32": 100.0, "float64": 50.0, "bfloat16": 0.0, "read": {"1048576": 40.0, "67108864": 10.0}}
    assert suite.bounds(ceilings, "float32", 1e9, 1e6) == pytest.approx((0.01, 1e6 / 40e9))
    assert suite.bounds(ceilings, "float64", 1e9, 1e9) == pytest.approx((0.02, 0.1))
    assert suite.bounds(ceilings, "bfloat16", 1e9, 1e9)[0] == pytest.approx(0.01)  # no such unit: float32's


def test_ceilings_are_measured(ceilings):
    assert ceilings["float32"] > ceilings["float64"] > 0
    assert ceilings["copy"] > 0
    assert all(rate > 0 for rate in ceilings["read"].values())


def test_the_core_counts_what_it_did():
    from pymimic import _core

    for dtype in ("float32", "float64"):
        assert _core.multiply_adds(dtype, 20) == 2 * _core.multiply_adds(dtype, 10) > 0
    assert _core.multiply_adds("float16", 10) == 0
    for size in (0, 1, 1000, 100_003):
        assert _core.sum_all(np.ones(size, np.float32)) == size
        assert _core.sum_all(np.arange(size, dtype=np.float64)) == size * (size - 1) / 2


# Who may race


@pytest.mark.parametrize("shape", [TINY, DENSE], ids=lambda shape: shape.name)
def test_reference_in_slabs_is_the_reference(shape, monkeypatch):
    monkeypatch.setattr(verify, "_SLAB_VALUES", 3 * shape.B)
    a = arrays(shape)
    found = verify.reference(a, backward=True)
    exact = {name: array.astype(np.float64) for name, array in a.items()}
    x, U, b, W = (exact[name] for name in "xUbW")
    z = x @ exact["V"].T if shape.k else x
    y = ops.shallow_forward(z, U, b, W, exact["c"], backend="reference")
    dy = (y - exact["t"]) / shape.B
    grads = ops.shallow_backward(dy, z, U, b, W, backend="reference")
    expected = {"y": y, "U": grads.U, "b": grads.b, "W": grads.W, "c": grads.c} | ({"V": grads.z.T @ x} if shape.k else {})
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=2e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("name", ["pymimic", "pymimic_bf16x3", "pymimic_keep", "pymimic_keep_bf16", "numpy", "sklearn", "onnxruntime"])
@pytest.mark.parametrize("shape", [SHAPES["timit-8k"].small(), SHAPES["letter-4k"].small()], ids=lambda shape: shape.name)
def test_contestants_compute_what_the_reference_computes(name, shape, tmp_path):
    try:
        peer = worker.load(name)
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
    verify.write_case(shape, tmp_path, set(WHATS))
    functions = worker.introduction(peer)["functions"]
    assert functions
    for what in WHATS:
        if ("forward" if what == "serving" else what) in functions:
            run, error = worker.make(peer, what, tmp_path, 1 if what == "serving" else shape.B)
            assert error < 2e-2
            run()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "torch_compile", "torch_bf16", "jax"])
def test_contestants_that_are_slow_to_load_do_so_too(name, tmp_path):
    shape = SHAPES["timit-8k"].small()
    verify.write_case(shape, tmp_path, set(WHATS))
    try:
        running = race.Contestant(name, tmp_path)
    except race.ContestantError as error:
        pytest.skip(str(error))
    with running:
        for what in WHATS:
            if running.can(what):
                assert running.ask(make=what, batch=1 if what == "serving" else shape.B)["error"] < 0.1


WRONG = """
import numpy as np
from pymimic import ops

TITLE = "wrong"

def versions():
    return "0"

def forward(a):
    z = a["x"] @ a["V"].T
    return lambda: ops.shallow_forward(z, a["U"], a["b"], a["W"], a["c"]) {wrong}
"""


@pytest.mark.parametrize("wrong", ["* 1.001", "+ np.eye(9, 2, dtype=np.float32)", "[:, :1]", "* np.nan"])
def test_a_wrong_result_does_not_race(case, peers, wrong):
    peers("liar", WRONG.format(wrong=wrong))
    with pytest.raises(verify.WrongResultError, match="y"):
        worker.make(worker.load("liar"), "forward", case, TINY.B)


@pytest.mark.parametrize("name", list("VUbWc"))
@pytest.mark.parametrize("what", ["step", "adamw"])
def test_one_wrong_array_is_found(case, what, name):
    run, _ = worker.make(worker.load("numpy"), what, case, TINY.B)
    result = {key: np.array(value) for key, value in run().items()}
    right = {key: np.load(case / (f"expected_{key}.npy" if what == "step" else f"{key}.npy")) for key in result}
    if what == "adamw":
        gradients = {key: np.load(case / f"expected_{key}.npy").astype(np.float64) for key in right}
        decays = {key: verify.WEIGHT_DECAY * (value.ndim > 1) for key, value in right.items()}
        right = {key: p - verify.LEARNING_RATE * (np.sign(gradients[key]) + decays[key] * p) for key, p in right.items()}
    verify.check(what, right, case)
    right[name] = np.load(case / f"{name}.npy") if what == "adamw" else 1.1 * right[name]
    with pytest.raises(verify.WrongResultError, match=f"{what}: {name} "):
        verify.check(what, right, case)


def test_a_missing_library_is_named(peers):
    peers("absent", "import a_library_that_nobody_has\n")
    messages = []
    worker.serve("absent", Path(), messages.append)
    assert messages == [{"skip": "a_library_that_nobody_has is not installed"}]


# The race


@pytest.fixture
def contestant(case):
    with race.Contestant("numpy", case) as running:
        yield running


def test_a_contestant_is_stopped_while_it_has_nothing_to_do(contestant):
    contestant.ask(make="forward", batch=TINY.B)
    state = Path(f"/proc/{contestant._process.pid}/stat")
    if not state.exists():
        pytest.skip("no /proc on this system")
    assert _comes_true(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
    answer = contestant.ask(run=3, warm=1)
    assert answer["seconds"] > 0
    assert answer["peak"] > 1 << 20


def test_a_stopped_contestant_dies_with_its_parent(case):
    if sys.platform != "linux":
        pytest.skip("Linux alone ends children with their parent")
    code = (
        "import sys; from pathlib import Path; from pymimic.bench.race import Contestant\n"
        "c = Contestant('numpy', Path(sys.argv[1])); print(c._process.pid, flush=True); sys.stdin.read()"
    )
    env = os.environ | {"PYTHONPATH": machine.python_path()}
    parent = subprocess.Popen([sys.executable, "-c", code, str(case)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    assert _comes_true(lambda: not _is_running(child))


def _comes_true(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_death_is_told_with_its_cause(contestant):
    contestant._process.send_signal(signal.SIGKILL)
    with pytest.raises(race.ContestantError, match="died of signal 9"):
        contestant.ask(make="forward", batch=TINY.B)


class Scripted:
    """A contestant that takes `seconds` a call, while others take `load` of one core, round by round."""

    def __init__(self, name, seconds, load=(), dies_at=None):
        self.name, self.seconds, self.load, self.rounds, self.dies_at = name, seconds, list(load), 0, dies_at

    def ask(self, run, warm):
        if self.dies_at is not None and self.rounds == self.dies_at:
            raise race.ContestantError("died of signal 9")
        load = self.load[self.rounds] if self.rounds < len(self.load) else 0.0
        self.rounds += run > 1
        spent = run * self.seconds
        return {"seconds": spent * (1 + load), "own": spent, "busy": spent * (1 + load * 100), "peak": 5 + self.rounds}


class Speeds:
    """A probe that finds the cores as fast as told, one time after the other, and then at 1."""

    def __init__(self, *rates):
        self.rates, self.best = list(rates), {"float32": 1.0}

    def __call__(self):
        return {"float32": self.rates.pop(0) if self.rates else 1.0}


def test_disturbed_turns_are_discarded_and_counted():
    calm, beset = Scripted("calm", 0.001), Scripted("beset", 0.002, load=[0, 0.5, 0, 0.9])
    outcome = race.race([calm, beset], race.Pace(rounds=4, seconds=1e9, window=0.1), Speeds())
    assert outcome.lost == {}
    for name, median, discarded in (("calm", 0.001, 0), ("beset", 0.002, 2)):
        timing = outcome.timings[name]
        assert (len(timing.samples), timing.discarded, timing.quiet) == (4, discarded, True)
        assert timing.median == pytest.approx(median)


@pytest.mark.parametrize(("rates", "discarded"), [((1, 0.81, 0.81), 0), ((1, 0.7), 1), ((0.7,), 1), ((0.7, 1, 1, 0.7), 2)])
def test_turns_beside_slow_cores_are_discarded(rates, discarded):
    pace = race.Pace(rounds=3, seconds=1e9, window=0.1, patience=0)
    timing = race.race([Scripted("only", 0.001)], pace, Speeds(*rates)).timings["only"]
    assert (len(timing.samples), timing.discarded, timing.quiet) == (3, discarded, True)


def test_a_turn_waits_for_slow_cores():
    pace = race.Pace(rounds=3, seconds=1e9, window=0.1, patience=60)
    timing = race.race([Scripted("only", 0.001)], pace, Speeds(0.5, 0.7, 1, 1, 0.7, 1)).timings["only"]
    assert (len(timing.samples), timing.discarded, timing.quiet) == (3, 0, True)


def test_cores_that_were_faster_later_disown_what_was_quiet():
    probe = Speeds()
    contestant = Scripted("only", 0.001)
    ask = contestant.ask

    def ask_and_be_faster(run, warm):
        probe.best = {"float32": 1.0 if contestant.rounds < 2 else 2.0}
        return ask(run, warm)

    contestant.ask = ask_and_be_faster
    timing = race.race([contestant], race.Pace(rounds=3, seconds=1e9, window=0.1, patience=0), probe).timings["only"]
    assert (len(timing.samples), timing.discarded, timing.quiet) == (9, 0, False)


def test_where_no_turn_is_quiet_the_result_says_so():
    outcome = race.race([Scripted("beset", 0.002, load=[0.5] * 100)], race.Pace(rounds=3, seconds=1e9, window=0.1), Speeds())
    timing = outcome.timings["beset"]
    assert (len(timing.samples), timing.discarded, timing.quiet) == (9, 0, False)
    assert timing.median == pytest.approx(0.003)


def test_a_contestant_that_dies_is_left_out_and_the_others_go_on():
    outcome = race.race([Scripted("mortal", 0.001, dies_at=2), Scripted("other", 0.002)], race.Pace(rounds=4, window=0.1), Speeds())
    assert outcome.lost == {"mortal": "died of signal 9"}
    assert len(outcome.timings["other"].samples) == 4
    assert "mortal" not in outcome.timings


def test_core_speed_is_that_of_the_loop_and_keeps_the_best():
    speed = machine.CoreSpeed()
    assert "float32" in speed.best
    for _ in range(3):
        now = speed()
        assert now.keys() == speed.best.keys()
        assert all(0 < rate <= speed.best[dtype] for dtype, rate in now.items())
    assert machine.CoreSpeed(())() == {}


def test_core_speed_forgets(monkeypatch):
    speed = machine.CoreSpeed()
    monkeypatch.setattr(speed, "_rate", lambda dtype, steps: 1.0)
    speed()
    assert min(speed.best.values()) > 1
    later = time.monotonic() + 121
    monkeypatch.setattr(machine.time, "monotonic", lambda: later)
    assert speed() == speed.best == dict.fromkeys(speed.best, 1.0)


def test_others_share():
    assert race.others_share({"busy": None, "own": 1.0, "seconds": 1.0}, 2) == 0.0
    assert race.others_share({"busy": 1.0, "own": 1.0, "seconds": 1.0}, 2) == 0.0
    assert race.others_share({"busy": 2.02, "own": 1.0, "seconds": 1.0}, 2) == pytest.approx(0.5)


# The whole


@pytest.fixture(scope="module")
def result(ceilings, tmp_path_factory):
    """What a fast run of the command writes."""
    file = tmp_path_factory.mktemp("bench") / "result.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "ceilings", lambda folder, fast, device: ceilings)
        command.bench(shapes="mnist-8k", peers="numpy", what="all", json=file, fast=True)
    return json.loads(file.read_text())


def test_a_run_has_every_figure(result):
    rows = {(row["shape"], row["what"], row["peer"]): row for row in result["results"]}
    assert rows.keys() == {("mnist-8k", what, peer) for peer in ("pymimic", "numpy") for what in WHATS} | {
        ("mnist-8k", what, "pymimic_keep") for what in ("step", "adamw")
    }
    assert result["skipped"] == []
    assert not any(np.isnan(value) for row in rows.values() for value in row.values() if isinstance(value, float))
    for row in rows.values():
        assert row["B"] == (1 if row["what"] == "serving" else 37)
        assert 0 < row["low"] <= row["seconds"] <= row["high"]
        assert row["gflops"] * row["seconds"] * 1e9 == pytest.approx(row["operations"])
        assert row["of_ceiling"] > 0
        assert row["error"] < 2e-2
    assert rows["mnist-8k", "step", "pymimic"]["executed"] > rows["mnist-8k", "step", "pymimic_keep"]["executed"]
    assert result["machine"]["threads"] >= 1


def test_tables_and_picture(result, tmp_path):
    first, *others = result["results"]
    rows = [first | {"quiet": False, "discarded": 3}, *others]
    console = Console(record=True, width=80, file=io.StringIO())
    report.show_machine(console, result)
    for group in report.races(rows):
        report.show_race(console, group)
    report.show_summary(console, rows, [{"shape": "s", "B": 1, "what": "step", "peer": "p", "why": "p is not installed"}])
    text = console.export_text()
    for words in ("mnist-8k: forward", "mnist-8k: adamw", "pymimic, h kept", "NumPy", "p is not installed", "the figures mean nothing"):
        assert words in text
    assert f"~{report.duration(first['seconds'])}" in text
    assert re.search(r"turns? each, \d+ of \d+ discarded for other load", " ".join(text.split()))
    assert "…" not in text, "a column is cut off at 80 characters"
    plot.draw(result, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.234, "1.23 s"), (0.0123, "12.3 ms"), (0.123, "123 ms"), (45.6e-6, "45.6 us"), (1e-8, "0.0100 us")]
)
def test_duration(seconds, text):
    assert report.duration(seconds) == text


def test_batches_replace_the_shapes_own_but_serving_is_one_row_once(monkeypatch, ceilings):
    seen = []
    monkeypatch.setattr(machine, "ceilings", lambda folder, fast, device: ceilings)
    monkeypatch.setattr(suite, "_run_case", lambda shape, whats, *rest: seen.append((shape.name, shape.B, list(whats))) or [])
    suite.run(["letter-4k"], ["step", "serving"], ["numpy"], [3, 5])
    suite.run(["letter-4k", "timit-8k"], ["serving"], ["numpy"])
    suite.run(["timit-50k"], ["forward"], ["numpy"])
    assert seen == [
        ("letter-4k", 3, ["step", "serving"]), ("letter-4k", 5, ["step"]), ("letter-4k", 1, ["serving"]), ("timit-8k", 1, ["serving"]),
        ("timit-50k", 1024, ["forward"]),
    ]  # fmt: skip


def test_what_is_terminated_leaves_nothing_behind(ceilings, tmp_path):
    code = (
        "from pymimic.bench import command, machine\n"
        f"machine.ceilings = lambda folder, fast, device: {ceilings}\n"
        "command.bench(shapes='mnist-8k', peers='numpy')"
    )
    env = os.environ | {"PYTHONPATH": machine.python_path(), "TMPDIR": str(tmp_path)}
    run = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert _comes_true(lambda: any(tmp_path.glob("pymimic-bench-*/expected_c.npy")), 60)
        run.terminate()
        assert run.wait(30) == 128 + signal.SIGTERM
    finally:
        run.kill()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shapes": "letter"}, "shapes: expected names among letter-4k"),
        ({"peers": "matlab"}, "peers: expected names among pymimic"),
        ({"what": ","}, "what: expected at least one name"),
        ({"batch": "0"}, "batch: expected whole numbers of at least 1, got '0'"),
        ({"seconds": 0.0}, "seconds: expected more than 0, got 0.0"),
        ({"seconds": float("nan")}, "seconds: expected more than 0, got nan"),
    ],
)
def test_command_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        command.bench(**({"shapes": "letter-4k", "peers": "", "batch": "", "what": "forward"} | options))


def test_seconds_are_those_of_a_race(monkeypatch):
    paces = []
    monkeypatch.setattr(suite, "run", lambda *rest, pace, **more: paces.append(pace) or {"results": [], "skipped": []})
    command.bench(shapes="letter-4k", seconds=7.0)
    command.bench(shapes="letter-4k", fast=True)
    assert paces == [race.Pace(seconds=7.0), None]


def test_command_wants_a_folder_before_the_work(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        command.bench(json=tmp_path / "nowhere" / "a.json")


def make_tables():
    path = Path(__file__).parents[1] / "benchmarks" / "make_tables.py"
    if not path.exists():
        pytest.skip("not a checkout")
    spec = importlib.util.spec_from_file_location("make_tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_made_of_the_newest_results(result, tmp_path):
    made = make_tables()
    (tmp_path / "old.json").write_text(json.dumps(result | {"date": "2020-01-01T00:00:00+00:00", "results": []}))
    (tmp_path / "new.json").write_text(json.dumps(result))
    text = made.with_tables(f"before\n{made.BEGIN}\nold\n{made.END}\nafter\n", tmp_path)
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| mnist-8k | 37 | forward | **" in text
    assert "2020-01-01" not in text
    assert made.with_tables(text, tmp_path) == text


def test_each_machine_has_a_table(result, tmp_path):
    made = make_tables()
    other = json.loads(json.dumps(result))
    other["machine"]["cpu"] = "another processor"
    other["date"] = "2020-01-01T00:00:00+00:00"
    for name, run in (("a.json", result), ("b.json", other)):
        (tmp_path / name).write_text(json.dumps(run))
    text = made.with_tables(made.BEGIN + made.END, tmp_path)
    assert "### another processor" in text
    assert f"### {result['machine']['cpu']}" in text


def test_tables_are_up_to_date():
    made = make_tables()
    text = made.PAGE.read_text()
    assert made.with_tables(text, made.HERE / "results") == text
