"""The demo on tiny recipes: what it reports, that it follows from its seed, and that its figures are what they say."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pymimic import Deform, Student, copies
from pymimic.demo import datasets, recipes, report, run, run_demo
from pymimic.demo.teachers import DeepRecipe, ForestAndSvcRecipe

TINY = recipes.Recipe(
    hidden=64, rank=16, teacher=DeepRecipe((48,), epochs=5, nets=2, batch_size=64), folds=2, generate=recipes.Munge(2, 0.2, 5.0),
    labels=(recipes.Training(1e-2, 4, 64), recipes.Training(1e-4, 4, 64)), mimic=recipes.Training(1e-2, 4, 64),
)  # fmt: skip
TINY_FOREST = replace(TINY, rank=None, teacher=ForestAndSvcRecipe(trees=7))


@pytest.fixture
def tiny(monkeypatch):
    """A demo of a few seconds, with that recipe or another."""

    def start(how=TINY, seed=0):
        monkeypatch.setattr(run, "recipe", lambda name, fast: how)
        return run_demo("digits", seed=seed)

    return start


@pytest.fixture(scope="module")
def results():
    """Of both tiny recipes with seed 0, once for all who only read them."""
    made = {}
    for name, how in (("deep", TINY), ("forest", TINY_FOREST)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "recipe", lambda name, fast, how=how: how)
            made[name] = run_demo("digits", seed=0)
    return made


@pytest.fixture
def result(results):
    return results["deep"]


def figures(result):
    """All that must follow from the seed."""
    return [(m.parameters, m.accuracy, m.agreement, m.curve, m.validation_accuracy) for m in result.models.values()]


@pytest.mark.parametrize(("teacher", "how"), [("deep", TINY), ("forest", TINY_FOREST)])
def test_everything_follows_from_the_seed(results, tiny, teacher, how):
    first, again, other = results[teacher], tiny(how), tiny(how, 5)
    assert figures(first) == figures(again) != figures(other)
    for name, array in first.student.arrays().items():
        assert np.array_equal(array, again.student.arrays()[name])


def test_json_plot_and_student_are_as_documented(result, tmp_path, capsys):
    report.write_json(result, tmp_path / "d.json")
    report.draw(result, tmp_path / "d.png")
    report.show(result)
    written = json.loads((tmp_path / "d.json").read_text())
    assert list(written) == ["data", "seed", "rows", "models", "backend", "seconds"]
    assert written["rows"] == {"train": 1077, "transfer": 3 * 1077, "validation": 360, "test": 360}
    assert list(written["models"]) == ["teacher", "shallow", "mimic"]
    kinds = {
        "parameters": int, "bytes": int, "bytes_compact": int, "accuracy": float, "agreement": float, "train_seconds": float,
        "us_per_row": float,
    }  # fmt: skip
    for model in written["models"].values():
        assert {key: type(value) for key, value in model.items()} == kinds
        assert model["us_per_row"] > 0
        assert model["bytes_compact"] < model["bytes"]
    assert written["models"]["teacher"]["agreement"] == 1
    assert (tmp_path / "d.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.json", "d.png"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["model", "parameters", "bytes", "compact", "accuracy", "agreement", "training", "s", "us/row"]
    assert [line[:8] for line in lines[2:5]] == ["teacher ", "shallow ", "shallow "]

    result.student.save(tmp_path / "s.safetensors")
    test = datasets.digits(run.Seeds.of(0).split).test
    predicted = Student.load(tmp_path / "s.safetensors").predict(test.x).argmax(axis=1)
    assert written["models"]["mimic"]["accuracy"] == np.mean(predicted == test.labels)
    assert written["models"]["mimic"]["bytes"] == (tmp_path / "s.safetensors").stat().st_size
    assert written["models"]["mimic"]["parameters"] == 16 * 64 + 64 * 16 + 64 + 64 * 10 + 10


@pytest.mark.parametrize("width", [80, 50])
def test_the_table_on_a_terminal_has_every_number_whole(result, capsys, monkeypatch, width):
    models = {
        name: replace(model, parameters=12_345_678, bytes=112_345_678, bytes_compact=212_345_678, train_seconds=12345.6, us_per_row=1234.5)
        for name, model in result.models.items()
    }
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    report.show(replace(result, models=models))
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith((" model", " teacher", " shallow"))]
    assert all(len(line) <= width for line in table)
    cells = " ".join(table).split()
    for number in ("12,345,678", "112,345,678", "212,345,678", "12345.6", "1234.5"):
        assert cells.count(number) == 3


def test_the_best_of_the_ways_on_labels_is_chosen_on_validation_rows(result, tiny):
    both, poor = result, tiny(replace(TINY, labels=TINY.labels[1:]))
    good = tiny(replace(TINY, labels=TINY.labels[:1]))
    assert good.models["shallow"].validation_accuracy > poor.models["shallow"].validation_accuracy
    assert both.models["shallow"].curve == good.models["shallow"].curve


def test_a_forest_has_no_parameter_count_and_is_counted_compactly(results):
    import pickle

    data = datasets.digits(0)
    fitted = ForestAndSvcRecipe(trees=3)(data.train, data.validation, 10, 1)
    forest, svc = (member._function.estimator for member in fitted.teacher.members)

    def tree_bytes(tree, node=0):
        if tree.children_left[node] == -1:
            return 4 * 10
        return 14 + tree_bytes(tree, tree.children_left[node]) + tree_bytes(tree, tree.children_right[node])

    (inner,) = svc.calibrated_classifiers_
    vectors = len(inner.estimator.support_)
    numbers = vectors * 64 + vectors * 9 + 45 + 2 * 10  # vectors, dual coefficients, intercepts of 45 pairs, sigmoids
    assert fitted.bytes_compact == sum(tree_bytes(tree.tree_) for tree in forest.estimators_) + 4 * numbers
    assert fitted.bytes == len(pickle.dumps([forest, svc], protocol=5))
    assert fitted.parameters is None
    assert fitted.curve == []
    assert results["forest"].models["teacher"].parameters is None


@pytest.mark.parametrize(
    ("mimic", "says"),
    [
        (0.95, "As a mimic the net is 5.00 points better than the same net on labels (95.00 % against 90.00 %, 18 of 360 test rows)"),
        (0.85, "Here the mimic lost: it is 5.00 points worse than the same net on labels (85.00 % against 90.00 %, 18 of 360 test rows)"),
        (0.90, "Here nothing was won"),
    ],
)
def test_the_closing_sentence_is_honest(result, mimic, says):
    models = result.models
    models = {
        "teacher": replace(models["teacher"], accuracy=0.92), "shallow": replace(models["shallow"], accuracy=0.9),
        "mimic": replace(models["mimic"], accuracy=mimic),
    }  # fmt: skip
    said = report.verdict(replace(result, models=models))
    assert said.startswith(says)
    assert f"{abs(92 - 100 * mimic):.2f} points {'below' if mimic < 0.92 else 'above'} the teacher" in said


def test_every_set_has_both_recipes():
    for name in ("digits", "letter", "mnist"):
        full, fast = recipes.recipe(name, False), recipes.recipe(name, True)
        assert full.mimic.epochs > fast.mimic.epochs
        assert full.rank == fast.rank
    with pytest.raises(ValueError, match="data: expected one of digits, letter, mnist, got 'mnist1d'"):
        recipes.recipe("mnist1d", False)
    assert (recipes.recipe("letter", False).hidden, recipes.recipe("letter", False).rank) == (1024, None)
    assert (recipes.recipe("mnist", False).hidden, recipes.recipe("mnist", False).rank) == (8192, 64)


def test_seeds_are_independent_streams_of_one():
    seeds = run.Seeds.of(0)
    assert len(set(seeds)) == len(seeds)
    assert run.Seeds.of(0) == seeds
    assert not set(run.Seeds.of(1)) & set(seeds)


def test_new_images_come_from_a_deform_of_their_size():
    x = np.random.default_rng(0).random((5, 81), np.float32)
    first, second = recipes.Deform(2, degrees=10, stretch=0.1, shift=1)(x, 3)
    assert np.array_equal(first, next(copies(Deform(9, 10, 0.1, 1, elastic=0), x, 1, seed=3)))
    assert not np.array_equal(first, second)
