"""Spoken digits: reading them, new recordings from old ones, states of words, and the experiment."""

import csv
import itertools
import shutil

import numpy as np
import pytest

from pymimic.demo.setting import Seeds, Shape
from pymimic.errors import FileFormatError
from pymimic.paper import run, run_paper
from pymimic.paper.claims import reproduced
from pymimic.paper.digits import STATES, DigitSetting, Split, Spoken
from pymimic.paper.figures import Figures
from pymimic.paper.speech import DIGIT_ERROR, LEFT_OUT, Speech
from pymimic.speech.fsdd import RATE, SPEAKERS, Recording, read_fsdd
from pymimic.speech.perturb import Perturb
from pymimic.speech.windows import Frames
from pymimic.speech.words import even_states, heard, realigned, stretched

pytest.importorskip("librosa")
soundfile = pytest.importorskip("soundfile")

NOTHING = Perturb(speed=0, gain=0, noise=None, shift=0)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    from spoken_digits import write_digits

    return write_digits(tmp_path_factory.mktemp("fsdd") / "recordings")


@pytest.fixture
def own(recordings, tmp_path):
    """A copy to spoil: hard links, of which a test replaces some."""
    shutil.copytree(recordings, tmp_path / "recordings", copy_function=lambda old, new: (new := type(tmp_path)(new)).hardlink_to(old))
    return tmp_path / "recordings"


def test_recordings_in_their_order(recordings):
    few = read_fsdd(recordings.parent, [5, 0])
    assert len(few) == 10 * 6 * 2
    assert [one[:3] for one in few[:3]] == [(0, "george", 0), (0, "george", 5), (0, "jackson", 0)]
    samples, _ = soundfile.read(recordings / "9_theo_5.wav", dtype="float32")
    (same,) = [one.samples for one in few if one[:3] == (9, "theo", 5)]
    np.testing.assert_array_equal(same, samples)
    assert len(read_fsdd(recordings.parent, iter([5, 0]))) == len(few)
    for takes, error in (([50], ValueError), ([-1], ValueError), (["0"], TypeError)):
        with pytest.raises(error, match="takes: expected an int"):
            read_fsdd(recordings.parent, takes)


def test_bad_folders_are_named(own):
    soundfile.write(own / "new.wav", np.zeros(9000, np.float32), 16000)
    (own / "new.wav").replace(own / "3_lucas_7.wav")
    with pytest.raises(FileFormatError, match=r"3_lucas_7.wav.*expected 8000 samples a second, got 16000"):
        read_fsdd(own, [7])
    soundfile.write(own / "new.wav", np.zeros(700, np.float32), RATE)
    (own / "new.wav").replace(own / "3_lucas_7.wav")
    with pytest.raises(FileFormatError, match=r"3_lucas_7.wav.*expected at least 800 samples, a tenth of a second, got 700"):
        read_fsdd(own, [7])
    (own / "3_lucas_7.wav").unlink()
    with pytest.raises(OSError, match=r"expected 3,000 recordings of 6 speakers, got 2,999: there is not 3_lucas_7\.wav"):
        read_fsdd(own, [0])
    for path in [*own.glob("*_theo_*")]:
        path.unlink()
    with pytest.raises(OSError, match="expected 3,000 recordings of 6 speakers, got 2,499: there is not any of theo"):
        read_fsdd(own, [0])
    with pytest.raises(FileNotFoundError, match="path: expected the folder with FSDD's recordings, got no folder"):
        read_fsdd(own / "nowhere")


def tone(hertz=1000, samples=8000):
    return (0.1 * np.sin(2 * np.pi * hertz * np.arange(samples) / RATE)).astype(np.float32)


def peak(samples):
    """The loudest frequency."""
    return np.abs(np.fft.rfft(samples)).argmax() * RATE / len(samples)


def test_nothing_to_perturb():
    np.testing.assert_allclose(NOTHING(tone(), RATE, np.random.default_rng(0)), tone(), atol=1e-4)


def test_faster_is_shorter_and_higher():
    for seed in range(5):
        new = Perturb(speed=0.2, gain=0, noise=None, shift=0)(tone(), RATE, np.random.default_rng(seed))
        factor = 8000 / len(new)
        assert np.exp(-0.2) <= factor <= np.exp(0.2)
        assert abs(factor - 1) > 1e-3
        assert peak(new) == pytest.approx(1000 * factor, abs=2)


