"""Calls of the compiled core with one wrong argument each: whoever calls, native code refuses, and touches no memory that isn't its own.

As a script it makes all of them, with this machine's best instruction set, and prints how many it made.
"""

import os

import numpy as np

from pymimic import _core

B, k, H, C, SLAB = 40, 8, 50, 3, 32
MASK = (128, 2**64 - 1, 2**32 - 1, 16, 32)
RULE = ("sgd", 0.1, 0.0, 0.9, False, 0.0, 0.0, 0.0, 1.0, 1.0)
INTS = (-(2**63), -1, 0, 31, 33, 257, 2**31, 2**58, 2**62, 2**63 - 32, 2**63 - 1, 2**64)


def f(*shape):
    return np.zeros(shape, np.float32)


def parameter(*shape):
    return (f(*shape), [f(*shape)], RULE)


def right_calls():
    """(name, arguments) of calls that are right, one or more a function."""
    z, U, b, W, c, y, dy = f(B, k), f(H, k), f(H), f(H, C), f(C), f(B, C), f(B, C)
    how = [1, MASK, SLAB, SLAB]
    saved = f(64 * H)
    grads = [f(B, k), f(H, k), f(H), f(H, C), f(C)]
    parameters = [parameter(H, k), parameter(H), parameter(H, C), parameter(C)]
    for terms in (0, 1, 3) if _core.has_tiles() else (0, 1):
        yield "shallow_forward", [z, U, b, W, c, *how, terms, y, saved]
        yield "shallow_backward", [dy, z, U, b, W, *how, terms, saved, *grads]
        yield "shallow_step", [dy, z, *parameters, *how, terms, saved, f(B, k), f(C)]
    layer, h = [z, U, b], f(B, H)
    for terms in (0, 1, 3) if _core.has_tiles() else (0,):
        yield "linear", [*layer, 4, MASK, terms, h]
        yield "linear_backward", [h, *layer, h.copy(), 4, MASK, terms, f(B, H), f(B, k), f(H, k), f(H)]
    yield "shallow_plan", [B, k, H, C, SLAB, SLAB, True, 0, True, True, False, False]
    yield "dropout", [f(2, B, k), f(2, B, k), MASK]
    yield "update", [f(H, k), f(H, k), [f(H, k)], RULE]
    yield "sum_all", [f(B, k)]
    yield "set_isa", [_core.isa()]
    bottleneck, net = [f(k, 6)], [[f(H, k)], [f(H, C)], f(H), f(C), f(6), f(6)]
    yield "Predictor", ["float32", 6, k, H, C, SLAB, 0, bottleneck, *net]
    words = np.uint32
    net = [[np.zeros((2, k, 16), words)], [np.zeros((25, 16), words)], f(H), f(C), None, None]
    yield "Predictor", ["bfloat16", k, k, H, C, SLAB, 0, None, *net]
    U8 = [np.zeros((4, 2, 16, 4), np.int8), f(64), np.zeros(64, np.int32)]
    W8 = [np.zeros((13, 16, 4), np.int8), f(64), np.zeros(32, np.int32)]
    yield "Predictor", ["int8", k, k, H, C, SLAB, 0, None, U8, W8, f(H), f(C), None, None]


# In the place of a list they ask for more memory than there is. Python then raises MemoryError, but a sanitizer ends the process.
ENDLESS = () if "libasan" in os.environ.get("LD_PRELOAD", "") else (f(2**40, 0), f(2**60, 0))


def damaged(value):
    """What might come in the place of a right argument."""
    yield from (None, "nonsense", object(), 1.5, [], (), f(), f(1), f(0), f(0, 2**40), f(0, 2**60), *ENDLESS)
    if isinstance(value, (int, np.integer)):
        yield from INTS
    elif isinstance(value, (tuple, list)):
        yield type(value)([*value, *value])
        for i, item in enumerate(value):
            yield type(value)([*value[:i], *value[i + 1 :]])
            for other in damaged(item):
                yield type(value)([*value[:i], other, *value[i + 1 :]])
    elif isinstance(value, np.ndarray):
        read_only = value.copy()
        read_only.flags.writeable = False
        memory = np.zeros(value.nbytes + 1, np.uint8)
        yield read_only
        yield from (
            value[..., :-1].copy(),
            value.astype(np.float64),
            value.astype(np.int32),
            value.astype(">f4"),
            value.astype(np.complex64),
        )
        yield memory[1:].view(value.dtype).reshape(value.shape)
        yield np.repeat(value, 2, axis=-1)[..., ::2]
        yield value[None], value.T
        yield np.broadcast_to(value[:1], value.shape)


def attempt(function, arguments):
    """Whether the call went through, or one of these exceptions came."""
    try:
        made = function(*arguments)
        if isinstance(made, _core.Predictor):
            made.predict(f(70, arguments[1]))
    except (TypeError, ValueError, MemoryError):
        return False
    return True


class NoBase(_core.Predictor):
    """Does not call the constructor that it overrides."""

    def __init__(self):
        pass


EXTREME = {
    "no constructor": lambda: _core.Predictor.__new__(_core.Predictor).predict(f(2, 3)),
    "no constructor of the base": NoBase,
    "no Predictor": lambda: _core.Predictor.predict("x", f(2, 3)),
    "B C overflows": lambda: _core.shallow_forward(f(2**40, 0), f(0, 0), f(0), f(0, 2**40), f(0), 0, MASK, 32, 32, 0, f(0), None),
    "B O overflows": lambda: _core.linear(f(2**40, 0), f(2**40, 0), None, 0, MASK, 0, f(0)),
    "D k overflows": lambda: _core.Predictor("float32", 2**62, 4, 1, 1, 32, 0, [f(0)], [f(4)], [f(1)], f(1), f(1), None, None),
    "padding overflows": lambda: _core.Predictor("panels", 1, 2**63 - 1, 1, 1, 32, 0, [f(0)], [f(0)], [f(16)], f(1), f(1), None, None),
    "slab": lambda: _core.shallow_forward(f(B, k), f(H, k), f(H), f(H, C), f(C), 0, MASK, 2**62, 32, 0, f(B, C), None),
    "one axis": lambda: _core.dropout(f(5), f(5), MASK),
    "no axis": lambda: _core.dropout(f(), f(), MASK),
    "no da": lambda: _core.linear_backward(f(B, H), f(B, k), f(H, k), None, f(B, H), 0, MASK, 0, None, None, None, f(H)),
    "no threads": lambda: _core.set_num_threads(0),
    "less than none": lambda: _core.set_num_threads(-1),
    "threads without end": lambda: _core.set_num_threads(2**31 - 1),
    "steps": lambda: _core.multiply_adds("float32", -1),
    "steps without end": lambda: _core.multiply_adds("float32", 2**62),
}


def main():
    """All calls; the number of those that were refused."""
    refused = 0
    for name, arguments in right_calls():
        function = getattr(_core, name)
        function(*arguments)
        assert not attempt(function, [])
        for i, argument in enumerate(arguments):
            for other in damaged(argument):
                refused += not attempt(function, [*arguments[:i], other, *arguments[i + 1 :]])
    for name, call in EXTREME.items():
        assert not attempt(call, []), name
    return refused + len(EXTREME)


if __name__ == "__main__":
    np.set_printoptions(threshold=1, edgeitems=1)  # messages of pybind11 show arrays whole
    print(main())
