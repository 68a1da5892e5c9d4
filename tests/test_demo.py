"""The demo on tiny recipes: what it reports, that it follows from its seed, and that its figures are what they say."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from pymimic import ConvNet, Convolution, DeepNet, Noise, Student
from pymimic.demo import datasets, measure, recipes, report, run, run_demo
from pymimic.demo.students import Training
from pymimic.demo.teachers import ConvRecipe, DeepRecipe, ForestAndSvcRecipe

LABELS, MIMIC = Training("cross_entropy", 1e-2, 4, 64), Training("mimic", 1e-2, 4, 64)
WAYS = {
    "labels": recipes.Way("on labels", "labels", (LABELS, replace(LABELS, learning_rate=1e-4))),
    "regularised": recipes.Way("on labels, noise", "labels of generated", (replace(LABELS, dropout=0.3, augment=Noise(0.2)),)),
    "munge": recipes.Way("mimic, MUNGE", "generated", (MIMIC,)),
    "mimic": recipes.Way("mimic", "unlabelled", (MIMIC,)),
    "true": recipes.Way("control", "true labels", (LABELS,)),
    "hard": recipes.Way("control, too", "teacher's choices", (LABELS,)),
}
CONV = ConvRecipe(convolutions=(Convolution(8, 5, 2), Convolution(8, 3, 2)), epochs=3, nets=2)
TINY = recipes.Recipe(64, None, CONV, recipes.Munged(2, 0.5, 10.0), WAYS)
TEACHERS = {
    "convolutions": TINY,
    "deep": replace(TINY, rank=16, teacher=DeepRecipe(hidden=(48,), epochs=3), folds=2),
    "forest": replace(TINY, teacher=ForestAndSvcRecipe(trees=7)),
}


def few_rows(name, folder, seed):
    """MNIST-1D with few rows."""
    data = datasets.mnist1d(seed)
    counts = {"train": 400, "validation": 200, "test": 360, "unlabelled": 900}
    return replace(data, **{part: datasets.Rows(*(array[:count] for array in getattr(data, part))) for part, count in counts.items()})


def tiny(how=TINY, seed=0, **more):
    """A demo of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "recipe", lambda name, fast: how)
        patch.setattr(datasets, "load", few_rows)
        return run_demo("mnist1d", seed=seed, **more)


@pytest.fixture(scope="module")
def results():
    """Of each tiny recipe with seed 0, once for all who only read them."""
    return {name: tiny(how) for name, how in TEACHERS.items()}


@pytest.fixture
def result(results):
    return results["convolutions"]


def figures(result):
    """All that must follow from the seed."""
    return [(m.size, m.rows, m.accuracy, m.agreement, m.curve, m.validation_accuracy) for m in result.models.values()]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name == "convolutions" else ()) for name in TEACHERS])
def test_everything_follows_from_the_seed(results, name):
    first, again, other = results[name], tiny(TEACHERS[name]), tiny(TEACHERS[name], 5)
    assert figures(first) == figures(again) != figures(other)
    for name, array in first.student.arrays().items():
        assert np.array_equal(array, again.student.arrays()[name])


