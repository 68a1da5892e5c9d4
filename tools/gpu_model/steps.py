"""A step of AdamW, ours and what torch.compile is taken to do: predicted times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gpu_model.launches import Shape
from gpu_model.rates import Call
from gpu_model.units import HBM_BYTES, RATE

TORCH_RATES = (0.75, 0.70)  # of what the device reaches in its largest products: a fast and a slow torch


class Part(NamedTuple):
    """Something that is bound by its operations or by its bytes."""

    name: str
    operations: float
    bytes_: float

    def seconds(self, rate: float) -> float:
        """At this part of RATE."""
        return max(self.operations / (rate * RATE), self.bytes_ / HBM_BYTES)


def around(B: int, D: int, k: int, C: int) -> list[Part]:
    """Our bottleneck, from float32 by products of half the rate, and the loss; V's own step is small."""
    product, x = 2 * B * D * k, 4 * B * D
    return [Part("z", 2 * product, x + 6 * B * k), Part("dV", 2 * product, x + 8 * B * k), Part("loss", 0, 12 * B * C)]


def torch_parts(B: int, D: int, shape: Shape, fused: bool) -> Iterator[Part]:
    """Under autocast, with float32 weights, one fused AdamW. h and da are in memory, in 16 bits.

    `fused`: bias and relu are part of the first product, and db is summed where da is made.
    """
    k, H, C = shape
    a, weights = 2 * B * H, H * (k + C)
    yield Part("cast of U and W", 0, 6 * weights)
    yield Part("cast of x", 0, 6 * B * D)
    yield Part("z", 2 * B * D * k, 2 * B * D)
    yield Part("z U^T", 2 * B * H * k, a)
    if not fused:
        yield Part("bias and relu", 0, 2 * a)
    yield Part("h W", 2 * B * H * C, a)
    yield Part("loss", 0, 16 * B * C)
    yield Part("dy W^T", 2 * B * H * C, a)
    yield Part("relu backwards", 0, 3 * a)
    if not fused:
        yield Part("db", 0, a)
    yield Part("dW", 2 * B * H * C, a + 2 * H * C)
    yield Part("dU", 2 * B * H * k, a + 2 * H * k)
    yield Part("dz", 2 * B * H * k, a)
    yield Part("dV", 2 * B * D * k, 2 * B * D)
    yield Part("AdamW, gradients cast", 0, (2 + 4 + 4 + 6 * 4) * weights)


class Step(NamedTuple):
    """Our calls in a step, and the inputs D of the net."""

    name: str
    B: int
    D: int
    calls: list[Call]

    def ours(self, overlap: bool) -> float:
        """Seconds."""
        shape = self.calls[0].shape
        return sum(call.seconds(overlap) for call in self.calls) + sum(
            part.seconds(TORCH_RATES[0]) for part in around(self.B, self.D, shape.k, shape.C)
        )

    def torch(self, slow: bool) -> float:
        """Seconds of torch.compile."""
        return sum(part.seconds(TORCH_RATES[slow]) for part in torch_parts(self.B, self.D, self.calls[0].shape, not slow))

    @property
    def torch_products(self) -> float:
        """The part of a fast torch's time that is bound by operations."""
        parts = list(torch_parts(self.B, self.D, self.calls[0].shape, True))
        bound = [part for part in parts if part.operations / (TORCH_RATES[0] * RATE) > part.bytes_ / HBM_BYTES]
        return sum(part.seconds(TORCH_RATES[0]) for part in bound) / self.torch(False)

    @property
    def longest(self) -> Call:
        """The call that takes most of the time."""
        return max(self.calls, key=lambda call: call.seconds(True))
