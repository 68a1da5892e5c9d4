"""Recordings, their features, frames in context and Viterbi, against known answers."""

import itertools
import os
import sys

import numpy as np
import pytest

from pymimic import AdamW, Student, Trainer
from pymimic.errors import FileFormatError
from pymimic.packages import package
from pymimic.speech.audio import read_audio
from pymimic.speech.features import COLUMNS, filterbanks, frame_count
from pymimic.speech.viterbi import align, best_path, word_score
from pymimic.speech.windows import FrameCases, Frames

librosa = pytest.importorskip("librosa")
soundfile = pytest.importorskip("soundfile")

RATE = 8000


def tone(hertz, seconds=0.5, rate=RATE):
    return (0.1 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(samples=4000, seed=0):
    return (0.05 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("kind", ["WAV", "NIST"])
def test_a_recording_comes_back(kind, tmp_path):
    samples = np.round(noise() * 32768).clip(-32768, 32767) / np.float32(32768)
    soundfile.write(tmp_path / "a.wav", samples, RATE, format=kind, subtype="PCM_16")
    back = read_audio(tmp_path / "a.wav", RATE)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, samples)


def test_a_recording_is_what_its_content_says(tmp_path):
    """Not its name: libsndfile takes any bytes for samples where a name ends in .raw."""
    samples = np.float32([0, 0.5, -1])
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    (tmp_path / "a.wav").rename(tmp_path / "a.raw")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.raw", RATE), samples)
    (tmp_path / "b.raw").write_bytes(bytes(100))
    with pytest.raises(FileFormatError, match=r"b\.raw': expected a WAV or NIST SPHERE file"):
        read_audio(tmp_path / "b.raw", RATE)


def test_a_sphere_header_written_by_hand(tmp_path):
    """As TIMIT's own files have it: https://www.nist.gov, 1,024 bytes of text, then samples."""
    lines = ["NIST_1A", "   1024", "channel_count -i 1", "sample_count -i 3", "sample_rate -i 16000", "sample_n_bytes -i 2"]
    lines += ["sample_byte_format -s2 01", "sample_sig_bits -i 16", "sample_coding -s3 pcm", "end_head", ""]
    samples = np.array([0, 16384, -32768], "<i2")
    (tmp_path / "a.WAV").write_bytes("\n".join(lines).encode().ljust(1024) + samples.tobytes())
    np.testing.assert_array_equal(read_audio(tmp_path / "a.WAV", 16000), [0, 0.5, -1])


def test_bad_recordings_are_named(tmp_path):
    path = tmp_path / "a.wav"

    def refused(error, message):
        with pytest.raises(error, match=message) as raised:
            read_audio(path, RATE)
        assert str(path) in str(raised.value)

    refused(FileNotFoundError, "No such file")
    soundfile.write(path, noise(), 16000)
    refused(FileFormatError, "expected 8000 samples a second, got 16000")
    soundfile.write(path, np.stack([noise(), noise()], axis=1), RATE)
    refused(FileFormatError, "expected 1 channel, got 2")
    soundfile.write(path, noise()[:0], RATE)
    refused(FileFormatError, "expected samples, got none")
    soundfile.write(path, noise(), RATE, format="FLAC")
    refused(FileFormatError, "expected a WAV or NIST SPHERE file, got FLAC")
    path.write_bytes(b"RIFF and no more")
    refused(FileFormatError, "expected a WAV or NIST SPHERE file, got another or a damaged one")
    path.write_bytes(b"")
    refused(FileFormatError, "expected a WAV or NIST SPHERE file, got another or a damaged one")
    for kind in ("WAV", "NIST"):
        soundfile.write(path, noise(), RATE, format=kind, subtype="PCM_16")
        os.truncate(path, 2000)
        refused(FileFormatError, "as the header says, got")
    soundfile.write(path, np.array([0, np.nan], np.float32), RATE, subtype="FLOAT")
    refused(FileFormatError, r"expected samples in \[-1, 1\], got nan in sample 1")
    path.unlink()
    path.mkdir()
    refused(OSError, "expected a plain file")


def riff(chunks, order="little"):
    """A file of these chunks behind the format of 16 bits, one channel."""
    form = b"".join(value.to_bytes(size, order) for value, size in ((1, 2), (1, 2), (RATE, 4), (2 * RATE, 4), (2, 2), (16, 2)))
    body = b"WAVE" + b"".join(name + len(content).to_bytes(4, order) + content for name, content in [(b"fmt ", form), *chunks])
    return (b"RIFF" if order == "little" else b"RIFX") + len(body).to_bytes(4, order) + body


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_cut_recording_is_found_behind_any_number_of_chunks(tmp_path, order):
    """More than libsndfile's log holds, and with a comment that looks like that log."""
    path, samples = tmp_path / "a.wav", np.arange(1000)
    content = samples.astype("<i2" if order == "little" else ">i2").tobytes()
    text = b"data : 5 (should be 7)"
    comment = (b"LIST", b"INFOICMT" + len(text).to_bytes(4, order) + text)
    whole = riff([*[(b"junk", b"abcd")] * 400, comment, (b"data", content)], order)
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_audio(path, RATE), samples / np.float32(32768))
    path.write_bytes(whole[:-500])
    with pytest.raises(FileFormatError, match=r"a.wav': expected 2000 bytes of samples, as the header says, got 1500"):
        read_audio(path, RATE)