def test_json_plot_and_student_are_as_documented(tmp_path, capsys):
    result = tiny(by_cases=True)
    report.write_json(result, tmp_path / "d.json")
    report.draw(result, tmp_path / "d.png")
    report.show(result)
    written = json.loads((tmp_path / "d.json").read_text())
    assert list(written) == ["data", "seed", "rows", "backend", "seconds", "models", "by_cases"]
    assert written["rows"] == {"labelled": 400, "validation": 200, "test": 360}
    assert list(written["models"]) == ["teacher", *WAYS]
    assert [model["rows"] for model in written["models"].values()] == [400, 400, 1200, 1200, 900, 900, 900]
    assert list(written["by_cases"]) == ["400", "800", "1200"]
    assert written["by_cases"]["1200"] == written["models"]["munge"]["accuracy"]
    kinds = {
        "title": str, "rows": int, "size": dict, "accuracy": float, "error": float, "agreement": float, "us_per_row": float,
        "train_seconds": float, "validation_accuracy": float, "curve": list,
    }  # fmt: skip
    for model in written["models"].values():
        assert {key: type(value) for key, value in model.items()} == kinds
        assert model["us_per_row"] > 0
        assert model["error"] == pytest.approx(math.sqrt(model["accuracy"] * (1 - model["accuracy"]) / 360))
        assert model["size"]["bytes"] < model["size"]["file_bytes"]
    assert written["models"]["teacher"]["agreement"] == 1
    assert (tmp_path / "d.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.json", "d.png"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:5] == ["model", "rows", "accuracy", "%", "+-"]
    assert [line[:8].rstrip() for line in lines[2:5]] == ["teacher:", "on label", "on label"]

    result.student.save(tmp_path / "s.safetensors")
    test = few_rows("mnist1d", None, run.Seeds.of(0).split).test
    predicted = Student.load(tmp_path / "s.safetensors").predict(test.x).argmax(axis=1)
    assert written["models"]["mimic"]["accuracy"] == np.mean(predicted == test.labels)
    size = written["models"]["mimic"]["size"]
    assert size["file_bytes"] == (tmp_path / "s.safetensors").stat().st_size
    assert size["multiply_adds"] == 40 * 64 + 64 * 10
    assert size["parameters"] == size["multiply_adds"] + 64 + 10
    assert size["bytes"] == 4 * (size["parameters"] + 2 * 40)


def test_multiply_adds_are_counted_layer_by_layer():
    assert DeepNet([40, 7, 10]).multiply_adds == 40 * 7 + 7 * 10
    assert Student(40, 64, 10, rank=5).multiply_adds == 40 * 5 + 5 * 64 + 64 * 10
    net = ConvNet((1, 40), [Convolution(8, 5, 2, 2), Convolution(6, 3, 2)], 10, hidden=[9])  # 20 and 9 places
    assert net.multiply_adds == 20 * 8 * 5 + 9 * 6 * 3 * 8 + 9 * 6 * 9 + 9 * 10
    image = ConvNet((3, 10, 8), [Convolution(4, 3, 1, 1)], 2)
    assert image.multiply_adds == 80 * 4 * 27 + 80 * 4 * 2


@pytest.mark.parametrize("width", [80, 50])
def test_the_table_on_a_terminal_has_every_number_whole(result, capsys, monkeypatch, width):
    size = measure.Size(12_345_678, 112_345_678, 212_345_678, 312_345_678)
    models = {key: replace(model, size=size, train_seconds=12345.6, us_per_row=1234.5) for key, model in result.models.items()}
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    report.show(replace(result, models=models))
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith((" model", *(f" {model.title}" for model in models.values())))]
    assert all(len(line) <= width for line in table)
    cells = " ".join(table).split()
    for number in ("12,345,678", "112,345,678", "212,345,678", "12345.6", "1234.5"):
        assert cells.count(number) == len(models)


def test_the_best_of_the_trainings_is_chosen_on_validation_rows(result):
    one = {"labels": replace(WAYS["labels"], trainings=WAYS["labels"].trainings[1:]), "mimic": WAYS["mimic"]}
    poor = tiny(replace(TINY, students=one))
    assert result.models["labels"].validation_accuracy > poor.models["labels"].validation_accuracy
    assert result.models["mimic"].curve == poor.models["mimic"].curve


def test_a_forest_has_no_parameter_count_and_is_counted_compactly(results):
    import pickle

    data = few_rows("mnist1d", None, 0)
    fitted = ForestAndSvcRecipe(trees=3)(data, data.train, 1)
    forest, svc = (member._function.estimator for member in fitted.teacher.members)

    def tree_bytes(tree, node=0):
        if tree.children_left[node] == -1:
            return 4 * 10
        return 14 + tree_bytes(tree, tree.children_left[node]) + tree_bytes(tree, tree.children_right[node])

    (inner,) = svc.calibrated_classifiers_
    vectors = len(inner.estimator.support_)
    numbers = vectors * 40 + vectors * 9 + 45 + 2 * 10  # vectors, dual coefficients, intercepts of 45 pairs, sigmoids
    assert fitted.size.bytes == sum(tree_bytes(tree.tree_) for tree in forest.estimators_) + 4 * numbers
    assert fitted.size.file_bytes == len(pickle.dumps([forest, svc], protocol=5))
    assert fitted.size.parameters is fitted.size.multiply_adds is None
    assert fitted.curve == []
    assert results["forest"].models["teacher"].size.parameters is None


