"""A model of the sm_90a kernels' speed: `python tools/gpu_model`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
for folder in (ROOT, ROOT / "tests" / "support"):  # the package, and the emulator of its kernels
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
