"""How functions of arrays become operators of torch: views of memory, autograd, vmap, autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function  # type: ignore[attr-defined]
from torch.autograd import forward_ad

from .._check.others import of_tensor
from ..backends.interface import Array, Seed
from ..devices import cupy

LIBRARY = torch.library.Library("pymimic", "FRAGMENT")
Kernel = Callable[..., Any]


def array(tensor: Tensor) -> Array:
    """The tensor's memory as the ops take it: NumPy's view of it, or on a device the tensor, which they share by DLPack."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.device.type != "cpu":
        return tensor  # type: ignore[return-value]
    return of_tensor(tensor)


def tensor(given: Array) -> Tensor:
    """A tensor over the array's memory."""
    return torch.from_numpy(given) if isinstance(given, np.ndarray) else torch.from_dlpack(given)


def number(name: str, given: Tensor | None, bits: int) -> Seed:
    """A seed or an offset as the ops take it: an int, or the tensor if it is on a device. None is 0."""
    if given is None:
        return 0
    if given.dim() != 0 or given.dtype != torch.int64:
        raise RuntimeError(f"{name}: expected a 0-d int64 tensor, got {given.dtype} of shape {tuple(given.shape)}")
    return int(given.item()) % (1 << bits) if given.device.type == "cpu" else array(given)


def operator(
    schema: str, run: Kernel, fake: Kernel, *, setup: Kernel | None = None, backward: Kernel | None = None,
    autocast: torch.dtype | None = None,
) -> Any:  # fmt: skip
    """Register an operator, and return it.

    Parameters
    ----------
    schema : with the name; all arguments are positional
    run : what it does with tensors on the CPU or on a device
    fake : the shapes and dtypes of what it returns
    setup : called with (ctx, arguments, output) where a gradient will be wanted
    backward : called with (ctx, gradient), returns a gradient for each argument; None where it has none
    autocast : what floating-point tensors become inside `torch.autocast`
    """
    name = LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    qualified = f"pymimic::{name}"
    call = getattr(torch.ops.pymimic, name).default
    LIBRARY.impl(name, _as_torch_says(run), "CPU")
    LIBRARY.impl(name, _as_torch_says(_on_torchs_stream(run)), "CUDA")
    torch.library.register_fake(qualified, _of_one_place(call, fake), lib=LIBRARY)
    LIBRARY.impl(name, _with_autograd(call, setup, backward), "Autograd")
    torch.library.register_vmap(qualified, _one_by_one(call), lib=LIBRARY)
    if autocast is not None:
        for device in ("cpu", "cuda"):
            torch.library.register_autocast(qualified, device, autocast, lib=LIBRARY)
    return call


def _as_torch_says(run: Kernel) -> Kernel:
    """What the ops say of wrong arguments, as a RuntimeError: torch's operators raise no other."""

    def checked(*arguments: Any) -> Any:
        try:
            return run(*arguments)
        except (TypeError, ValueError) as error:
            raise RuntimeError(str(error)) from error

    return checked


def _of_one_place(call: Any, fake: Kernel) -> Kernel:
    """Without tensors on "meta" beside others, for which torch would give memory that nothing is written to."""
    names = [argument.name for argument in call._schema.arguments]

    def checked(*arguments: Any) -> Any:
        place = arguments[0].device
        for name, given in zip(names, arguments):
            if isinstance(given, Tensor) and (given.device.type == "meta") != (place.type == "meta"):
                raise RuntimeError(f"{name}: expected a tensor on {place} as {names[0]} is, got one on {given.device}")
        return fake(*arguments)

    return checked


def _on_torchs_stream(run: Kernel) -> Kernel:
    """The same on the tensors' device, in the order of torch's current stream. (Not yet run on a GPU.)"""

    def streamed(*arguments: Any) -> Any:
        device = next(given.device for given in arguments if isinstance(given, Tensor) and given.is_cuda)
        cuda = cupy().cuda
        with cuda.Device(device.index), cuda.ExternalStream(torch.cuda.current_stream(device).cuda_stream):
            return run(*arguments)

    return streamed


def _with_autograd(call: Any, setup: Kernel | None, backward: Kernel | None) -> Kernel:
    """The kernel that records a backward pass. `torch.library.register_autograd` does the same in five times the time."""
    schema = call._schema
    defaults = [argument.default_value for argument in schema.arguments]
    several = str(schema.returns[0].type) == "List[Tensor]"

    def differentiate(ctx: Any, *gradients: Any) -> Any:
        if backward is None:
            raise RuntimeError(f"{schema.name}: expected to be differentiated once, as second derivatives are not implemented")
        return backward(ctx, *gradients)

    def saving(ctx: Any, arguments: tuple[Any, ...], output: Any) -> None:
        if setup is not None:
            setup(ctx, arguments, output)

    class Recorded(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                output = call(*arguments)
            saving(ctx, arguments, output)
            return tuple(output) if several else output

        backward = staticmethod(differentiate)

    class Transformed(Recorded):
        """The same inside a transform of `torch.func`: the dispatcher goes on to the next one, which records as well."""

        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            with torch.enable_grad():
                return Recorded.forward(ctx, *arguments)

    def recording(*arguments: Any) -> Any:
        if forward_ad._current_level >= 0:
            _refuse_tangents(schema.name, arguments)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
            arguments = *arguments, *defaults[len(arguments) :]
            if torch._C._are_functorch_transforms_active():
                with enable_single_level_autograd_function():  # past `Function.apply`, which would begin with the first transform again
                    output = super(torch.autograd.Function, Transformed).apply(*arguments)  # type: ignore[no-untyped-call]
            else:
                output = Recorded.apply(*arguments)  # type: ignore[no-untyped-call]
            return list(output) if several else output
        with torch._C._AutoDispatchBelowAutograd():
            return call(*arguments)

    return recording


def _refuse_tangents(name: str, arguments: tuple[Any, ...]) -> None:
    """Refuse forward-mode derivatives, which would come out as zeros. A transform inside another hides its tangents from this one."""
    enabled = torch._C._is_fwd_grad_enabled() or torch._C._are_functorch_transforms_active()
    with forward_ad._set_fwd_grad_enabled(enabled):
        if any(isinstance(given, Tensor) and forward_ad.unpack_dual(given).tangent is not None for given in arguments):
            raise RuntimeError(f"{name}: expected reverse-mode derivatives alone, as forward-mode derivatives are not implemented")


def _one_by_one(call: Any) -> Kernel:
    """The rule for vmap: a call for each element of the batch."""

    def rule(info: Any, dims: Iterable[Any], *arguments: Any) -> tuple[Any, Any]:
        batched = [isinstance(given, Tensor) and isinstance(dim, int) for given, dim in zip(arguments, dims)]
        moved = [given.movedim(dim, 0) if yes else given for yes, given, dim in zip(batched, arguments, dims)]
        size = info.batch_size
        if size == 0:  # the shapes are those of an element of zeros
            moved = [given.new_zeros((1, *given.shape[1:])) if yes else given for yes, given in zip(batched, moved)]
        each = [call(*(given[i] if yes else given for yes, given in zip(batched, moved))) for i in range(max(size, 1))]
        if isinstance(each[0], Tensor):
            return torch.stack(each)[:size], 0
        return [torch.stack(parts)[:size] for parts in zip(*each)], [0] * len(each[0])

    return rule
