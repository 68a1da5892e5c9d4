"""`pymimic paper timit-synthetic` in seconds, on a corpus by a stand-in for flite."""

import csv

import numpy as np
import pytest

pytest.importorskip("librosa")
pytest.importorskip("rapidfuzz")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from pymimic.numerics import less_row_means
from pymimic.paper import frames, run_paper, timit
from pymimic.paper.ledger import Ledger
from pymimic.paper.timit import PHONE_ERROR, SyntheticTimit, Timit
from pymimic.speech import synthetic
from pymimic.speech.scoring import phone_error_rate
from pymimic.speech.timit import Corpus
from tests.test_synthetic import TEXTS, stand_in  # noqa: F401


@pytest.fixture
def corpus(tmp_path, stand_in):  # noqa: F811
    speakers = {"train": 3, "development": 1, "test": 1}
    return synthetic.make(tmp_path / "corpus", TEXTS, speakers, each=2, progress=False)


class TestSetting:
    @pytest.fixture
    def setting(self, corpus, tmp_path):
        return SyntheticTimit(tmp_path / "out", True, "cpu", corpus).setting(0)

    def test_parts_are_of_other_sentences_and_rows_have_their_states(self, setting):
        counts = {part: len(sentences) for part, sentences in setting.sentences.items()}
        assert counts == {"train": 4, "unlabelled": 2, "development": 2, "test": 2}
        data = setting.data
        assert data.inputs == 1845
        assert data.shape == (3, 41, 15)
        assert np.array_equal(data.test.labels, np.concatenate([one.states for one in setting.sentences["test"]]))
        parts = [data.train, data.unlabelled, data.validation, data.test]
        numbers = np.concatenate([rows.x for rows in parts])
        assert len(set(numbers)) == len(numbers)
        middle = data.frames.windows(data.train.x[:1]).reshape(123, 15)[:, 7]
        assert np.array_equal(middle, setting.sentences["train"][0].features[1])  # every second frame

    def test_answers_are_the_teachers_for_labelled_and_unlabelled_rows(self, setting):
        cases, data = setting.cases("answers"), setting.data
        assert len(cases) == len(data.train.x) + len(data.unlabelled.x)
        x, logits, _ = cases.batch(np.array([0, len(cases) - 1]))
        assert np.array_equal(x, data.frames.windows(np.array([data.train.x[0], data.unlabelled.x[-1]])))
        assert np.allclose(logits, less_row_means(setting.fitted.teacher.logits(x)), atol=1e-5)
        assert np.array_equal(setting.cases("labels").batch(np.array([3]))[1], data.train.labels[3:4])

    def test_students_of_one_rank_begin_with_the_same_whitened_bottleneck(self, setting, monkeypatch):
        began = []
        monkeypatch.setattr(frames, "train", lambda student, *_: began.append(student))
        for _ in range(2):
            setting._train(setting.cases("labels"), timit._LABELS[0], 20, 5)
        first, second = began
        assert np.array_equal(first.weights()["V"], second.weights()["V"])
        x = setting.data.frames.windows(setting.data.train.x)
        z = first.standardise(x) @ first.weights()["V"].T
        assert np.allclose(np.cov(z.T), np.diag(np.var(z, axis=0, ddof=1)), atol=0.05)
        assert (np.var(z, axis=0) < 1.01).all()
        assert (np.var(z, axis=0) > 0.9).all()

    def test_perfect_logits_have_few_phone_errors_and_constant_ones_many(self, setting):
        class Told:
            def logits(self, x):
                return 20 * np.eye(183, dtype=np.float32)[setting.data.validation.labels[: len(x)]]

            def describe(self):
                return {"kind": "told"}

        perfect = 20 * np.eye(183, dtype=np.float32)[setting.data.test.labels]
        assert setting.phone_error(Told(), perfect) < 0.35  # labelled sentences lack some of its phones
        assert setting.phone_error(Told(), np.zeros_like(perfect)) > 0.6


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_experiment_runs_fast_and_says_what_it_is(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(timit, "_DNN", timit.replace(timit._DNN, hidden=(50,)))
    monkeypatch.setattr(timit, "_CNN", timit.replace(timit._CNN, hidden=(50,)))
    page = run_paper("timit-synthetic", tmp_path / "out", corpus, seeds=1, fast=True).read_text()
    assert "Synthetic speech by flite" in page
    assert "phone error on TIMIT: DNN 21.9 %" in page
    with (tmp_path / "out" / "timit-synthetic-fast.csv").open(newline="") as file:
        lines = {line["name"]: line for line in csv.DictReader(file)}
    nets = ["teacher", "DNN", "CNN", "SNN-8k on labels", "SNN-50k on labels", "SNN-MIMIC-8k", "SNN-MIMIC-50k"]
    assert set(lines) >= set(nets)
    experiment = SyntheticTimit(tmp_path / "out", True, "cpu", corpus)
    setting, book = experiment.setting(0), Ledger(tmp_path / "out", "timit-synthetic-fast", experiment.more)
    for line in book.lines:
        net = book.net(line) or setting.fitted.teacher
        logits = setting.data.frames.answers(net, setting.data.test.x)
        assert float(line["test_accuracy"]) == pytest.approx(np.mean(logits.argmax(axis=1) == setting.data.test.labels), abs=1e-5)
        assert float(line[PHONE_ERROR]) == pytest.approx(setting.phone_error(net, logits), abs=1e-5)


def test_timit_must_be_brought(tmp_path):
    with pytest.raises(ValueError, match="path: expected the folder with TIMIT's folders TRAIN and TEST, got none"):
        run_paper("timit", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="expected a folder TRAIN, got none: the copy is not complete"):
        run_paper("timit", tmp_path / "out", tmp_path)
    assert Timit(tmp_path, False, "cpu", None).runs()


def test_a_synthetic_corpus_is_not_taken_for_timit_nor_timit_for_one(corpus, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"path: .*corpus': expected TIMIT, which is timit's, got a synthetic corpus, which is timit-s"):
        run_paper("timit", tmp_path / "out", corpus)
    monkeypatch.setattr(timit, "open_corpus", lambda _: Corpus({}, False))
    with pytest.raises(ValueError, match="expected a synthetic corpus, which is timit-synthetic's, got TIMIT, which is timit's"):
        run_paper("timit-synthetic", tmp_path / "out", corpus)
    assert not (tmp_path / "out").exists()


def test_right_phones_have_no_error():
    assert phone_error_rate([["aa"]], [["aa"]]) == 0
