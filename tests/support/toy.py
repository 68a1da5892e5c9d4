"""A small teacher, and a run of the trainer on it, for the tests of training."""

import numpy as np
from roundings import assert_within_roundings

from pymimic import SGD
from pymimic.nets.student import Student
from pymimic.training.convnet import ConvNet
from pymimic.training.deepnet import DeepNet
from pymimic.training.trainer import Trainer

D, H, C, N = 6, 40, 4, 90

NETS = {
    "student": lambda **keywords: Student(D, H, C, rank=3, seed=5, **keywords),
    "deep net": lambda **keywords: DeepNet([D, H, 7, C], seed=5, **keywords),
    "convolutional net": lambda **keywords: ConvNet((2, 3), [(5, 2, 1, 1), (8, 3, 2, 1)], C, [20], seed=5, **keywords),
}


class Logits:
    """The least that the trainer reads, and a note of what it read."""

    inputs, outputs = D, C

    def __init__(self, rows=N, seed=0, weights=None):
        rng = np.random.default_rng(seed)
        self.x = rng.standard_normal((rows, D), np.float32)
        self.t = np.tanh(self.x @ np.random.default_rng(99).standard_normal((D, C)).astype(np.float32)) * 2
        self.weights = weights
        self.calls = []

    def __len__(self):
        return len(self.x)

    def batch(self, indices):
        self.calls.append(np.array(indices))
        return self.x[indices], self.t[indices], None if self.weights is None else self.weights[indices]


def order(seed, epoch, rows=N):
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,))).permutation(rows)


def close(student, expected):
    """Weights of the same steps, of gradients whose sums over at most 90 rows and 40 units were made in another order: for each of the
    nine steps a rounding of the update, and for momentum and the sums as many again and more."""
    for name, array in student.arrays().items():
        assert_within_roundings(array, expected[name], 32, name)


def same(first, second):
    return all(np.array_equal(array, second.arrays()[name]) for name, array in first.arrays().items())


def trained(data, validation=None, *, student=None, optimizer=None, **keywords):
    student = student or Student(D, H, C, rank=3, seed=5)
    keywords = {"epochs": 3, "batch_size": 32, "seed": 7} | keywords
    trainer = Trainer(student, optimizer or SGD(0.05, momentum=0.9), **keywords)
    history = trainer.fit(data, validation)
    return student, history
