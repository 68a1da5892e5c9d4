"""For tests of the command line: two small files, a command in this process or in another, and the library's run beside it."""

import subprocess
import sys

import numpy as np
import pytest

import pymimic
from pymimic import Student, cli
from pymimic.data.moments import standardisation

D, C, ROWS = 6, 3, 700
WARNING = "pymimic: warning: "
SIZES = ("--hidden", "32", "--rank", "4", "--epochs", "3", "--batch-size", "64")


def call(*arguments):
    """The exit status."""
    with pytest.raises(SystemExit) as stopped:
        cli.run([str(argument) for argument in arguments])
    return stopped.value.code


def write_inputs_and_logits(folder):
    """x.npy and t.npy, a teacher's logits for it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, D)).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.save(folder / "t.npy", np.tanh(x @ rng.standard_normal((D, C))).astype(np.float32))


def distil(folder, *more):
    return call("distill", "--inputs", folder / "x.npy", "--logits", folder / "t.npy", "--out", folder / "s.safetensors", *SIZES, *more)


def only_line(capsys):
    """The only message on standard error; warnings may come before it."""
    message = capsys.readouterr().err
    while message.startswith(WARNING) and message.count("\n") > 1:
        message = message.partition("\n")[2]
    assert message.count("\n") == 1
    assert "Traceback" not in message
    return message


def run_module(*arguments, how=None):
    return subprocess.Popen(
        [sys.executable, "-m", "pymimic", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **(how or {})
    )


STEPS = 3 * 11


def adamw(**changes):
    more = {"weight_decay": 0.0, "rate": 5e-3, **changes}
    return pymimic.AdamW(pymimic.cosine(more["rate"], STEPS), weight_decay=more["weight_decay"])


def library_run(files, student=None, optimizer=adamw, trainer=None, pca=False, validation=None):
    x = np.load(files / "x.npy")
    net = Student(D, **{"hidden": 32, "outputs": C, "rank": 4, **(student or {})})
    if pca:
        net.set_standardisation(*standardisation([x], D, "each"))
        net.initialise_bottleneck(x)
    given = {"epochs": 3, "batch_size": 64, "standardise_inputs": True, **(trainer or {})}
    return net, pymimic.Trainer(net, optimizer(), **given).fit(pymimic.TransferSet(x, np.load(files / "t.npy")), validation)


def assert_same_nets(one, other):
    assert one.configuration() == other.configuration()
    for name, array in one.arrays().items():
        assert np.array_equal(other.arrays()[name], array), name
    assert (one.mean is None) == (other.mean is None)
    assert one.mean is None or np.array_equal(one.mean, other.mean)
