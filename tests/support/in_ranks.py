"""What the processes of the tests here do, each as one rank of a group; also called in one process, by `Group()`."""

import hashlib

import numpy as np

import pymimic as pm
from pymimic.distributed import Group, ProcessGroup, ShardedStudent, ShardedWeights, dealt
from pymimic.distributed.units import TILE, part_grain
from pymimic.files import write_safetensors

B, D, K, H, C = 37, 30, 12, 1000, 7
RNG = np.random.default_rng(0)
X = RNG.standard_normal((1200, D), np.float32)
T = np.tanh(X @ RNG.standard_normal((D, C)).astype(np.float32))
WEIGHTS = {name: 0.1 * RNG.standard_normal(shape, np.float32) for name, shape in {"U": (H, K), "b": (H,), "W": (H, C), "c": (C,)}.items()}
MASK = {"dropout": 0.3, "seed": 5}


def student():
    return pm.Student(D, H, C, K, dropout=0.2, seed=3)


def cases():
    return pm.TransferSet(X[:1000], T[:1000]), pm.TransferSet(X[1000:], T[1000:])


def handle(group, reproducible=False):
    """This rank's part of WEIGHTS."""
    units = dealt(H, group.size, None, part_grain(H) if reproducible else TILE)[group.rank]
    own = {name: array if name == "c" else array[units.first : units.end] for name, array in WEIGHTS.items()}
    return ShardedWeights(**own, group=group, reproducible=reproducible)


def fifty_steps(wide):
    """The last loss and dz, and the weights."""
    optimizer, rng, saved = pm.AdamW(1e-2, weight_decay=0.01), np.random.default_rng(1), True
    for step in range(50):
        z, t = rng.standard_normal((B, K), np.float32), rng.standard_normal((B, C), np.float32)
        y, saved = wide.forward(z, save=saved, offset=step, **MASK)
        loss, dy = pm.ops.mimic_loss(y, t)
        dz = wide.step(dy, z, optimizer, saved=saved, offset=step, **MASK)
    return {"loss": loss, "dz": dz, **wide.arrays()}


def stepped(group, folder=None, reproducible=False):
    return fifty_steps(handle(group, reproducible))


def counted(group, folder, hidden):
    """The bytes that one training step gives to the group."""
    units, sent, add = dealt(hidden, group.size)[group.rank], [], group.sum
    rng = np.random.default_rng(group.rank)
    own = [rng.standard_normal((len(units), n), np.float32) for n in (K, C)]
    wide = ShardedWeights(own[0], np.zeros(len(units), np.float32), own[1], np.zeros(C, np.float32), group=group)
    group.sum = lambda array: add(array) if sent.append(array.nbytes) is None else None
    z, dy = np.ones((B, K), np.float32), np.ones((B, C), np.float32)
    wide.forward(z)
    wide.step(dy, z, pm.SGD(0.01))
    return {"bytes": sum(sent)}


def run(group=None, checkpoint=None, resume=None, epochs=3, whole=True, reproducible=True, **settings):
    """Train; the history's losses, and the weights of all units."""
    net = student() if whole else ShardedStudent(D, H, C, K, dropout=0.2, seed=3, group=group or Group(), reproducible=reproducible)
    shared = {"group": group, "reproducible": reproducible} if whole else {}
    trainer = pm.Trainer(
        net, pm.AdamW(1e-2), epochs=epochs, batch_size=128, checkpoint=checkpoint, standardise_inputs=True, **shared, **settings
    )
    history = trainer.fit(*cases(), resume=resume)
    arrays = net.arrays() if whole else net.whole().arrays()
    return {"losses": [(record.train_loss, record.validation_loss) for record in history], **arrays}


def trained(group, folder, **given):
    return run(group, **given)


def in_a_mesh(group, folder, **settings):
    """Four processes: two share out the units, twice, and two the rows."""
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("rows", "units"))
    both = ProcessGroup(mesh.get_group("units"), mesh.get_group("rows"))
    found = run(both, checkpoint=str(folder / "run"), reproducible=False, **settings)
    return found | {"rank": both.rank, "row": both.rows.rank}


def saved(group, folder):
    """A sharded student that was trained, saved by all, and read again by all; what it says before and after."""
    net = ShardedStudent(D, H, C, K, seed=3, group=group)
    pm.Trainer(net, pm.AdamW(1e-2), epochs=1).fit(cases()[0])
    net.save(folder / "student")
    again = ShardedStudent.load(folder / "student", group=group)
    return {"before": net.predict(X), "after": again.predict(X), "accuracy": net.score(X, T.argmax(axis=1)), "first": net.predict(X[:3])}


def refused(group, folder, what):
    """The error of a run in which rank 1 has something else."""
    odd = group.rank == 1
    differs = odd and what
    x = X[:1000].copy()
    x[502] += differs == "one row"  # which no sample has
    data = pm.TransferSet(x[:999] if differs == "data" else x, T[: 999 if differs == "data" else 1000])
    net = pm.Student(D, H, C, K, seed=4 if differs == "weights" else 3)
    if differs == "standardisation":
        net.set_standardisation(np.zeros(D, np.float32), np.ones(D, np.float32))
    more = {
        "checkpoint": None if differs == "checkpoint" else folder / "run", "checkpoint_every": 2 if differs == "checkpoint_every" else 3,
        "patience": 2 if differs == "patience" else 3,
    }  # fmt: skip
    optimizer = pm.AdamW(2e-2 if differs == "rate" else 1e-2)
    try:
        if what == "units":
            ShardedStudent(D, 40, C, K, group=group, shares=[1, 2]).whole()
            ShardedStudent(D, 32, C, K, group=group)
        elif what == "shape":
            pm.Trainer(net, optimizer, epochs=1, group=group).fit(pm.TransferSet(X[:, : D - odd], T))
        elif what == "shares":
            ShardedStudent(D, H, C, K, group=group, shares=[1, 1 + odd])
        elif what == "calls":
            _ = group.agree(a=1) if odd else ShardedStudent(D, H, C, K, group=group)
        elif what == "validation":
            pm.Trainer(net, optimizer, epochs=1, group=group).fit(data, None if odd else data)
        else:
            pm.Trainer(net, optimizer, epochs=1, group=group, **more).fit(data, cases()[1])
    except (ValueError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": "none"}


def until_killed(group, folder):
    """A run of many epochs with a checkpoint at every step; rank 1 says when it is under way."""
    net = ShardedStudent(D, H, C, K, dropout=0.2, seed=3, group=group, reproducible=True)
    trainer = pm.Trainer(net, pm.AdamW(1e-2), epochs=10_000, batch_size=128, checkpoint=folder / "run", checkpoint_every=1)
    trainer.fit(cases()[0])


class Overtaken(pm.TransferSet):
    """Rows, while whose third batch is read another run writes the checkpoint."""

    written = None  # where, on one rank
    calls = 0

    def batch(self, indices):
        self.calls += 1
        if self.calls == 4 and self.written is not None:  # the first is a sample
            write_safetensors(self.written, {"c": np.zeros(3)}, {"kind": "checkpoint"})
        return super().batch(indices)


def overtaken(group, folder):
    """The error of a run with a checkpoint at every step, while another run writes the file."""
    data = Overtaken(X[:1000], T[:1000])
    data.written = folder / "run" if group.rank == 0 else None
    try:
        net = ShardedStudent(D, H, C, K, seed=3, group=group)
        pm.Trainer(net, pm.AdamW(1e-2), epochs=1, batch_size=128, checkpoint=folder / "run", checkpoint_every=1).fit(data)
    except (ValueError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": "none"}


def digest(arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays))).hexdigest()
