"""PyTorch on a GPU, eager. Timed on the default stream, which is CuPy's too."""

import torch
from peers import torch as eager
from torch import nn

TITLE, DEVICE = "torch", "cuda"
versions = eager.versions

if not torch.cuda.is_available():
    raise ImportError("torch sees no GPU")


def peak_bytes():
    return torch.cuda.max_memory_reserved()


def net_on_gpu(a, dtype):
    net = eager.Net(a).to("cuda", dtype)
    return net, *(torch.from_numpy(a[name]).to("cuda", dtype) for name in "xt")


def forward(a, compiled=lambda f: f, dtype=torch.float32):
    net, x, _ = net_on_gpu(a, dtype)
    call = compiled(net)

    @torch.inference_mode()
    def run():
        y = call(x)
        return lambda: y.float().cpu().numpy()

    return run


def step(a, compiled=lambda f: f, dtype=torch.float32):
    net, x, t = net_on_gpu(a, dtype)
    call = compiled(eager.loss)

    def run():
        net.zero_grad(set_to_none=True)
        call(net, x, t).backward()
        return lambda: eager.ours(net, lambda parameter: parameter.grad.float().cpu())

    return run


def adamw(a, learning_rate, weight_decay, compiled=lambda f: f, autocast=False):
    net, x, t = net_on_gpu(a, torch.float32)
    call = compiled(eager.loss)
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in net.parameters():
        groups[parameter.ndim > 1].append(parameter)
    decays = [{"params": groups[True], "weight_decay": weight_decay}, {"params": groups[False], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decays, lr=learning_rate, fused=True)

    def run():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            value = call(net, x, t)
        value.backward()
        optimizer.step()
        return lambda: eager.ours(net, lambda parameter: parameter.detach().cpu())

    return run
