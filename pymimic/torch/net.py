"""The wide shallow net as a module of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..nets.student import Student
from .operators import demand_tensor, first_offset, shallow

if TYPE_CHECKING:
    from .fused import FusedOptimizer

_LAYERS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "identity": nn.Identity, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU,
}  # fmt: skip
_CAST = (torch.float32, torch.float16, torch.bfloat16)  # by `torch.autocast`, each to its own dtype
_MOST_TICKETS = 4096  # forward passes of checkpoints that wait for their backward pass


class MimicNet(nn.Module):
    """z = x V^T, h = dropout(f(z U^T + b)), y = h W + c: a `pymimic.Student` that any trainer of torch trains. h is never in memory.

    Without a rank there is no V, and z is x. Fresh weights are those of `Student(..., seed=seed)`, bit for bit.

    Each forward pass in training mode has a mask of its own: of the buffer `seed`, and of the buffer `offset`, which counts those passes.
    Both are in the `state_dict`. Inside `torch.utils.checkpoint` the second pass finds the first one's mask by the state of torch's random
    generator, of which a pass with dropout draws one number for that.

    With `DistributedDataParallel` give each rank its `origin`: (rank * rows of a rank's batch, 0), the rows being a multiple of 16. The
    ranks' masks are then those of one process on the joined batch.

    Parameters
    ----------
    inputs, hidden, outputs : D, H and C, at least 1
    rank : k, the width of the linear bottleneck, or None for none
    activation : "relu", "identity", "tanh", "sigmoid" or "gelu" (the erf form)
    dropout : probability in [0, 1) that training drops a hidden unit
    seed : of the initial weights and of the masks, in [0, 2^64)
    origin : (row, unit) of this net's batches in the whole, a multiple of (16, 32)

    Attributes
    ----------
    V, U, b, W, c : parameters (k, D), (H, k), (H,), (H, C) and (C,)
    mean, scale : (D,) buffers, or None; the net sees (x - mean) * scale. A converted student may bring them, a `state_dict` too
    origin : may be set
    """

    V: nn.Parameter | None
    U: nn.Parameter
    b: nn.Parameter
    W: nn.Parameter
    c: nn.Parameter
    seed: Tensor
    offset: Tensor
    mean: Tensor | None
    scale: Tensor | None
    _fused: FusedOptimizer | None
    _tickets: dict[int, _Ticket]  # by the state of torch's random generator

    def __init__(
        self, inputs: int, hidden: int, outputs: int, rank: int | None = None, activation: str = "relu", dropout: float = 0.0, *,
        seed: int = 0, origin: tuple[int, int] = (0, 0),
    ) -> None:  # fmt: skip
        super().__init__()
        student = Student(inputs, hidden, outputs, rank, activation, dropout, seed)
        self.inputs, self.hidden, self.outputs, self.rank = student.inputs, student.hidden, student.outputs, student.rank
        self.activation, self.dropout, self.origin = student.activation, student.dropout, origin
        arrays = student.weights()
        for name in ("V", "U", "b", "W", "c"):
            self.register_parameter(
                name, nn.Parameter(torch.from_numpy(arrays[name]).to(torch.get_default_device())) if name in arrays else None
            )
        self.register_buffer("seed", torch.tensor(student.seed - (student.seed >> 63 << 64)))
        self.register_buffer("offset", torch.tensor(0))
        for name in ("mean", "scale"):
            self.register_buffer(name, None)
        self._fused, self._tickets = None, {}

    def forward(self, x: Tensor) -> Tensor:
        """Logits y (..., C) of x (..., D); float32 where the weights are bfloat16, and inside `torch.autocast`."""
        first = self.U if self.V is None else self.V
        demand_tensor("x", x, sparse=self.V is not None)
        if x.shape[-1:] != (self.inputs,):
            raise RuntimeError(f"x: expected shape (..., {self.inputs}), got {tuple(x.shape)}")
        if x.device != first.device:
            raise RuntimeError(f"x: expected a tensor on {first.device} as the weights are, got one on {x.device}")
        if self.mean is not None and self.scale is not None:
            x = (x - self.mean) * self.scale
        if x.dtype != first.dtype and not (x.dtype in _CAST and torch.is_autocast_enabled(x.device.type)):
            raise RuntimeError(f"x: expected dtype {_name(first)} as the weights have, got {_name(x)}: pass x.to({first.dtype})")
        z = x if self.V is None else nn.functional.linear(x, self.V)
        rows = z if z.dim() == 2 else z.reshape(-1, z.shape[-1])
        mask = self._mask() if self.training and self.dropout else {}
        if self._fused is not None:
            y = self._fused.forward(rows, mask)
        else:
            y = shallow(rows, self.U, self.b, self.W, self.c, activation=self.activation, **mask)
        return y if z.dim() == 2 else y.reshape(*z.shape[:-1], self.outputs)

    def _mask(self) -> dict[str, Any]:
        """The operators' keywords for the next mask, or for the one of the first pass where a checkpoint makes a second one."""
        again = not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
        ticket = None if torch.compiler.is_compiling() else _drawn()
        if not again:
            offset = first_offset(self.offset) if torch.compiler.is_compiling() else self.offset.clone()
            self.offset.add_(1)
            if ticket is not None:
                waiting = self._tickets.pop(ticket, None)
                self._tickets[ticket] = _Ticket(offset if waiting is None or waiting.found else None)
                if len(self._tickets) > _MOST_TICKETS:
                    del self._tickets[next(iter(self._tickets))]
        else:
            known = None if ticket is None else self._tickets.get(ticket)
            if known is None or known.offset is None:
                have = "is new" if known is None else "two passes began from, as after torch.manual_seed"
                raise RuntimeError(
                    "offset: expected a forward pass inside a backward pass to repeat an earlier one, as torch.utils.checkpoint does with "
                    f"preserve_rng_state=True, got one whose random state {have}"
                )
            offset, known.found = known.offset, True
        return {"dropout": self.dropout, "seed": self.seed, "offset": offset, "origin": self.origin}

    def fused_optimizer(self, kind: str = "adamw", **settings: Any) -> FusedOptimizer:
        """An optimizer that updates U, b, W and c inside the backward pass and never stores their gradients.

        See `pymimic.torch.FusedOptimizer`, which has the settings.
        """
        from .fused import FusedOptimizer

        return FusedOptimizer(self, kind, **settings)

    @classmethod
    def from_student(cls, student: Student) -> MimicNet:
        """A net with the weights and the standardisation of a `pymimic.Student`; TypeError for anything else."""
        if not isinstance(student, Student):
            raise TypeError(f"student: expected a pymimic.Student, got {type(student).__name__}")
        net = cls(**{name: value for name, value in student.configuration().items() if name != "seed"}, seed=student.seed)
        state = {name: torch.tensor(array) for name, array in student.arrays().items()}
        if student.mean is not None and student.scale is not None:
            state |= {"mean": torch.tensor(student.mean), "scale": torch.tensor(student.scale)}
        net.load_state_dict(net.state_dict() | state)
        return net

    def to_student(self) -> Student:
        """A `pymimic.Student` with the weights, as float32, and the standardisation."""
        seed = int(self.seed) % (1 << 64)
        student = Student(self.inputs, self.hidden, self.outputs, self.rank, self.activation, self.dropout, seed)
        student.set_arrays(**{name: _array(given) for name in ("V", "U", "b", "W", "c") if (given := getattr(self, name)) is not None})
        if self.mean is not None and self.scale is not None:
            student.set_standardisation(_array(self.mean), _array(self.scale))
        return student

    @classmethod
    def from_sequential(cls, layers: nn.Sequential) -> MimicNet:
        """A net that says what `Sequential(Linear, Linear, activation, Linear)` says; without the first `Linear`, one without a rank.

        A `Dropout` may stand before the last layer; its masks are others. A bias of the first layer goes into b. The seed is 0.

        Raises
        ------
        ValueError, TypeError
            Other layers.
        """
        if not isinstance(layers, nn.Sequential):
            raise TypeError(f"layers: expected a Sequential, got {type(layers).__name__}")
        found = [layer for layer in layers if not isinstance(layer, nn.Dropout)]
        linear = [layer for layer in found if isinstance(layer, nn.Linear) and _is_plain(layer, nn.Linear)]
        names = [name for name, kind in _LAYERS.items() if len(found) > 2 and type(found[-2]) is kind]
        gelu = names == ["gelu"] and found[-2].approximate != "none"
        behind = len(layers) > 1 and isinstance(layers[-2], nn.Dropout)
        other = not _is_plain(layers, nn.Sequential) or len(found) not in (3, 4) or len(linear) != len(found) - 1
        if other or not names or gelu or len(layers) - len(found) != behind:
            kinds = ", ".join(_LAYERS[name].__name__ for name in _LAYERS)
            raise ValueError(
                f"layers: expected Linear, Linear, one of {kinds}, Linear, perhaps with a Dropout before the last, got {layers}"
            )
        *bottleneck, wide, last = linear
        dropout = float(layers[-2].p) if behind else 0.0  # type: ignore[arg-type]
        rank = bottleneck[0].out_features if bottleneck else None
        inputs = (bottleneck or [wide])[0].in_features
        net = cls(inputs, wide.out_features, last.out_features, rank, names[0], dropout).to(wide.weight)
        with torch.no_grad():
            b: Tensor = wide.weight.new_zeros(net.hidden) if wide.bias is None else wide.bias
            if bottleneck and bottleneck[0].bias is not None:
                b = b + wide.weight @ bottleneck[0].bias
            state = {
                "U": wide.weight,
                "b": b,
                "W": last.weight.T,
                "c": last.weight.new_zeros(net.outputs) if last.bias is None else last.bias,
            }
            net.load_state_dict(net.state_dict() | state | ({"V": bottleneck[0].weight} if bottleneck else {}))
        return net

    def to_sequential(self) -> nn.Sequential:
        """`Sequential(Linear, Linear, activation, Linear)` with copies of the weights; with a `Dropout` before the last if the net has one.

        Standardisation goes into the first layer, computed in float64. That layer then subtracts large numbers where inputs lie many of
        their standard deviations from 0: float32 loses about one digit for each factor of 10.
        """
        weights: list[tuple[Tensor, Tensor | None]] = [(self.U, self.b), (self.W.T, self.c)]
        if self.V is not None:
            weights = [(self.V, None), *weights]
        linear = []
        for i, (weight, bias) in enumerate(weights):
            weight, bias = weight.detach(), None if bias is None else bias.detach()
            if i == 0 and self.mean is not None and self.scale is not None:
                dtype, weight = weight.dtype, weight.double() * self.scale
                shift = -(weight @ self.mean.double())
                weight, bias = weight.to(dtype), (shift if bias is None else bias + shift).to(dtype)
            layer = nn.utils.skip_init(
                nn.Linear, weight.shape[1], weight.shape[0], bias is not None, device=weight.device, dtype=weight.dtype
            )
            layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
            linear.append(layer)
        dropout = [nn.Dropout(self.dropout)] if self.dropout else []
        return nn.Sequential(*linear[:-1], _LAYERS[self.activation](), *dropout, linear[-1])

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        names = ("inputs", "hidden", "outputs", "rank", "activation", "dropout")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def __getstate__(self) -> dict[str, Any]:
        """Without the fused optimizer: a copy is a net of its own, which none trains."""
        return self.__dict__ | {"_fused": None, "_tickets": {}}

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """With buffers for a standardisation that the net did not have."""
        given = {
            name: state_dict[key] for name in ("mean", "scale") if (key := prefix + name) in state_dict and getattr(self, name) is None
        }
        shapes = {name: tuple(tensor.shape) for name, tensor in given.items()}
        if any(shape != (self.inputs,) for shape in shapes.values()) or len(given) == 1:
            rest[-1].append(f"{prefix}mean, {prefix}scale: expected both of shape ({self.inputs},), or neither, got {shapes}")
        else:
            for name, tensor in given.items():
                setattr(self, name, torch.empty_like(tensor, device=self.U.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


@dataclass
class _Ticket:
    """A forward pass that a checkpoint may repeat."""

    offset: Tensor | None  # None where another pass has the ticket too
    found: bool = False  # by a second pass


def _drawn() -> int:
    """A number from torch's random generator."""
    number = torch.randint(1 << 62, ())
    if torch._C._functorch.is_batchedtensor(number):
        raise RuntimeError("randomness: expected 'same' for a net with dropout, which has one mask for all of a vmap, got 'different'")
    return int(number)


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module of that kind has the kind's forward pass, as parametrized ones do."""
    return type(module).forward is kind.forward


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().to("cpu", torch.float32).numpy()
