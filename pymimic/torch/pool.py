"""One pool of threads for torch and for the CPU kernels: two would wait for each other's spinning threads."""

from pathlib import Path

import torch

from ..threads import share_openmp

share_openmp(str(Path(torch.__file__).parent))
