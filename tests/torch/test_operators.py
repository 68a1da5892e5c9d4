"""The operators of torch say what the ops say, in torch's memory, and torch's own checks of operators pass."""

import numpy as np
import pytest
import torch

import pymimic.torch as pt
from pymimic import ops
from pymimic.backends import default_host

B, D, K, H, C = 5, 6, 4, 40, 3
SEED, OFFSET = torch.tensor(7), torch.tensor(3)
MASK = {"dropout": 0.5, "seed": SEED, "offset": OFFSET, "origin": (16, 32)}
SAME = {"dropout": 0.5, "seed": 7, "offset": 3, "origin": (16, 32)}
SETTINGS = (SEED, OFFSET, "tanh", 0.5, [16, 32])


def tensors(*shapes, dtype=torch.float64, grad=True):
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64, generator=draw).to(dtype).requires_grad_(grad) for shape in shapes]


def shallow_tensors(**options):
    return tensors((B, K), (H, K), (H,), (H, C), (C,), **options)


def linear_tensors(**options):
    return tensors((B, D), (H, D), (H,), **options)


def factorized_tensors(**options):
    return tensors((B, D), (K, D), (H, K), (H,), **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_the_ops(dtype, activation):
    given = shallow_tensors(dtype=dtype)
    arrays = [part.detach().numpy() for part in given]
    y = pt.shallow(*given, activation=activation, **MASK)
    dy = torch.ones_like(y)
    y.backward(dy)
    assert np.array_equal(y.detach().numpy(), ops.shallow_forward(*arrays, activation=activation, **SAME))
    want = ops.shallow_backward(dy.numpy(), *arrays[:4], activation=activation, **SAME)
    assert all(np.array_equal(part.grad.numpy(), gradient) for part, gradient in zip(given, want))


def test_layers_are_the_ops(activation):
    given = linear_tensors()
    out = pt.linear_dropout(*given, activation=activation, **MASK)
    arrays = [part.detach().numpy() for part in given]
    assert np.array_equal(out.detach().numpy(), ops.linear_dropout(*arrays, activation=activation, **SAME))
    given = factorized_tensors()
    arrays = [part.detach().numpy() for part in given]
    assert np.array_equal(pt.factorized_linear(*given).detach().numpy(), ops.factorized_matmul(*arrays))


def test_gradients_are_those_of_differences(activation):
    """With dropout, whose mask is the same at each call."""
    check = torch.autograd.gradcheck
    assert check(lambda *given: pt.shallow(*given, activation=activation, **MASK), shallow_tensors())
    assert check(lambda *given: pt.linear_dropout(*given, activation=activation, **MASK), linear_tensors())


def test_gradients_of_a_factorized_layer_are_those_of_differences():
    assert torch.autograd.gradcheck(pt.factorized_linear, factorized_tensors())
    assert torch.autograd.gradcheck(pt.factorized_linear, factorized_tensors()[:3])


def test_bfloat16_operands_have_float32_sums():
    given = shallow_tensors(dtype=torch.bfloat16)
    y = pt.shallow(*given, **MASK)
    y.sum().backward()
    exact = pt.shallow(*(part.detach().double() for part in given), **MASK)
    assert y.dtype == torch.float32
    assert [part.grad.dtype for part in given] == [torch.bfloat16] * 5
    assert (y - exact).abs().max() < 0.02 * exact.abs().max()
    beside = [part.detach().float() if part.dim() == 1 else part.detach() for part in given]
    assert torch.equal(pt.shallow(*beside, **MASK), y)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow), torch.bfloat16])
def test_torchs_checks_of_the_wide_layer(dtype):
    torch.library.opcheck(torch.ops.pymimic.shallow, (*shallow_tensors(dtype=dtype), *SETTINGS))
    backward = (tensors((B, C), grad=False)[0].to(dtype), *shallow_tensors(dtype=dtype, grad=False)[:4], [True, False, True, False, True])
    torch.library.opcheck(torch.ops.pymimic.shallow_backward, (*backward, *SETTINGS))


def test_torchs_checks_of_the_layers():
    torch.library.opcheck(torch.ops.pymimic.shallow, tuple(shallow_tensors()))  # with all defaults
    torch.library.opcheck(torch.ops.pymimic.linear_dropout, (*linear_tensors(), *SETTINGS))
    torch.library.opcheck(torch.ops.pymimic.factorized_linear, tuple(factorized_tensors()))
    da, out = tensors((B, H), (B, H), grad=False)
    linear = (da, *linear_tensors(grad=False), out, [True, True, False])
    torch.library.opcheck(torch.ops.pymimic.linear_dropout_backward, (*linear, *SETTINGS))
    torch.library.opcheck(
        torch.ops.pymimic.factorized_linear_backward, (da, *factorized_tensors(grad=False)[:3], [False, True, True, True])
    )


