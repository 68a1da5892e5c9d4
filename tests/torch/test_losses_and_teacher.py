"""Losses are the library's; any module is a teacher."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import pymimic as pm
import pymimic.torch as pt
from pymimic import ops

RNG = np.random.default_rng(0)
Y, T = RNG.standard_normal((2, 7, 4))
WEIGHTS, LABELS = RNG.random(7), RNG.integers(0, 4, 7)
RULED_OUT = np.where(np.arange(4) == 2, -np.inf, T)
X = RNG.standard_normal((50, 12)).astype(np.float32)


def said(loss, y, *rest, dtype=torch.float64):
    """The value and dL/dy."""
    leaf = torch.tensor(y, dtype=dtype, requires_grad=True)
    value = loss(
        leaf, *(None if part is None else torch.tensor(part).to(dtype if part.dtype.kind == "f" else torch.int64) for part in rest)
    )
    value.backward()
    return value.item(), leaf.grad.numpy()


def same(got, want, rtol=1e-12):
    np.testing.assert_allclose(got[0], want[0], rtol=rtol)
    np.testing.assert_allclose(got[1], want[1], rtol=rtol, atol=rtol)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_losses_are_the_librarys(weights):
    same(said(pt.MimicLoss(), Y, T, weights), ops.mimic_loss(Y, T, weights))
    for t in (T, RULED_OUT):
        same(said(pt.DistillationLoss(3.0), Y, t, None, weights), ops.distillation_loss(Y, t, 3.0, weights))
        got = said(pt.DistillationLoss(3.0, alpha=0.7), Y, t, LABELS, weights)
        same(got, ops.distillation_loss(Y, t, 3.0, weights, LABELS, 0.7))
    y, t = Y.astype(np.float32), T.astype(np.float32)
    same(said(pt.MimicLoss(), y, t, dtype=torch.float32), ops.mimic_loss(y, t), 1e-5)
    same(said(pt.DistillationLoss(3.0), y, t, dtype=torch.float32), ops.distillation_loss(y, t, 3.0), 1e-5)


def test_an_empty_batch_has_loss_0():
    empty = torch.zeros(0, 4)
    assert pt.MimicLoss()(empty, empty).item() == pt.DistillationLoss(2.0)(empty, empty).item() == 0


def test_losses_differentiate_twice_and_compile():
    t = torch.tensor(T)
    assert torch.autograd.gradgradcheck(lambda y: pt.DistillationLoss(2.0)(y, t), torch.tensor(Y, requires_grad=True))
    torch._dynamo.reset()
    compiled = torch.compile(pt.DistillationLoss(2.0), fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(torch.tensor(Y), t), pt.DistillationLoss(2.0)(torch.tensor(Y), t))


def test_wrong_arguments_of_losses():
    y = torch.tensor(Y)
    with pytest.raises(ValueError, match=r"^t: expected shape \(7, 4\), got \(7,\)$"):
        pt.MimicLoss()(y, y[:, 0])
    with pytest.raises(ValueError, match=r"^weights: expected shape \(7,\), got \(7, 1\)$"):
        pt.MimicLoss()(y, y, y[:, :1])
    with pytest.raises(ValueError, match=r"^temperature: expected"):
        pt.DistillationLoss(0.0)
    with pytest.raises(ValueError, match=r"^temperature: expected a number in \(0, 100\]"):
        pt.DistillationLoss(1e3)
    with pytest.raises(ValueError, match=r"^labels: expected \(B,\) integers"):
        pt.DistillationLoss(1.0, alpha=0.5)(y, y)
    with pytest.raises(ValueError, match=r"^labels: expected shape \(7,\), got \(7, 4\)$"):
        pt.DistillationLoss(1.0, alpha=0.5)(y, y, y.softmax(1))


@pytest.mark.parametrize("loss", [pt.MimicLoss(), pt.DistillationLoss(2.0)], ids=["mimic", "distillation"])
def test_logits_of_other_axes_are_refused(loss):
    y = torch.tensor(Y)
    for other, shape in ((y[None], r"\(1, 7, 4\): pass y.flatten\(0, -2\), and t likewise"), (y[0], r"\(4,\)")):
        with pytest.raises(ValueError, match=rf"^y: expected shape \(B, C\), got {shape}$"):
            loss(other, other)
    with pytest.raises(TypeError, match=r"^t: expected a tensor, got ndarray$"):
        loss(y, Y)
    with pytest.raises(TypeError, match=r"^y: expected a tensor, got ndarray$"):
        loss(Y, y)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.bool])
def test_labels_of_another_dtype_are_refused(dtype):
    y = torch.tensor(Y)
    with pytest.raises(RuntimeError, match=rf"^labels: expected dtype int64, got {str(dtype)[6:]}$"):
        pt.DistillationLoss(1.0, alpha=0.5)(y, y, torch.ones(7, dtype=dtype))


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 4))


def test_a_module_labels_in_evaluation_mode_and_has_its_modes_again(tmp_path):
    net = module()
    net[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    teacher = pt.teacher(net, batch_size=16)
    cases = pm.TransferSet.create(tmp_path / "set", teacher, X)
    assert [part.training for part in net] == [True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())  # no running means
    with torch.no_grad():
        want = net.eval()(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(cases.batch(np.arange(50))[1], want, rtol=1e-5, atol=1e-6)
    assert pm.TransferSet.create(tmp_path / "set", pt.teacher(module()), X) is not None  # the same net: nothing is labelled again
    with torch.no_grad():
        net[3].bias += 1
    with pytest.raises(pm.ManifestError):
        pm.TransferSet.create(tmp_path / "set", teacher, X)


def test_modes_come_back_after_an_error():
    class Broken(nn.Module):
        def forward(self, x):
            raise ArithmeticError

    net = Broken()
    with pytest.raises(ArithmeticError):
        pt.teacher(net).logits(X)
    assert net.training


def test_descriptions_tell_nets_apart():
    one = pt.teacher(module()).describe()
    assert one == pt.teacher(module()).describe() == json.loads(json.dumps(one))
    other = module()
    with torch.no_grad():
        other[0].weight[0, 0] += 1
    assert pt.teacher(other).describe()["state_dict"] != one["state_dict"]
    tanh = [pt.teacher(nn.Sequential(*module(), layer)).describe() for layer in (nn.Tanh(), nn.ReLU())]
    assert tanh[0] != tanh[1]


def test_shapes_dtypes_and_classes_of_rows():
    image = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(4, 3)).double()
    teacher = pt.teacher(image, input_shape=(1, 3, 4), classes=["a", "b", "c"])
    assert teacher.logits(X).dtype == np.float32
    assert teacher.logits(X).shape == (50, 3)
    assert teacher.logits(X[:0]).shape == (0, 3)
    assert pm.Ensemble([teacher]).classes == ["a", "b", "c"]
    assert pt.teacher(nn.Linear(12, 4).bfloat16(), device="cpu", dtype=torch.bfloat16).logits(X).dtype == np.float32


def test_threads_ask_at_once_and_it_pickles():
    teacher = pt.teacher(module())
    want = pm.label(teacher, X)
    assert np.array_equal(pm.label(teacher, X, rows=50, workers=2), want)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(part, want) for part in pool.map(teacher.logits, [X] * 8))
    assert np.array_equal(pickle.loads(pickle.dumps(teacher)).logits(X), want)


def test_what_is_not_a_teacher():
    with pytest.raises(TypeError, match=r"^module: expected a torch.nn.Module, got function"):
        pt.teacher(lambda x: x)
    with pytest.raises(ValueError, match=r"^batch_size: expected"):
        pt.teacher(module(), batch_size=0)

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(TypeError, match=r"^logits: expected one array of numbers from the teacher .*Pair, got builtins.tuple"):
        pt.teacher(Pair()).logits(X)


def test_what_is_no_rows():
    taught = pt.teacher(module())
    with pytest.raises(ValueError, match=r"^x: expected shape \(B, D\), got \(12,\)$"):
        taught.logits(X[0])
    for kind in (np.complex64, str, object):
        with pytest.raises(TypeError, match=rf"^x: expected rows of real numbers, got {'<U' if kind is str else np.dtype(kind)}"):
            taught.logits(X.astype(kind))


def test_a_module_cannot_write_to_the_rows(tmp_path):
    np.save(tmp_path / "x.npy", X)
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(12, 4))
    with torch.no_grad():
        want = net(torch.tensor(X)).numpy()
    for x in (X.copy(), np.load(tmp_path / "x.npy", mmap_mode="r")):
        np.testing.assert_allclose(pt.teacher(net, batch_size=20).logits(x), want, rtol=1e-5, atol=1e-6)
        assert np.array_equal(x, X)


def test_a_module_may_give_the_same_memory_again():
    class Reuses(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = torch.zeros(8, 12)

        def forward(self, x):
            return self.out[: len(x)].copy_(x)

    teacher = pt.teacher(Reuses(), batch_size=8)
    assert np.array_equal(pm.label(teacher, X), X)
    first = teacher.logits(X[:8])
    teacher.logits(X[8:16])
    assert np.array_equal(first, X[:8])


class Merging(nn.Linear):
    """Its two modes have two weights, as LoRA's layers."""

    merged = False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            with torch.no_grad():
                self.weight.add_(-1 if mode else 1)
            self.merged = not mode
        return self


