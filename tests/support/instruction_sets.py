"""The backends by name, and the compiled core's instruction sets among them."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from pymimic.backends import get
from pymimic.errors import BackendUnavailableError

INSTRUCTION_SETS = ("cpu-baseline", "cpu-avx2", "cpu-avx512")  # of the compiled core
TILES = ("cpu-amx", "cpu-amx_model")  # the avx512 and the baseline ones, with tiles of bfloat16


@contextlib.contextmanager
def use_backend(param: str) -> Iterator[str]:
    """The backend's name, with the core set to the instruction set after "cpu-"; skips the test where it cannot run.

    In continuous integration the compiled core has to be there.
    """
    name, _, isa = param.partition("-")
    try:
        get(name)
    except BackendUnavailableError as error:
        if name == "cpu" and os.environ.get("CI"):
            pytest.fail(f"the compiled backend must be there when CI is set: {error}")
        pytest.skip(str(error))
    if not isa:
        yield name
        return
    from pymimic import _core

    if isa not in _core.runnable_isas():
        pytest.skip(f"this machine cannot run {isa}")
    before = _core.isa()
    _core.set_isa(isa)
    yield name
    _core.set_isa(before)
