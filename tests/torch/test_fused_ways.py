"""Gradients that reach the weights of a fused optimizer by another way than the net's output are refused."""

import copy
import pickle

import pytest
import torch

import pymimic.torch as pt

D, H, C = 6, 40, 3
X = torch.randn(32, D, generator=torch.Generator().manual_seed(0))
T = torch.randn(32, C, generator=torch.Generator().manual_seed(1))
WIDE = ("U", "b", "W", "c")


@pytest.fixture
def net():
    return pt.MimicNet(D, H, C, 4)


def fit(net):
    return (net(X) - T).square().mean()


def penalty(net, name):
    return 3 * getattr(net, name).square().sum()


def refused(match):
    return pytest.raises(RuntimeError, match=match)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", WIDE)
def test_penalties_change_nothing(net, name, first):
    optimizer = net.fused_optimizer(lr=1e-2)
    before = {name: param.detach().clone() for name, param in net.named_parameters()}
    extra = penalty(net, name) if first else None
    loss = fit(net)
    extra = extra if first else penalty(net, name)
    with refused(rf"^{name}: expected a gradient by the net's output alone|^{name}: expected no gradient before"):
        (extra + loss if first else loss + extra).backward()
    assert all(torch.equal(param, before[name]) for name, param in net.named_parameters())
    with refused(r"^step: expected a backward pass"):
        optimizer.step()


def test_a_penalty_on_the_bottleneck_counts(net):
    twin = pt.MimicNet(D, H, C, 4)
    optimizer, other = net.fused_optimizer("sgd", lr=1e-2), torch.optim.SGD(twin.parameters(), 1e-2)
    for each, step in ((net, optimizer), (twin, other)):
        (penalty(each, "V") + fit(each)).backward()
        step.step()
    assert torch.allclose(net.V, twin.V, atol=1e-6)


@pytest.mark.parametrize("name", WIDE)
def test_gradients_of_another_pass(net, name):
    optimizer = net.fused_optimizer(lr=1e-2)
    penalty(net, name).backward()
    with refused(rf"^{name}: expected no gradient before the backward pass"):
        fit(net).backward()
    optimizer.zero_grad()
    fit(net).backward()
    with refused(r"^grad: expected nobody to read"):
        penalty(net, name).backward()


@pytest.mark.parametrize("name", WIDE)
def test_weights_that_are_frozen_later(net, name):
    net.fused_optimizer(lr=1e-2)
    weights, loss = net.U.detach().clone(), fit(net)
    getattr(net, name).requires_grad_(False)
    for act in (loss.backward, lambda: net(X)):
        with refused(rf"^{name}: expected a parameter that requires gradients, got one that is frozen"):
            act()
    assert torch.equal(net.U, weights)
    net.eval()(X)


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
@pytest.mark.parametrize("name", WIDE)
def test_hooks(net, name, register):
    net.fused_optimizer(lr=1e-2)
    weights, loss = net.U.detach().clone(), fit(net)
    hook = getattr(getattr(net, name), register)(lambda given: None)
    for act in (loss.backward, lambda: net(X), net.fused_optimizer):
        with refused(rf"^{name}: expected no hooks"):
            act()
    hook.remove()
    assert torch.equal(net.U, weights)


def test_gradients_of_other_tensors(net):
    net.fused_optimizer(lr=1e-2)
    x, weights = X.clone().requires_grad_(), net.U.detach().clone()
    with refused(r"^fused_optimizer: expected a backward pass to the weights, got one to others"):
        net(x).sum().backward(inputs=[x])
    net.zero_grad()
    net._fused.zero_grad()
    with refused(r"^fused_optimizer: expected a backward pass to the weights, got one to others"):
        torch.autograd.functional.jacobian(net, X[:2])
    net._fused.zero_grad()
    with refused(r"^fused_optimizer: expected a backward pass to the weights, got one to others"):
        torch.autograd.grad(net(x).sum(), [x, net.c], allow_unused=True)
    assert torch.equal(net.U, weights)


@pytest.mark.parametrize("view", [False, True])
def test_tied_weights(view):
    net = pt.MimicNet(C, H, C, C)
    net.W = torch.nn.Parameter(net.U.detach()) if view else net.U
    with refused(r"^[UW]: expected a parameter of its own memory, got one that is tied"):
        net.fused_optimizer()
    assert torch.allclose(torch.from_numpy(net.to_student().predict(T.numpy())), net(T), atol=1e-5)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies(net, copied):
    optimizer = net.fused_optimizer()
    with pytest.raises(TypeError, match=r"^fused_optimizer: expected not to be copied or pickled; save state_dict\(\)"):
        copied(optimizer)
    copy.deepcopy(net).fused_optimizer().load_state_dict(copy.deepcopy(optimizer.state_dict()))


@pytest.mark.parametrize("name", WIDE)
def test_weights_that_change_before_the_backward_pass(net, name):
    net.fused_optimizer("sgd", lr=1e-2)
    loss = fit(net)
    with torch.no_grad():
        getattr(net, name).mul_(2)
    before = {name: param.detach().clone() for name, param in net.named_parameters()}
    with refused(rf"^{name}: expected the values that the forward pass saw, got some that were changed in place since"):
        loss.backward()
    assert all(torch.equal(param, before[name]) for name, param in net.named_parameters())


@pytest.mark.parametrize("fused", [False, True])
def test_a_graph_from_before_the_step_is_stale(net, fused):
    """As with torch's own optimizers: its saved weights are gone."""
    optimizer = net.fused_optimizer("sgd", lr=1e-2) if fused else torch.optim.SGD(net.parameters(), 1e-2)
    x = X.clone().requires_grad_()
    wide, bottleneck = net.eval()(x).sum(), torch.nn.functional.linear(x, net.V).sum()
    fit(net.train()).backward()
    optimizer.step()
    for early in (wide, bottleneck):
        with refused(r"modified by an inplace operation"):
            torch.autograd.grad(early, x)


def test_transforms_of_the_weights(net):
    net.fused_optimizer()
    with refused(r"^fused_optimizer: expected a forward pass outside of torch.func's transforms"):
        torch.vmap(net)(X.reshape(4, 8, D))
    params = dict(net.eval().named_parameters())
    with refused(r"^fused_optimizer: expected a forward pass outside of torch.func's transforms"):
        torch.func.grad(lambda params: torch.func.functional_call(net, params, X).sum())(params)
    assert torch.allclose(torch.vmap(net)(X.reshape(4, 8, D)), net(X).reshape(4, 8, C), atol=1e-6)
