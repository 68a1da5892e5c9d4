"""The race: contestants take turns, and only quiet turns count."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench_cases import TINY, comes_true

from pymimic.bench import machine, race


@pytest.fixture
def contestant(case):
    with race.Contestant("numpy", case) as running:
        yield running


def test_a_contestant_is_stopped_while_it_has_nothing_to_do(contestant):
    contestant.ask(make="forward", batch=TINY.B)
    state = Path(f"/proc/{contestant._process.pid}/stat")
    if not state.exists():
        pytest.skip("no /proc on this system")
    assert comes_true(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
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
    assert comes_true(lambda: not _is_running(child))


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
