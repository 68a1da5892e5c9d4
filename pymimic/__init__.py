"""Wide shallow nets that mimic deep ones: fused kernels, and a thin trainer on top.

z = x V^T,  h = dropout(f(z U^T + b)),  y = h W + c.  Ba & Caruana 2014; the design keeps h out of memory.
"""

from . import (
    _main_interpreter,  # noqa: F401  before anything that loads native code
    ops,
)
from .backends.cuda.memory import Workspace
from .data.cases import Cases, LabelledSet, Targets
from .data.classifier import from_sklearn
from .data.folds import out_of_fold
from .data.generate import Munge, gaussian_noise, munge
from .data.generators import Masks, Mixup, Noise, copies, fresh_cases
from .data.images import Deform
from .data.teacher import Ensemble, Teacher, centred, from_callable, label
from .data.transfer import TransferSet
from .errors import BackendUnavailableError, CudaError, FileFormatError, ManifestError, TrainingDivergedError
from .nets.predictor import Predictor
from .nets.student import Student
from .optimizer import SGD, AdamW, Optimizer, constant, cosine, step_decay, warm_up
from .plan import Plan, plan
from .threads import get_num_threads, set_num_threads
from .training.choose import choose_munge
from .training.compress import compress
from .training.convnet import ConvNet
from .training.convolution import Convolution
from .training.deepnet import DeepNet
from .training.history import History, Record
from .training.trainer import Trainer
from .version import __version__ as __version__
from .weights import ShallowWeights

__all__ = [
    "SGD", "AdamW", "BackendUnavailableError", "Cases", "ConvNet", "Convolution", "CudaError", "DeepNet", "Deform", "Ensemble",
    "FileFormatError", "History", "LabelledSet", "ManifestError", "Masks", "Mixup", "Munge", "Noise", "Optimizer", "Plan", "Predictor",
    "Record", "ShallowWeights", "Student", "Targets", "Teacher", "Trainer", "TrainingDivergedError", "TransferSet", "Workspace", "centred",
    "choose_munge", "compress", "constant", "copies", "cosine", "fresh_cases", "from_callable", "from_sklearn", "gaussian_noise",
    "get_num_threads", "label", "munge", "ops", "out_of_fold", "plan", "set_num_threads", "step_decay", "warm_up",
]  # fmt: skip
