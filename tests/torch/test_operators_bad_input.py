"""Wrong arguments of an operator are torch's kind of error, and name the argument."""

import pytest
import torch
from torch.autograd import forward_ad

import pymimic.torch as pt

GOOD = {"z": (5, 4), "U": (40, 4), "b": (40,), "W": (40, 3), "c": (3,)}


def tensors(**other):
    return list(({name: torch.randn(shape) for name, shape in GOOD.items()} | other).values())


@pytest.mark.parametrize("name", ["U", "b", "W", "c"])
def test_dtypes_that_differ(name):
    with pytest.raises(RuntimeError, match=rf"^{name}: expected dtype float32 as z has, got float64$"):
        pt.shallow(*tensors(**{name: torch.randn(GOOD[name], dtype=torch.float64)}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64])
def test_dtypes_that_the_ops_do_not_take(dtype):
    with pytest.raises(RuntimeError, match=r"^z: expected dtype float32 or float64 or bfloat16, got"):
        pt.shallow(*(part.to(dtype) for part in tensors()))


@pytest.mark.parametrize("name", ["U", "b", "W", "c"])
def test_shapes_that_differ(name):
    shape = tuple(size + 1 for size in GOOD[name])
    with pytest.raises(RuntimeError, match=rf"^{name}: expected shape "):
        pt.shallow(*tensors(**{name: torch.randn(shape)}))


@pytest.mark.parametrize("name", GOOD)
def test_axes_that_are_missing(name):
    with pytest.raises(RuntimeError, match=rf"^{name}: expected shape "):
        pt.shallow(*tensors(**{name: torch.tensor(1.0)}))


@pytest.mark.parametrize("name", GOOD)
def test_what_is_no_tensor(name):
    with pytest.raises(RuntimeError, match=rf"^{name}: expected a tensor, got NoneType$"):
        pt.shallow(*tensors(**{name: None}))


def test_settings():
    with pytest.raises(RuntimeError, match=r"^activation: expected one of relu"):
        pt.shallow(*tensors(), activation="selu")
    with pytest.raises(RuntimeError, match=r"^dropout: expected a probability"):
        pt.shallow(*tensors(), dropout=1.5)
    with pytest.raises(RuntimeError, match=r"^origin: expected"):
        pt.shallow(*tensors(), dropout=0.5, origin=(1, 0))
    with pytest.raises(RuntimeError, match=r"^seed: expected a 0-d int64 tensor, got torch.float32 of shape \(2,\)"):
        pt.shallow(*tensors(), dropout=0.5, seed=torch.ones(2))
    with pytest.raises(RuntimeError, match="'offset'"):  # the dispatcher's own words
        pt.shallow(*tensors(), dropout=0.5, offset=3)


def test_a_second_derivative_is_refused():
    given = [part.requires_grad_() for part in tensors()]
    (gradient,) = torch.autograd.grad(pt.shallow(*given).sum(), given[1], create_graph=True)
    with pytest.raises(RuntimeError, match=r"^pymimic::shallow_backward: expected to be differentiated once"):
        gradient.sum().backward()


def dual(function, x):
    with forward_ad.dual_level():
        return function(forward_ad.make_dual(x, x))


@pytest.mark.parametrize(
    "transform",
    [
        lambda function, x: torch.func.jvp(function, (x,), (x,)),
        lambda function, x: torch.func.jacfwd(function)(x),
        lambda function, x: torch.func.hessian(lambda x: function(x).sum())(x),
        lambda function, x: torch.func.jvp(torch.func.grad(lambda x: function(x).sum()), (x,), (x,)),
        dual,
    ],
    ids=["jvp", "jacfwd", "hessian", "jvp of grad", "dual"],
)
@pytest.mark.parametrize("name", ["shallow", "factorized_linear", "linear_dropout"])
def test_forward_mode_is_refused(name, transform):
    z, U, b, W, c = tensors()
    rest = {"shallow": (U, b, W, c), "factorized_linear": (torch.randn(2, 4), torch.randn(5, 2)), "linear_dropout": (U, b)}[name]
    for requires in (False, True):
        for part in rest:
            part.requires_grad_(requires)
        with pytest.raises(RuntimeError, match="forward-mode derivatives are not implemented"):
            transform(lambda x: getattr(pt, name)(x, *rest), z)


@pytest.mark.parametrize("name", ["U", "b", "W", "c", "seed", "offset"])
def test_tensors_on_meta_beside_others(name):
    given = dict(zip(GOOD, tensors())) | {"seed": torch.tensor(1), "offset": torch.tensor(2)}
    given[name] = given[name].to("meta")
    with pytest.raises(RuntimeError, match=rf"^{name}: expected a tensor on cpu as z is, got one on meta$"):
        pt.shallow(**given, dropout=0.5)


def test_a_first_tensor_on_meta_alone():
    z, *rest = tensors()
    with pytest.raises(RuntimeError, match=r"^U: expected a tensor on meta as z is, got one on cpu$"):
        pt.shallow(z.to("meta"), *rest)


@pytest.mark.parametrize("kind", ["to_sparse", "to_sparse_csr", "to_mkldnn"])
def test_layouts_that_are_not_dense(kind):
    z, *rest = tensors()
    with pytest.raises(RuntimeError, match=r"^z: expected a dense tensor, got one that is torch\.(sparse|_mkldnn)"):
        pt.shallow(getattr(z, kind)(), *rest)