@pytest.mark.parametrize(
    ("chunks", "samples", "message"),
    [
        ([(b"odd ", b"abc\0"), (b"data", bytes(20))], 10, None),  # a chunk of three bytes and one that pads it
        ([(b"data", bytes(20)), (b"LIST", b"tail")], 10, None),
        ([(b"data", bytes(20)), (b"LIST", b"tail")], 0, "expected 0 samples, as the header says, got 1[06]|expected samples, got none"),
        ([(b"acid", bytes(2)), (b"data", bytes(100))], 50, "expected 50 samples, as the header says, got|damaged"),
        ([(b"junk", bytes(20))], 0, "damaged|expected a chunk called data|samples, got none"),
    ],
)
def test_chunks_are_walked_as_they_are(tmp_path, chunks, samples, message):
    content = bytearray(riff(chunks))
    if chunks[0][0] == b"odd ":
        content[content.index(b"odd ") + 4] = 3
    if samples == 0 and b"data" in content:
        content[content.index(b"data") + 4] = 0
    (tmp_path / "a.wav").write_bytes(content)
    if message is None:
        assert len(read_audio(tmp_path / "a.wav", RATE)) == samples
    else:
        with pytest.raises(FileFormatError, match=message):
            read_audio(tmp_path / "a.wav", RATE)


def test_what_stands_before_riff_is_refused(tmp_path):
    """libsndfile skips an ID3 tag."""
    tag = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)
    (tmp_path / "a.wav").write_bytes(tag + riff([(b"data", bytes(20))]))
    with pytest.raises(FileFormatError, match=r"a.wav': expected"):
        read_audio(tmp_path / "a.wav", RATE)


@pytest.mark.parametrize(
    ("line", "promised"),
    [
        ("orig_sample_count -i 999\nsample_count -i 3", None),
        ("sample_count -i 0003", None),
        ("sample_count -i +3 ; a comment", None),
        ("sample_count  -i  4", "4"),
        (" sample_count -i 4 what", "4"),
        ("sample_count -i -5", "-5"),
    ],
)
def test_a_sphere_header_is_read_line_by_line(tmp_path, line, promised):
    lines = ["NIST_1A", "   1024", "channel_count -i 1", line, "sample_rate -i 16000", "sample_n_bytes -i 2"]
    lines += ["sample_byte_format -s2 01", "sample_sig_bits -i 16", "sample_coding -s3 pcm", "end_head", ""]
    (tmp_path / "a.WAV").write_bytes("\n".join(lines).encode().ljust(1024) + bytes(6))
    if promised is None:
        assert len(read_audio(tmp_path / "a.WAV", 16000)) == 3
    else:
        with pytest.raises(FileFormatError, match=rf"a.WAV': expected {promised} samples, as the header says|another or a damaged one"):
            read_audio(tmp_path / "a.WAV", 16000)


