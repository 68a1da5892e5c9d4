"""scikit-learn's MLPRegressor: one call of partial_fit, which ends in an update by plain SGD.

Its bottleneck has the activation of all other layers. So that the net is the same, the bottleneck gets an intercept that keeps
relu's arguments positive, and the next layer takes it off again.
"""

import warnings

import sklearn
from sklearn.neural_network import MLPRegressor

TITLE = "scikit-learn"
SHIFT, RATE = 8.0, 1e-6  # z is about normal; a rate that leaves the weights as they are


def versions():
    return sklearn.__version__


def step(a):
    x, t, V, U, b, W, c = (a.get(name) for name in "xtVUbWc")
    layers = [(U.T, b), (W, c)] if V is None else [(V.T, SHIFT), (U.T, b - SHIFT * U.sum(1)), (W, c)]
    hidden = [coefficients.shape[1] for coefficients, _ in layers[:-1]]
    sgd = {"solver": "sgd", "learning_rate_init": RATE, "momentum": 0, "nesterovs_momentum": False}
    net = MLPRegressor(hidden_layer_sizes=hidden, alpha=0, batch_size=len(x), **sgd)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a batch larger than these two rows
        net.partial_fit(x[:2], t[:2])  # makes the arrays
    for (coefficients, intercepts), to, to_intercepts in zip(layers, net.coefs_, net.intercepts_):
        to[...], to_intercepts[...] = coefficients, intercepts

    def gradients():
        updates = [update / -RATE for update in net._optimizer.velocities]
        (dU, dW), (db, dc) = updates[len(layers) - 2 : len(layers)], updates[-2:]
        if V is None:
            return {"U": dU.T, "b": db, "W": dW, "c": dc}
        return {"V": updates[0].T, "U": dU.T - SHIFT * db[:, None], "b": db, "W": dW, "c": dc}

    def run():
        net.partial_fit(x, t)
        return gradients

    return run
