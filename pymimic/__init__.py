"""Wide shallow nets that mimic deep ones: fused kernels, and a thin trainer on top.

z = x V^T,  h = dropout(f(z U^T + b)),  y = h W + c.  Ba & Caruana 2014; the design keeps h out of memory.
"""

from importlib.metadata import version as _version

from . import ops
from .errors import BackendUnavailableError, FileFormatError, ManifestError, TrainingDivergedError
from .optimizer import SGD, AdamW, Optimizer, constant, cosine, step_decay, warm_up
from .plan import Plan, plan
from .threads import get_num_threads, set_num_threads
from .weights import ShallowWeights

__version__ = _version("pymimic")
__all__ = [
    "SGD", "AdamW", "BackendUnavailableError", "FileFormatError", "ManifestError", "Optimizer", "Plan", "ShallowWeights",
    "TrainingDivergedError", "constant", "cosine", "get_num_threads", "ops", "plan", "set_num_threads", "step_decay", "warm_up",
]  # fmt: skip
