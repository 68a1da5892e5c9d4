"""A copy of TIMIT as its publisher lays it out, or a synthetic corpus in the same layout: who speaks in which part, and every sentence."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import FileFormatError
from ..foreign import demand_plain, parsed

RATE = 16_000
"""Samples a second."""

MARK = "synthetic.json"
"""The file that a synthetic corpus has beside its folders, and TIMIT has not."""

PARTS = ("train", "development", "test")

_REGIONS = {  # speakers in each dialect region
    "TRAIN": (38, 76, 76, 68, 70, 35, 77, 22),
    "TEST": (11, 26, 26, 32, 28, 11, 23, 11),
}
_SENTENCES = 8  # of each speaker, beside the two SA sentences, which all speakers read
_DEVELOPMENT = (  # Halberstadt (1998)
    "FADG0 FAKS0 FCAL1 FCMH0 FDAC1 FDMS0 FDRW0 FEDW0 FGJD0 FJEM0 FJMG0 FJSJ0 FKMS0 FMAH0 FMML0 FNMR0 FREW0 FSEM0 MAJC0 MBDG0 MBNS0 MBWM0 "
    "MCSH0 MDLF0 MDLS0 MDVC0 MERS0 MGJF0 MGLB0 MGWT0 MJAR0 MJFC0 MJSW0 MMDB1 MMDM2 MMJR0 MMWH0 MPDF0 MRCS0 MREB0 MRJM4 MRJR0 MROA0 MRTK0 "
    "MRWS1 MTAA0 MTDT0 MTEB0 MTHC0 MWJG0"
)
_CORE_TEST = (  # the publisher's
    "FDHC0 FELC0 FJLM0 FMGD0 FMLD0 FNLP0 FPAS0 FPKT0 MBPM0 MCMJ0 MDAB0 MGRT0 MJDH0 MJLN0 MJMP0 MKLT0 MLLL0 MLNT0 MNJM0 MPAM0 MTAS1 MTLS0 "
    "MWBT0 MWEW0"
)
_FILE = re.compile(r"S[AIX]\d+\.(WAV|PHN)", re.IGNORECASE)


class Utterance(NamedTuple):
    """One sentence."""

    speaker: str  # in capitals
    sentence: str  # likewise, as "SX37"
    wav: Path
    phn: Path


@dataclass(frozen=True)
class Corpus:
    """The sentences of each part, by speaker and number.

    Attributes
    ----------
    parts : "train", "development" and "test"
    synthetic : whether it is a synthetic corpus, and not TIMIT
    """

    parts: dict[str, tuple[Utterance, ...]]
    synthetic: bool


class Lists(NamedTuple):
    """Who speaks in which part, and how many sentences; speakers of "train" are in the folder TRAIN, all others in TEST."""

    speakers: dict[str, tuple[str, ...]] | None  # None: TIMIT's own lists
    sentences: int


def open_corpus(folder: str | os.PathLike[str]) -> Corpus:
    """The standard lists: 462 speakers to train on, 50 for development, and the core test's 24, without the SA sentences.

    Parameters
    ----------
    folder : has the folders TRAIN and TEST, in capitals or not, as TRAIN/DR1/FCJF0/SX37.WAV with SX37.PHN beside it

    Raises
    ------
    FileNotFoundError
        A folder, speaker, sentence or file is missing; the message names it.
    FileFormatError
        A speaker, or a file, is there twice, in capitals and not; a synthetic corpus's list is none.
    OSError
        A folder cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(errno.ENOENT, "path: expected the folder with TIMIT's folders TRAIN and TEST, got no folder", str(root))
    lists = read_lists(root / MARK) if (root / MARK).exists() else Lists(None, _SENTENCES)
    halves = {name: _speakers(root, name, _REGIONS[name] if lists.speakers is None else None) for name in ("TRAIN", "TEST")}
    speakers = lists.speakers or {
        "train": tuple(sorted(halves["TRAIN"])),
        "development": tuple(_DEVELOPMENT.split()),
        "test": tuple(_CORE_TEST.split()),
    }
    parts = {}
    for part in PARTS:
        half = "TRAIN" if part == "train" else "TEST"
        missing = [name for name in speakers[part] if name not in halves[half]]
        if missing:
            raise _missing(root, f"the {len(speakers[part])} speakers of the {part} list in {half}", f"none called {', '.join(missing)}")
        parts[part] = tuple(one for name in speakers[part] for one in _utterances(halves[half][name], name, lists.sentences))
    return Corpus(parts, lists.speakers is not None)


