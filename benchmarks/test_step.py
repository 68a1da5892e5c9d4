"""Whole passes beside NumPy's: forward, a training step with h made again or kept, and a step with AdamW. See README.md."""

import pytest
from peers import numpy, pymimic, pymimic_bf16x3, pymimic_keep
from side_by_side import compare

from pymimic.bench.verify import write_case
from pymimic.bench.worker import make

PASSES = [(peer, what) for peer in (pymimic, pymimic_bf16x3, pymimic_keep) for what in ("forward", "step", "adamw") if hasattr(peer, what)]


@pytest.mark.parametrize(("peer", "what"), PASSES, ids=[f"{peer.TITLE}-{what}" for peer, what in PASSES])
def test_pass(benchmark, shape, peer, what, tmp_path):
    write_case(shape, tmp_path, {what})
    ours, _ = make(peer, what, tmp_path, shape.B)
    rival, _ = make(numpy, what, tmp_path, shape.B)
    recomputes = getattr(peer, "RECOMPUTES", False)
    compare(benchmark, ours, operations=shape.operations(what, recomputes), moved=shape.least_bytes(what), numpy_blas=rival)
