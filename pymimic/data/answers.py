"""What a teacher returned, as a NumPy array: of torch, CuPy, SciPy or whatever else NumPy understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..devices import is_device, to


def on_host(name: str, value: Any, teacher: str) -> Array:
    """`value` as a NumPy array of numbers, bfloat16 widened to float32; TypeError names the teacher that returned it.

    A tensor of torch may require gradients, lie on a device, be sparse, quantized or of any float type.
    """
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    wanted = f"{name}: expected one array of numbers from the teacher {teacher}"
    if isinstance(value, (Mapping, tuple)) or (hasattr(value, "logits") and not hasattr(value, "__array__")):
        inside = "" if not isinstance(value, (Mapping, tuple)) else f" of {list(value) if isinstance(value, Mapping) else len(value)}"
        raise TypeError(f"{wanted}, got {kind}{inside}: return the array in it that holds the logits")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{wanted}, got a masked array")
    try:
        array = np.asarray(_plain(value))
    except Exception as error:  # each library has errors of its own
        raise TypeError(f"{wanted}, got {kind}: {error}") from error
    if array.dtype == _check.BFLOAT16:
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{wanted}, got {kind} of dtype {array.dtype}")
    return array


def _plain(value: Any) -> Any:
    """What NumPy can turn into an array."""
    if hasattr(value, "detach"):  # a tensor of torch
        value = value.detach()
        if getattr(value, "is_quantized", False):
            value = value.dequantize()
        if not str(value.layout).endswith("strided"):
            value = value.to_dense()
        return (value.float() if value.is_floating_point() and value.element_size() < 4 else value).cpu().numpy()
    if hasattr(value, "toarray"):  # a sparse matrix of SciPy
        return value.toarray()
    return to("cpu", value) if is_device(value) else value