def test_louder_noisier_and_later():
    rng = np.random.default_rng(0)
    gains = [20 * np.log10(np.std(Perturb(0, 6, None, 0)(tone(), RATE, rng)) / np.std(tone())) for _ in range(20)]
    assert -6 <= min(gains) < -2 < 2 < max(gains) <= 6
    noise = Perturb(0, 0, (20, 20), 0)(tone(), RATE, rng) - tone()
    assert 20 * np.log10(np.std(tone()) / np.std(noise)) == pytest.approx(20, abs=0.3)
    shift = Perturb(0, 0, None, 0.05)
    lengths, starts = zip(*((len(new), np.flatnonzero(np.abs(new) > 0.01)[0]) for new in (shift(tone(), RATE, rng) for _ in range(20))))
    assert 8000 - 800 <= min(lengths) < 8000 < max(lengths) <= 8000 + 800
    assert 0 <= min(starts) < 10 < 100 < max(starts) <= 402
    one, two = (Perturb()(tone(), RATE, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"speed": -0.1}, "speed: expected"),
        ({"gain": np.nan}, "gain: expected"),
        ({"noise": (30, 20)}, "noise: expected"),
        ({"noise": (1, 2, 3)}, "noise: expected two numbers of decibels or None, got 3"),
        ({"shift": 2}, "shift: expected"),
    ],
)
def test_bad_perturbations(arguments, message):
    with pytest.raises(ValueError, match=message):
        Perturb(**arguments)


@pytest.mark.parametrize(
    ("samples", "rate", "error", "message"),
    [
        (np.zeros(800, np.int16), RATE, TypeError, "samples: expected"),
        (np.full(800, np.nan, np.float32), RATE, ValueError, "samples: expected finite"),
        (np.full(800, 1e20), RATE, ValueError, r"samples: expected values in \[-1, 1\], got up to 1e\+20"),
        (np.zeros((2, 800), np.float32), RATE, ValueError, "samples: expected"),
        (np.zeros(0, np.float32), RATE, ValueError, "samples: expected some, got none"),
        (np.zeros(800, np.float32), 0, ValueError, "rate: expected"),
    ],
)
def test_what_cannot_be_perturbed(samples, rate, error, message):
    with pytest.raises(error, match=message):
        Perturb()(samples, rate, np.random.default_rng(0))


def test_lists_will_do():
    assert heard([[0.0, 1.0], [1.0, 0.5]], 1) == 1
    np.testing.assert_array_equal(realigned([[0.0, 1.0], [1.0, 0.5]], 1, 1), [0, 0])
    np.testing.assert_array_equal(stretched([0, 1], 4), [0, 0, 1, 1])


