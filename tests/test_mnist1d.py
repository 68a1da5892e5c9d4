"""MNIST-1D's rows: of the same distributions as those of the package that its authors publish."""

import random
import warnings

import numpy as np
import pytest
from scipy.stats import ks_2samp

from pymimic.demo import datasets, mnist1d

MUTANTS = {
    "_PADDING": [(36, 46), (20, 60)], "_TRANSLATIONS": [40], "_SCALE": [0.9], "_SHEAR": [0.6], "_CORRELATED_NOISE": [0.24],
    "_SMOOTHNESS": [1.9], "_NOISE": [0.022], "_MEAN": [0.0], "_DEVIATION": [0.16],
}  # fmt: skip


@pytest.fixture(scope="module")
def published():
    """5,000 rows by the package, which seeds the process's generators and, as it is imported, makes pictures possible."""
    make_dataset = pytest.importorskip("mnist1d.data").make_dataset
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    made = make_dataset()
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    return np.concatenate([made["x"], made["x_test"]]), np.concatenate([made["y"], made["y_test"]])


def ours(seed=5):
    return mnist1d.rows(20_000, np.random.SeedSequence(seed))


def features(x):
    """Each sample, projections to random directions, a row's extremes, and how rough it is where it is smooth and where it is not."""
    directions = np.random.default_rng(0).standard_normal((40, 20))
    rough = np.quantile(np.abs(np.diff(x, 3)), [0.1, 0.25, 0.5, 0.75], axis=1).T
    return np.concatenate([x, x @ directions, x.min(1, keepdims=True), x.max(1, keepdims=True), x.std(1, keepdims=True), rough], axis=1)


def least_p(a, b):
    """Of two-sample Kolmogorov-Smirnov tests of all features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return min(ks_2samp(left, right, method="asymp").pvalue for left, right in zip(features(a).T, features(b).T))


def test_rows_are_distributed_as_the_packages(published):
    (x, labels), (theirs, their_labels) = ours(), published
    assert x.dtype == np.float32
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [2000] * 10
    assert least_p(x, theirs) > 1e-4
    for c in range(10):
        mine, other = x[labels == c], theirs[their_labels == c]
        assert least_p(mine, other) > 1e-5, c
        error = np.sqrt(mine.var(0) / len(mine) + other.var(0) / len(other))
        assert np.abs((mine.mean(0) - other.mean(0)) / error).max() < 5, c
        a, b = (np.cov(rows.T) for rows in (mine, other))
        deviation = np.sqrt((np.outer(np.diag(b), np.diag(b)) + b**2) * (1 / len(mine) + 1 / len(other)))  # of normal rows' covariances
        assert np.abs((a - b) / deviation).max() < 6, c


@pytest.mark.slow
def test_another_constant_is_seen(published):
    for name, value in ((name, value) for name, values in MUTANTS.items() for value in values):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mnist1d, name, value)
            for table, made in zip(("_CURVES", "_IS_CURVE"), mnist1d._curves()):
                patch.setattr(mnist1d, table, made)
            patch.setattr(mnist1d, "_SMOOTH", (mnist1d._CORRELATED_NOISE * mnist1d._smoothing(mnist1d._LONG)).astype(np.float32))
            assert least_p(ours()[0], published[0]) < 1e-6, (name, value)


def test_templates_and_constants_are_the_packages():
    package = pytest.importorskip("mnist1d.data")
    arguments, templates = package.get_dataset_args(), package.get_templates()["x"]
    curves, _ = mnist1d._curves()
    longest = curves[:, -1, 0, : templates.shape[1]]  # with the most padding a row is not resampled
    assert np.allclose(longest, templates, atol=1e-6)
    assert (list(mnist1d._PADDING), mnist1d._TRANSLATIONS) == (arguments.padding, arguments.max_translation)
    assert (arguments.scale_coeff, arguments.shear_scale) == (mnist1d._SCALE, mnist1d._SHEAR)
    assert (arguments.corr_noise_scale, arguments.iid_noise_scale) == (mnist1d._CORRELATED_NOISE, mnist1d._NOISE)
    assert (mnist1d.SAMPLES, mnist1d._TEMPLATES.shape[1]) == (arguments.final_seq_length, arguments.template_len)


def test_smoothing_is_scipys():
    from scipy.ndimage import gaussian_filter

    x = np.random.default_rng(0).standard_normal(72)
    assert np.allclose(x @ mnist1d._smoothing(72), gaussian_filter(x, 2))


def test_rows_follow_from_the_seed_and_touch_no_generator_of_the_process():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    x, labels = ours()
    again, same = ours()
    assert np.array_equal(x, again)
    assert np.array_equal(labels, same)
    assert not np.array_equal(x, ours(6)[0])
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01


def test_the_split_has_streams_of_its_own():
    data = datasets.load("mnist1d", None, 3)
    parts = (data.train, data.validation, data.test, data.unlabelled)
    assert [part.x.shape for part in parts] == [(4000, 40), (1000, 40), (10_000, 40), (100_000, 40)]
    assert [len(part.labels) for part in parts] == [4000, 1000, 10_000, 100_000]
    whole = np.concatenate([part.x for part in parts])
    assert len(np.unique(whole, axis=0)) == len(whole)
    assert np.array_equal(data.test.x, datasets.mnist1d(3).test.x)
    assert not np.array_equal(data.test.x, datasets.mnist1d(4).test.x)
