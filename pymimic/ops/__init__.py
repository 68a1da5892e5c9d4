"""Wide shallow layers as pure functions: arrays in, arrays out, no hidden state.

Shapes use one notation everywhere: B rows, D inputs, k bottleneck units, H hidden units, C outputs; `V (k, D)`, `U (H, k)`, `b (H,)`,
`W (H, C)`, `c (C,)`.

**Types.** The arrays of a call have one dtype: float32, or on the CPU float64. In the shallow ops z, U and W may be bfloat16 (ml_dtypes):
then h and da are rounded to bfloat16 too, and sums, b, c, y and all gradients are float32. An input that is not C-contiguous is copied
once. Inputs are never written to.

**Backends.** The backend follows the arrays: NumPy arrays run on the CPU, CuPy arrays on their device, on CuPy's current stream. `backend=`
names another one: "cpu", "cpu-bf16x3" (as exact, and faster with Intel AMX), "cpu-bf16", "numba" or "reference"; "cuda" (as exact as the
CPU), "cuda-tf32", "cuda-bf16" or "cuda-fp16". The same inputs give the same bits, run after run and for any number of threads.

**Arrays of other libraries on the CPU** (torch's tensors, JAX's arrays, whatever speaks DLPack, `__array_interface__` or the buffer
protocol) are used where they are, `out` too where NumPy may write to them. Results are NumPy's. Tensors that require gradients are refused.
Lists and DataFrames are no arrays.

**Device arrays of other libraries** (torch's CUDA tensors, Numba's arrays) are used where they are, `out` too, if they speak DLPack or
`__cuda_array_interface__`. Results are CuPy arrays, which `torch.from_dlpack` takes without a copy. Losses are 0-d arrays there. A call
does not wait for the device, with two exceptions: `cross_entropy` checks its labels, and CuPy waits for an array that names its stream
in `__cuda_array_interface__` and does not speak DLPack. Inside a `pymimic.Workspace` calls can be captured into CUDA graphs.

**Dropout** keeps a unit when its byte of Philox4x32-7 (Salmon et al. 2011) is below threshold = floor(256 (1 - p) + 0.5), and scales the
units that it keeps by 256 / threshold. `dropout` is the probability p in [0, 1). `seed` (64 bits) is the generator's key, and `offset`
(32 bits) the training step: ints, or on a device also 0-d int64 arrays. `origin=(row, unit)`, a multiple of (16, 32), says where this block
lies in the whole, so that a shard makes the whole's mask.

**Errors.** Every function raises TypeError for a wrong kind of array or dtype, and ValueError for a wrong shape or value. The message
names the argument, what was expected and what came.
"""

from ..backends.interface import FactorizedGrads, LinearGrads, Saved, ShallowGrads
from .layers import dropout, dropout_backward, factorized_matmul, factorized_matmul_backward, linear_dropout, linear_dropout_backward
from .losses import cross_entropy, distillation_loss, mimic_loss
from .shallow import shallow_backward, shallow_forward

__all__ = [
    "FactorizedGrads", "LinearGrads", "Saved", "ShallowGrads", "cross_entropy", "distillation_loss", "dropout", "dropout_backward",
    "factorized_matmul", "factorized_matmul_backward", "linear_dropout", "linear_dropout_backward", "mimic_loss",
    "shallow_backward", "shallow_forward",
]  # fmt: skip