def test_of_short_recordings_half_stays():
    for samples in (3, 40, 240):
        rng = np.random.default_rng(0)
        assert all(np.abs(Perturb()(np.ones(samples), RATE, rng)).max() > 0.1 for _ in range(200))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: heard(np.zeros((5, 8)), 3), "log_posteriors: expected 3 columns a word, got 8 in all"),
        (lambda: heard(np.zeros((1, 6)), 3), "log_posteriors: expected at least as many frames as states, which are 3, got 1"),
        (lambda: heard(np.zeros((5, 8)), 0), "states: expected an int in"),
        (lambda: realigned(np.zeros((5, 6)), -2, 3), r"word: expected an int in \[0, 2\), got -2"),
        (lambda: realigned(np.zeros((5, 8)), 2, 3), "log_likelihood: expected 3 columns a word, got 8 in all"),
        (lambda: stretched(np.zeros(0, np.int64), 3), "states: expected at least one, got none"),
    ],
)
def test_columns_of_no_word(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_states_of_a_word():
    np.testing.assert_array_equal(even_states(7, 3), [0, 0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(stretched(np.array([0, 0, 1, 2]), 8), [0, 0, 0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(stretched(np.array([0, 0, 1, 2]), 4), [0, 0, 1, 2])
    np.testing.assert_array_equal(stretched(np.array([0, 1, 2, 3]), 2), [1, 3])


def test_which_word_is_heard():
    """Of two words of two states: the one whose best way, among all ways, has the greatest sum."""
    for seed in range(10):
        log_posteriors = np.random.default_rng(seed).standard_normal((5, 4))
        ways = [np.repeat([0, 1], [first, 5 - first]) for first in range(1, 5)]
        scores = {
            (word, i): log_posteriors[range(5), 2 * word + way].sum() for word, (i, way) in itertools.product(range(2), enumerate(ways))
        }
        word, best = max(scores, key=scores.get)
        assert heard(log_posteriors, 2) == word
        np.testing.assert_array_equal(realigned(log_posteriors, word, 2), ways[best])


def test_splits_share_no_recording():
    known = [Recording(d, s, t, np.zeros(0)) for d in range(10) for s in SPEAKERS for t in range(50)]
    for held_out, sizes in ((None, (2400, 300, 300)), ("theo", (2250, 250, 500))):
        split = Split.of(known, held_out)
        assert tuple(map(len, split)) == sizes
        assert sorted(np.concatenate(split)) == list(range(3000))
    assert {known[i].speaker for i in split.test} == {"theo"}
    official = Split.of(known, None)
    assert {known[i].take for i in official.test} == {0, 1, 2, 3, 4}
    assert {known[i].take for i in official.validation} == {5, 6, 7, 8, 9}


def test_alignment_finds_states_of_other_lengths():
    """Features say which state a frame is in; the first state is twice as long as the others."""
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((10 * STATES, 6)).astype(np.float32)
    known, truth = [], []
    for take in (0, 5, *range(10, 50)):
        for digit in range(10):
            states = np.repeat(np.arange(3), rng.integers([9, 4, 4], [14, 7, 7]))
            truth.append(3 * digit + states)
            known.append((Recording(digit, "theo", take, np.zeros(0)), codes[truth[-1]] + 0.3 * rng.standard_normal((len(states), 6))))
    names = [one for one, _ in known]
    spoken = Spoken(names, Frames([x.astype(np.float32) for _, x in known] * 2, 1))
    setting = DigitSetting(spoken, Split.of(names, None), (1, 2), 1, Shape(1024), None, Seeds.of(0), "cpu")
    test = setting.data.test
    right = np.concatenate(truth)[test.x]
    evenly = np.concatenate([3 * names[i].digit + even_states(len(truth[i]), 3) for i in setting.split.test])
    assert np.mean(evenly == right) < 0.8
    assert np.mean(test.labels == right) > 0.9
    assert len(setting.recorded.x) < len(setting.data.train.x) < 2 * len(setting.recorded.x)
    assert setting.digit_error(20 * np.eye(30)[right]) == 0
    assert setting.digit_error(20 * np.eye(30)[(right + 3) % 30]) == 1


@pytest.mark.filterwarnings("error")
def test_the_experiment(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_EXPERIMENTS", (Speech, LEFT_OUT[4]))
    page = run_paper("speech", tmp_path, recordings.parent, seeds=1, fast=True).read_text()
    tables = {}
    for name in ("speech", "speech-theo"):
        with (tmp_path / f"{name}-fast.csv").open(newline="") as file:
            tables[name] = list(csv.DictReader(file))
    names = ["teacher", "labels, augmented", "T = 3"]
    assert [line["name"] for line in tables["speech-theo"]] == names
    more = {"T = 3, twice as long", "labels", "mimic", "one convolutional net", "one deep net"}
    assert {line["name"] for line in tables["speech"]} == {*names, *more}
    for line in itertools.chain(*tables.values()):
        assert 0 <= float(line["digit error"]) <= 1
        assert 0 < float(line["test_accuracy"]) <= 1
    assert "Spoken digits (FSDD), theo never heard" in page
    assert "digit error %" in page


@pytest.mark.parametrize(("mimic", "verdict"), [((0.696, 0.09), "Reproduced"), ((0.694, 0.09), "Not"), ((0.72, 0.11), "Not")])
def test_speakers_are_averaged_for_each_seed(mimic, verdict):
    """Teacher: 60 to 80 % of frames over two kinds of speakers, 10 % of digits wrong; a seed that one speaker lacks is left out."""
    columns = ("seed", "part", "name", "validation_accuracy", "test_accuracy", DIGIT_ERROR)
    lines = {}
    for i, experiment in enumerate(LEFT_OUT):
        runs = [("teacher", "teacher", 0.9, 0.6 + 0.2 * (i % 2), 0.1), ("table", "labels, augmented", 0.9, 0.5, 0.2)]
        runs.append(("table", "T = 3", 0.9, *mimic))
        lines[experiment.name] = [dict(zip(columns, map(str, (seed, *run)))) for seed in range(2 - (i == 3)) for run in runs]
    text = next(one.text for one in reproduced(Figures(lines)) if "digits" in one.question)
    assert text.startswith(verdict)
    assert "ensemble: frames 70.00 %, digit error 10.00 %; on labels: frames 50.00 %" in text
    assert "mimic (T = 3): frames" in text


def test_what_is_missing_is_missed_before_the_work(own, tmp_path):
    with pytest.raises(ValueError, match="path: expected the folder with FSDD's recordings, got none"):
        run_paper("speech", tmp_path / "out", seeds=1)
    (own / "0_george_3.wav").unlink()
    with pytest.raises(OSError, match=r"there is not 0_george_3\.wav"):
        run_paper("speech", tmp_path / "out", own, seeds=1)
    assert not (tmp_path / "out").exists()
