"""pymimic inside torch trainers: operators, a module, an optimizer that runs inside the backward pass, losses, teachers.

`import pymimic` does not import this package, nor torch. The extra `torch` brings what it needs.

From then on the library's CPU kernels run on torch's threads, and take at most as many as `torch.set_num_threads` says.
"""

from . import (
    installed,  # noqa: F401  before all that imports torch
    pool,  # noqa: F401  that kernels run on
)
from .fused import FusedOptimizer
from .losses import DistillationLoss, MimicLoss
from .net import MimicNet
from .operators import factorized_linear, linear_dropout, shallow
from .teacher import teacher

__all__ = ["DistillationLoss", "FusedOptimizer", "MimicLoss", "MimicNet", "factorized_linear", "linear_dropout", "shallow", "teacher"]
