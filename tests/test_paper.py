"""The paper's experiments: every run is kept at once, an interrupted experiment goes on, and the test rows are opened at the end."""

import csv
import re
from dataclasses import replace

import numpy as np
import pytest

from pymimic import Convolution
from pymimic.demo.measure import accuracy_of, choices
from pymimic.demo.teachers import ConvRecipe
from pymimic.paper import experiment, ledger, report, run, run_paper
from pymimic.paper.letter import Letter
from pymimic.paper.mnist1d import MNIST1D


class Few(MNIST1D):
    """Three runs of some milliseconds."""

    def setting(self, seed):
        setting = super().setting(seed)
        teacher = ConvRecipe(convolutions=(Convolution(4, 5, 4),), epochs=1)
        setting.how = replace(setting.how, hidden=32, teacher=teacher)
        return setting

    def runs(self):
        return [one for one in super().runs() if one.part == "MUNGE" or one.name == "labels"]


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setitem(run._EXPERIMENTS, "mnist1d", Few)


def lines(folder):
    with (folder / "mnist1d-fast.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def figures(folder):
    """All that follows from the seeds."""
    return [{column: value for column, value in line.items() if column != "seconds"} for line in lines(folder)]


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
def test_figures_are_those_of_the_nets(tmp_path):
    page = run_paper("mnist1d", tmp_path, seeds=2, fast=True).read_text()
    setting = Few(True, "cpu", None).setting(1)
    written = {(line["part"], line["name"], line["seed"]): line for line in lines(tmp_path)}
    teacher = written["teacher", "teacher", "1"]
    right, error = accuracy_of(choices(setting.fitted.teacher.logits, setting.data.test)[0], setting.data.test)
    assert float(teacher["test_accuracy"]) == pytest.approx(right)
    assert float(teacher["test_error"]) == pytest.approx(error, rel=1e-5)
    assert teacher["agreement"] == "1"
    munged = written["MUNGE", "1 copies", "1"]
    assert (munged["rows"], munged["value"], munged["hidden"], munged["rank"]) == ("1000", "8000", "32", "")
    both = [100 * float(written["MUNGE", "1 copies", seed]["test_accuracy"]) for seed in "01"]
    assert f"<td>{np.mean(both):.2f} ± {np.std(both, ddof=1):.2f}</td>" in page
    assert page.count("data:image/png;base64,") == 1
    assert (tmp_path / "mnist1d-fast-MUNGE.png").read_bytes()[:4] == b"\x89PNG"
    assert not re.search(r'(src|href)="(?!data:)', page)  # the page stands alone


@pytest.mark.parametrize("kind", [MNIST1D, Letter])
def test_no_two_runs_have_one_name(kind):
    for fast in (True, False):
        names = [(one.part, one.name) for one in kind(fast, "cpu", None).runs()]
        assert len(set(names)) == len(names) >= 4


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="which: expected one of mnist1d, letter, all, got 'timit'"):
        run_paper("timit", tmp_path)
    with pytest.raises(ValueError, match="seeds: expected an int in"):
        run_paper("mnist1d", tmp_path, seeds=0)
    with pytest.raises(ValueError, match="path: expected the folder with letter's files, got none"):
        run_paper("all", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "mnist1d.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"out: expected .*mnist1d.csv to have the columns seed, part"):
        run_paper("mnist1d", tmp_path)


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(ImportError, match=r'jinja2.*pip install "pymimic\[paper\]"'):
        run_paper("mnist1d", tmp_path)


def test_names_are_escaped(tmp_path):
    part = report.Part("<b>", ("",), [["a < b"]], "")
    report.write(tmp_path / "r.html", [report.Section("t", [], [part])], "x & y")
    text = (tmp_path / "r.html").read_text()
    assert "a &lt; b" in text
    assert "x &amp; y" in text
    assert "<b>" not in text


def test_experiments_stand_in_the_ledger_by_seed_part_and_name(tmp_path):
    book = ledger.Ledger(tmp_path, "x")
    book.add(0, "p", "n", 2.5, {"rows": 3, "seconds": 0.123456789}, None)
    assert ledger.Ledger(tmp_path, "x").has(0, "p", "n")
    assert not any(ledger.Ledger(tmp_path, "x").has(*key) for key in ((1, "p", "n"), (0, "q", "n"), (0, "p", "m")))
    assert book.lines[0]["seconds"] == "0.123457"
    assert experiment.TEACHER == "teacher"
