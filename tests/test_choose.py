"""MUNGE's p and s by small students: the pair whose rows teach best, and what is refused."""

import numpy as np
import pytest

from pymimic import LabelledSet, TransferSet, choose_munge, from_callable

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
        ({"logits": ((0.0,),)}, TypeError, "logits: expected a NumPy array"),
        ({"validation": LabelledSet(np.zeros((2, 5), np.float32), np.zeros(2, int), 3)}, ValueError, "validation: expected 4 inputs"),
        ({"teacher": len}, TypeError, "teacher: expected a teacher"),
        ({"discrete": [7]}, ValueError, "discrete: expected an int"),
        ({"copies": 0}, ValueError, "copies: expected an int in"),
        ({"epochs": 0}, ValueError, "epochs: expected an int in"),
        ({"hidden": 0}, ValueError, "hidden: expected an int in"),
        ({"learning_rate": 0}, ValueError, "learning_rate: expected a number above 0"),
        ({"seed": -1}, ValueError, "seed: expected an int in"),
        ({"logits": np.zeros((20, 4), np.float32)}, ValueError, r"logits: expected shape \(N, C\) = \(20, 3\), got \(20, 4\)"),
        ({"logits": np.full((20, 3), np.nan)}, ValueError, "logits: expected finite values, got nan in row 0"),
        ({"grid": [(0.2,)]}, TypeError, r"grid: expected pairs \(p, s\), got \(0.2,\) among them"),
        ({"grid": [0.1, 0.2]}, TypeError, r"grid: expected pairs \(p, s\), got 0.1 among them"),
        ({"grid": ["ab"]}, TypeError, r"grid: expected pairs \(p, s\), got 'ab' among them"),
        ({"grid": [(0.1, [5, 6])]}, TypeError, "grid: "),
        ({"grid": [("a", 5)]}, TypeError, "grid: p: expected a number, got str"),
        ({"grid": [(0.1, 1e-50)]}, ValueError, "grid: s: expected a number above 0 as float32"),
        ({"grid": 5}, TypeError, r"grid: expected a sequence of pairs \(p, s\), got int"),
        ({"progress": "no"}, TypeError, "progress: expected True or False, got str"),
        ({"validation": (rows(20, 1), np.zeros(20, int))}, TypeError, "validation: expected a TransferSet, a LabelledSet"),
        ({"validation": LabelledSet(rows(0, 1), np.zeros(0, int), 3)}, ValueError, "validation: expected at least one row"),
        (
            {"validation": LabelledSet(rows(5, 1), np.zeros(5, int), 1)},
            ValueError,
            "validation: expected at least two outputs, as accuracy",
        ),
        ({"validation": TransferSet(rows(5, 1), rows(5, 2)[:, :1])}, ValueError, "validation: expected at least two outputs, as accuracy"),
    ],
)
def test_refusals_before_the_teacher_is_asked(changes, error, message):
    asked = []
    teacher = from_callable(lambda x: asked.append(x) or TEACHER.logits(x))
    arguments = {"teacher": teacher, "x": rows(20, 0), "validation": labelled(rows(20, 1)), **SMALL} | changes
    with pytest.raises(error, match=message):
        choose_munge(**arguments)
    assert asked == []


def test_a_teacher_of_other_outputs_is_refused_at_its_first_answer():
    with pytest.raises(ValueError, match="teacher: expected 2 columns, as validation has outputs, got 3"):
        choose_munge(TEACHER, rows(20, 0), LabelledSet(rows(20, 1), np.zeros(20, int), 2), **SMALL)
