"""A training loop of your own on `pymimic.ops`: arrays in, arrays out, no hidden state.

A wide net with a bottleneck learns handwritten digits by cross-entropy, with dropout and plain SGD with momentum. The forward and the
backward pass get the same seed and step, so they draw the same dropout mask; nothing stores it.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from pymimic import ops

BATCH, RANK, HIDDEN, CLASSES, EPOCHS = 128, 32, 512, 10, 10

pixels, labels = load_digits(return_X_y=True)
x, x_test, labels, labels_test = train_test_split((pixels / 16 - 0.3).astype(np.float32), labels, random_state=0)

rng = np.random.default_rng(0)


def normal(rows, columns, variance):
    """Fresh weights."""
    return (rng.standard_normal((rows, columns)) * variance**0.5).astype(np.float32)


V, U, W = normal(RANK, 64, 1 / 8), normal(HIDDEN, RANK, 2 / RANK), normal(HIDDEN, CLASSES, 2 / HIDDEN)
weights = {"V": V, "U": U, "b": np.zeros(HIDDEN, np.float32), "W": W, "c": np.zeros(CLASSES, np.float32)}
speed = {name: np.zeros_like(array) for name, array in weights.items()}

step = 0
for epoch in range(EPOCHS):
    losses = []
    for rows in np.array_split(rng.permutation(len(x)), len(x) // BATCH):
        batch, w = x[rows], weights
        mask = {"dropout": 0.5, "seed": 1, "offset": step}
        z = batch @ w["V"].T
        y, saved = ops.shallow_forward(z, w["U"], w["b"], w["W"], w["c"], save=True, **mask)
        loss, dy = ops.cross_entropy(y, labels[rows])
        grads = ops.shallow_backward(dy, z, w["U"], w["b"], w["W"], saved=saved, **mask)
        gradients = {"V": grads.z.T @ batch, "U": grads.U, "b": grads.b, "W": grads.W, "c": grads.c}
        for name, gradient in gradients.items():
            speed[name] = 0.9 * speed[name] - 0.05 * gradient
            weights[name] += speed[name]
        losses.append(loss)
        step += 1
    print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")

y = ops.shallow_forward(x_test @ weights["V"].T, *(weights[name] for name in ("U", "b", "W", "c")))
print(f"test accuracy: {np.mean(y.argmax(axis=1) == labels_test):.4f}")
