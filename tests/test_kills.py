"""Training and labelling are killed at random moments: nothing is lost, and the end has the bits of work that nobody stopped.

PYMIMIC_KILLS says how often, in all; `.ci/full` sets 1000.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parent / "support"
KILLS = int(os.environ.get("PYMIMIC_KILLS", "60"))
SHARES = {"train": 2, "label": 1, "label compressed": 1}  # of the kills, in quarters

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")]


@pytest.mark.parametrize("work", SHARES)
def test_kills_lose_nothing_and_change_no_bit(work):
    kills = -(-KILLS * SHARES[work] // sum(SHARES.values()))
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.fspath(SUPPORT)}
    command = [sys.executable, SUPPORT / "kills.py", work, str(kills), "1"]
    result = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert result["problems"] == []
    assert result["kills"] >= kills
    assert result["runs"] > 0
