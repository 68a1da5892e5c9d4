"""MimicNet: the student's weights, any optimizer, state, conversions, masks."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import pymimic as pm
import pymimic.torch as pt
from pymimic import ops

D, H, C, K = 6, 40, 3, 4
X = torch.randn(32, D, generator=torch.Generator().manual_seed(0))
T = torch.randn(32, C, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[None, K])
def rank(request):
    return request.param


def trained_gradients(net, x=X):
    net.zero_grad()
    net(x).square().sum().backward()
    return {name: param.grad.clone() for name, param in net.named_parameters()}


def test_fresh_weights_are_the_students(rank, activation):
    net, student = pt.MimicNet(D, H, C, rank, activation, seed=5), pm.Student(D, H, C, rank, activation, seed=5)
    arrays = student.arrays()
    assert {name for name, _ in net.named_parameters()} == arrays.keys()
    assert all(np.array_equal(param.detach().numpy(), arrays[name]) for name, param in net.named_parameters())
    assert np.allclose(net(X).detach().numpy(), student.predict(X.numpy()), atol=1e-5)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad])
def test_it_learns_in_an_ordinary_loop(rank, optimizer):
    net, loss = pt.MimicNet(D, H, C, rank, dropout=0.1), pt.MimicLoss()
    opt = optimizer(net.parameters(), lr=1e-2)
    first = loss(net.eval()(X), T).item()
    net.train()
    for _ in range(60):
        opt.zero_grad()
        loss(net(X), T).backward()
        opt.step()
    assert loss(net.eval()(X), T).item() < first / 2


def test_masks_are_those_of_seed_and_training_step(rank):
    net = pt.MimicNet(D, H, C, rank, dropout=0.5, seed=9, origin=(16, 32))
    weights = {name: param.detach().numpy() for name, param in net.named_parameters()}
    z = X.numpy() if rank is None else nn.functional.linear(X, net.V).detach().numpy()
    wide = [weights[name] for name in ("U", "b", "W", "c")]
    for step in range(3):
        want = ops.shallow_forward(z, *wide, dropout=0.5, seed=9, offset=step, origin=(16, 32))
        assert np.array_equal(net(X).detach().numpy(), want)
        assert np.array_equal(net.eval()(X).detach().numpy(), ops.shallow_forward(z, *wide))  # without a mask, and not counted
        net.train()
    assert int(net.offset) == 3


@pytest.mark.parametrize("big", [0, 2**63, 2**64 - 1])
def test_any_seed_of_a_student(big):
    student = pm.Student(D, H, C, seed=big)
    assert pt.MimicNet.from_student(student).to_student().seed == big


def test_state_goes_round(rank):
    net, other = pt.MimicNet(D, H, C, rank, dropout=0.5, seed=1), pt.MimicNet(D, H, C, rank, dropout=0.5, seed=2)
    net(X)
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(X), other(X))  # the next mask too
    assert set(net.state_dict()) == {*dict(net.named_parameters()), "seed", "offset"}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"])
def test_copies_are_nets_of_their_own(rank, copied):
    net = pt.MimicNet(D, H, C, rank, dropout=0.5)
    net(X)
    other = copied(net)
    assert torch.equal(net(X), other(X))
    with torch.no_grad():
        other.U.zero_()
    assert net.U.any()


def test_students_there_and_back(rank, activation):
    student = pm.Student(D, H, C, rank, activation, dropout=0.25, seed=3)
    student.set_standardisation(np.arange(D, dtype=np.float32), np.linspace(1, 2, D).astype(np.float32))
    net = pt.MimicNet.from_student(student)
    assert np.allclose(net.eval()(X).detach().numpy(), student.predict(X.numpy()), atol=1e-4)
    back = net.to_student()
    assert back.configuration() == student.configuration()
    assert back.describe() == student.describe()
    other = pt.MimicNet(D, H, C, rank, activation)
    other.load_state_dict(net.state_dict())  # brings a standardisation
    assert torch.equal(other.eval()(X), net(X))


def test_sequentials_there_and_back(rank, activation):
    student = pm.Student(D, H, C, rank, activation, dropout=0.25, seed=3)
    student.set_standardisation(np.arange(D, dtype=np.float32), np.linspace(1, 2, D).astype(np.float32))
    net = pt.MimicNet.from_student(student).eval()
    layers = net.to_sequential().eval()
    assert len(layers) == (4 if rank is None else 5)
    assert torch.allclose(layers(X), net(X), atol=1e-4)
    back = pt.MimicNet.from_sequential(layers).eval()
    assert (back.rank, back.activation, back.dropout) == (rank, activation, 0.25)
    assert torch.allclose(back(X), net(X), atol=1e-4)


def test_a_sequential_of_torchs():
    layers = nn.Sequential(nn.Linear(D, K), nn.Linear(K, H), nn.ReLU(), nn.Linear(H, C)).double()
    net = pt.MimicNet.from_sequential(layers)
    assert torch.allclose(net(X.double()), layers(X.double()))
    gradients, V = trained_gradients(net, X.double()), net.V
    assert V.dtype == torch.float64
    layers(X.double()).square().sum().backward()
    assert torch.allclose(gradients["U"], layers[1].weight.grad - torch.outer(layers[1].bias.grad, layers[0].bias.detach()))
    with torch.no_grad():
        net.U.zero_()
    assert layers[1].weight.any()


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Halved(nn.Sequential):
    def forward(self, x):
        return super().forward(x) / 2


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(D, C)],
        [nn.Linear(D, H), nn.SiLU(), nn.Linear(H, C)],
        [nn.Linear(D, H), nn.GELU("tanh"), nn.Linear(H, C)],
        [nn.Linear(D, H), nn.ReLU(), nn.Linear(H, H), nn.ReLU(), nn.Linear(H, C)],
        [nn.Dropout(), nn.Linear(D, H), nn.ReLU(), nn.Linear(H, C)],
        [],
        [Doubled(D, H), nn.ReLU(), nn.Linear(H, C)],
    ],
)
def test_other_sequentials_are_refused(layers):
    with pytest.raises(ValueError, match=r"^layers: expected Linear, Linear, one of ReLU"):
        pt.MimicNet.from_sequential(nn.Sequential(*layers))


def test_a_sequential_with_a_forward_pass_of_its_own_is_refused():
    with pytest.raises(ValueError, match=r"^layers: expected Linear, Linear, one of ReLU"):
        pt.MimicNet.from_sequential(Halved(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, C)))


def test_a_parametrized_layer_has_the_weights_that_it_computes():
    layers = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(D, H)), nn.ReLU(), nn.Linear(H, C))
    assert torch.allclose(pt.MimicNet.from_sequential(layers)(X), layers(X), atol=1e-5)


def test_what_is_no_sequential_is_refused():
    with pytest.raises(TypeError, match=r"^layers: expected a Sequential, got Linear$"):
        pt.MimicNet.from_sequential(nn.Linear(D, C))


def test_any_leading_axes():
    net = pt.MimicNet(D, H, C, K)
    y = net(X)
    assert torch.equal(net(X.reshape(4, 8, D)), y.reshape(4, 8, C))
    assert torch.allclose(net(X[0]), y[0], atol=1e-6)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_finds_its_masks_again(rank, reentrant):
    """Of two passes inside it, beside another one outside."""
    net, twin = (pt.MimicNet(D, H, C, rank, dropout=0.5) for _ in range(2))
    x = X.clone().requires_grad_()

    def twice(net):
        return lambda x: net(x) + net(2 * x)

    (checkpoint(twice(net), x, use_reentrant=reentrant) + net(x)).square().sum().backward()
    (twice(twin)(x) + twin(x)).square().sum().backward()
    assert all(torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-4) for a, b in zip(net.parameters(), twin.parameters()))
    assert int(net.offset) == int(twin.offset) == 3


def test_a_checkpoint_that_cannot_find_them_is_refused():
    net = pt.MimicNet(D, H, C, dropout=0.5)
    y = checkpoint(net, X.clone().requires_grad_(), use_reentrant=False, preserve_rng_state=False)
    with pytest.raises(RuntimeError, match=r"^offset: expected a forward pass inside a backward pass to repeat an earlier one"):
        y.sum().backward()


def test_checkpoints_of_one_random_state_are_refused():
    net, twin, x = pt.MimicNet(D, H, C, dropout=0.5), pt.MimicNet(D, H, C, dropout=0.5), X.clone().requires_grad_()

    def seeded():
        torch.manual_seed(0)
        return checkpoint(net, x, use_reentrant=False)

    for _ in range(2):  # one after another, they are told apart
        assert torch.equal(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (seeded(), twin(x))))
    with pytest.raises(RuntimeError, match=r"^offset: expected .* got one whose random state two passes began from"):
        (seeded() + seeded()).sum().backward()


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compiled_into_one_graph(dynamic):
    torch._dynamo.reset()
    net, twin = (pt.MimicNet(D, H, C, K, dropout=0.5) for _ in range(2))
    compiled = torch.compile(net, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for rows in (32, 16, 8) if dynamic else (32, 32, 32):
        assert torch.allclose(compiled(X[:rows]), twin(X[:rows]), atol=1e-6)
    assert int(net.offset) == 3


def test_autocast():
    net = pt.MimicNet(D, H, C, K, dropout=0.5)
    want = copy.deepcopy(net)(X)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(X)
    y.sum().backward()
    assert y.dtype == torch.float32
    assert (y - want).abs().max() < 0.05 * want.abs().max()
    assert all(param.grad.dtype == torch.float32 for param in net.parameters())


def test_functional_calls_give_gradients_for_each_row():
    net = pt.MimicNet(D, H, C, K, "tanh").eval()
    params = {name: param.detach() for name, param in net.named_parameters()}

    def loss(params, x):
        return torch.func.functional_call(net, params, x).square().sum()

    each = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(params, X[:4])
    whole = torch.func.grad(loss)(params, X[:4])
    assert all(torch.allclose(each[name].sum(0), whole[name], atol=1e-4) for name in params)


def test_a_vmap_has_one_mask():
    net, twin = (pt.MimicNet(D, H, C, K, dropout=0.5) for _ in range(2))
    x = X[:16].expand(2, 16, D)
    first, second = torch.vmap(net, randomness="same")(x)
    assert torch.equal(first, second)
    assert torch.allclose(first, twin(X[:16]), atol=1e-5)
    with pytest.raises(RuntimeError, match=r"^randomness: expected 'same' for a net with dropout"):
        torch.vmap(net, randomness="different")(x)


def test_arguments_are_the_students():
    with pytest.raises(ValueError, match=r"^activation: expected one of relu"):
        pt.MimicNet(D, H, C, activation="selu")
    with pytest.raises(ValueError, match=r"^dropout: expected a probability"):
        pt.MimicNet(D, H, C, dropout=1.0)
    with pytest.raises(RuntimeError, match=r"^x: expected shape \(\.\.\., 6\), got \(32, 3\)$"):
        pt.MimicNet(D, H, C)(X[:, :3])
