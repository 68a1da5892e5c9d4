"""A compiled net has the masks of the eager one in both passes, or is refused."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import pymimic.torch as pt

X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]


def fresh():
    torch._dynamo.reset()
    return pt.MimicNet(6, 40, 3, 4, dropout=0.5)


def gradients(net, function):
    net.zero_grad()
    function(X).square().sum().backward()
    return [param.grad.clone() for param in net.parameters()]


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_of_the_outputs_mask(backend):
    net, twin = fresh(), fresh()
    compiled = torch.compile(net, backend=backend, fullgraph=True)
    for _ in range(2):
        got, want = gradients(net, compiled), gradients(twin, twin)
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(got, want))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_net_inside_a_checkpoint_is_refused(backend):
    net = fresh()
    compiled = torch.compile(net, backend=backend)
    with pytest.raises(RuntimeError, match="offset: expected a compiled net outside of a checkpoint"):
        gradients(net, lambda x: checkpoint(compiled, x, use_reentrant=False))
