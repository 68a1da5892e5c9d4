"""MUNGE's p and s by small students: the pair whose rows teach best, and what is refused."""

import numpy as np
import pytest

from pymimic import LabelledSet, choose_munge, from_callable

DIRECTIONS = np.random.default_rng(9).standard_normal((4, 3)).astype(np.float32)
TEACHER = from_callable(lambda x: 8 * np.sin(2 * x @ DIRECTIONS), "waves")
SMALL = {"copies": 4, "hidden": 64, "epochs": 8, "progress": False}


def rows(count, seed):
    return np.random.default_rng(seed).random((count, 4), np.float32)


def labelled(x):
    return LabelledSet(x, TEACHER.logits(x).argmax(axis=1), 3)


def test_the_pair_whose_students_are_best_on_validation_rows_is_chosen():
    x, validation = rows(200, 0), labelled(rows(400, 1))
    grid = ((0.9, 0.02), (0.2, 5.0), (np.float32(0.0), 1))  # far from the data, near it, and no new rows
    chosen = choose_munge(TEACHER, x, validation, grid=grid, **SMALL)
    assert list(chosen.accuracies) == [(0.9, 0.02), (0.2, 5.0), (0.0, 1.0)]
    assert (chosen.p, chosen.s) == max(chosen.accuracies, key=chosen.accuracies.get)
    assert chosen.accuracies[0.2, 5.0] > chosen.accuracies[0.9, 0.02] + 0.1
    assert chosen == choose_munge(TEACHER, x.astype(float), validation, grid=grid, **SMALL)


def test_the_rows_own_logits_are_those_that_are_given():
    x, validation = rows(200, 0), labelled(rows(400, 1))
    pair = {"grid": [(0.0, 1.0)], **SMALL}
    asked = choose_munge(TEACHER, x, validation, **pair)
    moved = TEACHER.logits(x) + 100 * rows(200, 2)[:, :1]  # which no softmax sees
    assert choose_munge(TEACHER, x, validation, logits=moved, **pair).accuracies[0, 1] == pytest.approx(asked.accuracies[0, 1], abs=0.02)
    assert choose_munge(TEACHER, x, validation, logits=-40 * TEACHER.logits(x), **pair).accuracies[0, 1] < asked.accuracies[0, 1] - 0.05


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"grid": []}, ValueError, "grid: expected at least one pair"),
        ({"grid": [(2, 1)]}, ValueError, "p: expected a probability"),
        ({"grid": [(0.2, 0)]}, ValueError, "s: expected a number above 0"),
        ({"x": np.zeros((3, 2), int)}, TypeError, "x: expected dtype"),
        ({"logits": np.zeros((3, 3), np.float32)}, ValueError, "logits: expected shape"),
        ({"logits": np.zeros(20, np.float32)}, ValueError, "logits: expected shape"),
        ({"logits": [[0.0]]}, TypeError, "logits: expected a NumPy array"),
        ({"validation": LabelledSet(np.zeros((2, 5), np.float32), np.zeros(2, int), 3)}, ValueError, "validation: expected 4 inputs"),
        ({"logits": np.zeros((20, 4), np.float32)}, ValueError, r"logits: expected shape \(N, C\) = \(20, 3\), got \(20, 4\)"),
        ({"grid": [(0.2,)]}, TypeError, r"grid: expected pairs \(p, s\), got \(0.2,\)"),
        ({"grid": [0.1, 0.2]}, TypeError, r"grid: expected pairs \(p, s\), got 0.1"),
        ({"grid": 5}, TypeError, "grid: expected a sequence of pairs"),
        ({"grid": [(0.2, 5), ("a", 5)]}, TypeError, "p: expected a number, got str"),
        ({"copies": 0}, ValueError, "copies: expected an int in"),
        ({"epochs": 0}, ValueError, "epochs: expected an int in"),
        ({"hidden": 0}, ValueError, "hidden: expected an int in"),
        ({"learning_rate": -1}, ValueError, "learning_rate: expected a number"),
        ({"progress": "no"}, TypeError, "progress: expected True or False"),
        ({"x": rows(0, 0)}, ValueError, "x: expected at least one row, got none"),
        ({"validation": (rows(20, 0), rows(20, 1))}, TypeError, "validation: expected a TransferSet, a LabelledSet"),
        ({"teacher": len}, TypeError, "teacher: expected a teacher"),
        ({"discrete": [7]}, ValueError, "discrete: expected an int"),
    ],
)
def test_refusals(changes, error, message):
    arguments = {"teacher": TEACHER, "x": rows(20, 0), "validation": labelled(rows(20, 1)), **SMALL} | changes
    with pytest.raises(error, match=message):
        choose_munge(**arguments)


@pytest.mark.parametrize(
    "changes", [{"validation": rows(20, 1)}, {"grid": [(0.2, 5), (2, 1)]}, {"epochs": 0}, {"discrete": [7]}, {"progress": 1}]
)
def test_what_is_refused_costs_one_answer_at_most(changes):
    asked = []
    teacher = from_callable(lambda x: asked.append(len(x)) or TEACHER.logits(x), "noted")
    arguments = {"x": rows(20, 0), "validation": labelled(rows(20, 1)), **SMALL} | changes
    with pytest.raises((TypeError, ValueError)):
        choose_munge(teacher, **arguments)
    assert sum(asked) <= 1
