"""NumPy: one BLAS call a product, h in memory, buffers made once. Measured best: U as (k, H), W as (C, H)."""

import numpy as np

TITLE = "NumPy"


def versions():
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{np.__version__} ({blas['name']} {blas['version']})"


def parameters(a):
    """The weights in the layouts that BLAS likes best."""
    p = {name: a[name] for name in "Vbc" if name in a}
    return p | {"U": np.ascontiguousarray(a["U"].T), "W": np.ascontiguousarray(a["W"].T)}


def ours(arrays):
    """Views in the layouts of pymimic."""
    return arrays | {"U": arrays["U"].T, "W": arrays["W"].T}


def hidden(p, z, h):
    np.matmul(z, p["U"], out=h)
    np.add(h, p["b"], out=h)
    np.maximum(h, 0, out=h)


def forward(a):
    x, p = a["x"], parameters(a)
    h, y = np.empty((len(x), len(a["U"])), np.float32), np.empty((len(x), len(a["c"])), np.float32)

    def run():
        hidden(p, x @ p["V"].T if "V" in p else x, h)
        np.matmul(h, p["W"].T, out=y)
        return np.add(y, p["c"], out=y)

    return run


def gradients_of(a, p):
    x, t = a["x"], a["t"]
    h, da = (np.empty((len(x), len(a["U"])), np.float32) for _ in range(2))
    active, g = np.empty(h.shape, bool), {name: np.empty_like(array) for name, array in p.items()}

    def run():
        z = x @ p["V"].T if "V" in p else x
        hidden(p, z, h)
        dy = h @ p["W"].T
        dy += p["c"]
        dy -= t
        dy /= len(x)
        np.sum(dy, axis=0, out=g["c"])
        np.matmul(dy.T, h, out=g["W"])
        np.matmul(dy, p["W"], out=da)
        np.greater(h, 0, out=active)
        np.multiply(da, active, out=da)
        np.sum(da, axis=0, out=g["b"])
        np.matmul(z.T, da, out=g["U"])
        if "V" in p:
            np.matmul((da @ p["U"].T).T, x, out=g["V"])
        return g

    return run


def step(a):
    run = gradients_of(a, parameters(a))
    return lambda: ours(run())


def adamw(a, learning_rate, weight_decay, beta1=0.9, beta2=0.999, epsilon=1e-8):
    p = parameters(a)
    gradients, steps = gradients_of(a, p), 0
    slots = {name: (np.zeros_like(array), np.zeros_like(array), np.empty_like(array)) for name, array in p.items()}

    def run():
        nonlocal steps
        steps += 1
        for name, g in gradients().items():
            mean, square, room = slots[name]
            mean *= beta1
            mean += np.multiply(g, 1 - beta1, out=room)
            np.multiply(g, g, out=room)
            room *= 1 - beta2
            square *= beta2
            square += room
            np.divide(square, 1 - beta2**steps, out=room)
            np.sqrt(room, out=room)
            room += epsilon
            np.divide(mean, room, out=room)
            room *= learning_rate / (1 - beta1**steps)
            if g.ndim > 1:
                p[name] *= 1 - learning_rate * weight_decay
            p[name] -= room
        return ours(p)

    return run
