"""What the fused step takes, and the plain step beside it."""

from __future__ import annotations

import ctypes as ct

import numpy as np
from emulator import PRECISIONS, CParameter, CUpdate, Emulator, c_update, operand

from pymimic.backends.interface import Update

UPDATES = {
    "sgd": (Update("sgd", 0.1, 0.01), 0),
    "momentum": (Update("sgd", 0.1, 0.01, momentum=0.9), 1),
    "nesterov": (Update("sgd", 0.1, 0.0, momentum=0.9, nesterov=True), 1),
    "adamw": (Update("adamw", 0.01, 0.1, beta1=0.9, beta2=0.99, epsilon=1e-8, correction1=0.19, correction2=0.0199), 2),
}


class Parameter:
    """A master with its slots and, for a matrix, a working operand."""

    def __init__(self, value: np.ndarray, precision: str, rule: str) -> None:
        rng = np.random.default_rng(value.size)
        self.precision, self.rule, (update, slots) = precision, rule, UPDATES[rule]
        self.value = value.astype(np.float32)
        self.slots = [rng.random(value.shape, np.float32) for _ in range(slots)]
        self.working = operand(self.value, precision) if value.ndim == 2 else None
        self.update = c_update(update)

    def struct(self, on_device: bool = False) -> CParameter:
        """For the launcher; with `on_device` the numbers come from memory, those in the struct being wrong."""
        working, ld = (None, 0) if self.working is None else (self.working.ctypes.data, self.working.shape[1])
        slots = (ct.c_void_p * 2)(*(slot.ctypes.data for slot in self.slots))
        update, elsewhere = (CUpdate(0, 1, 9, 9), ct.addressof(self.update)) if on_device else (self.update, None)
        return CParameter(self.value.ctypes.data, slots, working, ld, update, elsewhere)

    def stepped(self, simt: Emulator, gradient: np.ndarray) -> Parameter:
        """Another one, after the plain step with this gradient."""
        other = Parameter(self.value.copy(), self.precision, self.rule)
        rows, columns = gradient.shape if gradient.ndim == 2 else (1, gradient.size)
        code = PRECISIONS.index(self.precision)
        simt.call("pymimic_optimizer_update", other.struct(), code, np.ascontiguousarray(gradient), rows, columns, None)
        return other

    def same(self, other: Parameter) -> bool:
        """Whether master, slots and working operand are, bit for bit."""
        pairs = zip((self.value, *self.slots, self.working), (other.value, *other.slots, other.working))
        return all(np.array_equal(a, b) for a, b in pairs)
