"""The optimizer inside the backward pass: torch's updates, no gradients, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import pymimic as pm
import pymimic.torch as pt

D, H, C, K = 6, 40, 3, 4
X = torch.randn(32, D, generator=torch.Generator().manual_seed(0))
T = torch.randn(32, C, generator=torch.Generator().manual_seed(1))
LOSS = pt.MimicLoss()
WIDE = ("U", "b", "W", "c")


@pytest.fixture(params=[None, K])
def rank(request):
    return request.param


@pytest.fixture
def net(rank):
    return pt.MimicNet(D, H, C, rank, dropout=0.5)


def train(net, optimizer, steps=1, scheduler=None):
    for _ in range(steps):
        optimizer.zero_grad()
        LOSS(net(X), T).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def groups(net, decay):
    return [{"params": [p for p in net.parameters() if (p.dim() > 1) == wide], "weight_decay": decay * wide} for wide in (True, False)]


def differences(net, twin):
    return max((a - b).abs().max().item() for a, b in zip(net.parameters(), twin.parameters()))


@pytest.mark.parametrize(
    ("kind", "settings", "theirs"),
    [
        ("adamw", {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.8, 0.99)}, torch.optim.AdamW),
        ("sgd", {"lr": 1e-2, "weight_decay": 0.1, "momentum": 0.9, "nesterov": True}, torch.optim.SGD),
        ("sgd", {"lr": 1e-2}, torch.optim.SGD),
    ],
)
def test_updates_are_torchs_also_under_a_scheduler(net, kind, settings, theirs):
    twin = copy.deepcopy(net)
    ours = net.fused_optimizer(kind, **settings)
    rest = {key: value for key, value in settings.items() if key != "weight_decay"}
    other = theirs(groups(twin, settings.get("weight_decay", 0)), **rest)
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10) for optimizer in (ours, other)]
    train(net, ours, 10, schedules[0])
    train(twin, other, 10, schedules[1])
    assert ours.param_groups[0]["lr"] == other.param_groups[0]["lr"] != settings["lr"]
    assert differences(net, twin) < 1e-5


def test_schedulers_that_cycle_momentum(net):
    optimizer = net.fused_optimizer("sgd", lr=1e-3, momentum=0.9)
    train(net, optimizer, 5, torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=6))
    assert optimizer._optimizer.momentum != 0.9


def test_gradients_of_the_wide_layer_are_never_stored(net):
    optimizer = net.fused_optimizer(lr=1e-2)
    LOSS(net(X), T).backward()
    for name in WIDE:
        gradient = getattr(net, name).grad
        assert repr(gradient) == "a gradient that fused_optimizer has used and not stored"
        for read in (torch.norm, torch.clone, lambda g: g.mul_(2), lambda g: g.data_ptr()):
            with pytest.raises(RuntimeError, match=r"^grad: expected nobody to read a gradient"):
                read(gradient)
    optimizer.step()
    assert [getattr(net, name).grad for name in WIDE] == [None] * 4


def test_state_is_current_without_a_copy(net):
    optimizer = net.fused_optimizer(lr=1e-2)
    state = net.state_dict()
    arrays = optimizer._handle.arrays(copy=False)
    assert all(state[name].data_ptr() == arrays[name].ctypes.data for name in WIDE)
    before = {name: state[name].clone() for name in WIDE}
    train(net, optimizer)
    assert all(not torch.equal(state[name], before[name]) for name in WIDE)
    net.load_state_dict(net.state_dict() | before)  # and what is loaded is trained
    assert all(np.array_equal(arrays[name], before[name].numpy()) for name in WIDE)


def test_a_run_that_stops_goes_on_from_both_states(net):
    optimizer = net.fused_optimizer(lr=1e-2)
    train(net, optimizer, 3)
    saved = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    train(net, optimizer, 3)
    other = pt.MimicNet(D, H, C, net.rank, dropout=0.5, seed=1)
    again = other.fused_optimizer(lr=1.0)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    train(other, again, 3)
    assert differences(net, other) == 0


def test_evaluation_and_copies_train_nothing(net):
    optimizer = net.fused_optimizer(lr=1e-2)
    x = X.clone().requires_grad_()
    net.eval()(x).sum().backward()
    assert x.grad.any()
    assert [getattr(net, name).grad for name in WIDE] == [None] * 4
    net.train()
    with torch.no_grad():
        net(X)
    train(net, optimizer)
    twin = copy.deepcopy(net)
    LOSS(twin(X), T).backward()
    assert twin.U.grad.any()
    optimizer.release()
    LOSS(net(X), T).backward()
    assert net.U.grad.any()


def test_a_closure_is_called(net):
    optimizer = net.fused_optimizer(lr=1e-2)

    def closure():
        optimizer.zero_grad()
        loss = LOSS(net(X), T)
        loss.backward()
        return loss

    assert optimizer.step(closure).item() != optimizer.step(closure).item()
    assert int(net.offset) == 2


def test_inside_autocast_the_wide_layer_stays_in_float32(net):
    optimizer = net.fused_optimizer(lr=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSS(net(X), T)
    loss.backward()
    optimizer.step()
    assert net(X).dtype == torch.float32


def refused(match):
    return pytest.raises(RuntimeError, match=match)


def test_a_second_backward_pass_is_refused(net):
    optimizer = net.fused_optimizer(lr=1e-2)
    loss = LOSS(net(X), T)
    loss.backward(retain_graph=True)
    weights = net.U.detach().clone()
    with refused(r"^fused_optimizer: expected step\(\) before another backward pass; step\(\) must follow"):
        loss.backward(retain_graph=True)
    with refused(r"^fused_optimizer: expected step\(\) before another forward pass"):
        net(X)
    optimizer.step()
    with refused(r"before another backward pass"):  # by weights that are gone
        loss.backward()
    assert torch.equal(net.U, weights)
    with refused(r"^step: expected a backward pass since the last step"):
        optimizer.step()


def test_accumulation_is_refused_before_anything_changes(net):
    optimizer = net.fused_optimizer(lr=1e-2)
    weights = net.U.detach().clone()
    y = net(X)
    with refused(r"^fused_optimizer: expected its backward pass, or zero_grad\(\) to skip it, before another forward pass"):
        net(X)
    if net.rank is not None:
        net.V.grad = torch.zeros_like(net.V)
        with refused(r"^V: expected no gradient before the backward pass, got one; call zero_grad\(\)"):
            LOSS(y, T).backward()
    del y
    assert torch.equal(net.U, weights)
    train(net, optimizer)


def test_a_batch_may_be_skipped_before_its_backward_pass(net):
    optimizer = net.fused_optimizer(lr=1e-2)
    twin = copy.deepcopy(net)
    skipped = LOSS(net(X), T)
    with refused(r"or zero_grad\(\) to skip it, before another forward pass"):
        net(X)
    twin.offset.copy_(net.offset)
    train(net, optimizer)
    train(twin, twin.fused_optimizer(lr=1e-2))
    assert differences(net, twin) == 0
    with refused(r"^fused_optimizer: expected a forward pass before another backward pass"):
        skipped.backward()
    assert differences(net, twin) == 0
    assert optimizer.step(lambda: None) is None
    assert differences(net, twin) == 0


def test_gradients_may_be_cleared_after_the_forward_pass(net):
    optimizer = net.fused_optimizer(lr=1e-2)
    twin = copy.deepcopy(net)
    train(twin, twin.fused_optimizer(lr=1e-2), 2)
    for _ in range(2):
        loss = LOSS(net(X), T)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert differences(net, twin) == 0


def test_gradients_of_other_tensors_alone_train_nothing(net):
    optimizer = net.fused_optimizer(lr=1e-2)
    x, weights = X.clone().requires_grad_(), net.U.detach().clone()
    with refused(r"^fused_optimizer: expected a backward pass to the weights, got one to others; use evaluation mode"):
        torch.autograd.grad(LOSS(net(x), T), x)
    assert torch.equal(net.U, weights)
    assert torch.autograd.grad(LOSS(net.eval()(x), T), x)[0].any()
    train(net.train(), optimizer)


def test_a_frozen_bottleneck_stays():
    net = pt.MimicNet(D, H, C, K)
    net.V.requires_grad_(False)
    twin = copy.deepcopy(net)
    train(net, net.fused_optimizer(lr=1e-2), 2)
    train(twin, torch.optim.AdamW(groups(twin, 0.0), lr=1e-2, betas=(0.9, 0.99), weight_decay=0.0), 2)
    assert differences(net, twin) < 1e-6
    assert not net.V.grad


def test_a_state_of_another_optimizer_is_refused_at_once(net):
    state = net.fused_optimizer("adamw").state_dict()
    with pytest.raises(
        ValueError, match=r"^state_dict: expected that of an optimizer with lr, momentum, nesterov, weight_decay, got one with betas"
    ):
        copy.deepcopy(net).fused_optimizer("sgd", momentum=0.9).load_state_dict(state)
    optimizer = net.fused_optimizer("adamw")
    train(net, optimizer)
    wider = pt.MimicNet(D, H + 1, C, net.rank).fused_optimizer("adamw")
    with pytest.raises(ValueError, match=rf"^state_dict: expected U\.\w+ of shape \({H + 1}, \d+\), got \({H}, \d+\)$"):
        wider.load_state_dict(optimizer.state_dict())
    assert "U.mean" not in wider.state_dict()["state"]


def test_clipping_and_scalers_are_refused(net):
    optimizer = net.fused_optimizer(lr=1e-2)
    LOSS(net(X), T).backward()
    with refused(r"^grad: expected nobody to read"):
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    with refused(r"^grad: expected nobody to read"):
        nn.utils.clip_grad_value_(net.parameters(), 1.0)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.tensor(1.0))
    with refused(r"^grad: expected nobody to read"):
        scaler.step(optimizer)
    if net.rank is not None:
        nn.utils.clip_grad_norm_([net.V], 1e-3)
        with refused(r"^V: expected its gradient as the backward pass left it"):
            optimizer.step()


def test_checkpoints_and_other_optimizers_are_refused(net):
    net.fused_optimizer(lr=1e-2)
    y = checkpoint(net, X.clone().requires_grad_(), use_reentrant=False)
    with refused(r"^fused_optimizer: expected a forward pass outside of a checkpoint"):
        LOSS(y, T).backward()
    del y
    net.zero_grad()
    LOSS(net(X), T).backward()
    with refused(r"^grad: expected nobody to read"):
        torch.optim.SGD(net.parameters(), lr=1.0).step()


def test_a_net_that_was_moved_needs_a_new_one(net):
    net.fused_optimizer(lr=1e-2)
    net.double()
    with refused(r"^U: expected the memory that fused_optimizer gave it"):
        net(X.double())
    optimizer = net.fused_optimizer(lr=1e-2)
    optimizer.zero_grad()
    nn.functional.mse_loss(net(X.double()), T.double()).backward()
    optimizer.step()


def test_defaults_are_the_librarys(net):
    group, theirs = net.fused_optimizer().param_groups[0], pm.AdamW()
    assert (group["lr"], group["betas"]) == (theirs.learning_rate, (theirs.beta1, theirs.beta2))
    assert (group["eps"], group["weight_decay"]) == (theirs.epsilon, theirs.weight_decay)


def test_wrong_settings():
    with pytest.raises(ValueError, match=r"^lr: expected a number of at least 0, got -1$"):
        pt.MimicNet(D, H, C).fused_optimizer(lr=-1)
    assert pt.MimicNet(D, H, C).fused_optimizer(lr=torch.tensor(0.5)).param_groups[0]["lr"] == 0.5
    net = pt.MimicNet(D, H, C)
    with pytest.raises(ValueError, match=r"^kind: expected one of adamw, sgd, got 'adam'"):
        net.fused_optimizer("adam")
    with pytest.raises(TypeError, match=r"^momentum: expected settings of adamw, lr, betas"):
        net.fused_optimizer(momentum=0.9)
    with pytest.raises(ValueError, match=r"^lr: expected"):
        net.fused_optimizer(lr=-1.0)
    with refused(r"^U: expected a float32 or float64 parameter"):
        pt.MimicNet(D, H, C).bfloat16().fused_optimizer()
    optimizer = net.fused_optimizer()
    with refused(r"^param_group: expected none"):
        optimizer.add_param_group({"params": [torch.zeros(1)]})
    with pytest.raises(ValueError, match=r"^state_dict: expected that of a fused optimizer"):
        optimizer.load_state_dict(torch.optim.SGD(net.parameters()).state_dict())
