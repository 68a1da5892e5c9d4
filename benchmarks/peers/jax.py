"""JAX: jit on forward, on value_and_grad, and on the whole AdamW step with its buffers donated.

Measured best: U as (k, H), W as (C, H); for a single row V as (D, k), U as (k, H), W as (H, C).
"""

import jax
import jax.numpy as jnp
import numpy as np

TITLE = "JAX"


def versions():
    return jax.__version__


def net(p, x):
    z = x @ p["V"].T if "V" in p else x
    return jax.nn.relu(z @ p["U"] + p["b"]) @ p["W"].T + p["c"]


def net_of_one_row(p, x):
    z = x @ p["V"] if "V" in p else x
    return jax.nn.relu(z @ p["U"] + p["b"]) @ p["W"] + p["c"]


def loss(p, x, t):
    return 0.5 * jnp.square(net(p, x) - t).sum() / len(x)


def parameters(a):
    p = {name: jnp.asarray(a[name]) for name in "VUbWc" if name in a}
    return p | {"U": p["U"].T.copy(), "W": p["W"].T.copy()}


def ours(arrays):
    """Arrays in the layouts of pymimic."""
    return arrays | {"U": arrays["U"].T, "W": arrays["W"].T}


def forward(a):
    p, x, call = parameters(a), jnp.asarray(a["x"]), jax.jit(net)
    if len(x) == 1:
        turned = {name: jnp.asarray(a[name]).T.copy() for name in "VU" if name in a}
        p, call = p | turned | {"W": jnp.asarray(a["W"])}, jax.jit(net_of_one_row)
    return lambda: np.asarray(call(p, x))


def step(a):
    p, x, t, call = parameters(a), jnp.asarray(a["x"]), jnp.asarray(a["t"]), jax.jit(jax.value_and_grad(loss))

    def run():
        gradients = jax.block_until_ready(call(p, x, t))[1]
        return lambda: ours(gradients)

    return run


def adamw(a, learning_rate, weight_decay, beta1=0.9, beta2=0.999, epsilon=1e-8):
    x, t = jnp.asarray(a["x"]), jnp.asarray(a["t"])
    p = parameters(a)
    mean, square, steps = jax.tree.map(jnp.zeros_like, p), jax.tree.map(jnp.zeros_like, p), 0

    def update(p, mean, square, steps, x, t):
        g = jax.grad(loss)(p, x, t)
        mean = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, mean, g)
        square = jax.tree.map(lambda s, g: beta2 * s + (1 - beta2) * g * g, square, g)
        correction1, correction2 = 1 - beta1**steps, 1 - beta2**steps

        def new(p, m, s):
            decayed = p * (1 - learning_rate * weight_decay) if p.ndim > 1 else p
            return decayed - learning_rate / correction1 * m / (jnp.sqrt(s / correction2) + epsilon)

        return jax.tree.map(new, p, mean, square), mean, square

    call = jax.jit(update, donate_argnums=(0, 1, 2))

    def run():
        nonlocal p, mean, square, steps
        steps += 1
        p, mean, square = jax.block_until_ready(call(p, mean, square, float(steps), x, t))
        return lambda: ours(p)

    return run
