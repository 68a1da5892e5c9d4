"""The paper's experiments: every run is kept at once, an interrupted experiment goes on, and the test rows are opened at the end."""

import csv
import html
import os
import re
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

import pymimic
from pymimic import ConvNet, Convolution, DeepNet, Noise, Student, from_callable
from pymimic.data.locks import alone
from pymimic.demo import datasets
from pymimic.demo.measure import accuracy_of, choices
from pymimic.demo.students import Trained
from pymimic.demo.teachers import ConvRecipe, DeepRecipe, ForestRecipe
from pymimic.paper import cases, experiment, ledger, mnist1d, report, run, run_paper, table
from pymimic.paper.answers import answers
from pymimic.paper.cases import copies_in
from pymimic.paper.claims import reproduced
from pymimic.paper.compress import CompressLetter, CompressMNIST
from pymimic.paper.figures import Figures
from pymimic.paper.letter import Letter
from pymimic.paper.mnist import MNIST
from pymimic.paper.mnist1d import MNIST1D, rolled
from pymimic.paper.teachers import Kept, Together


def blobs(name, inputs, outputs, rows=60):
    """A set of that shape whose classes lie apart."""
    rng = np.random.default_rng(0)
    centres = rng.random((outputs, inputs), np.float32)

    def part(count):
        labels = rng.permutation(np.arange(count) % outputs)
        return datasets.Rows(np.clip(centres[labels] + 0.1 * rng.standard_normal((count, inputs), np.float32), 0, 1), labels)

    return datasets.Dataset(name, outputs, part(rows), part(rows), part(rows), part(rows))


class Few(MNIST1D):
    """Three runs of some milliseconds."""

    def data(self, seed):
        return blobs(self.name, 40, 10, 500)

    def setting(self, seed):
        setting = super().setting(seed)
        teacher = ConvRecipe(convolutions=(Convolution(4, 5, 4),), epochs=10)
        setting.how = replace(setting.how, hidden=32, teacher=self.kept(teacher))
        return setting

    def runs(self):
        return [one for one in super().runs() if one.part == "MUNGE" or one.name == "labels"]


PLANTED = [
    "report.html", "mnist1d-fast.csv", "mnist1d-fast-MUNGE.png", "mnist1d-fast-test-rows-opened.txt",
    "nets/mnist1d-fast/0-MUNGE-labels.safetensors",
]  # fmt: skip


FIGURES = {"rows": 3, "net": "student", "bytes": 8, "made_by": "m", "cpu_seconds": 0.123456789, "validation_accuracy": 0.5}


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(run, "_EXPERIMENTS", (Few,))


