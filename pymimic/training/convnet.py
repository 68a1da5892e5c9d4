"""A net of convolutions and dense layers on the `linear_dropout` kernels: a teacher of our own for signals and images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from .convolution import Convolution, ConvolutionLayers
from .layered import LayeredNet


class ConvNet(LayeredNet):
    """Convolutions with an activation each, then dense layers as those of `pymimic.DeepNet`, the last of which gives the logits.

    A row x (D,) is an input of `input_shape` in C order, channel by channel. A convolution's weights (channels, columns) take what its
    window sees position by position, the channels of each position together; the first dense layer takes the last convolution's outputs in
    the same order. Fresh weights are as those of a `DeepNet`, in = columns.

    Layers are numbered through, from 0 to N - 1. The keys of dropout masks are drawn as those of a `DeepNet`: with i = the number of a
    dense layer for its outputs, N for the last convolution's outputs, and N + 1 for the inputs.

    Parameters
    ----------
    input_shape : (channels, length) or (channels, height, width); a UserWarning says where the channels seem to be last
    convolutions : a `pymimic.Convolution` each, or what one takes: (channels, kernel, stride, padding); at least one
    outputs : C
    hidden : units of the dense layers between the convolutions and the last layer
    activation : "relu", "identity", "tanh", "sigmoid" or "gelu"
    dropout : probability in [0, 1) that training drops an input of a dense layer, of the last one too
    input_dropout : the same for an input of the net
    seed : 64 bits; of the weights, and of what is random in `fit`

    Attributes
    ----------
    inputs, outputs : D and C
    mean, scale : (D,) float32 arrays or None; the net sees (x - mean) * scale
    history : of the last `fit`
    """

    file_kind = "convnet"
    _stack = ConvolutionLayers

    def __init__(
        self, input_shape: Sequence[int], convolutions: Sequence[Convolution | Sequence[Any]], outputs: int, hidden: Sequence[int] = (),
        activation: str = "relu", dropout: float = 0.0, input_dropout: float = 0.0, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(input_shape, convolutions, outputs, hidden, activation, dropout, input_dropout, seed)
        _warn_of_channels_last(self.configuration()["input_shape"])


def _warn_of_channels_last(shape: list[int]) -> None:
    """Warn of a shape whose channels seem to be last, or left out, as in (32, 32, 3) and (28, 28)."""
    last = len(shape) == 3 and shape[-1] in (1, 3) and min(shape[:2]) > 3
    if not last and not (len(shape) == 2 and shape[0] == shape[1] > 3):
        return
    channels, size = (shape[2], shape[:2]) if last else (1, shape)
    rows = "; pass rows of x.transpose(0, 3, 1, 2)" if channels > 1 else ""
    meant = f"images of {size[0]} x {size[1]} with {channels} channel{'s' * (channels > 1)}"
    what = f"input_shape: expected (channels, ...), channels first, got {tuple(shape)}: for {meant} it is {(channels, *size)}{rows}"
    warnings.warn(what, stacklevel=3)
