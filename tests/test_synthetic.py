"""The synthetic corpus, spoken by a stand-in for flite, and by flite itself where it is installed."""

import json
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("librosa")
pytest.importorskip("soundfile")

from pymimic.speech import synthetic
from pymimic.speech.audio import read_audio
from pymimic.speech.recordings import read
from pymimic.speech.segments import read_segments
from pymimic.speech.speakers import Speaker, drawn
from pymimic.speech.timit import open_corpus

TEXTS = [
    f"{one} {two} by the {three}" for one in ("A cat", "A dog", "The hen") for two in ("ran", "sat") for three in ("hill", "sea", "oak")
]
COUNTS = {"train": 3, "development": 1, "test": 2}


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """For flite, by the Python that runs this."""
    script = tmp_path / "flite"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{Path(__file__).parent / "support" / "flite.py"}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(synthetic.shutil, "which", lambda name: str(script) if name == "flite" else None)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def made(folder, **more):
    return synthetic.make(folder, TEXTS, COUNTS, each=2, progress=False, **more)


@pytest.mark.usefixtures("stand_in")
class TestCorpus:
    def test_it_has_timits_layout_and_no_text_or_speaker_in_two_parts(self, tmp_path):
        corpus = open_corpus(made(tmp_path / "c"))
        assert corpus.synthetic
        assert {part: len(sentences) for part, sentences in corpus.parts.items()} == {"train": 6, "development": 2, "test": 4}
        everything = [one for sentences in corpus.parts.values() for one in sentences]
        texts = [one.wav.with_suffix(".TXT").read_text().split(" ", 2)[2].strip() for one in everything]
        assert len(set(texts)) == len(texts) == 12
        assert set(texts) <= set(TEXTS)
        speakers = [{one.speaker for one in sentences} for sentences in corpus.parts.values()]
        assert [len(names) for names in speakers] == list(COUNTS.values())
        assert not set.intersection(*speakers)
        assert json.loads((tmp_path / "c" / "synthetic.json").read_text())["about"].startswith("synthetic speech by flite")

    def test_phones_stand_where_they_are_heard(self, tmp_path):
        """Of the tones, each of its own pitch, that the tract multiplies."""
        corpus = open_corpus(made(tmp_path / "c"))
        one = corpus.parts["train"][0]
        samples = read_audio(one.wav, 16_000)
        segments = read_segments(one.phn, len(samples))
        assert segments[-1].end == len(samples)
        (person,) = (person for person in drawn(6, np.random.SeedSequence(0).spawn(3)[0]) if person.name == one.speaker)
        pitches = {"aa": 200, "dh": 200 + 150 * 10, "eh": 200 + 150 * 11, "hh": 200 + 150 * 16}
        heard = 0
        for start, end, phone in segments:
            if phone in pitches:
                middle = samples[start + 160 : end - 160] * np.hanning(end - start - 320)
                peak = np.abs(np.fft.rfft(middle, 16_000)).argmax()  # in Hz
                assert peak == pytest.approx(pitches[phone] * person.tract, abs=15)
                heard += 1
        assert heard

    def test_the_same_arguments_give_the_same_files_wherever_it_was_stopped(self, tmp_path):
        whole = contents(made(tmp_path / "a"))
        made(tmp_path / "b")
        lost = sorted((tmp_path / "b").rglob("*.PHN"))[::2]
        for path in lost:
            path.unlink()
            path.with_suffix(".WAV").write_bytes(b"cut")
        made(tmp_path / "b")
        assert contents(tmp_path / "b") == whole
        assert contents(made(tmp_path / "c", seed=1)) != whole

    def test_another_corpus_or_other_files_are_left_alone(self, tmp_path):
        made(tmp_path / "a")
        with pytest.raises(ValueError, match="folder: expected none, or one with the same synthetic corpus, got another"):
            made(tmp_path / "a", seed=1)
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "mine").touch()
        with pytest.raises(ValueError, match="folder: expected a synthetic corpus or an empty folder, got other files"):
            made(tmp_path / "b")

    def test_other_texts_make_another_corpus(self, tmp_path):
        made(tmp_path / "a")
        before = contents(tmp_path / "a")
        for texts in ([text.replace("A cat", "A cow") for text in TEXTS], [*TEXTS, "A fox ran by the hill"]):
            with pytest.raises(ValueError, match="folder: expected none, or one with the same synthetic corpus, got another"):
                synthetic.make(tmp_path / "a", texts, COUNTS, each=2, progress=False)
        assert contents(tmp_path / "a") == before

    def test_a_corpus_of_an_earlier_version_goes_on(self, tmp_path):
        made(tmp_path / "a")
        before, mark = contents(tmp_path / "a"), tmp_path / "a" / "synthetic.json"
        mark.write_text(json.dumps({key: value for key, value in json.loads(mark.read_text()).items() if key != "texts"}))
        next((tmp_path / "a").rglob("*.PHN")).unlink()
        made(tmp_path / "a")
        assert contents(tmp_path / "a") | {mark.relative_to(tmp_path / "a"): b""} == before | {mark.relative_to(tmp_path / "a"): b""}

    def test_a_lost_recording_is_made_again(self, tmp_path):
        made(tmp_path / "a")
        before = contents(tmp_path / "a")
        next((tmp_path / "a").rglob("*.WAV")).unlink()
        assert contents(made(tmp_path / "a")) == before

    def test_a_flite_that_fails_is_named_and_leaves_no_sentence(self, tmp_path, monkeypatch):
        (tmp_path / "bad").mkdir()
        for script, message in (
            ("echo out of memory >&2; exit 3", "flite: expected it to end well, got exit status 3: out of memory"),
            ("kill -9 $$", "flite: expected it to end well, got signal 9"),
            ("exit 0", "flite: expected phones of '.*', got none"),
        ):
            (tmp_path / "bad" / "flite").write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / "bad" / "flite").chmod(0o755)
            monkeypatch.setattr(synthetic.shutil, "which", lambda name: str(tmp_path / "bad" / "flite"))
            with pytest.raises((OSError, ValueError), match=message):
                made(tmp_path / "a")
            assert not [*(tmp_path / "a").rglob("*.PHN")]

    def test_too_few_sentences_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="sentences: expected at least 12 that differ, 2 for each of 6 speakers, got 2"):
            synthetic.make(tmp_path / "a", ["One sentence that is said", "Another one"] * 9, COUNTS, each=2)
        assert not (tmp_path / "a").exists()

    def test_phones_of_another_language_are_refused(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FLITE_PHONE", "ue")
        with pytest.raises(ValueError, match=r"flite: expected phones of its US voices, got 'ue:"):
            made(tmp_path / "a")

    def test_the_command_makes_one_from_a_text(self, tmp_path, capsys):
        (tmp_path / "text").write_text(". ".join(f"{text} and beyond it" for text in TEXTS))
        synthetic.main([str(tmp_path / "a"), "--sentences", str(tmp_path / "text"), "--speakers", "1", "1", "1", "--each", "1"])
        assert capsys.readouterr().out == f"{tmp_path / 'a'}\n"
        assert len(open_corpus(tmp_path / "a").parts["test"]) == 1
        with pytest.raises(SystemExit, match=r"error: speakers.*expected an int in"):
            synthetic.main([str(tmp_path / "a"), "--speakers", "0", "1", "1"])
        (tmp_path / "text").write_text("Number 1, the quick brown fox jumps. Let there be light upon the water.")
        with pytest.raises(SystemExit, match=r"sentences: .*text': expected 536 distinct sentences or more, got 1; it takes parts between"):
            synthetic.main([str(tmp_path / "b"), "--sentences", str(tmp_path / "text"), "--each", "1"])
        with pytest.raises(SystemExit, match=r"sentences: No such file or directory: .*none"):
            synthetic.main([str(tmp_path / "b"), "--sentences", str(tmp_path / "none")])
        with pytest.raises(ValueError, match="speakers: expected numbers of train, development, test, got none of development, test"):
            synthetic.make(tmp_path / "b", TEXTS, {"train": 1})

    def test_a_stopped_command_says_so(self, tmp_path, monkeypatch):
        def stop(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(synthetic, "make", stop)
        with pytest.raises(SystemExit, match="interrupted: the same command goes on"):
            synthetic.main([str(tmp_path / "b")])


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(synthetic.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="expected the program flite to be installed: apt install flite"):
        made(tmp_path / "a")
    monkeypatch.setattr(synthetic.shutil, "which", lambda name: name if name == "flite" else None)
    with pytest.raises(FileNotFoundError, match=r"the program bible to be installed: apt install bible-kjv, or give a text file"):
        synthetic.make(tmp_path / "a")


def test_a_text_is_split_at_marks_into_what_takes_seconds_to_say():
    text = "And God said, Let there be light: and there was light.\nShort. The year 1611 is\nno sentence of words alone; " + 70 * "long "
    assert synthetic.split(text + "! And God\n said, Let there be light: the waters were under  the sky?") == [
        "And God said, Let there be light", "the waters were under the sky"
    ]  # fmt: skip


def test_speakers_differ_and_the_first_stay_the_same():
    few, many = (drawn(count, np.random.SeedSequence(0)) for count in (4, 40))
    assert many[:4] == few
    assert len({one.name for one in many}) == len({(one.pitch, one.pace) for one in many}) == 40


def test_a_tract_scales_time_and_noise_is_added():
    plain = Speaker("MXYZ0", "rms", "DR1", 100.0, 1.0, Fraction(20, 22), 0.0, 0.1)
    assert plain.stretch == pytest.approx(20 / 22)
    tone = np.sin(np.arange(16_000, dtype=np.float32))
    heard = plain.recorded(tone, np.random.default_rng(0))
    assert len(heard) == 16_000 * 22 // 20
    assert np.abs(heard).max() == 0.5
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    strongest = spectrum.argmax()
    assert strongest / len(heard) * 16_000 == pytest.approx(16_000 / (2 * np.pi) * 20 / 22, abs=2)
    rest = np.delete(spectrum, range(strongest - 30, strongest + 30))
    ratio = 10 * np.log10(np.sum(spectrum**2) / np.sum(rest**2))
    assert 8 < ratio < 27  # dB, of 10 to 25 and an echo


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite")
def test_flite_speaks_it(tmp_path):
    corpus = open_corpus(
        synthetic.make(tmp_path / "a", ["Where is the cat", "She saw three ships", "No other text"], dict.fromkeys(COUNTS, 1), 1)
    )
    for part in corpus.parts.values():
        (one,) = read(part)
        assert one.phones[0] == one.phones[-1] == "h#"
        assert len(one.phones) > 8
        assert len(one.features) == len(one.states)
        assert one.segments[-1].end == pytest.approx(160 * len(one.states), abs=400)
