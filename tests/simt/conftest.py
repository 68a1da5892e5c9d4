"""The emulated kernels, built once a session."""

import warnings

import pytest
from emulator import Emulator, build


@pytest.fixture(scope="session")
def emulated_library():
    try:
        return Emulator(build())
    except FileNotFoundError as error:
        warnings.warn(str(error), stacklevel=1)
        pytest.skip(str(error))


@pytest.fixture
def simt(emulated_library):
    """The emulator with a fresh seed, the oldest kernels and no mutant, before and after the test."""
    emulated_library.seed(0)
    emulated_library.limit_shared(227 * 1024)
    emulated_library.compute_capability(80)
    emulated_library.multiprocessors(132)
    emulated_library.mutate(None)
    emulated_library.forget_visits()
    yield emulated_library
    emulated_library.mutate(None)
