"""`Student.predict` of a few rows beside NumPy's, and what a call costs in Python."""

import pytest
from peers import numpy, pymimic
from side_by_side import compare

from pymimic.bench.shapes import Shape, arrays


@pytest.mark.parametrize("rows", [1, 2, 8, 32])
def test_predict(benchmark, shape, rows):
    few = shape._replace(B=rows)
    values = arrays(few)
    compare(
        benchmark, pymimic.forward(values), numpy.forward(values), operations=few.operations("forward"), moved=few.least_bytes("forward")
    )


def test_overhead(benchmark):
    """A net of next to nothing: the time of a call is the time of the way to the kernels."""
    tiny = Shape("tiny", 1, 8, 4, 32, 3)
    values = arrays(tiny)
    compare(benchmark, pymimic.forward(values), numpy.forward(values), operations=tiny.operations("forward"))
