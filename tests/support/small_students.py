"""Students for the tests: small, and with no array left at zero."""

import numpy as np
from hypothesis import strategies as st

from pymimic.data.transfer import TransferSet
from pymimic.nets.student import Student

SIZES = st.fixed_dictionaries(
    {
        "inputs_": st.integers(1, 9), "hidden": st.integers(1, 40), "outputs": st.integers(1, 9), "rank": st.sampled_from([None, 1, 2, 5]),
        "activation": st.sampled_from(["relu", "gelu", "tanh", "sigmoid", "identity"]),
    }
)  # fmt: skip


def inputs(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns), np.float32)


def trained(inputs_=11, hidden=203, outputs=7, rank=5, **keywords):
    """A student with weights of order 1 everywhere, and a standardisation."""
    student = Student(inputs_, hidden, outputs, rank, **keywords)
    rng = np.random.default_rng(1)
    student.set_arrays(b=rng.standard_normal(hidden), c=rng.standard_normal(outputs))
    student.set_standardisation(rng.standard_normal(inputs_), rng.uniform(0.5, 2, inputs_))
    return student


def of_sizes(**sizes):
    """One of `SIZES`, whose bottleneck is no wider than its inputs."""
    return trained(**sizes | {"rank": sizes["rank"] and min(sizes["rank"], sizes["inputs_"])})


def rows_and_logits(student, rows=300, seed=0):
    """Rows that the student sees as standard normal ones, and what it says of them."""
    x = student.mean + inputs(rows, student.inputs, seed) / student.scale
    return TransferSet(x, student.predict(x))


def same(first, second):
    return (
        first.configuration() == second.configuration()
        and first.arrays().keys() == second.arrays().keys()
        and all(np.array_equal(array, second.arrays()[name]) for name, array in first.arrays().items())
        and all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("mean", "scale"))
    )
