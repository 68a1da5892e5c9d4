"""What a MimicNet refuses."""

import re

import numpy as np
import pytest
import torch

import pymimic as pm
import pymimic.torch as pt

D, H, C = 6, 40, 3
X = torch.randn(32, D, generator=torch.Generator().manual_seed(0))


def standardised(mean=0.0, scale=1.0):
    student = pm.Student(D, H, C)
    student.set_standardisation(np.full(D, mean, np.float32), np.full(D, scale, np.float32))
    return pt.MimicNet.from_student(student)


@pytest.mark.parametrize("net", [standardised(), pt.MimicNet(D, H, C), pt.MimicNet(D, H, C, 4)], ids=["standardised", "wide", "rank"])
@pytest.mark.parametrize("x", [X[:, :1], X[0, 0], X[:, :0], torch.zeros(2, 3, D + 1)], ids=lambda x: str(tuple(x.shape)))
def test_inputs_of_another_width(net, x):
    with pytest.raises(RuntimeError, match=rf"^x: expected shape \(\.\.\., {D}\), got \({', '.join(map(str, x.shape))}\)$"):
        net(x)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize(
    ("x", "says"),
    [
        (X.double(), "expected dtype float32 as the weights have, got float64: pass x.to(torch.float32)"),
        (X.half(), "expected dtype float32 as the weights have, got float16: pass x.to(torch.float32)"),
        (X.long(), "expected dtype float32 as the weights have, got int64: pass x.to(torch.float32)"),
        (X.cfloat(), "expected dtype float32 as the weights have, got complex64: pass x.to(torch.float32)"),
        (X.to("meta"), "expected a tensor on cpu as the weights are, got one on meta"),
        (X.numpy(), "expected a tensor, got ndarray"),
        (X.tolist(), "expected a tensor, got list"),
    ],
    ids=["float64", "float16", "int64", "complex64", "meta", "array", "list"],
)
def test_inputs_of_another_kind(x, says, rank, fused):
    net = pt.MimicNet(D, H, C, rank)
    optimizer = net.fused_optimizer() if fused else None
    with pytest.raises(RuntimeError, match=rf"^x: {re.escape(says)}$"):
        net(x)
    assert optimizer is None or net._fused is optimizer


def test_sparse_inputs():
    assert torch.allclose(pt.MimicNet(D, H, C, 4)(X.to_sparse()), pt.MimicNet(D, H, C, 4)(X))
    with pytest.raises(RuntimeError, match=r"^x: expected a dense tensor, got one that is torch.sparse_coo$"):
        pt.MimicNet(D, H, C)(X.to_sparse())


def test_autocast_takes_what_it_casts():
    for rank in (None, 4):
        net = pt.MimicNet(D, H, C, rank)
        with torch.autocast("cpu", torch.bfloat16):
            assert all(net(X.to(dtype)).dtype == torch.float32 for dtype in (torch.float32, torch.float16, torch.bfloat16))
            with pytest.raises(RuntimeError, match=r"^x: expected dtype float32 as the weights have, got float64"):
                net(X.double())


def test_all_follow_the_device_context():
    with torch.device("meta"):
        net = pt.MimicNet(D, H, C, 4, dropout=0.5)
    assert {given.device.type for given in net.state_dict().values()} == {"meta"}
    assert net(X.to("meta")).shape == (32, C)
    other = pt.MimicNet(D, H, C, 4, dropout=0.5, seed=1)
    net.to_empty(device="cpu").load_state_dict(other.state_dict())
    assert torch.equal(net(X), other(X))


@pytest.mark.parametrize(
    "given",
    [{"mean": 1, "scale": 1}, {"mean": D}, {"scale": D}, {"mean": D, "scale": D + 1}],
    ids=str,
)
@pytest.mark.parametrize("strict", [True, False])
def test_states_of_another_standardisation(given, strict):
    net = pt.MimicNet(D, H, C)
    with pytest.raises(RuntimeError, match=rf"mean, scale: expected both of shape \({D},\), or neither, got"):
        net.load_state_dict(net.state_dict() | {name: torch.ones(size) for name, size in given.items()}, strict=strict)
    assert net.mean is None
    assert net.scale is None
    with pytest.raises(RuntimeError, match="size mismatch for mean"):
        standardised().load_state_dict(net.state_dict() | {"mean": torch.ones(1), "scale": torch.ones(D)}, strict=strict)


def test_a_standardisation_in_the_first_layer():
    net = standardised(2000.0, 0.1).eval()
    first = net.to_sequential()[0]
    U, b, mean, scale = (given.detach().double() for given in (net.U, net.b, net.mean, net.scale))
    assert torch.allclose(first.bias.double(), b - (U * scale) @ mean, rtol=1e-7, atol=0)


def test_what_is_no_student():
    with pytest.raises(TypeError, match=r"^student: expected a pymimic.Student, got Linear$"):
        pt.MimicNet.from_student(torch.nn.Linear(3, 3))