def lines(folder):
    with (folder / "mnist1d-fast.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def figures(folder):
    """All that follows from the seeds."""
    return [{column: value for column, value in line.items() if column != "cpu_seconds"} for line in lines(folder)]


@pytest.mark.usefixtures("few")
def test_an_interrupted_experiment_goes_on_to_the_same_figures(tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    page = run_paper("mnist1d", whole, seeds=2, fast=True)
    done = []

    def stop_at_the_fourth(self, *arguments, _add=ledger.Ledger.add):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        _add(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "add", stop_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            run_paper("mnist1d", parts, seeds=2, fast=True)
    assert [line["test_accuracy"] for line in lines(parts)] == [""] * 3
    assert not (parts / "mnist1d-fast-test-rows-opened.txt").exists()
    run_paper("mnist1d", parts, seeds=2, fast=True)
    assert figures(parts) == figures(whole)
    assert len(lines(whole)) == 2 * 4
    assert "opened after others" not in page.read_text()


@pytest.mark.usefixtures("few")
def test_a_second_look_at_test_rows_is_said(tmp_path):
    run_paper("mnist1d", tmp_path, seeds=1, fast=True)
    first = lines(tmp_path)
    page = run_paper("mnist1d", tmp_path, seeds=1, fast=True)  # nothing is left to do
    assert lines(tmp_path) == first
    assert "opened after others" not in page.read_text()
    page = run_paper("mnist1d", tmp_path, seeds=2, fast=True)
    assert lines(tmp_path)[:4] == first
    assert "opened after others had been seen: 1 times before the last" in page.read_text()
    assert len((tmp_path / "mnist1d-fast-test-rows-opened.txt").read_text().splitlines()) == 2


@pytest.mark.usefixtures("few")
def test_runs_of_another_version_or_machine_are_said(tmp_path, monkeypatch):
    page = run_paper("mnist1d", tmp_path, seeds=1, fast=True)
    here = lines(tmp_path)[0]["made_by"]
    assert re.fullmatch(rf"pymimic {re.escape(pymimic.__version__)}, .+, \d+ threads?", here)
    assert f'<p class="note">Made by {html.escape(here)}.</p>' in page.read_text()
    monkeypatch.setattr(experiment, "made_by", lambda device: f"pymimic 9.9, another, 3 threads, {device}")
    page = run_paper("mnist1d", tmp_path, seeds=2, fast=True)
    assert [line["made_by"] == here for line in lines(tmp_path)] == [True] * 4 + [False] * 4
    both = f"Made by {html.escape(here)} (4 of 8 runs); pymimic 9.9, another, 3 threads, cpu (4 of 8 runs)."
    assert both in page.read_text()
    monkeypatch.setattr(experiment, "made_by", None)  # where nothing is left to do, nobody asks for the machine
    run_paper("mnist1d", tmp_path, seeds=2, fast=True)


@pytest.mark.usefixtures("few")
def test_a_table_without_version_and_machine_goes_on(tmp_path):
    run_paper("mnist1d", tmp_path, seeds=1, fast=True)
    before, path = lines(tmp_path), tmp_path / "mnist1d-fast.csv"
    columns = [column for column in before[0] if column != "made_by"]
    path.write_bytes(table.written([{column: line[column] for column in columns} for line in before], columns).encode())
    page = run_paper("mnist1d", tmp_path, seeds=2, fast=True).read_text()
    earlier = "an earlier version, on an unknown machine"
    assert lines(tmp_path)[:4] == [line | {"made_by": earlier} for line in before]
    assert f"Made by {earlier} (4 of 8 runs); {html.escape(before[0]['made_by'])} (4 of 8 runs)." in page
    with pytest.raises(ValueError, match="expected the columns"):
        table.read(path, [*table.COLUMNS, "even classes"], ("student",))


@pytest.mark.usefixtures("few")
def test_of_an_experiment_without_runs_the_report_names_no_machine(tmp_path):
    (tmp_path / "mnist1d-fast.csv").write_bytes(table.written([], table.COLUMNS).encode())
    assert "Made by" not in " ".join(report.section(Few(tmp_path, True, "cpu", None)).notes)


@pytest.mark.usefixtures("few")
def test_an_experiment_that_another_process_runs_is_refused_before_any_work(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    with ledger.held(tmp_path, "mnist1d-fast"), monkeypatch.context() as patch:
        patch.setattr(Few, "setting", None)  # nothing is trained
        with pytest.raises(
            BlockingIOError, match="out: expected a folder in which nobody else runs mnist1d-fast, got one in use"
        ) as caught:
            run_paper("mnist1d", tmp_path, seeds=1, fast=True)
    assert caught.value.filename == str(tmp_path)
    run_paper("mnist1d", tmp_path, seeds=1, fast=True)  # the lock is gone
    assert len(lines(tmp_path)) == 4


def test_another_experiment_runs_beside_one_in_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_EXPERIMENTS", (Few, Letter))
    ledger.Ledger(tmp_path, "letter-fast").add(0, "teacher", "teacher", None, FIGURES | {"net": None}, None)
    with ledger.held(tmp_path, "letter-fast"):
        page = run_paper("mnist1d", tmp_path, seeds=1, fast=True)
    assert "UCI Letter" in page.read_text()  # it is read for the report


@pytest.mark.usefixtures("few")
def test_every_run_is_noted_while_others_are_kept_out(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    noted = []

    def try_to_hold(self, _write=ledger.Ledger._write):
        with pytest.raises(BlockingIOError), ledger.held(self.folder, self.name):
            pass
        noted.append(1)
        _write(self)

    monkeypatch.setattr(ledger.Ledger, "_write", try_to_hold)
    run_paper("mnist1d", tmp_path, seeds=1, fast=True)
    assert len(noted) == 2 * 4  # runs, then figures on test rows


def test_what_takes_long_has_one_seed(tmp_path, monkeypatch):
    class Once(Few):
        def runs(self):
            return [replace(one, seeds=1 if one.part == "MUNGE" else None) for one in super().runs()]

    monkeypatch.setattr(run, "_EXPERIMENTS", (Once,))
    page = run_paper("mnist1d", tmp_path, seeds=2, fast=True).read_text()
    assert [(line["seed"], line["part"]) for line in lines(tmp_path)] == [
        ("0", "teacher"), ("0", "table"), ("0", "MUNGE"), ("0", "MUNGE"), ("1", "teacher"), ("1", "table"),
    ]  # fmt: skip
    assert re.search(r"<td>1 copy</td>\s*<td>1</td>", page)
    assert re.search(r"<td>labels</td>\s*<td>2</td>", page)


@pytest.mark.usefixtures("few")
def test_figures_are_those_of_the_nets(tmp_path):
    page = run_paper("mnist1d", tmp_path, seeds=2, fast=True).read_text()
    setting = Few(tmp_path, True, "cpu", None).setting(1)
    written = {(line["part"], line["name"], line["seed"]): line for line in lines(tmp_path)}
    teacher = written["teacher", "teacher", "1"]
    right, error = accuracy_of(choices(setting.fitted.teacher.logits, setting.data.test)[0], setting.data.test)
    assert float(teacher["test_accuracy"]) == pytest.approx(right)
    assert float(teacher["test_error"]) == pytest.approx(error, rel=1e-5)
    assert teacher["agreement"] == "1"
    munged = written["MUNGE", "1 copy", "1"]
    assert (munged["rows"], munged["value"], munged["hidden"], munged["rank"]) == ("1000", "8000", "32", "")
    both = [100 * float(written["MUNGE", "1 copy", seed]["test_accuracy"]) for seed in "01"]
    assert f"<td>{np.mean(both):.2f} ± {np.std(both, ddof=1):.2f}</td>" in page
    assert page.count("data:image/png;base64,") == 1
    assert (tmp_path / "mnist1d-fast-MUNGE.png").read_bytes()[:4] == b"\x89PNG"
    assert not re.search(r'(src|href)="(?!data:)', page)  # the page stands alone


@pytest.mark.parametrize("kind", run._EXPERIMENTS)
def test_no_two_runs_have_one_name(kind, tmp_path):
    for fast in (True, False):
        names = [(one.part, one.name) for one in kind(tmp_path, fast, "cpu", None).runs()]
        assert len(set(names)) == len(names) >= 2


@pytest.mark.parametrize(("kinds", "question"), [((Letter,), 5), ((MNIST,), 7), ((CompressLetter, CompressMNIST), 6)])
def test_experiments_on_files_run_to_their_end_and_answer(kinds, question, tmp_path, monkeypatch):
    sizes = {"letter": (16, 6), "mnist": (784, 3)}
    monkeypatch.setattr(experiment.Experiment, "data", lambda self, seed: blobs(self.source, *sizes[self.source]))
    page = run_paper(kinds[0].group, tmp_path, seeds=1, fast=True).read_text()
    for kind in kinds:
        with (tmp_path / f"{kind.name}-fast.csv").open(newline="") as file:
            written = list(csv.DictReader(file))
        runs = {(one.part, one.name) for one in kind(tmp_path, True, "cpu", None).runs()}
        assert {(line["part"], line["name"]) for line in written[1:]} == runs
        assert all(0 <= float(line["test_accuracy"]) <= 1 for line in written)
    assert re.search(f"<b>{question}\\. [^<]*</b><br>(?!Not measured)", page)
    assert "Not measured: pymimic paper mnist1d does it." in page


def test_a_kept_teacher_is_trained_once(tmp_path, monkeypatch):
    data, recipe = blobs("letter", 16, 4), DeepRecipe(hidden=(8,), epochs=1, nets=2)
    kept = Kept(recipe, tmp_path)
    first = kept(data, data.train, 3).teacher.logits(data.test.x)
    assert np.array_equal(first, recipe(data, data.train, 3).teacher.logits(data.test.x))
    other = kept(data, data.train, 4).teacher.logits(data.test.x)
    on_others = kept(data, data.validation, 3).teacher.logits(data.test.x)
    assert len({logits.tobytes() for logits in (first, other, on_others)}) == 3
    monkeypatch.setattr(DeepRecipe, "fit_one", None)  # is not called again
    assert np.array_equal(kept(data, data.train, 3).teacher.logits(data.test.x), first)
    assert np.array_equal(kept(data, data.train, 4).teacher.logits(data.test.x), other)


def test_of_two_processes_that_train_a_teacher_at_once_both_have_the_first(tmp_path, monkeypatch):
    data, recipe = blobs("letter", 16, 4), DeepRecipe(hidden=(8,), epochs=1)
    own, fit_one = DeepNet([16, 8, 4], seed=5), DeepRecipe.fit_one

    def while_another_does(self, *arguments):
        net = fit_one(self, *arguments)
        monkeypatch.setattr(DeepRecipe, "fit_one", lambda *_: own)
        first.append(Kept(recipe, tmp_path)(data, data.train, 3).teacher.logits(data.test.x))
        return net

    first = []
    monkeypatch.setattr(DeepRecipe, "fit_one", while_another_does)
    second = Kept(recipe, tmp_path)(data, data.train, 3).teacher.logits(data.test.x)
    assert np.array_equal(first[0], own.logits(data.test.x))
    assert np.array_equal(second, first[0])


def test_cases_that_another_process_labels_are_waited_for(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    x, teacher = np.random.default_rng(0).random((6, 4), np.float32), from_callable(lambda x: x[:, :2], "columns")
    expected = copies_in(tmp_path / "whole", teacher, Noise(0.0), x, 2, 0)
    waits = []
    with ExitStack() as stack:
        folder = tmp_path / "set"
        folder.mkdir()
        stack.enter_context(alone(folder))
        monkeypatch.setattr(cases.time, "sleep", lambda _: (waits.append(1), stack.close()) if len(waits) == 1 else waits.append(1))
        made = copies_in(folder, teacher, Noise(0.0), x, 2, 0)
    assert len(waits) == 2
    assert np.array_equal(made.batch(np.arange(12))[1], expected.batch(np.arange(12))[1])


def test_teachers_together_average_their_logits():
    data, recipes = blobs("letter", 16, 4), (DeepRecipe(hidden=(8,), epochs=2), ForestRecipe(5))
    both = Together(recipes)
    apart = [recipe(data, data.train, 1) for recipe in recipes]
    fitted = both(data, data.train, 1)
    assert np.allclose(fitted.teacher.logits(data.test.x), np.mean([one.teacher.logits(data.test.x) for one in apart], axis=0), atol=1e-5)
    assert fitted.size.bytes == sum(one.size.bytes for one in apart)
    assert fitted.title == "teacher: 1 deep net and trees"


def test_rolled_rows_are_rolls_of_the_rows():
    x = np.random.default_rng(0).random((300, 40), np.float32)
    shifts = [
        next(s for s in range(-20, 21) if np.array_equal(np.roll(row, s), new)) for row, new in zip(x, rolled(x, np.random.default_rng(1)))
    ]
    assert (min(shifts), max(shifts)) == (-20, 19)


def test_nets_of_equal_parameters_are_so_to_a_per_cent():
    wide, (deep, _) = mnist1d._WIDE, mnist1d._DEEP
    counts = [
        Student(40, 2048, 10).parameter_count,
        ConvNet((1, 40), wide, 10).parameter_count,
        DeepNet([40, *deep.hidden, 10]).parameter_count,
    ]
    assert max(counts) < 1.01 * min(counts)


class TestAnswers:
    """From lines that are made up."""

    def figures(self, *lines):
        columns = ("part", "name", "validation_accuracy", "test_accuracy", "bytes")
        made = [dict(zip(columns, map(str, line))) for line in lines]
        return Figures({"mnist1d": made, "letter": made})

    def test_a_mean_has_its_deviation_over_seeds(self):
        figures = self.figures(("table", "a", 0.5, 0.9, 1), ("table", "a", 0.5, 0.92, 1), ("table", "b", 0.5, 0.5, 1))
        assert str(figures.share("mnist1d", "table", "a")) == "91.00 ± 1.41 %"
        assert str(figures.share("mnist1d", "table", "b")) == "50.00 %"

    @pytest.mark.parametrize(("dropped", "answer"), [(0.95, "Yes."), (0.9012, "No."), (0.85, "No.")])
    def test_dropout_helps_only_beyond_two_standard_errors(self, dropped, answer):
        plain = [("table", "mimic, unlabelled rows", 0.9, 0.9 + e, 1) for e in (-0.001, 0.001)]
        with_dropout = [("dropout", "p = 0.1", 0.9, dropped + e, 1) for e in (-0.001, 0.001)]
        assert answers(self.figures(*plain, *with_dropout))[7].text.startswith(answer)

    def test_the_smallest_student_within_a_point_is_named_with_its_reduction(self):
        figures = self.figures(
            ("teacher", "teacher", 0.96, 0.96, 80_000_000), ("teachers", "one deep net", 0.95, 0.955, 1_000_000),
            ("width, mimic", "H = 64", 0.9, 0.945, 10_000), ("width, mimic", "H = 128", 0.9, 0.952, 20_000),
            ("width, mimic", "H = 256", 0.9, 0.953, 40_000),
        )  # fmt: skip
        text = answers(figures)[4].text
        assert "within 1 points H = 128, 95.20 %, 20 kB: 4,000:1, and 50:1 of one of the deep nets" in text
        assert "within 2 points H = 64, 94.50 %, 10 kB: 8,000:1" in text

    def test_what_was_not_run_is_said(self):
        said = answers(Figures({})) + reproduced(Figures({}))
        assert len(said) == 8 + 6
        assert all(re.fullmatch(r"Not measured: pymimic paper [\w-]+ does it\.", one.text) for one in said)

    def test_a_claim_that_fails_is_said_to_fail(self):
        lines = [("teachers", name, 0.9, share, 1) for name, share in (("one net", 0.9), ("one net without dropout", 0.95))]
        claim = next(one for one in reproduced(self.figures(*lines)) if one.question.startswith("Dropout"))
        assert claim.text.startswith(
            "Not reproduced: MNIST-1D, a convolutional net with and without 90.00 % against 95.00 %, a difference of -5.00"
        )


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"device: expected one of cpu, cuda, got 'tpu'"):
        run_paper("mnist1d", tmp_path, device="tpu")
    with pytest.raises(ValueError, match=r"which: expected one of mnist1d, letter, .*, timit, timit-synthetic, all, got 'cola'"):
        run_paper("cola", tmp_path)
    with pytest.raises(ValueError, match="seeds: expected an int in"):
        run_paper("mnist1d", tmp_path, seeds=0)
    with pytest.raises(ValueError, match="path: expected the folder with letter's files, got none"):
        run_paper("all", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "mnist1d.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"out: expected the columns seed, part.* in .*mnist1d.csv: choose"):
        run_paper("mnist1d", tmp_path)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "name",
    PLANTED,
)
@pytest.mark.parametrize("content", [b"mine", b"\xff\xfe\0\n\r", b"<!doctype html><p>mine"])
def test_files_of_other_kinds_are_not_overwritten(tmp_path, name, content, monkeypatch):
    monkeypatch.setattr(Few, "setting", None)  # nothing is trained
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^out: expected .*{re.escape(name)}"):
        run_paper("mnist1d", tmp_path, seeds=1, fast=True)
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.usefixtures("few")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes pipes")
@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_pipes_and_links_to_nothing_are_refused_before_the_work(tmp_path, name, kind, monkeypatch):
    monkeypatch.setattr(Few, "setting", None)  # nothing is trained
    place = tmp_path / "out" / name
    place.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"out: (expected a plain file|No such file)") as caught:
        run_paper("mnist1d", tmp_path / "out", seeds=1, fast=True)
    assert caught.value.filename == str(place)
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"jinja2.*pip install jinja2"):
        run_paper("mnist1d", tmp_path)


def test_names_are_escaped(tmp_path):
    part = report.Part("<b>", ("",), [["a < b"]], "")
    report.write(tmp_path / "r.html", Figures({}), [report.Section("t", [], [part])], "x & y")
    text = (tmp_path / "r.html").read_text()
    assert "a &lt; b" in text
    assert "x &amp; y" in text
    assert "<h3>&lt;b&gt;</h3>" in text


def test_experiments_stand_in_the_ledger_by_seed_part_and_name(tmp_path):
    book = ledger.Ledger(tmp_path, "x")
    book.add(0, "p", "n", 2.5, FIGURES, Trained(Student(2, 2, 2), [0.5], 0.5, 1.0, 1.0))
    assert ledger.Ledger(tmp_path, "x").has(0, "p", "n")
    assert not any(ledger.Ledger(tmp_path, "x").has(*key) for key in ((1, "p", "n"), (0, "q", "n"), (0, "p", "m")))
    assert book.lines[0]["cpu_seconds"] == "0.123457"
    assert table.TEACHER == "teacher"


def test_figures_of_an_experiments_own_stand_beside_accuracy(tmp_path, monkeypatch):
    class Counted(Few):
        more = ("even classes",)

        def measured(self, setting, net, logits):
            assert logits.shape == (len(setting.data.test.x), setting.data.outputs)
            return {"even classes": float(np.mean(logits.argmax(axis=1) % 2 == 0))}

    monkeypatch.setattr(run, "_EXPERIMENTS", (Counted,))
    page = run_paper("mnist1d", tmp_path, seeds=1, fast=True).read_text()
    book = ledger.Ledger(tmp_path, "mnist1d-fast", Counted.more)
    setting = Counted(tmp_path, True, "cpu", None).setting(0)
    for line in book.lines:
        net = book.net(line) or setting.fitted.teacher
        assert float(line["even classes"]) == pytest.approx(np.mean(net.logits(setting.data.test.x).argmax(axis=1) % 2 == 0), rel=1e-5)
    assert "<th>even classes %</th>" in page
    assert f"<td>{100 * float(book.lines[1]['even classes']):.2f}</td></tr>" in page
    with pytest.raises(ValueError, match=r"out: expected the columns .*, agreement in .*mnist1d-fast.csv: choose"):
        ledger.Ledger(tmp_path, "mnist1d-fast")


@pytest.mark.usefixtures("few")
def test_a_net_that_is_gone_before_test_rows_were_opened_is_trained_again(tmp_path, monkeypatch):
    run_paper("mnist1d", tmp_path / "whole", seeds=1, fast=True)
    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "open_test_rows", lambda *_: None)
        run_paper("mnist1d", tmp_path, seeds=1, fast=True)
    net = tmp_path / "nets" / "mnist1d-fast" / "0-MUNGE-1_copy.safetensors"
    net.unlink()
    run_paper("mnist1d", tmp_path, seeds=1, fast=True)
    assert net.exists()
    keys = ("part", "name", "test_accuracy", "agreement")
    assert sorted([line[key] for key in keys] for line in lines(tmp_path)) == sorted(
        [line[key] for key in keys] for line in lines(tmp_path / "whole")
    )


@pytest.mark.usefixtures("few")
def test_another_net_in_the_place_of_one_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "open_test_rows", lambda *_: None)
        run_paper("mnist1d", tmp_path, seeds=1, fast=True)
    for other, message in (
        (Student(40, 33, 10), "expected .* parameters, as mnist1d-fast.csv says, got"),
        (DeepNet([40, 8, 10]), "expected a student, as mnist1d-fast.csv says, got a deepnet"),
    ):
        other.save(tmp_path / "nets" / "mnist1d-fast" / "0-MUNGE-1_copy.safetensors")
        with pytest.raises(ValueError, match=rf"^out: '.*0-MUNGE-1_copy.safetensors': {message}"):
            run_paper("mnist1d", tmp_path, seeds=1, fast=True)
    assert not any(line["test_accuracy"] for line in lines(tmp_path) if line["name"] == "1 copy")


@pytest.mark.usefixtures("few")
def test_another_teacher_in_the_place_of_the_kept_one_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "open_test_rows", lambda *_: None)
        run_paper("mnist1d", tmp_path, seeds=1, fast=True)
    (file,) = (tmp_path / "nets" / "mnist1d-fast-teachers").iterdir()
    ConvNet((1, 40), [Convolution(2, 3)], 10).save(file)
    with pytest.raises(ValueError, match=r"out: expected a teacher of \d+ parameters for seed 0, as .*.csv says, got one of \d+"):
        run_paper("mnist1d", tmp_path, seeds=1, fast=True)


