"""The emulator sees what it is there to see."""

import ctypes

import numpy as np
import pytest
from emulator import ELEMENTS, LAUNCH_FAILURE, PRECISIONS, guarded

SEEDS = range(8)


@pytest.fixture
def numbers():
    return np.arange(256, dtype=np.float32)


def find(simt, what):
    """The mutants of one word of the vocabulary in probes.cu, in order of their lines."""
    mutants = [m for m in simt.visited("probes.cu") if what in m.name.split()]
    return sorted(mutants, key=lambda m: (int(m.name.split(":")[1]), m.variant))


def wrong_seeds(simt, mutant, run):
    """How many schedules show the mutant; without it, all are right."""
    assert all(run(seed) for seed in SEEDS)
    simt.mutate(mutant)
    return sum(not run(seed) for seed in SEEDS)


def test_removed_barrier(simt, numbers):
    def run(seed):
        simt.seed(seed)
        out = np.zeros_like(numbers)
        simt.call("probe_reverse", numbers, out, 256)
        return np.array_equal(out, numbers[::-1])

    assert run(0)
    (barrier,) = find(simt, "sync_block")
    assert wrong_seeds(simt, barrier, run) == len(SEEDS)


def test_removed_waits_and_commits(simt, numbers):
    def run(seed):
        simt.seed(seed)
        out = np.zeros_like(numbers)
        simt.call("probe_copy_twice", numbers, numbers[::-1].copy(), out, 256)
        return np.array_equal(out, numbers + numbers[::-1])

    assert run(0)
    mutants = find(simt, "copy_async_wait") + find(simt, "copy_async_commit")
    assert len(mutants) == 4
    shown = [wrong_seeds(simt, mutant, run) for mutant in mutants if simt.mutate(None) is None]
    # without the first commit, the first wait covers both copies less one group: none
    assert shown[0] >= 6
    assert shown[1] >= 6
    assert shown[2] >= 6


@pytest.mark.parametrize("at", [-4, 64, 62, 2**31])
def test_shared_memory_out_of_bounds_or_misaligned(simt, at):
    simt.call("probe_store", 60, 64)
    assert simt.status("probe_store", at, 64) == LAUNCH_FAILURE
    assert "probes.cu" in simt.error()
    assert "shared memory" in simt.error()


def test_divergent_warp(simt):
    simt.call("probe_diverge", 0)
    simt.call("probe_diverge", 32)
    assert simt.status("probe_diverge", 5) == LAUNCH_FAILURE
    assert "divergent warp: this lane is in sync_warp, others in sync_warp at probes.cu" in simt.error()


@pytest.mark.parametrize("threads", [1, 32, 95])
def test_deadlock(simt, threads):
    simt.call("probe_leave_early", 0)
    simt.call("probe_leave_early", 96)
    assert simt.status("probe_leave_early", threads) == LAUNCH_FAILURE
    assert "deadlock" in simt.error()
    assert "has ended" in simt.error()
    assert "waits in sync_block at probes.cu" in simt.error()


def test_shuffle(simt, numbers):
    out = np.zeros(32, np.float32)
    simt.call("probe_sum_warp", numbers, out)
    assert (out == numbers[:32].sum()).all()
    (mutant,) = find(simt, "shuffle")
    simt.mutate(mutant)
    simt.call("probe_sum_warp", numbers, out)
    assert not (out == numbers[:32].sum()).all()


@pytest.mark.parametrize("precision", PRECISIONS[:3])
def test_product(simt, precision):
    rng = np.random.default_rng(0)
    depth = 8 if precision == "tf32" else 16
    a, b = (rng.integers(-64, 65, shape).astype(np.float32) / 16 for shape in ((16, depth), (depth, 8)))
    d = guarded((16, 8))
    simt.call("probe_product", PRECISIONS.index(precision), a, b, d.array, 144)
    expected = a.astype(ELEMENTS[precision]).astype(np.float64) @ b.astype(ELEMENTS[precision]).astype(np.float64)
    np.testing.assert_array_equal(d.array, expected)
    assert d.intact
    mutants = [m for m in simt.visited("probes.cu") if "sync" not in m.name]
    assert len(mutants) == (2 if precision == "tf32" else 6)
    for mutant in mutants:
        simt.mutate(mutant)
        simt.call("probe_product", PRECISIONS.index(precision), a, b, d.array, 144)
        # b takes half of the registers that load_matrices_transposed gives: swapping within the pairs and across them both show
        assert not np.array_equal(d.array, expected), mutant.name


def test_bank_conflicts(simt):
    a, b, d = np.ones((16, 16), np.float32), np.ones((16, 8), np.float32), np.zeros((16, 8), np.float32)
    conflicts = []
    simt.bank_conflicts()
    for row_bytes in (144, 128, 64):
        simt.call("probe_product", PRECISIONS.index("bf16"), a, b, d, row_bytes)
        conflicts.append(simt.bank_conflicts())
    assert conflicts == [0, 2 * 4 * 7, 2 * 4 * 3]


def test_half(simt):
    values = np.concatenate([np.float32([0, -0.0, 1e-8, 3e-8, 6e-8, 6.1e-5, 65519, 65520, 1e6, np.inf, -np.inf, np.nan]),
                             np.random.default_rng(0).standard_normal(10_000).astype(np.float32) ** 15])  # fmt: skip
    simt.lib.simt_half.restype = ctypes.c_uint16
    ours = np.array([simt.lib.simt_half(ctypes.c_float(x)) for x in values], np.uint16)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    np.testing.assert_array_equal(ours.view(np.float16), expected)
