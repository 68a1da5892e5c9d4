"""What is done while calls of the system fail: files are written and read, nets trained, sets labelled."""

import contextlib
import hashlib
import io
import itertools
import json
import os
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from slope_teacher import TEACHER, C, D, contents, rows, says

import pymimic as pm
from pymimic import cli
from pymimic.data.manifest import MANIFEST, UNDER_WAY, read_manifest
from pymimic.files import read_safetensors
from pymimic.nets.integers import integers


@dataclass(frozen=True)
class Scenario:
    prepare: Any  # folder -> None: what stands there before
    work: Any  # folder -> what must be equal in all runs that pass; it goes on from what it finds, and must name every file
    look: Any  # folder -> what is wrong with what stands there
    files: Any = lambda folder: None  # folder -> what must be equal too, in files


def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def of_net(net):
    return digest(*net.arrays().values(), *(() if net.mean is None else (net.mean, net.scale)))


def strangers(folder, allowed):
    """Files that nobody should find there."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return [f"{name} is left there" for name in sorted(names - set(allowed))]


# Nets


def student(seed=0, bits=None, hidden=70):
    net = pm.Student(D, hidden, C, rank=3, seed=seed)
    net.set_standardisation(np.arange(D) / 8, np.arange(1, D + 1) / 4)
    if bits is not None:
        net.set_integers(bits, **{name: integers(array, bits) for name, array in net.arrays().items() if array.ndim == 2})
    return net


NETS = {
    "student": student,
    "student of 4 bits": lambda seed=0: student(seed, 4),
    "deep net": lambda seed=0: pm.DeepNet((D, 9, C), seed=seed),
    "convolutional net": lambda seed=0: pm.ConvNet((1, D), [(4, 3)], C, seed=seed),
}


def saving(make, overwrites):
    """A net is saved, in another's place or in none's."""

    def work(folder):
        make(seed=1).save(folder / "net")
        return of_net(type(make()).load(folder / "net"))

    def look(folder):
        found = strangers(folder, ["net"])
        if (folder / "net").exists() or overwrites:
            there = type(make()).load(folder / "net")
            if of_net(there) not in [of_net(make(seed=1))] + [of_net(make(seed=0))] * overwrites:
                found.append("neither the old net nor the new one")
        return found

    return Scenario(lambda folder: make(seed=0).save(folder / "net") if overwrites else None, work, look)


def loading(make):
    def work(folder):
        return of_net(type(make()).load(folder / "net"))

    return Scenario(lambda folder: make().save(folder / "net"), work, lambda folder: strangers(folder, ["net"]))


# Training

DATA = pm.TransferSet(rows(60), says(rows(60)))


def trainer(folder, epochs, threads=1, dtype="float32", hidden=70, every=2):
    pm.set_num_threads(threads)
    return pm.Trainer(
        student(hidden=hidden), pm.AdamW(1e-3), epochs=epochs, batch_size=20, checkpoint=folder / "run", checkpoint_every=every,
        progress=False, standardise_inputs=True, dtype=dtype,
    )  # fmt: skip


def stopped(folder):
    """A run that was stopped after four of its steps."""

    class Interrupted(pm.TransferSet):
        def batch(self, indices):
            if len(indices) == 20 and next(calls) == 4:
                raise KeyboardInterrupt
            return super().batch(indices)

    calls = itertools.count()
    with contextlib.suppress(KeyboardInterrupt):
        trainer(folder, 3).fit(Interrupted(rows(60), says(rows(60))))


def train(folder, **settings):
    """Begun anew, or gone on with: the weights of a run of three epochs."""
    checkpoint = folder / "run"
    made = trainer(folder, 3, **settings)
    made.fit(DATA, resume=checkpoint if checkpoint.exists() else None)
    return of_net(made.student)


def look_at_run(folder):
    if (folder / "run").exists():
        read_safetensors(folder / "run", "checkpoint")
    return strangers(folder, ["run"])


def training(prepare=lambda folder: None, **settings):
    return Scenario(prepare, lambda folder: train(folder, **settings), look_at_run)


# Labelling


def look_at_set(folder):
    folder = folder / "set"
    manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
    files = manifest.files if manifest else []
    wrong = [file["name"] for file in files if hashlib.sha256((folder / file["name"]).read_bytes()).hexdigest() != file["sha256"]]
    expected = [MANIFEST] * bool(manifest) + [file["name"] for file in files]
    under_way = [path for path in (folder / UNDER_WAY).rglob("*") if not path.name.endswith(".part")]  # the next run removes them
    records = [json.loads(path.read_text()) for path in under_way if path.suffix == ".json" and path.name != MANIFEST]
    expected += [os.fspath(path.relative_to(folder)) for path in under_way]
    expected += [file["name"] for record in records for file in record.values()]  # some may have been moved into the set
    return [f"{name} is not whole" for name in wrong] + (strangers(folder, expected) if folder.exists() else [])


def labelling(**settings):
    x, weights = rows(30), np.linspace(0, 1, 30, dtype=np.float32)

    def prepare(folder):
        (folder / "set").mkdir()
        (folder / "tmp").mkdir()

    def work(folder):
        tempfile.tempdir = os.fspath(folder / "tmp")
        settled = {"rows_per_shard": 20, "progress": False, "standardise": True, **settings}
        pm.TransferSet.create(folder / "set", TEACHER, x, weights, **settled)
        return digest(*pm.TransferSet.open(folder / "set").batch(np.arange(30)))

    return Scenario(prepare, work, look_at_set, lambda folder: contents(folder / "set"))


# The command line


class CommandError(OSError):
    """A command's exit status is not 0; it has the file's name from the command's one line."""