@pytest.mark.slow
def test_mnists_report_does_without_its_nets(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment.Experiment, "data", lambda self, seed: blobs("mnist", 784, 3))
    page = run_paper("mnist", tmp_path, seeds=1, fast=True)
    assert "<h3>U V</h3>" in page.read_text()
    for net in (tmp_path / "nets" / "mnist-fast").iterdir():
        net.unlink()
    assert "<h3>U V</h3>" not in run_paper("mnist", tmp_path, seeds=1, fast=True).read_text()


def test_a_teachers_file_of_another_shape_is_refused(tmp_path):
    data = blobs("x", 16, 3)
    kept = Kept(ConvRecipe(convolutions=(Convolution(4, 5, 4),), epochs=1, nets=1), tmp_path)
    kept(data, data.train, 0)
    (file,) = tmp_path.iterdir()
    ConvNet((1, 16), [Convolution(2, 3)], 7).save(file)
    with pytest.raises(ValueError, match=r"out: .*-0.safetensors': expected a net of 16 inputs and 3 outputs, got 16 inputs and 7 outputs"):
        kept(data, data.train, 0)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[:-6], "expected a whole last line in .*mnist1d-fast.csv, got a cut one: put the file back, or delete that line"),
        (lambda text: text + "0,table\r\n", "expected 17 values of run 5 in .*mnist1d-fast.csv, got fewer or more"),
        (lambda text: re.sub(r"teacher,,\d+", "teacher,,abc", text), "expected a whole number as rows of run 1 in .*.csv, got 'abc'"),
        (lambda text: re.sub(r"teacher,,\d+", "teacher,,12.5", text), "expected a whole number as rows of run 1 in .*.csv, got '12.5'"),
        (lambda text: re.sub(r"[\d.]+\r\n$", "nan\r\n", text), r"expected a share in \[0, 1\] as agreement of run 4 in .*.csv, got 'nan'"),
        (lambda text: re.sub(r"[\d.]+\r\n$", "5\r\n", text), r"expected a share in \[0, 1\] as agreement of run 4 in .*.csv, got '5'"),
        (lambda text: re.sub(r"[\d.]+\r\n$", "\r\n", text), r"expected a share in \[0, 1\] as agreement of run 4 in .*.csv, got ''"),
        (lambda text: re.sub(r"\n0,", "\n,", text, count=1), "expected a whole number as seed of run 1 in .*.csv, got ''"),
        (lambda text: re.sub(r"\n0,", "\n0.0,", text, count=1), "expected a whole number as seed of run 1 in .*.csv, got '0.0'"),
        (
            lambda text: re.sub(r'"pymimic [^"]*"', "", text, count=1),
            "expected the version and the machine as made_by of run 1 in .*.csv, got ''",
        ),
        (lambda text: text.replace(",student,", ",,", 1), "expected one of .* as net of run . in .*.csv, got ''"),
        (lambda text: text + text.splitlines(keepends=True)[-1], "expected each run once in .*.csv, got 0, MUNGE, .* twice"),
    ],
)
def test_a_spoilt_table_is_refused_and_left_as_it_is(tmp_path, monkeypatch, spoil, message):
    run_paper("mnist1d", tmp_path, seeds=1, fast=True)
    path = tmp_path / "mnist1d-fast.csv"
    spoilt = spoil(path.read_bytes().decode())
    path.write_bytes(spoilt.encode())
    monkeypatch.setattr(run, "perform", None)  # nothing is trained
    with pytest.raises(ValueError, match=f"^out: {message}"):
        run_paper("mnist1d", tmp_path, seeds=1, fast=True)
    assert path.read_bytes().decode() == spoilt


