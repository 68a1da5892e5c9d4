"""TIMIT's layout and what it must have, on copies made here: empty recordings stand for speech."""

import json
import re

import numpy as np
import pytest

from pymimic import FileFormatError
from pymimic.speech import timit
from pymimic.speech.phones import NUMBERS
from pymimic.speech.segments import Segment, frame_states, read_segments, write_segments

REGIONS = timit._REGIONS
SENTENCES = ("SA1", "SA2", "SX1", "SX2", "SX3", "SX4", "SX5", "SI1", "SI2", "SI3")


def sentence(folder, name, lower=False):
    for kind in ("WAV", "PHN", "TXT", "WRD"):
        file = f"{name}.{kind}"
        (folder / (file.lower() if lower else file)).touch()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A copy of TIMIT without a word in it."""
    root = tmp_path_factory.mktemp("timit")
    known = {"TRAIN": [], "TEST": [*timit._DEVELOPMENT.split(), *timit._CORE_TEST.split()]}
    for half, counts in REGIONS.items():
        names = iter([*known[half], *(f"MXX{chr(65 + i // 26)}{chr(65 + i % 26)}{half[0]}" for i in range(500))])
        for region, count in enumerate(counts, 1):
            for _ in range(count):
                folder = root / half / f"DR{region}" / next(names)
                folder.mkdir(parents=True)
                for name in SENTENCES:
                    sentence(folder, name)
    return root


def test_the_standard_lists_have_462_50_and_24_speakers_who_differ():
    development, core = timit._DEVELOPMENT.split(), timit._CORE_TEST.split()
    assert (len(set(development)), len(set(core)), len({*development, *core})) == (50, 24, 74)
    assert (sum(REGIONS["TRAIN"]), sum(REGIONS["TEST"])) == (462, 168)
    assert sum(name.startswith("F") for name in core) == 8  # two men and a woman of each region


def test_a_whole_copy_gives_3696_400_and_192_sentences_without_sa(whole):
    corpus = timit.open_corpus(whole)
    assert {part: len(sentences) for part, sentences in corpus.parts.items()} == {"train": 3696, "development": 400, "test": 192}
    assert not any(one.sentence.startswith("SA") for sentences in corpus.parts.values() for one in sentences)
    assert not corpus.synthetic


@pytest.fixture
def small(tmp_path):
    """Two speakers in one region of each half; `synthetic.json` says who they are."""
    speakers = {"train": ["MAAA0"], "development": ["FBBB0"], "test": ["FCCC1"]}
    for half, name in (("TRAIN", "MAAA0"), ("TEST", "FBBB0"), ("TEST", "FCCC1")):
        folder = tmp_path / half / "DR1" / name
        folder.mkdir(parents=True)
        for number in ("SX1", "SX2"):
            sentence(folder, number)
    (tmp_path / timit.MARK).write_text(json.dumps({"speakers": speakers, "sentences": 2}))
    return tmp_path


def test_names_in_small_letters_are_read(tmp_path, small):
    for path in sorted(small.rglob("*"), key=lambda path: -len(path.parts)):
        if path.name != timit.MARK:
            path.rename(path.with_name(path.name.lower()))
    corpus = timit.open_corpus(tmp_path)
    assert [(one.speaker, one.sentence, one.wav.name) for one in corpus.parts["train"]] == [
        ("MAAA0", "SX1", "sx1.wav"), ("MAAA0", "SX2", "sx2.wav")
    ]  # fmt: skip
    assert corpus.synthetic


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("TRAIN", "expected a folder TRAIN, got none"),
        ("TEST/DR1/FCCC1", "expected the 1 speakers of the test list in TEST, got none called FCCC1"),
        ("TRAIN/DR1/MAAA0/SX1.PHN", "expected SX1.PHN beside SX1.WAV, got none"),
        ("TEST/DR1/FBBB0/SX2.WAV", "expected SX2.WAV beside SX2.PHN, got none"),
    ],
)
def test_what_is_missing_is_named(small, lost, message):
    (small / lost).rename(small.parent / "lost")
    try:
        with pytest.raises(FileNotFoundError, match=re.escape(message)):
            timit.open_corpus(small)
    finally:
        (small.parent / "lost").rename(small / lost)


def test_missing_sentences_regions_and_folders_are_named(small):
    for kind in ("WAV", "PHN"):
        (small / "TRAIN" / "DR1" / "MAAA0" / f"SX2.{kind}").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected 2 sentences of MAAA0, SA1 and SA2 not counted, got 1"):
        timit.open_corpus(small)
    (small / timit.MARK).unlink()
    with pytest.raises(FileNotFoundError, match=r"expected 38 speakers in DR1, got 1: the copy is not complete"):
        timit.open_corpus(small)
    with pytest.raises(FileNotFoundError, match=r"path: expected the folder with TIMIT's folders"):
        timit.open_corpus(small / "none")


def test_a_list_that_is_none_is_refused(small):
    (small / timit.MARK).write_text('{"speakers": []}')
    with pytest.raises(FileFormatError, match=r"synthetic.json': expected the list of a synthetic corpus, got something else"):
        timit.open_corpus(small)
    one = {"train": ["MAAA0"], "development": ["FBBB0"], "test": ["FBBB0"]}
    for speakers, sentences in ((one, "2"), (one | {"test": []}, "2"), (one | {"test": ["FCCC1"]}, "1e999")):
        (small / timit.MARK).write_text(f'{{"speakers": {json.dumps(speakers)}, "sentences": {sentences}}}')
        with pytest.raises(FileFormatError, match="expected the list of a synthetic corpus, got something else"):
            timit.open_corpus(small)


def test_other_folders_are_nobodys_business(small):
    for name in ("DOC", "doc", "Doc"):
        (small / name).mkdir(exist_ok=True)
    assert timit.open_corpus(small).synthetic


@pytest.mark.parametrize("name", ["train", "TRAIN/DR1/maaa0", "TRAIN/DR2/MAAA0", "TRAIN/DR1/MAAA0/sx1.wav"])
def test_what_is_there_twice_is_named(small, name):
    if (small / name).exists():
        pytest.skip("names are the same in capitals and not")
    (small / name).parent.mkdir(exist_ok=True)
    if name.endswith("wav"):
        (small / name).touch()
    else:
        (small / name).mkdir()
    with pytest.raises(FileFormatError, match=r"expected a (folder|file).* once, got "):
        timit.open_corpus(small)


class TestSegments:
    def test_a_file_is_read_as_it_is_written(self, tmp_path):
        segments = [Segment(0, 3050, "h#"), Segment(3050, 4559, "sh"), Segment(4559, 46720, "h#")]
        path = tmp_path / "SA1.PHN"
        path.write_text(write_segments(segments))
        assert path.read_text() == "0 3050 h#\n3050 4559 sh\n4559 46720 h#\n"
        assert read_segments(path, 46_797) == segments  # TIMIT's own end so
        path.write_bytes(path.read_bytes().upper().replace(b"\n", b"\r\n"))
        assert read_segments(path, 46_720) == segments

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("0 100 h#\n90 300 h#\n", "line 2: expected start 100, where the phone before ends, got 90: an overlap"),
            ("0 100 h#\n110 300 h#\n", "line 2: expected start 100, where the phone before ends, got 110: a gap"),
            ("50 300 h#\n", "line 1: expected start 0"),
            ("0 100 h#\n100 100 aa\n100 300 h#\n", "line 2: expected an end behind start 100, got 100"),
            ("0 100 h#\n100 200 xx\n200 300 h#\n", "line 2: expected one of TIMIT's 61 phones, got 'xx'"),
            ("0 100 h#\n100 2e2 aa\n", "line 2: expected two sample numbers and a phone, got '100 2e2 aa'"),
            ("0 100 h#\n-1 200 aa\n", "line 2: expected two sample numbers and a phone, got '-1 200 aa'"),
            ("0 100 h#\n100 200\n", "line 2: expected two sample numbers and a phone, got '100 200'"),
            ("0 100 h#\n100 300 aa\n", "line 2: expected h# as the last phone, got aa"),
            ("0 100 aa\n100 300 h#\n", "line 2: expected h# as the first phone, got aa"),
            ("0 300 h#\n", "line 1: expected the last phone to end near sample 9000, where the recording does, got 300"),
            ("0 20000 h#\n", "line 1: expected the last phone to end near sample 9000, where the recording does, got 20000"),
            ("", "line 0: expected phones, got an empty file"),
            ("0 100 h#\n\xff\xfe\n", "line 2: expected two sample numbers and a phone"),
        ],
    )
    def test_a_wrong_line_is_named(self, tmp_path, text, message):
        path = tmp_path / "a.phn"
        path.write_bytes(text.encode("latin-1"))
        samples = 9000 if "near" in message else 300
        with pytest.raises(FileFormatError, match=re.escape(message)) as caught:
            read_segments(path, samples)
        assert str(path) in str(caught.value)

    def test_a_frame_has_the_third_of_the_phone_under_its_middle(self):
        segments = [Segment(0, 680, "h#"), Segment(680, 1640, "aa"), Segment(1640, 2000, "h#")]
        silence, aa = 3 * NUMBERS["h#"], 3 * NUMBERS["aa"]
        # the middles of the frames: 200, 360, 520; 680, 840, 1000, 1160, 1320, 1480; 1640, 1800, 1960; 2120 is behind the end
        wanted = [
            silence,
            silence + 1,
            silence + 2,
            *(aa + third for third in (0, 0, 1, 1, 2, 2)),
            silence,
            silence + 1,
            silence + 2,
            silence + 2,
        ]
        assert frame_states(segments, 13, 16_000).tolist() == wanted

    def test_states_are_of_183(self):
        ends = np.cumsum([0, *[480] * 61])
        segments = [Segment(start, end, phone) for start, end, phone in zip(ends, ends[1:], sorted(NUMBERS))]
        assert set(frame_states(segments, 61 * 3 - 1, 16_000)) == set(range(183)) - {0}


@pytest.mark.parametrize("kind", ["NIST", "WAV"])
def test_sentences_are_read_as_features_states_and_phones(small, kind):
    pytest.importorskip("librosa")
    soundfile = pytest.importorskip("soundfile")
    from pymimic.speech.recordings import read

    tone = np.sin(np.arange(8_000, dtype=np.float32))
    for path in small.rglob("*.WAV"):
        soundfile.write(path.with_suffix(".tmp"), 0.5 * tone, 16_000, format=kind, subtype="PCM_16")
        path.with_suffix(".tmp").replace(path)
        path.with_suffix(".PHN").write_text("0 2000 h#\n2000 6000 iy\n6000 8000 h#\n")
    corpus = timit.open_corpus(small)
    first, second = read(corpus.parts["test"])
    assert first.phones == ["h#", "iy", "h#"]
    assert first.features.shape == (48, 123)
    assert np.array_equal(first.states, frame_states(first.segments, 48, 16_000))
    assert np.array_equal(first.features, second.features)
    soundfile.write(corpus.parts["test"][1].wav, tone[:300], 16_000, format=kind)
    with pytest.raises(FileFormatError, match=r"SX2.WAV': expected at least 25 ms, got 300 samples"):
        read(corpus.parts["test"])
    soundfile.write(corpus.parts["test"][1].wav, tone, 8_000, format=kind)
    with pytest.raises(FileFormatError, match=r"SX2.WAV': expected 16000 samples a second, got 8000"):
        read(corpus.parts["test"])