def test_floats_a_little_beyond_are_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0, 1.25]), RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", RATE), [0, 1.25])


@pytest.mark.parametrize("loud", [11.0, -32768.0, 1e30, np.inf])
def test_samples_outside_the_range_are_refused(tmp_path, loud):
    soundfile.write(tmp_path / "a.wav", np.array([0, loud]), RATE, subtype="DOUBLE")
    with pytest.raises(FileFormatError, match=r"a.wav': expected samples in \[-1, 1\], got .* in sample 1"):
        read_audio(tmp_path / "a.wav", RATE)


def test_packed_recordings_are_read_or_refused_by_name(tmp_path):
    for subtype in ("GSM610", "G721_32", "IMA_ADPCM"):
        soundfile.write(tmp_path / "a.wav", noise(4160), RATE, subtype=subtype)
        try:
            assert np.abs(read_audio(tmp_path / "a.wav", RATE)[:4000] - noise(4160)[:4000]).mean() < 0.05
        except FileFormatError as error:
            assert "a.wav" in str(error)  # noqa: PT017 - either is right


def test_a_package_that_cannot_be_imported_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken_inside.py").write_text("import no_such_module_of_its_own")
    (tmp_path / "without_library.py").write_text("raise OSError('libsomething.so: not found')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"me: expected broken_inside to work, got ModuleNotFoundError: No module named 'no_such_module"):
        package("me", "broken_inside")
    with pytest.raises(ImportError, match=r"me: expected without_library to work, got OSError: libsomething.so"):
        package("me", "without_library")
    with pytest.raises(ImportError, match="me: expected some-name to be there, for this: pip install some-name"):
        package("me", "nowhere_at_all", "some-name", "for this")


def test_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ImportError, match="speech: expected soundfile to be there: pip install soundfile"):
        read_audio(tmp_path / "a.wav", RATE)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_tone_lights_its_filter(rate):
    """Among noise for all other filters to hear, each centre's tone for 0.3 s stands out in its own filter."""
    centres = librosa.mel_frequencies(42, fmin=0, fmax=rate / 2)[1:-1]
    for band in (3, 20, 38):
        samples = np.concatenate([noise(rate // 2) * 0.02, tone(centres[band], 0.3, rate)])
        features = filterbanks(samples, rate)
        assert features[-15:, :40].mean(axis=0).argmax() == band
        assert features[:, 40].argmax() > 45


def test_features_by_hand():
    """The energy is that of 25 ms of samples, every 10 ms, and its differences are slopes."""
    loudness = np.repeat(np.exp(0.05 * np.arange(60)), 80)  # grows by 0.1 a hop of 80 samples
    samples = (1e-2 * loudness * np.where(np.arange(4800) % 2, 1, -1)).astype(np.float32)
    features = filterbanks(samples, RATE)
    assert features.shape == (58, COLUMNS) == (frame_count(4800, RATE), 123)
    assert features.dtype == np.float32
    energy = np.log([np.square(samples[80 * t : 80 * t + 200].astype(np.float64)).sum() for t in range(58)])
    np.testing.assert_allclose(features[:, 40], energy - energy.mean(), atol=1e-4)
    middle = slice(10, -10)
    slopes = features[middle, 81] - features[middle, 81].mean() + 0.1  # means are taken away
    np.testing.assert_allclose(slopes, 0.1, atol=1e-3)
    np.testing.assert_allclose(features[middle, 122] - features[middle, 122].mean(), 0, atol=1e-3)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-4)


def test_a_gain_changes_nothing():
    np.testing.assert_allclose(filterbanks(2 * noise(), RATE), filterbanks(noise(), RATE), atol=1e-4)


def test_silence_is_finite():
    np.testing.assert_allclose(filterbanks(np.zeros(1000, np.float32), RATE), 0, atol=1e-12)
    assert np.isfinite(filterbanks(np.concatenate([np.zeros(1000, np.float32), noise()]), RATE)).all()


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(199, np.float32), 8000, "samples: expected at least 200 of them, which are 25 ms, got 199"),
        (np.zeros((2, 400), np.float32), 8000, "samples: expected shape"),
        (np.full(400, np.nan, np.float32), 8000, "samples: expected finite"),
        (np.zeros(400, np.int16), 8000, "samples: expected .*float"),
        (np.zeros(400, np.float32), 4000, "rate: expected"),
    ],
)
def test_bad_samples(samples, rate, message):
    with pytest.raises((TypeError, ValueError), match=message):
        filterbanks(samples, rate)
    assert frame_count(199, 8000) == 0
    assert (frame_count(200, 8000), frame_count(279, 8000), frame_count(280, 8000)) == (1, 1, 2)


