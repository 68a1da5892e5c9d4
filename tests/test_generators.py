"""Generators of cases for a batch, and what draws from them: whole copies, and fresh cases that a teacher labels as one trains."""

import pickle

import numpy as np
import pytest
from toy import C, D, Logits, N, same, trained

import pymimic as pm
from pymimic import SGD, DeepNet, Deform, LabelledSet, Masks, Mixup, Munge, Noise, Student, Targets, Trainer, copies, fresh_cases
from pymimic.callables import describe

RNG = np.random.default_rng


def some(rows=N, columns=D, seed=0):
    return RNG(seed).random((rows, columns), np.float32)


GENERATORS = [Noise(0.1), Noise(np.linspace(0, 1, 6)), Mixup(), Masks(3, 2, 2, 1), Munge(some(20)), Deform(6)]


@pytest.mark.parametrize("generator", GENERATORS, ids=describe)
def test_every_generator_draws_from_its_stream_and_leaves_the_rows(generator):
    x = some(columns=36 if isinstance(generator, Deform) else D)
    x.flags.writeable = False
    new = generator(x, RNG(1))
    assert (new.shape, new.dtype) == (x.shape, np.float32)
    assert np.array_equal(new, generator(x, RNG(1)))
    assert not np.array_equal(new, generator(x, RNG(2)))
    assert generator(x[:0], RNG(1)).shape == (0, x.shape[1])
    assert np.array_equal(pickle.loads(pickle.dumps(generator))(x, RNG(1)), new)
    for bad, error, message in (
        (x.astype(int), TypeError, r"x: expected dtype float32 or float64, got int64: pass .astype\(np.float32\)"),
        (x[0], ValueError, "x: expected shape"),
        (x.tolist(), TypeError, "x: expected a NumPy array, got builtins.list"),
    ):
        with pytest.raises(error, match=message):
            generator(bad, RNG(0))
    assert np.array_equal(generator(x.astype(float), RNG(1)), new)
    for rng in (0, None, np.random.RandomState(0), np.random):
        with pytest.raises(TypeError, match=r"rng: expected a numpy\.random\.Generator, got .*: pass numpy\.random\.default_rng\(seed\)"):
            generator(x, rng)


def test_descriptions_tell_settings_apart_and_are_alike_for_the_same():
    made = [
        Noise(0.1), Noise(0.2), Noise(np.array([0.1, 0.2])), Mixup(), Mixup(0.5), Masks(3, 2, 1, 1), Masks(3, 2, 1, 1, value=2.0),
        Munge(some(20)), Munge(some(20), p=0.3), Munge(some(20), s=3), Munge(some(21)), Munge(some(20), discrete=[1]), Deform(6), Deform(7),
        Noise(np.arange(2000.0)), Noise(np.where(np.arange(2000) == 1000, 0.5, np.arange(2000.0))),
    ]  # fmt: skip
    assert len({describe(generator) for generator in made}) == len(made)
    assert describe(Munge(some(20).astype(float))) == describe(Munge(some(20), 0.2, np.float32(5)))
    assert describe(Noise(0.1)) == "Noise(sigma=0.1)"


def test_noise_has_its_deviations():
    new = Noise(np.array([0.0, 0.5]))(np.full((50_000, 2), 3, np.float32), RNG(0))
    assert (new[:, 0] == 3).all()
    assert abs(new[:, 1].mean() - 3) < 0.02
    assert abs(new[:, 1].std() - 0.5) < 0.01


def test_mixup_blends_two_rows_of_the_batch():
    x = np.eye(3000, dtype=np.float32)
    new = Mixup(0.4)(x, RNG(0))
    assert ((new > 0).sum(axis=1) <= 2).all()
    assert np.allclose(new.sum(axis=1), 1, atol=1e-6)
    own = new.diagonal()
    assert abs(own.mean() - 0.5) < 0.03
    assert abs(own.var() - 0.25 / (2 * 0.4 + 1)) < 0.02  # of Beta(a, a)


def test_masks_blank_stripes_no_longer_than_asked_for():
    time, features = 12, 5
    new = Masks(time, features, 4, 2, value=-1.0)(np.ones((4000, time * features), np.float32), RNG(0)).reshape(-1, time, features)
    blank = new == -1
    assert ((new == 1) | blank).all()
    for whole, longest in ((blank.all(axis=2), 4), (blank.all(axis=1), 2)):
        assert (np.diff(np.pad(whole, ((0, 0), (1, 1))).astype(int)) == 1).sum(axis=1).max() == 1  # one stripe
        assert set(whole.sum(axis=1)) == set(range(longest + 1))
        assert whole.any(axis=0).all()
    both = blank.all(axis=2)[:, :, None] | blank.all(axis=1)[:, None]
    assert np.array_equal(blank, both)
    two = Masks(time, features, 2, 0, count=2)(np.ones((4000, time * features), np.float32), RNG(0)).reshape(-1, time, features) == 0
    assert (np.diff(np.pad(two.all(axis=2), ((0, 0), (1, 1))).astype(int)) == 1).sum(axis=1).max() == 2


