"""How many threads the kernels use: what the environment, control groups and affinity say, and that cores are not oversubscribed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import pymimic as pm
from pymimic import ops, threads

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")


@pytest.fixture
def groups(tmp_path):
    """Writes what /proc/self/cgroup says, and control files below a root; the quota that follows."""

    def quota(lines, **files):
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "cgroup").write_text(lines)
        return threads._quota(tmp_path / "cgroup", tmp_path / "root")

    return quota


def test_quotas_of_version_2(groups):
    """A quota is rounded up to cores, and one of an outer group holds too."""
    assert groups("0::/\n") == 1024
    assert groups("0::/\n", **{"cpu.max": "max 100000\n"}) == 1024
    assert groups("0::/\n", **{"cpu.max": "350000 100000\n"}) == 4
    assert groups("0::/a/b\n", **{"cpu.max": "350000 100000\n"}) == 4  # a container that sees its own group as the root
    assert groups("0::/a/b\n", **{"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}) == 2
    assert groups("0::/a/b\n", **{"a/b/cpu.max": "5000 100000\n"}) == 1


def test_quotas_of_version_1(groups):
    lines = "4:memory:/\n3:cpu,cpuacct:/a\n0::/\n"
    assert groups(lines, **{"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}) == 1024
    assert groups(lines, **{"cpu/a/cpu.cfs_quota_us": "150000\n"}) == 2
    assert groups(lines, **{"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}) == 1


@pytest.mark.parametrize("text", ["", "nonsense", "1 2 3", "5 0", "\udcff"])
def test_unreadable_quotas_are_none(groups, text):
    assert groups("0::/\n", **{"cpu.max": text.encode("utf-8", "surrogateescape").decode("latin1")}) == 1024


def test_no_control_groups(tmp_path):
    assert threads._quota(tmp_path / "none", tmp_path) == 1024


@pytest.mark.parametrize(("value", "warns"), [("", False), ("2", False), ("0", True), ("-1", True), ("abc", True), ("1000000", True)])
def test_an_import_outlives_any_value(value, warns):
    environment = {**os.environ, "PYMIMIC_NUM_THREADS": value, "OMP_NUM_THREADS": "3"}
    run = [sys.executable, "-c", "import pymimic; print(pymimic.get_num_threads())"]
    done = subprocess.run(run, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ("2" if value == "2" else "3")
    assert (f"PYMIMIC_NUM_THREADS: expected a number of threads in [1, 1024], got '{value}'" in done.stderr) == warns


def steps_a_second(weights, dy, z):
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < 0.3:
        weights.step(dy, z, pm.SGD(1e-6))
        steps += 1
    return steps / (time.perf_counter() - start)


@needs_affinity
def test_affinity_that_shrinks_after_the_import(threads):
    """Bits stay, and threads that wait for others on the same core let them run."""
    rng = np.random.default_rng(0)
    z, U, W, b, c = (rng.standard_normal(shape, np.float32) for shape in ((256, 32), (2000, 32), (2000, 10), 2000, 10))
    dy = rng.standard_normal((256, 10), np.float32)
    threads(4)
    want = ops.shallow_forward(z, U, b, W, c)
    before = os.sched_getaffinity(0)
    tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    try:
        for task in tasks:
            os.sched_setaffinity(task, {min(before)})
        np.testing.assert_array_equal(ops.shallow_forward(z, U, b, W, c), want)
        weights = pm.ShallowWeights(U, b, W, c)
        crowded = steps_a_second(weights, dy, z)
        assert pm.threads.default_num_threads() == 1
        threads(1)
        assert crowded > 0.1 * steps_a_second(weights, dy, z)
    finally:
        for task in tasks:
            os.sched_setaffinity(task, before)


# Nets that another thread changes


NETS = {
    "Student": lambda: pm.Student(6, 40, 3), "DeepNet": lambda: pm.DeepNet([6, 40, 3]), "ConvNet": lambda: pm.ConvNet((1, 6), [(8, 3)], 3),
}  # fmt: skip


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_a_call_answers_with_the_weights_that_it_began_with(make, monkeypatch):
    """Whatever is set between two of its slabs."""
    net, x = make(), np.random.default_rng(0).standard_normal((100, 6), np.float32)
    net.set_standardisation(np.zeros(6), np.ones(6))
    labels, arrays = net.logits(x).argmax(axis=1), net.arrays()
    want, standardise = net.logits(x), type(net).standardise

    def change_after(self, rows):
        """Give the net other weights whenever a slab has been standardised."""
        standardised = standardise(self, rows)
        net.set_arrays(**{name: array * 0 for name, array in arrays.items()})
        net.set_standardisation(np.ones(6), 9 * np.ones(6))
        return standardised

    for module in ("pymimic.nets.student", "pymimic.training.layered"):
        monkeypatch.setattr(f"{module}._MOST_ROWS", 32)
    monkeypatch.setattr(type(net), "standardise", change_after)
    assert np.array_equal(net.logits(x), want)
    assert np.array_equal(net.arrays()[next(iter(arrays))], 0 * arrays[next(iter(arrays))])
    net.set_arrays(**arrays)
    net.set_standardisation(np.zeros(6), np.ones(6))
    monkeypatch.setattr("pymimic.nets.net.in_order", lambda name, cases: (cases.batch(np.arange(i, i + 20)) for i in range(0, 100, 20)))
    assert net.score(x, labels) == 1


def test_mean_and_scale_are_read_together():
    """One pair or the other, though they are set while they are read."""
    net = pm.Student(6, 40, 3)

    class Mean:
        def __array__(self, dtype=None, copy=None):
            net.set_standardisation(np.ones(6), 9 * np.ones(6))
            return np.zeros(6, dtype)

    net.set_standardisation(np.zeros(6), np.ones(6))
    net.mean = Mean()
    x = np.random.default_rng(0).standard_normal((20, 6), np.float32)
    assert np.array_equal(net.standardise(x), x)
    assert np.array_equal(net.standardise(x), (x - 1) * 9)


@pytest.mark.parametrize(("cores", "quota", "most"), [(8, 3, 3), (2, 3, 2), (8, 0, 1), (4000, 5000, 1024)])
def test_a_quota_and_the_cores_at_hand_limit_the_threads(monkeypatch, cores, quota, most):
    for variable in ("PYMIMIC_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(threads, "_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(cores), raising=False)
    assert threads.default_num_threads() == most


def test_threads_are_1_to_1024(threads):
    with pytest.raises(ValueError, match=r"^n: expected an int in \[1, 1025\), got 1025"):
        threads(1025)
    with pytest.raises(ValueError, match=r"^n: expected"):
        threads(0)
    threads(1024)
    assert pm.get_num_threads() == 1024
