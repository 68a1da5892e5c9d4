"""This library: products in bfloat16 (V's where there are tiles), with sums, weights and gradients in float32; h as `keeps` has it."""

from peers import pymimic

from pymimic import AdamW, Predictor, ShallowWeights, ops

BACKEND = "cpu-bf16"  # of V's products
# AdamW divides gradients by their own size, small ones with large errors too.
TITLE, PRECISION, TOLERANCE = "pymimic, bf16", "bfloat16", 0.1
versions = pymimic.versions


def forward(a):
    if len(a["x"]) <= pymimic.FEW_ROWS:
        few = Predictor(pymimic.student_of(a), "bfloat16")
        return lambda: few.predict(a["x"])
    wide, V = ShallowWeights(a["U"], a["b"], a["W"], a["c"], "bfloat16"), a.get("V")
    return lambda: wide.forward(pymimic.bottleneck(a["x"], V, BACKEND))


def step(a):
    x, t, V = a["x"], a["t"], a.get("V")
    wide = ShallowWeights(a["U"], a["b"], a["W"], a["c"], "bfloat16")
    needs, out = ("U", "b", "W", "c") if V is None else ("z", "U", "b", "W", "c"), pymimic.room_for_gradients(a)
    saved = None

    def run():
        nonlocal saved
        z = pymimic.bottleneck(x, V, BACKEND)
        y, saved = pymimic.kept(wide.forward(z, save=wide.keeps(len(z)) and (saved or True)))
        _, dy = ops.mimic_loss(y, t)
        grads = wide.backward(dy, z, saved=saved, needs=needs, out=out)._asdict()
        dz = grads.pop("z")
        if V is not None:
            grads["V"] = pymimic.gradient_of_V(dz, x, V, z, BACKEND)
        return grads

    return run


def adamw(a, learning_rate, weight_decay):
    x, t, V = a["x"], a["t"], a.get("V")
    wide = ShallowWeights(a["U"], a["b"], a["W"], a["c"], "bfloat16")
    optimizer, saved = AdamW(learning_rate, weight_decay=weight_decay), None

    def run():
        nonlocal saved
        z = pymimic.bottleneck(x, V, BACKEND)
        y, saved = pymimic.kept(wide.forward(z, save=wide.keeps(len(z)) and (saved or True)))
        _, dy = ops.mimic_loss(y, t)
        dz = wide.step(dy, z, optimizer, saved=saved, need_dz=V is not None)
        if V is None:
            return wide.arrays(copy=False)
        optimizer.update("V", V, pymimic.gradient_of_V(dz, x, V, z, BACKEND))
        return {"V": V, **wide.arrays(copy=False)}

    return run
