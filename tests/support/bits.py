"""The bits of many results, as one digest: what determinism tests compare, also from other processes."""

import hashlib

from cases import shallow

from pymimic import AdamW, ShallowWeights, ops

SIZES = (
    {"B": 131, "k": 33, "H": 1101, "C": 19},
    {"B": 300, "k": 64, "H": 2048, "C": 10},
    {"B": 3, "k": 7, "H": 5003, "C": 183},
    {"B": 1, "k": 250, "H": 700, "C": 1},
)
DROPOUT = {"dropout": 0.3, "seed": 2**63 + 11, "offset": 7, "origin": (48, 96)}


def results(backend, sizes=SIZES):
    """Arrays from every op that computes in parallel."""
    for size, dtype, activation in zip(sizes, ("float32", "float32", "float64", "float32"), ("gelu", "relu", "tanh", "sigmoid")):
        args = shallow(size, dtype)
        how = {"activation": activation, **DROPOUT}
        y, saved = ops.shallow_forward(*args.forward, save=True, backend=backend, **how)
        yield y
        yield ops.shallow_forward(*args.forward, backend=backend, **how)
        yield from ops.shallow_backward(*args.backward, backend=backend, **how)
        yield from ops.shallow_backward(*args.backward, saved=saved, backend=backend, **how)
        h = ops.linear_dropout(args.z, args.U, args.b, backend=backend, **how)
        yield h
        yield from ops.linear_dropout_backward(h, args.z, args.U, h, bias=args.b, backend=backend, **how)
        yield ops.factorized_matmul(args.dy, args.W[:5], args.U[:, :1] + args.W[:5, 0], backend=backend)
        yield ops.dropout(h, 0.5, seed=1, backend=backend)
        weights = ShallowWeights(*args.forward[1:], dtype=dtype, activation=activation, backend=backend)
        optimizer = AdamW(weight_decay=0.1)
        for _ in range(2):
            yield weights.step(args.dy, args.z, optimizer, **DROPOUT)
        yield from weights.arrays().values()


def digest(backend, sizes=SIZES):
    """sha256 of all those bits."""
    total = hashlib.sha256()
    for array in results(backend, sizes):
        total.update(array.tobytes())
    return total.hexdigest()