def utterances():
    return [np.arange(6, dtype=np.float32).reshape(3, 2), 10 + np.arange(4, dtype=np.float32).reshape(2, 2)]


def test_windows_stay_within_an_utterance():
    frames = Frames(utterances(), 3)
    assert (len(frames), frames.inputs) == (5, 6)
    np.testing.assert_array_equal(frames.starts, [0, 3, 5])
    np.testing.assert_array_equal(
        frames.windows(np.array([0, 1, 2, 3, 4])),
        [[0, 0, 2, 1, 1, 3], [0, 2, 4, 1, 3, 5], [2, 4, 4, 3, 5, 5], [10, 10, 12, 11, 11, 13], [10, 12, 12, 11, 13, 13]],
    )
    np.testing.assert_array_equal(frames.rows_of(np.array([1, 0])), [3, 4, 0, 1, 2])
    mean, scale = frames.standards(np.array([0, 1, 2]))
    np.testing.assert_allclose(mean, [2, 2, 2, 3, 3, 3])
    np.testing.assert_allclose(scale, [1 / np.std([0, 2, 4])] * 6, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "context", "message"),
    [
        ([], 3, "utterances: expected at least one, got none"),
        (utterances(), 4, "context: expected an odd number of frames, got 4"),
        ([np.zeros((0, 2), np.float32)], 3, r"utterances\[0\]: expected at least one frame, got none"),
        ([np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32)], 3, r"utterances\[1\]: expected shape"),
        ([np.full((1, 2), np.inf, np.float32)], 3, "utterances: expected finite"),
    ],
)
def test_bad_frames(given, context, message):
    with pytest.raises(ValueError, match=message):
        Frames(given, context)


def test_frames_of_lists_and_bad_numbers_of_frames():
    frames = Frames([[[1.0, 2.0], [3.0, 4.0]], np.zeros((1, 2), np.float32)], 1)
    np.testing.assert_array_equal(frames.windows([1, 2]), [[3, 4], [0, 0]])
    with pytest.raises(ValueError, match=r"rows: expected values in \[0, 3\), got \[3, 3\]"):
        frames.windows([3])
    with pytest.raises(ValueError, match=r"utterances: expected values in \[0, 2\), got \[-1, -1\]"):
        frames.rows_of([-1])
    with pytest.raises(ValueError, match="rows: expected at least one, got none"):
        frames.standards([])
    with pytest.raises(ValueError, match="rate: expected an int in"):
        frame_count(10, 49)


def test_bad_targets():
    frames = Frames(utterances(), 3)
    for targets, outputs, message in (
        (np.array([0, 1, 2, 0, 3]), 3, r"labels: expected values in \[0, 3\)"),
        (np.arange(4), 4, "labels: expected shape"),
        (np.arange(5), None, "outputs: expected the number of classes beside labels, got None"),
        (np.zeros((5, 3), np.float32), 4, "outputs: expected 3"),
        (np.full((5, 3), np.nan, np.float32), None, "targets: expected finite"),
    ):
        with pytest.raises(ValueError, match=message):
            FrameCases(frames, targets, outputs)