@pytest.fixture
def memory(monkeypatch):
    """Addresses of all arrays that the backend was given, by the name of what it was asked."""
    seen = {}

    def spy(name):
        ask = getattr(default_host(), name)

        def noting(*given):
            flat = [part for item in given for part in (item if isinstance(item, tuple) else [item])]
            seen[name] = [part.ctypes.data for part in flat if isinstance(part, np.ndarray)]
            return ask(*given)

        monkeypatch.setattr(default_host(), name, noting)

    for name in ("shallow_forward", "shallow_backward", "linear_dropout"):
        spy(name)
    return seen


def addresses(*given):
    return [part.data_ptr() for part in given]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_nothing_is_copied(memory, dtype):
    z, U, b, W, c = shallow_tensors(dtype=dtype)
    if dtype == torch.bfloat16:
        b, c = b.detach().float(), c.detach().float()
    dy = torch.randn(B, C, dtype=b.dtype)
    for _ in range(2):  # checked, and known from before
        y = pt.shallow(z, U, b, W, c)
        assert memory["shallow_forward"] == addresses(z, U, b, W, c, y)
        gradients = torch.ops.pymimic.shallow_backward(dy, z, U, b, W, [True] * 5)
        assert memory["shallow_backward"] == addresses(dy, z, U, b, W, *gradients)


def test_layers_copy_nothing(memory):
    given = linear_tensors(dtype=torch.float32)
    out = pt.linear_dropout(*given)
    assert memory["linear_dropout"] == addresses(*given, out)
    x, V, U, b = factorized_tensors(dtype=torch.float32)
    out = pt.factorized_linear(x, V, U, b)
    assert memory["linear_dropout"][1:] == addresses(U, b, out)


def test_gradients_reach_parameters_without_a_copy(memory):
    given = shallow_tensors(dtype=torch.float32)
    pt.shallow(*given).sum().backward()
    assert memory["shallow_backward"][5:] == addresses(*(part.grad for part in given))


def test_a_strided_tensor_is_copied_once_and_has_the_same_gradient(memory):
    z, *rest = shallow_tensors(dtype=torch.float32)
    strided = z.detach().t().contiguous().t().requires_grad_()
    assert not strided.is_contiguous()
    y = pt.shallow(strided, *rest)
    copy = memory["shallow_forward"][0]
    y.sum().backward()
    assert copy == memory["shallow_backward"][1] != strided.data_ptr()
    pt.shallow(z, *rest).sum().backward()
    assert torch.equal(strided.grad, z.grad)
    raw = torch.ops.pymimic.shallow(strided.detach(), *rest)  # copies in each pass
    assert torch.equal(raw, y)


def test_only_needed_gradients_are_computed(monkeypatch):
    needs = []
    backward = default_host().shallow_backward
    monkeypatch.setattr(default_host(), "shallow_backward", lambda *given: needs.append(given[3]) or backward(*given))
    given = shallow_tensors()
    for frozen in (0, 1, 3):
        given[frozen].requires_grad_(False)
    pt.shallow(*given).sum().backward()
    assert needs == [{"b", "c"}]
    assert [part.grad is None for part in given] == [True, True, False, True, False]


def test_what_was_checked_before_is_the_same_call():
    """With other numbers, seeds and steps; and what looks alike is still refused."""
    for step in range(3):
        given = [part.detach() * (step + 1) for part in shallow_tensors(dtype=torch.float32)]
        got = pt.shallow(*given, dropout=0.5, seed=torch.tensor(step), offset=torch.tensor(2 * step))
        want = ops.shallow_forward(*(part.numpy() for part in given), dropout=0.5, seed=step, offset=2 * step)
        assert np.array_equal(got.numpy(), want)
    z, U, b, W, c = given
    dy = torch.ones(B, C)
    torch.ops.pymimic.shallow_backward(dy, z, U, b, W, [True] * 5)
    for wrong in ((dy, z, U, b, W), (z, U, b, W, c.double()), (z, U, b, W[:-1], c), (z[:, 1:], U, b, W, c)):
        with pytest.raises(RuntimeError, match=r"^\w: expected"):
            pt.shallow(*wrong)


def test_seeds_have_64_bits_and_offsets_32():
    given = shallow_tensors(grad=False)
    arrays = [part.numpy() for part in given]
    got = pt.shallow(*given, dropout=0.5, seed=torch.tensor(-1), offset=torch.tensor(2**32 + 5))
    assert np.array_equal(got.numpy(), ops.shallow_forward(*arrays, dropout=0.5, seed=2**64 - 1, offset=5))


def test_a_batch_without_rows():
    z, *rest = shallow_tensors()
    y = pt.shallow(z[:0], *rest)
    assert y.shape == (0, C)
    y.sum().backward()
    assert not rest[0].grad.any()


def test_memory_that_is_not_aligned():
    def moved(given):
        return torch.frombuffer(bytearray(given.nbytes + 1), dtype=given.dtype, offset=1).reshape(given.shape).copy_(given)

    given = [torch.randn(shape) for shape in ((8, 6), (32, 6), (32,), (32, 3), (3,))]
    want = pt.shallow(*given)
    for _ in range(3):
        leaves = [moved(part).requires_grad_() for part in given]
        y = pt.shallow(*leaves)
        assert torch.equal(y, want)
        y.sum().backward()
        assert all(leaf.grad.isfinite().all() for leaf in leaves)
