"""A step of the fused optimizer: what the kernel takes, and the same arithmetic in NumPy, float32 by float32."""

from __future__ import annotations

import ctypes as ct

import numpy as np
from emulator import CParameter, CUpdate, operand

F = np.float32
UPDATES = {
    "sgd": CUpdate(0, 0, 0.1, 0.01),
    "momentum": CUpdate(0, 0, 0.1, 0.01, 0.9),
    "nesterov": CUpdate(0, 1, 0.1, 0.0, 0.9),
    "adamw": CUpdate(1, 0, 0.01, 0.1, 0.0, 0.9, 0.99, 1e-8, 0.01 / (1 - 0.9**3), 1 / (1 - 0.99**3)),
}


class Parameter:
    """A master with its slots and, for a matrix, a working operand."""

    def __init__(self, value: np.ndarray, precision: str, update: CUpdate, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.value = value.astype(np.float32)
        self.slots = tuple(rng.random(value.shape, np.float32) for _ in range(2))
        self.working = operand(self.value, precision) if value.ndim == 2 else None
        self.update = update

    def struct(self, on_device: bool = False) -> CParameter:
        """For the launcher; with `on_device` the numbers come from memory, those in the struct being wrong."""
        working, ld = (None, 0) if self.working is None else (self.working.ctypes.data, self.working.shape[1])
        slots = (ct.c_void_p * 2)(*(slot.ctypes.data for slot in self.slots))
        update, elsewhere = (CUpdate(1, 1, 9, 9), ct.addressof(self.update)) if on_device else (self.update, None)
        return CParameter(self.value.ctypes.data, slots, working, ld, update, elsewhere)

    def stepped(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        """value and slots after the step."""
        u, value, (first, second) = self.update, self.value.copy(), (slot.copy() for slot in self.slots)
        decay, rate = F(u.weight_decay), F(u.learning_rate)
        if u.rule == 1:
            first += (F(1) - F(u.beta1)) * (gradient - first)
            second += (F(1) - F(u.beta2)) * (gradient * gradient - second)
            value *= F(1) - rate * decay
            value -= F(u.step_size) * first / (np.sqrt(second * F(u.inverse_correction2)) + F(u.epsilon))
        elif u.momentum != 0:
            g = gradient + decay * value
            first = F(u.momentum) * first + g
            value -= rate * (g + F(u.momentum) * first if u.nesterov else first)
        else:
            value -= rate * (gradient + decay * value)
        return value, first, second
