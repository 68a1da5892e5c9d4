"""Nets of torch with the face of the library's own: by name in files, and with their sizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..data.cases import Cases
from ..demo.students import Training
from ..nets.integers import Rounding
from ..nets.net import Net
from ..packages import package

_ROWS = 500  # that the module gets at a time
_KINDS = ("deep", "shallow")


def demand_torch() -> None:
    """ImportError says what to install."""
    package("paper", "torch", why="as it makes cifar10's nets")


class TorchNet(Net):
    """A net of `torch_layers`.

    Parameters
    ----------
    layers : "deep" or "shallow"
    shape : of a row, its channels first
    outputs : C
    settings : the further arguments of the function of `torch_layers` that has the name of `layers`
    """

    file_kind = "torch-net"

    def __init__(self, layers: str, shape: tuple[int, ...], outputs: int, **settings: Any) -> None:
        self._configure(layers, shape, outputs, **settings)
        self._keep()

    def _configure(self, layers: str, shape: tuple[int, ...], outputs: int, **settings: Any) -> None:
        demand_torch()
        from . import torch_layers

        if not _check.one_of(layers, _KINDS):
            raise ValueError(f"layers: expected one of {', '.join(_KINDS)}, got {layers!r}")
        self.layers, self.shape, self.outputs, self.settings = layers, tuple(shape), outputs, settings
        self.inputs, self._device = math.prod(shape), "cpu"
        self.hidden, self.rank = settings.get("hidden"), settings.get("rank")
        self.module = torch_layers.arranged(getattr(torch_layers, layers)(self.shape, outputs, **settings))

    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {"layers": self.layers, "shape": list(self.shape), "outputs": self.outputs, **self.settings}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each float in the module's state, by name."""
        return {name: tuple(given.shape) for name, given in self._state().items()}

    @property
    def _last_layer(self) -> tuple[str, str, int]:
        raise TypeError("net: expected a net of pymimic, got one of torch, whose last layer stays as it is")

    @property
    def device(self) -> str:
        """Where the module is."""
        return self._device

    def to(self, device: str) -> TorchNet:
        """The same net, its module moved to "cpu" or "cuda"; in files it is float32 on the host."""
        self.module.to(device)
        self._device = device
        return self

    @property
    def multiply_adds(self) -> int:
        """Multiplications, each with its addition, that one row's prediction takes: a filter's at each of its places."""
        from . import torch_layers

        return torch_layers.multiply_adds(self.module, self.inputs)

    def logits(self, x: Array, backend: str | None = None) -> Array:
        """Logits (B, C) float32 of x (B, D); `backend` has nothing to say."""
        from ..torch import teacher

        return teacher(self.module, batch_size=_ROWS).logits(_check.float_rows("x", x, self.inputs))

    def fit(self, cases: Cases, how: Training, seed: int, device: str = "cpu") -> None:
        """Begin from inputs of the cases, and train on them."""
        from . import torch_layers

        sample = np.random.default_rng(seed).permutation(len(cases))[: 4 * _ROWS]
        torch_layers.begin(self.module, cases.batch(sample)[0], seed)
        torch_layers.fit(self.module, cases, how, seed, device)
        self._device = device
        self._keep()

    def _state(self) -> dict[str, Any]:
        """What is learnt, as tensors."""
        return {name: given for name, given in self.module.state_dict().items() if given.is_floating_point()}

    def _keep(self) -> None:
        """Have the module's weights as arrays."""
        super()._take({name: np.array(given.cpu().numpy(), np.float32, order="C") for name, given in self._state().items()})

    def _take(self, arrays: dict[str, Array], rounding: Rounding | None = None) -> None:
        super()._take(arrays, rounding)
        import torch

        with torch.no_grad():
            for name, given in self._state().items():
                given.copy_(torch.from_numpy(arrays[name]))

    def _fill(self, path: Any, arrays: dict[str, Array], metadata: dict[str, Any]) -> None:
        super()._fill(path, arrays, metadata)
        self._take(self._arrays)
