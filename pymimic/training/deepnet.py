"""A deep multilayer perceptron on the `linear_dropout` kernels: a teacher of our own, or a student to compare wide ones with."""

from __future__ import annotations

from collections.abc import Sequence

from .layered import LayeredNet
from .layers import Layers


class DeepNet(LayeredNet):
    """x -> dropout(f(x weight0^T + bias0)) -> ... -> logits; the last layer has neither activation nor dropout.

    Dropout (Srivastava et al. 2014) is what makes it a good teacher. Layer i's mask has as key the first two words of
    Philox4x32-7(key from the trainer's seed, counter (i, 0, 0, 0)), the inputs' with i = the number of layers, and as offset the step.
    Fresh weights are normal with mean 0, from `SeedSequence(seed, spawn_key=(0,))`: variance 2 / in before relu
    and gelu (He et al. 2015), else 1 / in; biases are 0.

    Parameters
    ----------
    layer_sizes : [D, hidden units ..., C], at least D and C
    activation : "relu", "identity", "tanh", "sigmoid" or "gelu"
    dropout : probability in [0, 1) that training drops a hidden unit
    input_dropout : the same for an input
    seed : 64 bits; of the weights, and of what is random in `fit`

    Attributes
    ----------
    inputs, outputs : D and C
    mean, scale : (D,) float32 arrays or None; the net sees (x - mean) * scale
    history : of the last `fit`
    """

    file_kind = "deepnet"
    _stack = Layers

    def __init__(
        self, layer_sizes: Sequence[int], activation: str = "relu", dropout: float = 0.0, input_dropout: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(layer_sizes, activation, dropout, input_dropout, seed)
