"""The optimizer that runs inside the backward pass of a `MimicNet`, with the face of an optimizer of torch."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import increment_version

from .. import _check
from ..backends.interface import Saved
from ..optimizer import SGD, AdamW, constant
from ..weights import ShallowWeights
from .fused_parameters import ONCE, NeverStored, demand_plain, reached
from .operators import shallow
from .register import array, number, tensor

if TYPE_CHECKING:
    from .net import MimicNet

_WIDE = ("U", "b", "W", "c")
_ADAMW = AdamW()
_DEFAULTS: dict[str, dict[str, Any]] = {
    "adamw": {
        "lr": _ADAMW.learning_rate,
        "betas": (_ADAMW.beta1, _ADAMW.beta2),
        "eps": _ADAMW.epsilon,
        "weight_decay": _ADAMW.weight_decay,
    },
    "sgd": {"lr": 1e-3, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
}
_SETTINGS = {name for kind in _DEFAULTS.values() for name in kind}


class FusedOptimizer(torch.optim.Optimizer):
    """Updates U, b, W and c of a net inside its backward pass (`pymimic.ShallowWeights.step`): their gradients are never stored.

    `step()` must follow each backward pass, and ends it: it updates V. Everything else is refused by a RuntimeError: a second forward or
    backward pass before it, accumulated, clipped or scaled gradients, DistributedDataParallel, checkpoints. A loss that was scaled by a
    `GradScaler` has updated the weights before `scaler.step` is refused. A batch may be skipped before its backward pass, if `zero_grad()`
    comes before the next forward pass. Gradients of inputs alone, by `torch.autograd.grad`, are for evaluation mode. `release()` gives the
    net back.

    torch's learning-rate schedulers work on it. The parameters become views of the handle's arrays, so a `state_dict` is current at any
    time; a net that is moved or cast needs a new optimizer. Forward passes in evaluation mode, or without gradients, train nothing.
    Weight decay skips b and c. Weights are float32 or float64, on the CPU. `torch.compile` runs it outside of its graphs.

    Gradients reach U, b, W and c by the net's output alone: a penalty on them in the loss, hooks on them and freezing them are refused. A
    gradient that comes after the backward pass is refused after the weights have changed.

    Parameters
    ----------
    net : a `pymimic.torch.MimicNet`
    kind : "adamw" or "sgd"
    settings : by torch.optim's names: lr, weight_decay, and betas and eps, or momentum and nesterov. Defaults are those of `pymimic.AdamW`
        and `pymimic.SGD`, the rate of "sgd" being 1e-3

    Raises
    ------
    ValueError, TypeError
        Settings that the optimizer does not have, or out of their range.
    RuntimeError
        Weights of another dtype, on a device, frozen, tied, or with hooks.
    """

    def __init__(self, net: MimicNet, kind: str = "adamw", **settings: Any) -> None:
        if not _check.one_of(kind, _DEFAULTS):
            raise ValueError(f"kind: expected one of {', '.join(_DEFAULTS)}, got {kind!r}")
        if unknown := sorted(settings.keys() - _DEFAULTS[kind].keys()):
            raise TypeError(f"{unknown[0]}: expected settings of {kind}, {', '.join(_DEFAULTS[kind])}")
        group = _DEFAULTS[kind] | settings
        rate, decay = constant(_check.number("lr", float(lr) if isinstance(lr := group["lr"], Tensor) else lr, 0)), group["weight_decay"]
        if kind == "adamw":
            beta1, beta2 = group["betas"]
            self._optimizer: AdamW | SGD = AdamW(rate, beta1=beta1, beta2=beta2, epsilon=group["eps"], weight_decay=decay)
        else:
            self._optimizer = SGD(rate, momentum=group["momentum"], nesterov=group["nesterov"], weight_decay=decay)
        wide = {name: getattr(net, name) for name in _WIDE}
        for name, param in wide.items():
            if param.device.type != "cpu" or param.dtype not in (torch.float32, torch.float64):
                raise RuntimeError(
                    f"{name}: expected a float32 or float64 parameter on the CPU to train, got {param.dtype} on {param.device}"
                )
            demand_plain(name, param)
            if len([None for other in (net.V, *wide.values()) if other is not None and other.data_ptr() == param.data_ptr()]) > 1:
                raise RuntimeError(f"{name}: expected a parameter of its own memory, got one that is tied to another")
        super().__init__(list(net.parameters()), group)
        self._net, self._dtype = net, wide["U"].dtype
        U, b, W, c = (array(param) for param in wide.values())
        self._handle = ShallowWeights(U, b, W, c, dtype=str(U.dtype), activation=net.activation)
        for name, held in self._handle.arrays(copy=False).items():
            wide[name].data = tensor(held)
        self._memory = {name: param.data_ptr() for name, param in wide.items()}
        self._waiting: weakref.ref[_Pass] | None = None  # the forward pass that has had no backward pass
        self._may_skip = False  # whether `zero_grad` has been called since that pass
        self._updated = False  # whether there was a backward pass since the last step
        self._saved: Saved | None = None  # memory for h
        self._leaf = torch.zeros((), requires_grad=True)  # stands in the graph for the weights
        self._version = -1  # of V's gradient as the backward pass left it
        if net.V is not None and net.V.requires_grad:
            held_by = weakref.ref(self)
            net.V.register_post_accumulate_grad_hook(lambda V: _note(held_by, V))
        net._fused = self

    def forward(self, rows: Tensor, mask: dict[str, Any]) -> Tensor:
        """y (B, C) of z (B, k): what the net calls. In training, its backward pass updates the weights."""
        net = self._net
        training = net.training and torch.is_grad_enabled()
        if torch._C._are_functorch_transforms_active() and (training or any(_wrapped(getattr(net, name)) for name in _WIDE)):
            raise RuntimeError(f"fused_optimizer: expected a forward pass outside of torch.func's transforms of the weights; {ONCE}")
        for name, address in self._memory.items():
            param = getattr(net, name)
            if training:
                demand_plain(name, param)
            if param.data_ptr() != address:
                raise RuntimeError(
                    f"{name}: expected the memory that fused_optimizer gave it; a net that was moved or cast needs a new one"
                )
        if not training:
            weights = [getattr(net, name).detach() for name in _WIDE]
            return shallow(rows, *weights, activation=net.activation, **mask)
        if nn.parallel.DistributedDataParallel._active_ddp_module is not None:
            raise RuntimeError(f"fused_optimizer: expected a net outside of DistributedDataParallel; {ONCE}")
        if torch._C._current_graph_task_id() != -1:
            raise RuntimeError(f"fused_optimizer: expected a forward pass outside of a checkpoint; {ONCE}")
        waiting = None if self._waiting is None else self._waiting()
        if self._updated or (waiting is not None and not self._may_skip):
            awaited = "step()" if self._updated else "its backward pass, or zero_grad() to skip it,"
            raise RuntimeError(f"fused_optimizer: expected {awaited} before another forward pass in training mode; {ONCE}")
        if waiting is not None:
            waiting.done = True  # it was skipped
        self._may_skip = False
        y: Tensor = _fused_pass(self, rows.to(self._dtype), mask)  # autocast may have made them bfloat16
        return y

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """End the step that the backward pass began: update V. Returns what the closure does, which is called first, if there is one.

        A closure that makes no backward pass and returns None skips the step, as Lightning has it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self._updated:
            if closure is not None and loss is None:
                return None
            raise RuntimeError(f"step: expected a backward pass since the last step; {ONCE}")
        V = self._net.V
        if V is not None and V.requires_grad:
            if V.grad is None or V.grad._version != self._version:
                raise RuntimeError(
                    f"V: expected its gradient as the backward pass left it, got {'none' if V.grad is None else 'another'}; {ONCE}"
                )
            self._optimizer.update("V", array(V), array(V.grad))
            increment_version(V)
        self._updated = False
        for name in _WIDE:
            getattr(self._net, name).grad = None
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set gradients to None, which they have to be before a backward pass. A forward pass that has had none may then be skipped."""
        self._may_skip = True
        super().zero_grad(set_to_none=True)

    def release(self) -> None:
        """Let the net train as any other module again."""
        self._net._fused = None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused: the parameters are the net's."""
        if self.param_groups:
            raise RuntimeError("param_group: expected none, as a fused optimizer trains the parameters of its net alone")
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """Copies of the slots and the count of steps by name, and torch's parameter groups."""
        return super().state_dict() | {"state": {name: torch.tensor(held) for name, held in self._optimizer.state().items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        if "steps" not in state_dict["state"]:
            raise ValueError("state_dict: expected that of a fused optimizer, which has 'steps' in its state")
        have, given = ({name for name in group if name in _SETTINGS} for group in (self.param_groups[0], state_dict["param_groups"][0]))
        if have != given:
            raise ValueError(f"state_dict: expected that of an optimizer with {_listed(have)}, got one with {_listed(given)}")
        for name, held in state_dict["state"].items():
            param = getattr(self._net, name.partition(".")[0], None)
            if param is not None and held.shape != param.shape:
                raise ValueError(f"state_dict: expected {name} of shape {tuple(param.shape)}, got {tuple(held.shape)}")
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        self._optimizer.load_state({name: array(held) for name, held in state_dict["state"].items()})

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refused: a copy of the optimizer would train the memory of no net."""
        raise TypeError("fused_optimizer: expected not to be copied or pickled; save state_dict(), and make one of the net's copy")

    def _take_settings(self) -> None:
        """From the parameter group, where schedulers write."""
        group, optimizer = self.param_groups[0], self._optimizer
        optimizer.schedule, optimizer.weight_decay = constant(float(group["lr"])), group["weight_decay"]
        if isinstance(optimizer, AdamW):
            (optimizer.beta1, optimizer.beta2), optimizer.epsilon = group["betas"], group["eps"]
        else:
            optimizer.momentum, optimizer.nesterov = group["momentum"], group["nesterov"]

    def _backward(self, waiting: _Pass, dy: Tensor, z: Tensor, need_dz: bool) -> Tensor | None:
        """Update the weights; dz of them as they were."""
        if self._updated or waiting.done:
            awaited = "step()" if self._updated else "a forward pass"
            raise RuntimeError(f"fused_optimizer: expected {awaited} before another backward pass; {ONCE}")
        net = self._net
        for name, version in zip(_WIDE, waiting.versions):
            demand_plain(name, param := getattr(net, name))
            if param._version != version:
                raise RuntimeError(f"{name}: expected the values that the forward pass saw, got some that were changed in place since")
        if not reached(self._leaf):
            raise RuntimeError("fused_optimizer: expected a backward pass to the weights, got one to others; use evaluation mode for it")
        for name in _WIDE:
            if reached(getattr(net, name)):
                raise RuntimeError(
                    f"{name}: expected a gradient by the net's output alone, got one by another way, as of a penalty; {ONCE}"
                )
        for name, param in net.named_parameters():
            if param.grad is not None:
                raise RuntimeError(f"{name}: expected no gradient before the backward pass, got one; call zero_grad() before it; {ONCE}")
        self._take_settings()
        dz = self._handle.step(
            array(dy.contiguous()), array(z), self._optimizer, saved=waiting.saved, need_dz=need_dz, **waiting.mask
        )  # fmt: skip
        increment_version([getattr(net, name) for name in _WIDE])  # other graphs that saved them refuse to go back
        self._saved, waiting.saved, waiting.done = waiting.saved, None, True
        self._waiting, self._updated = None, True
        for name in _WIDE:
            param = getattr(self._net, name)
            param.grad = torch.Tensor._make_wrapper_subclass(NeverStored, param.shape, dtype=param.dtype, device=param.device)
        return None if dz is None else tensor(dz)


class _Pass:
    """A forward pass, as its backward pass finds it."""

    def __init__(self, mask: dict[str, Any], versions: list[int]) -> None:
        self.mask, self.versions, self.done = mask, versions, False
        self.saved: Saved | None = None


@torch._disable_dynamo  # type: ignore[attr-defined]  # `torch.compiler.disable` imports the compiler at once
def _fused_pass(optimizer: FusedOptimizer, rows: Tensor, mask: dict[str, Any]) -> Tensor:
    return _Fused.apply(rows, optimizer._leaf, optimizer, mask)  # type: ignore[no-untyped-call, no-any-return]


class _Fused(torch.autograd.Function):
    """The wide layer whose backward pass is an optimizer's step. Its leaf has it called where z requires no gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, leaf: Tensor, optimizer: FusedOptimizer, mask: dict[str, Any]) -> Tensor:
        numbers = {"seed": number("seed", mask["seed"], 64), "offset": number("offset", mask["offset"], 32)} if mask else {}
        versions = [getattr(optimizer._net, name)._version for name in _WIDE]
        z, ctx.waiting, ctx.optimizer = rows.contiguous(), _Pass(mask | numbers, versions), optimizer
        handle, y = optimizer._handle, z.new_empty((len(z), len(optimizer._net.c)))
        save: bool | Saved = handle.keeps(len(z)) and (optimizer._saved or True)
        made = handle.forward(array(z), save=save, out=array(y), **ctx.waiting.mask)
        ctx.waiting.saved = made[1] if isinstance(made, tuple) else None
        optimizer._waiting = weakref.ref(ctx.waiting)
        ctx.save_for_backward(z)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, None, None, None]:
        return ctx.optimizer._backward(ctx.waiting, dy, *ctx.saved_tensors, ctx.needs_input_grad[0]), None, None, None


def _wrapped(param: Tensor) -> bool:
    """Whether it is a transform's, of `torch.func`, and has no memory."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(param))


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _note(held_by: weakref.ref[FusedOptimizer], V: Tensor) -> None:
    """Remember V's gradient as the backward pass leaves it."""
    optimizer = held_by()
    if optimizer is not None and V.grad is not None:
        optimizer._version = V.grad._version