def call(*arguments):
    """Run a command; CommandError where it fails."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.run([os.fspath(argument) for argument in arguments])
    except SystemExit as end:
        text = err.getvalue()
        if end.code == 0:
            return
        if end.code != 1 or text.count("\n") != 1 or "Traceback" in text:
            raise AssertionError(f"status {end.code}: {text}") from None
        raise command_error(text) from None


def command_error(text):
    import errno

    for number in (errno.EMFILE, errno.ENOSPC, errno.EIO, errno.ENOMEM, errno.EAGAIN):
        if os.strerror(number) in text or (number == errno.ENOMEM and "llocate" in text):
            quoted = text.split("'")
            return CommandError(number, text, quoted[-2] if len(quoted) > 2 else None)
    return AssertionError(text)


def distilling(*more):
    sizes = ("--hidden", "40", "--rank", "3", "--epochs", "1", "--batch-size", "20", "--checkpoint-every", "2", "--threads", "1")

    def prepare(folder):
        np.save(folder / "x.npy", rows(60))
        np.save(folder / "t.npy", says(rows(60)))
        student(9).save(folder / "s.safetensors")

    def work(folder):
        here = [part if part.startswith("-") or part.isalnum() else folder / part.removeprefix("./") for part in more]
        files = ("--inputs", folder / "x.npy", "--logits", folder / "t.npy", "--out", folder / "s.safetensors")
        resume = ["--resume"] * (folder / "s.safetensors.checkpoint").exists()
        call("distill", *files, *sizes, *here, *resume)
        return of_net(pm.Student.load(folder / "s.safetensors"))

    def look(folder):
        pm.Student.load(folder / "s.safetensors")
        state = folder / "s.safetensors.checkpoint"
        if state.exists():
            read_safetensors(state, "checkpoint")
        sets = [f"set/{path.name}" for path in (folder / "set").glob("*")] if (folder / "set").exists() else []
        return strangers(folder, ["x.npy", "t.npy", "s.safetensors", state.name, *sets]) + look_at_set(folder)

    return Scenario(prepare, work, look)


with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    cli.run(["distill", "--help"])  # what it imports when it is first called

SCENARIOS = {
    **{f"save {name}": saving(make, True) for name, make in NETS.items()},
    "save a first student": saving(student, False),
    **{f"load {name}": loading(make) for name, make in NETS.items()},
    "train": training(),
    "train on": training(stopped),
    "train on threads": training(threads=4, hidden=3000, every=1),
    "train bfloat16": training(threads=4, hidden=300, dtype="bfloat16", every=1),
    "create": labelling(),
    "create compressed": labelling(compress=True, inputs_dtype="float16", top_logits=2),
    "create in parts": labelling(part=(0, 1)),
    "distill": distilling(),
    "distill with a set": distilling("--set", "./set"),
}
