"""benchmarks/distributed.py in one process, on a small net."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "distributed.py"


@pytest.mark.skipif(sys.platform != "linux", reason="the most memory that a process has held is read from /proc")
def test_it_says_what_a_process_takes(tmp_path):
    words = ["--shape", "64,20,4,1000,3", "--steps", "3", "--json", str(tmp_path / "made" / "d.json")]
    done = subprocess.run([sys.executable, SCRIPT, *words], check=True, capture_output=True, text=True)
    result = json.loads((tmp_path / "made" / "d.json").read_text())
    assert result == json.loads(done.stdout)
    assert result["shape"] == {"B": 64, "D": 20, "k": 4, "H": 1000, "C": 3}
    (rank,) = result["ranks"]
    assert rank["units"] == 1000
    assert rank["seconds"] > 0
    assert 0 < rank["at_start_bytes"] <= min(rank["peak_bytes"], rank["predicted_bytes"])
