"""Arguments of one name have one default, wherever they are: in the library, in its estimators and on the command line."""

import inspect

import pytest

import pymimic as pm


def defaults(function):
    return {name: value.default for name, value in inspect.signature(function).parameters.items() if value.default is not value.empty}


def command(name):
    pytest.importorskip("typer")
    from pymimic.commands import compress, distill

    return {"distill": distill.distill, "compress": compress.compress}[name]


def estimator(name):
    pytest.importorskip("sklearn")
    import pymimic.sklearn

    return getattr(pymimic.sklearn, name)


# Two that share arguments, how many at least, and those that differ for a reason that the documents give
PAIRS = {
    "distill, Trainer": (lambda: command("distill"), lambda: pm.Trainer, 12, {"standardise_inputs"}),
    "distill, Student": (lambda: command("distill"), lambda: pm.Student, 4, set()),
    "compress": (lambda: command("compress"), lambda: pm.compress, 9, {"device"}),
    "estimators": (lambda: estimator("MimicClassifier"), lambda: estimator("MimicRegressor"), 20, set()),
    "an estimator, Student": (lambda: estimator("MimicClassifier"), lambda: pm.Student, 3, set()),
    "create, save": (lambda: pm.TransferSet.create, lambda: pm.TransferSet.save, 9, set()),
    "fit": (lambda: pm.DeepNet.fit, lambda: pm.ConvNet.fit, 15, set()),
    "DeepNet.fit, Trainer": (lambda: pm.DeepNet.fit, lambda: pm.Trainer, 8, {"batch_size"}),
    "Trainer, ShallowWeights": (lambda: pm.Trainer, lambda: pm.ShallowWeights, 4, set()),
    "plan": (lambda: pm.plan, lambda: pm.ShallowWeights, 2, set()),
    "munge, Munge": (lambda: pm.munge, lambda: pm.Munge, 2, set()),
    "forward, backward": (lambda: pm.ops.shallow_forward, lambda: pm.ops.shallow_backward, 6, set()),
    "a handle's passes": (lambda: pm.ShallowWeights.forward, lambda: pm.ShallowWeights.step, 4, set()),
    "a handle, ops": (lambda: pm.ShallowWeights.forward, lambda: pm.ops.shallow_forward, 6, set()),
    "layers": (lambda: pm.ops.linear_dropout, lambda: pm.ops.linear_dropout_backward, 6, set()),
    "Student, DeepNet": (lambda: pm.Student, lambda: pm.DeepNet, 3, set()),
    "DeepNet, ConvNet": (lambda: pm.DeepNet, lambda: pm.ConvNet, 3, set()),
}  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
def test_what_has_one_name_has_one_default(pair):
    one, other, least, apart = PAIRS[pair]
    mine, theirs = defaults(one()), defaults(other())
    shared = mine.keys() & theirs.keys()
    assert len(shared) >= least, sorted(shared)
    assert {name for name in shared if mine[name] != theirs[name]} == apart
