"""What one writes with CuPy and cuBLAS: bfloat16 operands, padded; h and dh (B x H) are written and read; a kernel around each product."""

import cupy
import numpy as np
from cupy.cuda import cublas

TITLE, PRECISION, WEIGHT_BYTES, TOLERANCE, DEVICE = "CuPy, bf16", "bfloat16", 2, 0.1, "cuda"

_TYPES = {np.dtype(np.uint16): 14, np.dtype(np.float32): 0}  # cudaDataType: CUDA_R_16BF, whose words CuPy holds as uint16; CUDA_R_32F
_COMPUTE_32F = 68
_ONE, _ZERO = np.ones(1, np.float32), np.zeros(1, np.float32)
_WORDS = """
__device__ float widened(unsigned short word) { return __uint_as_float(unsigned(word) << 16); }
__device__ unsigned short rounded(float x) {
  const unsigned bits = __float_as_uint(x);
  return (unsigned short)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
"""
_round = cupy.ElementwiseKernel("float32 x", "uint16 word", "word = rounded(x)", "to_bf16", preamble=_WORDS)
_activate = cupy.ElementwiseKernel(
    "uint16 a, float32 b", "uint16 h", "const float x = widened(a) + b; h = rounded(x < 0 ? 0 : x)", "activate", preamble=_WORDS
)
_gate = cupy.ElementwiseKernel("uint16 dh, uint16 h", "uint16 da", "da = h ? dh : 0", "gate")
_adamw = cupy.ElementwiseKernel(
    "float32 g, float32 rate, float32 decay, float32 correction1, float32 correction2", "float32 p, float32 m, float32 v",
    """
    m = 0.9f * m + 0.1f * g;
    v = 0.999f * v + 0.001f * g * g;
    p -= rate * (m / correction1 / (sqrtf(v / correction2) + 1e-8f) + decay * p);
    """,
    "adamw",
)  # fmt: skip


def versions():
    return cupy.__version__


def peak_bytes():
    return cupy.get_default_memory_pool().total_bytes()


def multiply(a, b, out, transpose_a=False, transpose_b=False):
    """out = a b in row-major order, which cuBLAS sees as out^T = b^T a^T."""
    (m, n), inner = out.shape, a.shape[0] if transpose_a else a.shape[1]
    operation = {False: cublas.CUBLAS_OP_N, True: cublas.CUBLAS_OP_T}
    cublas.gemmEx(
        cupy.cuda.device.get_cublas_handle(), operation[transpose_b], operation[transpose_a], n, m, inner, _ONE.ctypes.data,
        b.data.ptr, _TYPES[b.dtype], b.shape[1], a.data.ptr, _TYPES[a.dtype], a.shape[1], _ZERO.ctypes.data,
        out.data.ptr, _TYPES[out.dtype], n, _COMPUTE_32F, -1,
    )  # fmt: skip
    return out


def padded(a, dtype=np.float32):
    """Rows of a multiple of 16 elements."""
    result = cupy.zeros((len(a), -(-a.shape[1] // 16) * 16), dtype)
    if dtype == np.uint16:
        _round(cupy.asarray(a), result[:, : a.shape[1]])
    else:
        result[:, : a.shape[1]] = cupy.asarray(a)
    return result


class Net:
    def __init__(self, a):
        self.columns = {name: array.shape[1] for name, array in a.items() if array.ndim == 2}
        self.masters = {name: cupy.asarray(a[name]) if a[name].ndim == 1 else padded(a[name]) for name in "VUbWc" if name in a}
        self.masters["c"] = padded(a["c"][None])[0]
        self.words = {name: padded(a[name], np.uint16) for name in "xVUW" if name in a}
        self.t, self.outputs = padded(a["t"]), len(a["c"])
        if "V" in a:  # z has as many columns as U
            rows = cupy.zeros((self.words["U"].shape[1], self.words["V"].shape[1]), np.uint16)
            rows[: len(a["V"])] = self.words["V"]
            self.words["V"], self.rank = rows, len(a["V"])
        self.ones = _round(cupy.ones((1, len(a["x"])), np.float32))

    def pass_forward(self):
        w, x = self.words, self.words["x"]
        z = multiply(x, w["V"], cupy.empty((len(x), len(w["V"])), np.uint16), transpose_b=True) if "V" in w else x
        h = multiply(z, w["U"], cupy.empty((len(x), len(w["U"])), np.uint16), transpose_b=True)
        _activate(h, self.masters["b"], h)
        return z, h, multiply(h, w["W"], cupy.empty(self.t.shape, np.float32)) + self.masters["c"]

    def gradients(self):
        w, (z, h, y) = self.words, self.pass_forward()
        error = (y - self.t) / np.float32(len(y))
        dy = _round(error)
        grads = {"c": error.sum(0), "W": multiply(h, dy, cupy.empty(w["W"].shape, np.float32), transpose_a=True)}
        da = multiply(dy, w["W"], cupy.empty(h.shape, np.uint16), transpose_b=True)
        _gate(da, h, da)
        grads["b"] = multiply(self.ones, da, cupy.empty((1, h.shape[1]), np.float32))[0]
        grads["U"] = multiply(da, z, cupy.empty(w["U"].shape, np.float32), transpose_a=True)
        if "V" in w:
            dz = multiply(da, w["U"], cupy.empty(z.shape, np.uint16))
            grads["V"] = multiply(dz, w["x"], cupy.empty(w["V"].shape, np.float32), transpose_a=True)[: self.rank]
        return grads

    def host(self, named):
        arrays = {name: cupy.asnumpy(array) for name, array in named.items()}
        return {name: a[:, : self.columns[name]] if a.ndim == 2 else a[: self.outputs] if name == "c" else a for name, a in arrays.items()}


def forward(a):
    net = Net(a)

    def run():
        _, _, y = net.pass_forward()
        return lambda: cupy.asnumpy(y)[:, : net.outputs]

    return run


def step(a):
    net = Net(a)

    def run():
        grads = net.gradients()
        return lambda: net.host(grads)

    return run


def adamw(a, learning_rate, weight_decay):
    net, steps = Net(a), 0
    slots = {name: (cupy.zeros_like(array), cupy.zeros_like(array)) for name, array in net.masters.items()}

    def run():
        nonlocal steps
        steps += 1
        for name, gradient in net.gradients().items():
            master, decay = net.masters[name], weight_decay if name in "VUW" else 0.0
            _adamw(gradient, learning_rate, decay, 1 - 0.9**steps, 1 - 0.999**steps, master, *slots[name])
            if name in net.words:
                _round(master, net.words[name][: len(master)])
        return lambda: net.host(net.masters)

    return run
