"""The named shapes: in small sizes, once and checked, in a plain `pytest`; in full size and timed with `-n 0 --benchmark-enable`."""

import pytest
from side_by_side import ROWS

from pymimic.bench.shapes import SHAPES, arrays


@pytest.fixture(params=SHAPES)
def shape(request):
    """Each named shape in turn."""
    full = SHAPES[request.param]
    return full if request.config.getoption("benchmark_enable") else full.small()


@pytest.fixture
def values(shape):
    """Random x, t, V, U, b, W and c of the shape."""
    return arrays(shape)


def pytest_terminal_summary(terminalreporter):
    """What pytest-benchmark's own table has no columns for."""
    for name, seconds, info in ROWS:
        rates = f"{info['GFLOP/s']:8.1f} GFLOP/s {info['GB/s']:7.1f} GB/s {info['of ceiling']:5.0%} of ceiling"
        rivals = "  ".join(f"{key} {value:.2f}" for key, value in info.items() if key.startswith("x "))
        terminalreporter.write_line(f"{name:<50} {seconds * 1e3:10.3f} ms {rates}  {rivals}")