@pytest.mark.parametrize("loss", ["cross_entropy", "mimic"])
def test_a_student_learns_from_windows(loss):
    """Which neighbour is the loudest: no frame alone knows."""
    rng = np.random.default_rng(0)
    frames = Frames([rng.standard_normal((40, 2)).astype(np.float32) + 5 for _ in range(20)], 3)
    logits = frames.windows(np.arange(800))[:, :3]
    cases = FrameCases(frames, logits.argmax(axis=1), 3) if loss == "cross_entropy" else FrameCases(frames, logits)
    student = Student(6, 64, 3)
    Trainer(student, AdamW(1e-2), epochs=20, batch_size=64, loss=loss, standardise_inputs=True).fit(cases)
    np.testing.assert_allclose(student.mean, frames.standards()[0], atol=0.05)
    assert np.mean(frames.answers(student).argmax(axis=1) == logits.argmax(axis=1)) > 0.9
    some = FrameCases(frames, logits, rows=np.array([7, 3]))
    x, targets, weights = some.batch(np.array([1]))
    assert (len(some), weights) == (2, None)
    np.testing.assert_array_equal(targets, logits[[3]])
    np.testing.assert_array_equal(frames.answers(student, np.array([3])), student.logits(x))


def ways(T, S):
    """All ways from the first state to the last."""
    for states in itertools.product(range(S), repeat=T):
        if states[0] == 0 and states[-1] == S - 1 and set(np.diff(states)) <= {0, 1}:
            yield states


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (6, 1), (7, 3), (8, 4)])
def test_alignment_is_the_best_of_all(shape):
    for seed in range(5):
        log_likelihood = 3 * np.random.default_rng(seed).standard_normal(shape)
        score = {way: sum(log_likelihood[t, s] for t, s in enumerate(way)) for way in ways(*shape)}
        best = max(score, key=score.get)
        np.testing.assert_array_equal(align(log_likelihood), best)
        assert word_score(log_likelihood) == pytest.approx(score[best])


def test_evidence_of_any_size_breaks_no_order():
    """Evidence for states in the reverse order: 1e6 a frame, more than what underflows."""
    log_likelihood = np.full((9, 3), -1e6)
    log_likelihood[np.arange(9), np.repeat([2, 1, 0], 3)] = 0
    states = align(log_likelihood)
    assert set(np.diff(states)) <= {0, 1}
    assert (states[0], states[-1]) == (0, 2)


def test_too_few_frames():
    with pytest.raises(ValueError, match="log_likelihood: expected at least as many frames as states, which are 3, got 2"):
        align(np.zeros((2, 3)))
    assert word_score(np.zeros((2, 3))) == -np.inf
    with pytest.raises(ValueError, match="log_likelihood: expected finite"):
        align(np.full((3, 3), np.nan))


def test_the_best_path_is_the_best_of_all():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        log_likelihood, transition, initial = 2 * rng.standard_normal((6, 3)) - 50, rng.dirichlet(np.ones(3), 3), rng.dirichlet(np.ones(3))
        score = {
            way: np.log(initial[way[0]])
            + sum(np.log(transition[a, b]) for a, b in itertools.pairwise(way))
            + log_likelihood[range(6), way].sum()
            for way in itertools.product(range(3), repeat=6)
        }
        states, found = best_path(log_likelihood, transition, initial)
        assert tuple(states) == max(score, key=score.get)
        assert found == pytest.approx(max(score.values()))


def test_a_way_of_no_probability_is_not_taken():
    """However much better its frames are: 250 in each of 3, and 900 in each of 2."""
    states, score = best_path(np.tile([-250.0, 0.0], (3, 1)), np.eye(2), np.array([1.0, 0.0]))
    assert (states.tolist(), score) == ([0, 0, 0], -750)
    transition = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]])
    states, _ = best_path(np.array([[0, -900, 0], [-900, -900, 0], [-900.0, -900, 0]]), transition, np.array([1.0, 0, 0]))
    assert states.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="log_likelihood: expected values up to 1e\\+100, got 1e\\+308"):
        align(np.array([[1e308]]))


@pytest.mark.parametrize(
    ("transition", "initial", "message"),
    [
        (np.ones((2, 2)), np.array([1, 0]), "transition: expected probabilities whose sum is 1"),
        (np.eye(3), np.array([1, 0]), "transition: expected shape"),
        (np.eye(2), np.array([-1, 2]), "initial: expected probabilities whose sum is 1"),
    ],
)
def test_bad_transitions(transition, initial, message):
    with pytest.raises(ValueError, match=message):
        best_path(np.zeros((3, 2)), transition, initial)
