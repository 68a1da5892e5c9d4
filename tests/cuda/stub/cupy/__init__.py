"""A stand-in for CuPy where there is no GPU: its arrays are NumPy's, on a "device" that is the host.

Only what pymimic uses is here. As with CuPy, arrays of the two kinds don't mix: an operation on both, or NumPy's conversion of one of
these, raises TypeError. So a test that passes says that the code moves its arrays where they are needed.
"""

import types

import numpy as np
from numpy import float32, int64, uint8, uint16  # noqa: F401

from . import cuda

__version__ = "stub"


class _Memory:
    def __init__(self, pointer):
        self.ptr = pointer


class _Device:
    id = 0


class ndarray(np.ndarray):  # noqa: N801
    """An array of the device."""

    @property
    def data(self):
        return _Memory(self.ctypes.data)

    @property
    def device(self):
        return _Device()

    @property
    def __cuda_array_interface__(self):
        about = self.view(np.ndarray).__array_interface__
        strides = None if self.flags.c_contiguous else self.strides
        return {"shape": self.shape, "typestr": about["typestr"], "data": (self.ctypes.data, False), "strides": strides, "version": 3}

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, *, stream=None, **keywords):
        return self.view(np.ndarray).__dlpack__(**keywords)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **keywords):
        _demand_device(*inputs, *(out or ()))
        if out is not None:
            keywords["out"] = tuple(_host(x) for x in out)
        result = getattr(ufunc, method)(*(_host(x) for x in inputs), **keywords)
        return out[0] if out is not None else _device(result)

    def __array_function__(self, func, types, args, keywords):
        raise TypeError(f"numpy.{func.__name__}: a NumPy function got a device array")

    def __setitem__(self, key, value):
        _demand_device(value)
        cuda.do(lambda: self.view(np.ndarray).__setitem__(_host(key), _host(value)))

    def __getitem__(self, key):
        _demand_device(*(key if isinstance(key, tuple) else (key,)))
        return _device(self.view(np.ndarray)[_host(key)])

    def __int__(self):
        cuda.demand_no_capture("D2H transfers are disallowed")
        return int(self.view(np.ndarray))

    def __float__(self):
        cuda.demand_no_capture("D2H transfers are disallowed")
        return float(self.view(np.ndarray))

    def __bool__(self):
        cuda.demand_no_capture("D2H transfers are disallowed")
        return bool(self.view(np.ndarray))

    def get(self):
        cuda.demand_no_capture("D2H transfers are disallowed")
        return self.view(np.ndarray).copy()

    def argmax(self, axis=None):
        return _device(self.view(np.ndarray).argmax(axis))

    def fill(self, value):
        cuda.do(lambda: self.view(np.ndarray).fill(value))

    def astype(self, dtype, copy=True):
        return _device(self.view(np.ndarray).astype(dtype, copy=copy))

    def set(self, array, stream=None):
        """Copy from the host, as if asynchronously."""
        assert isinstance(array, np.ndarray)
        assert not isinstance(array, ndarray)
        (stream or cuda.get_current_stream()).later(lambda: np.copyto(self.view(np.ndarray), array))


def _reduction(name):
    def method(self, axis=None, **keywords):
        return _device(getattr(self.view(np.ndarray), name)(axis=axis, **keywords))

    return method


for _name in ("sum", "min", "max", "mean", "all", "any"):
    setattr(ndarray, _name, _reduction(_name))


def _host(x):
    if isinstance(x, tuple):
        return tuple(_host(one) for one in x)
    return x.view(np.ndarray) if isinstance(x, ndarray) else x


def _device(x):
    return np.asarray(x).view(ndarray)


def _demand_device(*values):
    for value in values:
        if isinstance(value, np.ndarray) and not isinstance(value, ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")


def _made(name):
    def function(*args, **keywords):
        cuda.demand_no_capture()
        return _device(getattr(np, name)(*args, **keywords))

    return function


empty, zeros, ones, arange, full = (_made(name) for name in ("empty", "zeros", "ones", "arange", "full"))


def zeros_like(a):
    return zeros(a.shape, a.dtype)


def empty_like(a):
    return empty(a.shape, a.dtype)


def array(a, dtype=None, order="K"):
    cuda.demand_no_capture()
    return _device(np.array(_host(a), dtype, order=order))


def asarray(a, dtype=None):
    if not isinstance(a, ndarray) and hasattr(a, "__cuda_array_interface__"):
        a = _device(np.asarray(types.SimpleNamespace(__array_interface__=dict(a.__cuda_array_interface__), owner=a)))
    if isinstance(a, ndarray) and (dtype is None or a.dtype == dtype):
        return a
    return array(a, dtype)


def from_dlpack(a):
    """The memory of a "device" is the host's, so NumPy can share it."""
    if a.__dlpack_device__()[0] not in (2, 13):
        raise RuntimeError("CuPy is built against CUDA, different from the backend that backs the incoming DLPack tensor")
    stream = cuda.get_current_stream().ptr or 1  # 1 is the default stream
    on_host = types.SimpleNamespace(__dlpack_device__=lambda: (1, 0), __dlpack__=lambda **keywords: a.__dlpack__(stream=stream, **keywords))
    return _device(np.from_dlpack(on_host))


def ascontiguousarray(a, dtype=None):
    if isinstance(a, ndarray) and a.flags.c_contiguous and (dtype is None or a.dtype == dtype):
        return a
    return _device(np.ascontiguousarray(_host(a), dtype))


def asnumpy(a):
    return np.array(_host(a))


def copyto(to, source):
    _demand_device(to, source)
    np.copyto(_host(to), _host(source))


class _Pool:
    def total_bytes(self):
        return 1 << 20

    def free_all_blocks(self):
        pass


def get_default_memory_pool():
    return _Pool()


class _RandomState:
    def __init__(self, seed):
        self.generator = np.random.default_rng(seed)

    def standard_normal(self, shape, dtype):
        return _device(self.generator.standard_normal(shape, dtype))


def _integers(low, high, shape):
    return _device(np.random.default_rng(0).integers(low, high, shape))


random = types.SimpleNamespace(RandomState=_RandomState, randint=_integers)
linalg = types.SimpleNamespace(norm=lambda a: _device(np.linalg.norm(_host(a))))


def _as_strided(x, shape, strides):
    _demand_device(x)
    return _device(np.lib.stride_tricks.as_strided(_host(x), shape, strides))


lib = types.SimpleNamespace(stride_tricks=types.SimpleNamespace(as_strided=_as_strided))


def may_share_memory(a, b):
    return np.may_share_memory(_host(a), _host(b))


def concatenate(arrays, axis=0):
    _demand_device(*arrays)
    return _device(np.concatenate([_host(a) for a in arrays], axis))


def count_nonzero(a):
    return _device(np.count_nonzero(_host(a)))


def square(a, dtype=None):
    return _device(np.square(_host(a), dtype=dtype))


def sqrt(a):
    return _device(np.sqrt(_host(a)))


def exp(a):
    return _device(np.exp(_host(a)))


def log(a):
    return _device(np.log(_host(a)))


def isfinite(a):
    return _device(np.isfinite(_host(a)))


def tanh(a):
    return _device(np.tanh(_host(a)))


def sign(a):
    return _device(np.sign(_host(a)))


def abs(a):
    return _device(np.abs(_host(a)))


def maximum(a, b):
    return _device(np.maximum(_host(a), b))
