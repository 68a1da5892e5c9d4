"""What a checkpoint and messages say of functions: all that they hold, arrays whole, and the same in every process."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from toy import C, D, H, Logits

import pymimic as pm
from pymimic.callables import describe


def fit(resume=None, resume_with=(), **changes):
    settings = {"epochs": 1, "batch_size": 32, **changes}
    optimizer = settings.pop("optimizer", lambda: pm.SGD(0.01))()
    pm.Trainer(pm.Student(D, H, C), optimizer, **settings).fit(Logits(), resume=resume, resume_with=resume_with)


def squares(y, t, weights, *held, **named):
    return pm.ops.mimic_loss(y, t, weights)


class Weighted:
    """A loss with a state and no repr of its own."""

    def __init__(self, held):
        self.held = held

    def __call__(self, y, t, weights):
        return squares(y, t, weights)

    def loss(self, y, t, weights):
        return squares(y, t, weights)


@dataclass
class Held:
    held: object

    def __call__(self, y, t, weights):
        return squares(y, t, weights)


def around(held):
    return lambda y, t, weights: squares(y, t, weights, held)


def by_default(held):
    def loss(y, t, weights, held=held, *, more=0):
        return squares(y, t, weights)

    return loss


HOLDERS = {
    "partial": lambda held: functools.partial(squares, held=held),
    "positional": lambda held: functools.partial(lambda held, y, t, weights: squares(y, t, weights), held),
    "dataclass": Held,
    "closure": around,
    "default": by_default,
    "object": Weighted,
    "method": lambda held: Weighted(held).loss,
    "wrapped": lambda held: around(functools.partial(squares, held=held)),
}
CONTAINERS = {
    "array": lambda array: array,
    "list": lambda array: [np.zeros(2), array],
    "dict": lambda array: {"a": {"b": array}},
    "tuple": lambda array: (1, (array,)),
    "float32": lambda array: array.astype(np.float32),
    "strided": lambda array: np.repeat(array, 2)[::2],
    "objects": lambda array: np.array([None, array], object),
    "masked": lambda array: np.ma.array(array, mask=array == 7),
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_arrays_that_a_function_holds_are_compared_whole(tmp_path, holder, container):
    """NumPy's repr leaves out the middle of long arrays, and the ninth digit."""
    ones, path = np.ones(2000), tmp_path / "c"
    other, near = ones.copy(), ones.copy()
    other[1000], near[0] = 50, np.nextafter(1, 2) if container is not CONTAINERS["float32"] else 1.0000002
    fit(loss=holder(container(ones)), checkpoint=path)
    fit(loss=holder(container(ones.copy())), resume=path, epochs=2)
    for changed in (other, near):
        with pytest.raises(ValueError, match="the checkpoint has loss = "):
            fit(loss=holder(container(changed)), resume=path, epochs=2)
    fit(loss=holder(container(other)), resume=path, resume_with="loss", epochs=2)


@pytest.mark.parametrize("what", ["augment", "schedule"])
def test_arrays_of_augment_and_of_schedules_are_compared_whole(tmp_path, what):
    def shift(x, targets, rng, by):
        return x, targets

    def settings(table):
        if what == "augment":
            return {"augment": functools.partial(shift, by=table)}
        return {"optimizer": lambda: pm.AdamW(functools.partial(lambda table, step: 1e-3, table))}

    other = np.ones(2000)
    other[1000] = 2
    fit(**settings(np.ones(2000)), checkpoint=tmp_path / "c")
    fit(**settings(np.ones(2000)), resume=tmp_path / "c", epochs=2)
    with pytest.raises(ValueError, match=f"the checkpoint has {'augment' if what == 'augment' else 'learning_rate'} = "):
        fit(**settings(other), resume=tmp_path / "c", epochs=2)


def test_print_options_change_no_description():
    loss = functools.partial(squares, held=np.full(3, 1 / 3))
    before = describe(loss)
    with np.printoptions(precision=2, threshold=2):
        assert describe(loss) == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_torchs_tensors_are_described_by_their_values(torch, dtype):
    ones = torch.ones(2000, dtype=getattr(torch, dtype))
    other = ones.clone()
    other[1000] = 2
    forms = (lambda one: one, torch.Tensor.to_sparse, torch.Tensor.conj, lambda one: torch.nn.Parameter(one, one.is_floating_point()))
    for form in forms:
        texts = [describe(functools.partial(squares, form(one))) for one in (ones, ones.clone(), other)]
        assert texts[0] == texts[1] != texts[2]


def test_a_functions_notes_are_not_compared(tmp_path):
    """And what it holds is described when the trainer is made, before a run changes it."""
    seen, buffer = [], np.zeros(1)

    def noting(x, targets, rng):
        seen.append(len(x))
        buffer[0] += 1
        return x, targets

    fit(augment=noting, checkpoint=tmp_path / "c")
    assert seen
    buffer[0] = 0  # as in a new process
    fit(augment=noting, resume=tmp_path / "c", epochs=2)


def test_descriptions_have_no_addresses_and_end():
    circle = [1]
    circle.append(circle)
    assert describe(functools.partial(squares, circle, np.random.default_rng(0))) == "squares([1, ...], Generator(PCG64))"
    assert describe(functools.partial(squares, {"b", "a"}, (1,), {"a": [1.5, None]})) == "squares({'a', 'b'}, (1,), {'a': [1.5, None]})"
    assert describe(around(np.random.default_rng(0))) == "around.<locals>.<lambda>"
    assert describe(Weighted(2).loss) == "Weighted(held=2).loss"