@pytest.mark.parametrize(
    ("mimic", "says"),
    [
        (0.96, '"mimic" is 16.00 points better than "on labels, noise" (96.00 % against 80.00 %): 6 standard errors.'),
        (0.64, '"mimic" is 16.00 points WORSE than "on labels, noise" (64.00 % against 80.00 %): 6 standard errors.'),
        (0.81, '"mimic" and "on labels, noise" cannot be told apart: 81.00 % against 80.00 %, standard error 2.83 points.'),
    ],
)
def test_the_closing_sentences_are_honest(result, mimic, says):
    models = {key: replace(model, error=0.02) for key, model in result.models.items()}
    accuracy = {"teacher": 0.9, "labels": 0.99, "regularised": 0.8, "mimic": mimic, "true": 0.9}
    models |= {key: replace(models[key], accuracy=value, validation_accuracy=0.5) for key, value in accuracy.items()}
    models["regularised"] = replace(models["regularised"], validation_accuracy=0.6)  # which chooses it
    said = report.verdict(replace(result, models=models))
    assert said.startswith(says)
    assert f"{abs(90 - 100 * mimic):.2f} points {'below' if mimic < 0.9 else 'above'} the teacher" in said
    assert ("wins nothing" in said) == (mimic < 0.905)
    assert "rows the net gets 90.00 %" in said


def test_the_legend_explains_the_lines_that_are_there(result):
    said = report.legend(result)
    assert {"+-", "us/row", "mimics", "MUNGE's", "controls", "teacher's"} == {line.split()[1] for line in said.splitlines()}
    few = report.legend(replace(result, models={key: result.models[key] for key in ("teacher", "labels", "mimic")}))
    assert {"+-", "us/row", "mimics"} == {line.split()[1] for line in few.splitlines()}


def test_the_time_is_the_fastest_of_many(monkeypatch):
    clock, calls = iter([0, 5, 5, 6, 6, 8, 8, 12]), []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock) / 10)
    rows = datasets.Rows(np.zeros((4, 2), np.float32), np.zeros(4, np.int64))
    assert measure.choices(lambda x: calls.append(1) or x, rows, 3)[1] == pytest.approx(1e5 / 4)
    assert len(calls) == 3


def test_a_slow_model_is_timed_less_often(monkeypatch):
    clock, calls = itertools.count(step=0.3), []  # seconds, at each look at it
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    measure.choices(lambda x: calls.append(1) or x, datasets.Rows(np.zeros((4, 2), np.float32), np.zeros(4, np.int64)))
    assert len(calls) == 4


def test_what_is_trained_is_named_by_its_line(capsys):
    tiny()
    assert 'training the shallow net of the line "on labels, noise": 1,200 rows' in capsys.readouterr().err


def test_every_set_has_both_recipes():
    for name in datasets.NAMES:
        full, fast = recipes.recipe(name, False), recipes.recipe(name, True)
        assert full.students["mimic"].trainings[0].epochs > fast.students["mimic"].trainings[0].epochs
        assert full.rank == fast.rank
        assert {"labels", "mimic"} <= set(fast.students) <= set(full.students)
    assert (recipes.recipe("letter", False).hidden, recipes.recipe("letter", False).rank) == (1024, None)
    assert (recipes.recipe("mnist", False).hidden, recipes.recipe("mnist", False).rank) == (8192, 64)


def test_seeds_are_independent_streams_of_one():
    seeds = run.Seeds.of(0)
    assert len(set(seeds)) == len(seeds)
    assert run.Seeds.of(0) == seeds
    assert not set(run.Seeds.of(1)) & set(seeds)