def test_a_spoilt_table_of_another_experiment_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_EXPERIMENTS", (Few, Letter))
    monkeypatch.setattr(run, "perform", None)  # nothing is trained
    (tmp_path / "letter-fast.csv").write_text("hello,world\n1,2\n")
    with pytest.raises(ValueError, match=r"^out: expected the columns .* in .*letter-fast.csv: choose another folder"):
        run_paper("mnist1d", tmp_path, seeds=1, fast=True)


def test_what_was_run_answers_what_it_can():
    """CIFAR-10 alone has an answer to the first question, and TIMIT alone one to the claim on speech."""
    columns = ("seed", "part", "name", "validation_accuracy", "test_accuracy", "parameters")
    runs = [
        ("teacher", "teacher", 0.8),
        ("with a convolution", "labels, regularised", 0.6),
        ("with a convolution", "mimic", 0.65),
        ("with a convolution", "T = 3", 0.7),
    ]
    cifar = [dict(zip(columns, ("0", part, name, str(share), str(share), "1"))) for part, name, share in runs]
    first = answers(Figures({"cifar10": cifar}))[0].text
    assert first == ("CIFAR-10 (JPEG), reduced, shallow with a convolution: on labels 60.00 %, as mimic 70.00 %. Its teacher: 80.00 %.")
    unopened = [line | {"test_accuracy": ""} for line in cifar]
    assert answers(Figures({"cifar10": unopened}))[0].text == "Not measured: pymimic paper mnist1d does it."
    assert answers(Figures({}))[0].text == "Not measured: pymimic paper mnist1d does it."
    nets = {"SNN-8k on labels": 0.5, "SNN-50k on labels": 0.4, "SNN-MIMIC-8k": 0.6, "SNN-MIMIC-50k": 0.62}
    lines = [dict(zip(columns, ("0", "table", name, str(share), str(share), "1"))) for name, share in nets.items()]
    lines.append(dict(zip(columns, ("0", "teacher", "teacher", "0.7", "0.7", "1"))))
    halves = {"timit-synthetic": lines, "timit": lines[:1]}  # of which one was stopped while its test rows were opened
    (claim,) = [one.text for one in reproduced(Figures(halves)) if one.question.startswith("On speech")]
    assert claim.startswith("Reproduced: synthetic speech")
    for experiment_name, title in (("timit", "TIMIT"), ("timit-synthetic", "synthetic speech")):
        (claim,) = [one.text for one in reproduced(Figures({experiment_name: lines})) if one.question.startswith("On speech")]
        assert claim.startswith(f"Reproduced: {title}, frames: SNN on labels 50.00 % (8k) and 40.00 % (50k), SNN-MIMIC-8k 60.00 %")
