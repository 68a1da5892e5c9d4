"""setup.py is a shim: it refuses what it does not forward, in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / "setup.py"


@pytest.mark.parametrize("arguments", [[], ["sdist"], ["install", "--user"]])
def test_what_it_does_not_forward_is_refused(arguments):
    done = subprocess.run([sys.executable, SETUP, *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("setup.py: expected one of install, develop, bdist_wheel, got ")
