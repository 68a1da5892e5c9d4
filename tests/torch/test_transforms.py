"""Operators under torch.compile, torch.func, autocast and checkpointing."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import pymimic.torch as pt

SEED, OFFSET = torch.tensor(7), torch.tensor(3)


def tensors(rows=5, dtype=torch.float64):
    draw = torch.Generator().manual_seed(rows)
    shapes = ((rows, 4), (40, 4), (40,), (40, 3), (3,))
    return [torch.randn(shape, dtype=dtype, generator=draw).requires_grad_() for shape in shapes]


def loss(*given, offset=OFFSET):
    return pt.shallow(*given, activation="tanh", dropout=0.5, seed=SEED, offset=offset).square().sum()


def gradients(function, given):
    return torch.autograd.grad(function(*given), given)


SLOW = [("aot_eager", True), ("inductor", False), ("inductor", True)]


@pytest.mark.parametrize(("backend", "dynamic"), [("aot_eager", False), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)])
def test_compiled_into_one_graph(backend, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend=backend, fullgraph=True, dynamic=dynamic)
    for rows in (5, 7, 33) if dynamic else (5, 5):
        given = tensors(rows)
        assert all(map(torch.allclose, gradients(compiled, given), gradients(loss, given)))


def test_a_step_that_changes_does_not_compile_again():
    torch._dynamo.reset()
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(loss, backend=counting, fullgraph=True)
    given = tensors()
    steps = [torch.tensor(step) for step in range(4)]
    assert [compiled(*given, offset=step) for step in steps] == [loss(*given, offset=step) for step in steps]
    assert len(graphs) == 1


def test_compiled_layers():
    torch._dynamo.reset()

    def both(x, V, U, b, weight, bias):
        wide = pt.factorized_linear(x, V, U, b)
        return pt.linear_dropout(wide, weight, bias, dropout=0.5, seed=SEED, offset=OFFSET).sum()

    given = [torch.randn(shape, requires_grad=True) for shape in ((5, 6), (4, 6), (40, 4), (40,), (8, 40), (8,))]
    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)
    assert all(map(torch.allclose, gradients(compiled, given), gradients(both, given)))


def test_functional_gradients_are_autograds():
    z, U, *rest = tensors()
    (want,) = torch.autograd.grad(loss(z, U, *rest), U)
    assert torch.equal(torch.func.grad(lambda U: loss(z, U, *rest))(U), want)
    assert torch.equal(torch.func.grad(lambda U: torch.ops.pymimic.shallow(z, U, *rest, SEED, OFFSET, "tanh", 0.5).square().sum())(U), want)


def test_each_element_of_a_vmap_is_a_call():
    given, other = tensors(5), tensors(5, torch.float32)
    stacked = [torch.stack([a.detach(), b.detach().double()]) for a, b in zip(given, other)]
    got = torch.vmap(lambda *parts: pt.shallow(*parts))(*stacked)
    assert torch.equal(got, torch.stack([pt.shallow(*(part[i] for part in stacked)) for i in range(2)]))
    along = torch.vmap(lambda z: pt.shallow(z, *given[1:]), in_dims=1)(stacked[0].movedim(0, 1))
    assert torch.equal(along, torch.stack([pt.shallow(z, *given[1:]) for z in stacked[0]]))


def test_gradients_for_each_row():
    z, U, *rest = tensors()

    def of_a_row(U, row):
        return pt.shallow(row[None], U, *rest, activation="tanh").square().sum()

    each = torch.vmap(torch.func.grad(of_a_row), in_dims=(None, 0))(U, z)
    assert torch.allclose(each, torch.stack([torch.autograd.grad(of_a_row(U, row), U)[0] for row in z]))


def test_a_second_functional_derivative_is_refused():
    z, U, *rest = tensors()
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.func.grad(lambda U: torch.func.grad(lambda U: loss(z, U, *rest))(U).sum())(U)


def test_autocast_multiplies_in_bfloat16_and_sums_in_float32():
    given = tensors(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = pt.shallow(*given)
    y.sum().backward()
    rounded = [part.detach().bfloat16() for part in given]
    assert y.dtype == torch.float32
    assert torch.equal(y.detach(), pt.shallow(*rounded))
    assert all(part.grad.dtype == torch.float32 for part in given)


def test_autocast_leaves_layers_in_float32():
    x, V, U, b = (torch.randn(shape) for shape in ((5, 6), (4, 6), (40, 4), (40,)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pt.factorized_linear(x.bfloat16(), V, U, b), pt.factorized_linear(x.bfloat16().float(), V, U, b))
        assert pt.linear_dropout(x.bfloat16(), V, V[:, 0]).dtype == torch.float32


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_makes_the_same_mask_again(reentrant):
    given = tensors()
    again = gradients(lambda *parts: checkpoint(loss, *parts, use_reentrant=reentrant), given) if not reentrant else None
    if reentrant:  # which has no torch.autograd.grad
        checkpoint(loss, *given, use_reentrant=True).backward()
        again = [part.grad for part in given]
    assert all(map(torch.equal, again, gradients(loss, given)))


def test_a_vmap_over_no_elements():
    z, *rest = tensors()
    assert torch.vmap(lambda z: pt.shallow(z, *rest))(z.new_zeros(0, 5, 4)).shape == (0, 5, 3)
    each = torch.vmap(torch.func.grad(lambda z: pt.shallow(z, *rest).sum()))(z.new_zeros(0, 5, 4))
    assert each.shape == (0, 5, 4)