def test_munge_exchanges_a_row_with_its_neighbour_once():
    x = some(300, 4)
    x[:, 3] = RNG(1).integers(0, 3, 300)
    distance = np.square(x[:, None, :3] - x[None, :, :3]).sum(-1) + (x[:, None, 3] != x[None, :, 3]) + 9 * np.eye(300)
    neighbour = distance.argmin(axis=1)
    plain = Munge(x, 1.0, np.inf, discrete=[3])(np.zeros((5000, 4), np.float32), RNG(0))
    assert {row.tobytes() for row in plain} == {row.tobytes() for row in x[neighbour]}
    new = Munge(x, 0.3, 4.0, discrete=[3])(np.zeros((20_000, 4), np.float32), RNG(0))
    assert set(new[:, 3]) <= {0, 1, 2}
    kept = np.stack([np.isin(new[:, column], x[:, column]) for column in (0, 1)])
    assert np.abs(kept.mean(axis=1) - 0.7).max() < 0.02
    assert abs(kept.all(axis=0).mean() - 0.49) < 0.02  # each attribute for itself
    two = np.stack([np.zeros(50_000), np.ones(50_000)]).astype(np.float32)
    (first,) = Munge(two, 1.0, 4.0)(two[:1], RNG(3))
    assert abs(first.std() - 0.25) < 0.01
    assert min(abs(first.mean()), abs(first.mean() - 1)) < 0.01


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Noise(-1.0), ValueError, "sigma: expected finite deviations of at least 0"),
        (lambda: Noise(np.zeros((2, 2))), ValueError, "sigma: expected finite deviations"),
        (lambda: Noise("1"), ValueError, "sigma: expected finite deviations"),
        (lambda: Noise(1e39), ValueError, "sigma: expected finite deviations"),
        (lambda: Noise(np.ones(3))(some(), RNG(0)), ValueError, r"sigma: .*one or \(D,\) = \(6,\), got 3"),
        (lambda: Mixup(0), ValueError, "alpha: expected a number above 0"),
        (lambda: Masks(0, 1, 0, 0), ValueError, "time: expected an int"),
        (lambda: Masks(3, 2, 4, 0), ValueError, r"steps: expected an int in \[0, 4\), got 4"),
        (lambda: Masks(3, 2, 0, 3), ValueError, r"bands: expected an int in \[0, 3\), got 3"),
        (lambda: Masks(3, 2, 1, 1, value=np.nan), ValueError, "value: expected"),
        (lambda: Masks(3, 2, 1, 1)(some(4, 7), RNG(0)), ValueError, r"x: expected shape \(B, D\) = \(any, 6\)"),
        (lambda: Munge(some(1)), ValueError, "x: expected at least 2 rows"),
        (lambda: Munge(some(), p=2), ValueError, "p: expected a probability"),
        (lambda: Munge(some(), s=0), ValueError, "s: expected a number above 0"),
        (lambda: Munge(some(), discrete=[6]), ValueError, "discrete: expected an int"),
        (lambda: Munge(some())(some(4, 7), RNG(0)), ValueError, r"x: expected shape \(B, D\) = \(any, 6\)"),
        (lambda: copies(0.1, some(), 1), TypeError, "generator: expected a function"),
        (lambda: copies(Noise(0.1), some(), -1), ValueError, "count: expected an int"),
        (lambda: copies(Noise(0.1), some(), 1, seed=-1), ValueError, "seed: expected an int"),
        (lambda: copies(Noise(0.1), np.full((2, 2), np.nan), 1), ValueError, "x: expected finite values, got nan in row 0"),
        (lambda: next(copies(lambda x, rng: x[1:], some(), 1)), ValueError, r"generator: expected float32 .* \(90, 6\) from .*<lambda>"),
        (lambda: next(copies(lambda x, rng: x.astype(float), some(), 1)), ValueError, "got float64 of shape"),
        (lambda: copies(pm.munge, some(), 1), TypeError, "generator: expected a function .*, got munge, which is none: call it"),
        (lambda: copies(pm.gaussian_noise, some(), 1), TypeError, "generator: expected a function .*, got gaussian_noise, which is none"),
        (lambda: copies(Deform, some(), 1), TypeError, r"generator: .* got the class Deform: make one, Deform\(\.\.\.\)"),
        (lambda: fresh_cases(Munge), TypeError, "generator: .* got the class Munge: make one"),
        (lambda: copies(lambda x: x, some(), 1), TypeError, r"generator: expected a function of \(x, rng\)"),
        (lambda: fresh_cases("munge"), TypeError, "generator: expected a function"),
        (lambda: fresh_cases(Noise(0.1), lambda x: x), TypeError, "teacher: expected a teacher"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_copies_depend_on_the_seed_and_their_number_alone(monkeypatch):
    x = some()
    three = list(copies(Noise(0.1), x, 3, seed=7))
    assert [copy.shape for copy in three] == [x.shape] * 3
    assert not np.array_equal(three[0], three[1])
    assert np.array_equal(next(copies(Noise(0.1), x.astype(float), 1, seed=7)), three[0])
    assert np.array_equal(next(pm.gaussian_noise(x, 1, 0.1, 7)), three[0])
    monkeypatch.setattr("pymimic.data.generators._SLAB", 7 * D)
    assert np.array_equal(next(copies(Noise(0.1), x, 1, seed=7)), three[0])
    assert list(copies(Noise(0.1), x, 0)) == []
    assert next(copies(Noise(0.1), x[:0], 1)).shape == (0, D)


TEACHER = pm.from_callable(lambda x: np.tanh(x[:, :C]) * 2, "the first inputs")


def test_fresh_cases_are_the_generators_labelled_by_the_teacher():
    x, logits, labels = some(), some(columns=C), RNG(0).integers(0, C, N)
    want = Noise(0.1)(x, RNG(3))
    new, targets = fresh_cases(Noise(0.1), TEACHER)(x, logits, RNG(3))
    assert np.array_equal(new, want)
    assert np.array_equal(targets, TEACHER.logits(want))
    new, targets = fresh_cases(Noise(0.1), TEACHER)(x, Targets(logits, labels), RNG(3))
    assert np.array_equal(targets.logits, TEACHER.logits(want))
    assert np.array_equal(targets.labels, labels)
    new, targets = fresh_cases(Noise(0.1))(x.astype(float), labels, RNG(3))
    assert np.array_equal(new, want)
    assert np.array_equal(targets, labels)


def test_training_sees_other_cases_at_every_step_and_the_teachers_logits_of_them():
    seen = []

    def teach(x):
        seen.append(x.copy())
        return x[:, :C]

    trained(Logits(), augment=fresh_cases(Noise(0.5), pm.from_callable(teach, "teach")), epochs=2)
    assert [len(x) for x in seen] == [32, 32, 26] * 2
    assert len(np.unique(np.concatenate(seen), axis=0)) == 2 * N
    labelled = LabelledSet(some(), RNG(0).integers(0, C, N), C)
    student = Student(D, 8, C, seed=1)
    Trainer(student, SGD(0.1), epochs=1, loss="cross_entropy", augment=fresh_cases(Noise(0.1)), progress=False).fit(labelled)
    DeepNet([D, C]).fit(labelled.x, labelled.labels, epochs=1, augment=fresh_cases(Noise(0.1)), progress=False)


def test_a_run_on_fresh_cases_resumes_bit_for_bit_and_knows_its_generator_and_teacher(tmp_path):
    x, path = some(), tmp_path / "checkpoint"
    net = DeepNet([D, 5, C], seed=3)
    whole, _ = trained(Logits(), augment=fresh_cases(Munge(x), net), epochs=4)
    trained(Logits(), augment=fresh_cases(Munge(x), net), epochs=2, checkpoint=path)

    def resumed(augment):
        student = Student(D, 40, C, rank=3, seed=5)
        trainer = Trainer(student, SGD(0.05, momentum=0.9), epochs=4, batch_size=32, seed=7, augment=augment, progress=False)
        trainer.fit(Logits(), resume=path)
        return student

    assert same(whole, resumed(fresh_cases(Munge(x), DeepNet([D, 5, C], seed=3))))
    others = [
        fresh_cases(Munge(x, p=0.3), net), fresh_cases(Munge(x[1:]), net), fresh_cases(Munge(x), DeepNet([D, 5, C], seed=4)),
        fresh_cases(Munge(x)), None,
    ]  # fmt: skip
    for other in others:
        with pytest.raises(ValueError, match=r"resume: .* the checkpoint has augment = .*fresh_cases\(Munge"):
            resumed(other)


@pytest.mark.parametrize("sigma", [0.5, np.array([0.0, 1.0, 2.0])])
def test_noise_is_added_as_it_is_drawn(sigma):
    x = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    want = x + np.asarray(sigma, np.float32) * np.random.default_rng(4).standard_normal((9, 3), dtype=np.float32)
    np.testing.assert_array_equal(pm.Noise(sigma)(x, np.random.default_rng(4)), want)
