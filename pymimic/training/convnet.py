"""A net of convolutions and dense layers on the `linear_dropout` kernels: a teacher of our own for signals and images."""

from __future__ import annotations

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
    input_shape : (channels, length) or (channels, height, width)
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
