"""What the CUDA driver says, asked by itself: before anything is built."""

from __future__ import annotations

import ctypes

_MAJOR, _MINOR = 75, 76  # CUdevice_attribute


def compute_capability() -> tuple[int, int] | None:
    """Of the first device; None without one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    for value, attribute in ((major, _MAJOR), (minor, _MINOR)):
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            return None
    return major.value, minor.value
