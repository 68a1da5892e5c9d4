"""What the emulator knows of sm_90a: the layouts of wgmma and the copy engine, and that it sees each of the mistakes in probes_sm90a.cu."""

import numpy as np
import pytest
from emulator import LAUNCH_FAILURE, SUCCESS, guarded, operand

MISTAKES = {
    "reads sums early": (1, None),
    "changes a fragment early": (2, None),
    "one warp leaves": (3, "unequal products"),
    "nobody awaits a copy": (4, "copies are still under way"),
    "writes over a barrier": (5, "wrote over"),
    "arrives twice": (6, "more arrivals"),
    "awaits a phase that never ends": (7, "deadlock"),
    "lanes disagree": (8, "lanes differ"),
}
SEEDS = range(12)


class Products:
    """Operands that a product in float32 makes without rounding."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.operands = [operand(rng.integers(-64, 65, shape) / 16, "bf16") for shape in ((64, 16), (128, 16), (16, 64))]
        a, b, c = (x.astype(np.float64) for x in self.operands)
        self.expected = a @ b.T, 1 + a @ c

    def run(self, simt, mistake=0, seed=0):
        """The status, and whether the result is right."""
        simt.seed(seed)
        along, down = guarded((64, 128)), guarded((64, 64))
        status = simt.status("probe_wide_products", *self.operands, along.array, down.array, mistake)
        assert along.intact
        assert down.intact
        return status, all(np.array_equal(x.array, y) for x, y in zip((along, down), self.expected))


def test_products(simt):
    assert all(Products().run(simt, seed=seed) == (SUCCESS, True) for seed in SEEDS)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(simt, mistake):
    number, message = MISTAKES[mistake]
    runs = [Products().run(simt, number, seed) for seed in SEEDS]
    assert not all(right and status == SUCCESS for status, right in runs)
    if message:
        assert LAUNCH_FAILURE in [status for status, _ in runs]
        assert message in simt.error()


def test_mutants(simt):
    assert Products().run(simt) == (SUCCESS, True)
    mutants = [m for m in simt.visited("probes_sm90a.cu") if "store_shared" not in m.name]
    assert len(mutants) == 16
    alive = simt.survivors(mutants, lambda: all(Products().run(simt, seed=seed) == (SUCCESS, True) for seed in SEEDS))
    assert [name.split()[1] for name in alive] == ["mbarrier_arrive"]  # the last one, which matters to the mistakes alone


def test_narrow_pieces(simt):
    """Rows of 32 bytes: of every other 4 rows, the two halves have changed places (CUDA's 32-byte swizzle)."""
    a, b, _ = Products().operands
    raw, along, down = np.empty((128, 8), np.uint32), guarded((64, 128)).array, guarded((64, 16)).array
    simt.call("probe_narrow_products", a, b, raw, along, down)
    words = np.ascontiguousarray(b).view(np.uint32)
    lower = np.arange(128)[:, None] // 4 % 2 == 0
    np.testing.assert_array_equal(raw, np.where(lower, words, np.roll(words, 4, axis=1)))
    wide = a.astype(np.float64)
    np.testing.assert_array_equal(along, wide @ b.astype(np.float64).T)
    np.testing.assert_array_equal(down, 1 + wide @ b[:16].astype(np.float64))