def test_modes_that_do_work():
    net = nn.Sequential(nn.Sequential(Merging(12, 8)), Merging(8, 4).eval(), nn.Dropout().eval())
    weights, modes = [param.detach().clone() for param in net.parameters()], [part.training for part in net.modules()]
    pt.teacher(net).logits(X)
    assert [part.training for part in net.modules()] == modes
    assert [net[0][0].merged, net[1].merged] == [False, True]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(net.parameters(), weights))


def test_modes_that_raise():
    class Bad(nn.Identity):
        def train(self, mode=True):
            raise NotImplementedError("no modes")

    net = nn.Sequential(nn.Linear(12, 4), nn.Dropout(), Bad())
    with pytest.raises(NotImplementedError, match="no modes"):
        pt.teacher(net).logits(X)
    assert all(part.training for part in net.modules())


def test_losses_of_half_precision_are_summed_in_float32():
    y = torch.full((4096, 4), 4.0)
    for dtype in (torch.float16, torch.bfloat16):
        assert pt.MimicLoss()(y.to(dtype), torch.zeros_like(y, dtype=dtype)).item() == 32
    y, t = torch.tensor(Y).half(), torch.tensor(T).half()
    labels = torch.tensor(LABELS)
    got = pt.DistillationLoss(2.0, 0.5)(y, t, labels)
    assert torch.allclose(got, pt.DistillationLoss(2.0, 0.5)(y.float(), t.float(), labels))


@pytest.mark.parametrize("label", [-100, -1, 4, -(1 << 40)])
def test_labels_outside_of_the_classes(label):
    labels = torch.tensor(LABELS)
    labels[3] = label
    with pytest.raises(ValueError, match=r"^labels: expected classes in \[0, 4\)"):
        pt.DistillationLoss(2.0, 0.5)(torch.tensor(Y), torch.tensor(T), labels)


def test_rows_of_another_size_than_the_inputs():
    with pytest.raises(ValueError, match=r"^input_shape: expected one of 12 numbers, as x's rows have, got \(7,\)$"):
        pt.teacher(nn.Linear(7, 3), input_shape=(7,)).logits(X)
