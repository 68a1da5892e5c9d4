"""pymimic inside torch trainers: operators, a module, an optimizer that runs inside the backward pass, losses, teachers.

`import pymimic` does not import this package, nor torch. It needs `pip install "pymimic[torch]"`.
"""

from . import installed  # noqa: F401  before all that imports torch
from .fused import FusedOptimizer
from .losses import DistillationLoss, MimicLoss
from .net import MimicNet
from .operators import factorized_linear, linear_dropout, shallow
from .teacher import teacher

__all__ = ["DistillationLoss", "FusedOptimizer", "MimicLoss", "MimicNet", "factorized_linear", "linear_dropout", "shallow", "teacher"]
