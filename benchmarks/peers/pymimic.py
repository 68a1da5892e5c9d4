"""This library: h is made again in the backward pass, so that memory does not grow with H."""

import numpy as np

import pymimic
from pymimic import AdamW, Predictor, ShallowWeights, Student, ops, plan

TITLE, RECOMPUTES = "pymimic", True
FEW_ROWS = 8  # for more a Predictor is not meant


def versions():
    return pymimic.__version__


def student_of(a):
    D, (H, k), C = a["x"].shape[1], a["U"].shape, a["W"].shape[1]
    student = Student(D, H, C, rank=k if "V" in a else None)
    student.set_arrays(**{name: a[name] for name in student.shapes})
    return student


def forward(a, backend=None):
    student = student_of(a)
    if backend is None and len(a["x"]) <= FEW_ROWS:
        few = Predictor(student, copy=True)
        return lambda: few.predict(a["x"])
    return lambda: student.predict(a["x"], backend)


def bottleneck(x, V, backend):
    """z = x V^T, or x itself."""
    return x if V is None else ops.linear_dropout(x, V, np.zeros(len(V), np.float32), activation="identity", backend=backend)


def room_for_gradients(a):
    """Arrays to write the wide layer's gradients into, made once; dz is none of them."""
    return ops.ShallowGrads(**{name: np.empty_like(a[name]) for name in "UbWc"})


def gradient_of_V(dz, x, V, z, backend):
    return ops.linear_dropout_backward(dz, x, V, z, activation="identity", needs="weight", backend=backend).weight


def kept(result):
    """The pair (y, saved) of a forward pass, whether it was to keep h or not."""
    return result if isinstance(result, tuple) else (result, None)


def step(a, h="recompute", backend=None):
    x, t, V, U, b, W, c = (a.get(name) for name in "xtVUbWc")
    how = plan(len(x), x.shape[1], U.shape[1], len(U), len(c), h=h)
    needs, out = ("U", "b", "W", "c") if V is None else ("z", "U", "b", "W", "c"), room_for_gradients(a)
    saved = None

    def run():
        nonlocal saved
        z = bottleneck(x, V, backend)
        y, saved = kept(ops.shallow_forward(z, U, b, W, c, plan=how, save=saved or h != "recompute", backend=backend))
        _, dy = ops.mimic_loss(y, t)
        grads = ops.shallow_backward(dy, z, U, b, W, plan=how, saved=saved, needs=needs, out=out, backend=backend)._asdict()
        dz = grads.pop("z")
        if V is not None:
            grads["V"] = gradient_of_V(dz, x, V, z, backend)
        return grads

    return run


def adamw(a, learning_rate, weight_decay, keep=None, backend=None):
    x, t, V = a["x"], a["t"], a.get("V")
    wide = ShallowWeights(a["U"], a["b"], a["W"], a["c"], keep=keep or "float32", backend=backend)
    optimizer, saved = AdamW(learning_rate, weight_decay=weight_decay), None

    def run():
        nonlocal saved
        z = bottleneck(x, V, backend)
        y, saved = kept(wide.forward(z, save=saved or keep is not None))
        _, dy = ops.mimic_loss(y, t)
        dz = wide.step(dy, z, optimizer, saved=saved, need_dz=V is not None)
        if V is None:
            return wide.arrays(copy=False)
        optimizer.update("V", V, gradient_of_V(dz, x, V, z, backend))
        return {"V": V, **wide.arrays(copy=False)}

    return run