def read_lists(path: Path) -> Lists:
    """What `pymimic.speech.synthetic` wrote; FileFormatError where it is something else."""
    demand_plain(path, "path")
    try:
        value = parsed(path.read_bytes())
        speakers = {part: tuple(str(name) for name in value["speakers"][part]) for part in PARTS}
        names = [name for part in PARTS for name in speakers[part]]
        if len(set(names)) != len(names) or not all(speakers.values()):
            raise ValueError("a speaker twice, or a part without any")
        return Lists(speakers, int(value["sentences"]))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise FileFormatError(f"path: {str(path)!r}: expected the list of a synthetic corpus, got something else ({error!r})") from None


def _speakers(root: Path, half: str, counts: tuple[int, ...] | None) -> dict[str, Path]:
    """The folder of each speaker in TRAIN or TEST."""
    folder = _folders(root, half).get(half)
    if folder is None:
        raise _missing(root, f"a folder {half}", "none")
    regions = {name: _folders(path) for name, path in _folders(folder).items()}
    for number, count in enumerate(counts or (), 1):
        region = f"DR{number}"
        if region not in regions:
            raise _missing(folder, f"a folder {region}", "none")
        if len(regions[region]) != count:
            raise _missing(folder, f"{count} speakers in {region}", str(len(regions[region])))
    return _once(folder, (speaker for speakers in regions.values() for speaker in speakers.items()))


def _folders(folder: Path, only: str | None = None) -> dict[str, Path]:
    """Those in it, or the one of that name, by their names in capitals."""
    folders = ((path.name.upper(), path) for path in sorted(folder.iterdir()) if path.is_dir())
    return _once(folder, (one for one in folders if only in (None, one[0])))


def _utterances(folder: Path, speaker: str, count: int) -> Iterator[Utterance]:
    """A speaker's sentences but for SA1 and SA2, each a recording and its phones."""
    files: dict[str, dict[str, Path]] = {}
    spoken = ((path.name.upper(), path) for path in sorted(folder.iterdir()) if _FILE.fullmatch(path.name))
    for name, path in _once(folder, (one for one in spoken if not one[0].startswith("SA"))).items():
        sentence, _, kind = name.partition(".")
        files.setdefault(sentence, {})[kind] = path
    for sentence, two in files.items():
        for kind, other in (("WAV", "PHN"), ("PHN", "WAV")):
            if kind not in two:
                raise _missing(folder, f"{sentence}.{kind} beside {two[other].name}", "none")
    if len(files) != count:
        raise _missing(folder, f"{count} sentences of {speaker}, SA1 and SA2 not counted", str(len(files)))
    return (Utterance(speaker, sentence, two["WAV"], two["PHN"]) for sentence, two in sorted(files.items()))


def _once(folder: Path, named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """The paths by their names in capitals, of which none may be there twice."""
    found: dict[str, Path] = {}
    for name, path in named:
        if name in found:
            names = " and ".join(repr(str(one.relative_to(folder))) for one in (found[name], path))
            what = "folder" if path.is_dir() else "file"
            raise FileFormatError(f"path: {str(folder)!r}: expected a {what} {name} once, got {names}")
        found[name] = path
    return found


def _missing(folder: Path, expected: str, got: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, f"path: expected {expected}, got {got}: the copy is not complete", str(folder))
