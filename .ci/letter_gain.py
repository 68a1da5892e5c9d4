"""Fail unless the mimic beats the same net on labels by half a point of accuracy, on the mean of the given demo results."""

import json
import statistics
import sys
from pathlib import Path

runs = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
gains = [100 * (run["models"]["mimic"]["accuracy"] - run["models"]["labels"]["accuracy"]) for run in runs]
print(
    f"letter: mimic above labels by {statistics.mean(gains):.2f} points on the mean of {len(gains)} seeds: {[round(g, 2) for g in gains]}"
)
print(f"letter: seconds a seed: {[round(run['seconds']) for run in runs]}")
sys.exit(statistics.mean(gains) < 0.5)
