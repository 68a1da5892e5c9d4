"""PyTorch, eager. Measured best: U as (k, H), W as (C, H)."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

TITLE = "torch"


def versions():
    return torch.__version__


class Net(nn.Module):
    def __init__(self, a):
        super().__init__()
        for name, array in {"V": a.get("V"), "U": a["U"].T, "b": a["b"], "W": a["W"].T, "c": a["c"]}.items():
            parameter = None if array is None else nn.Parameter(torch.from_numpy(np.ascontiguousarray(array)))
            self.register_parameter(name, parameter)

    def forward(self, x):
        z = x if self.V is None else functional.linear(x, self.V)
        h = functional.relu(torch.addmm(self.b, z, self.U), inplace=True)
        return functional.linear(h, self.W, self.c)


def ours(net, of=lambda parameter: parameter.detach()):
    """Something of each parameter, by the names and in the layouts of pymimic."""
    arrays = {name: of(parameter) for name, parameter in net.named_parameters()}
    return arrays | {"U": arrays["U"].T, "W": arrays["W"].T}


def loss(net, x, t):
    return 0.5 * (net(x) - t).square().sum() / len(x)


def forward(a, compiled=lambda f: f, dtype=torch.float32):
    net, x = Net(a).to(dtype), torch.from_numpy(a["x"]).to(dtype)
    call = compiled(net)

    @torch.inference_mode()
    def run():
        return call(x).float().numpy()

    return run


def step(a, compiled=lambda f: f, dtype=torch.float32):
    net, x, t = Net(a).to(dtype), torch.from_numpy(a["x"]).to(dtype), torch.from_numpy(a["t"]).to(dtype)
    call = compiled(loss)

    def run():
        net.zero_grad(set_to_none=True)
        call(net, x, t).backward()
        return ours(net, lambda parameter: parameter.grad)

    return run


def adamw(a, learning_rate, weight_decay, compiled=lambda f: f):
    net, x, t = Net(a), torch.from_numpy(a["x"]), torch.from_numpy(a["t"])
    call = compiled(loss)
    groups = {True: [], False: []}
    for parameter in net.parameters():
        groups[parameter.ndim > 1].append(parameter)
    decays = [{"params": groups[True], "weight_decay": weight_decay}, {"params": groups[False], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decays, lr=learning_rate, fused=True)

    def run():
        optimizer.zero_grad(set_to_none=True)
        call(net, x, t).backward()
        optimizer.step()
        return ours(net)

    return run
