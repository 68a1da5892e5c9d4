"""A synthetic corpus in TIMIT's layout, spoken by Debian's `flite`: no human voice is in it.

    python -m pymimic.speech.synthetic DEST

A speaker is a voice with a pitch, a pace, a vocal tract, a microphone and a room of its own. Every sentence has noise of its own.
Sentences are of a text file, or verses of the King James Bible as Debian's `bible` prints them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from .. import _check
from ..foreign import demand_plain, printable
from ..packages import package
from ..progress import Progress
from ..targets import expanded, replacing
from ..threads import get_num_threads
from .audio import read_audio
from .segments import Segment, write_segments
from .speakers import Speaker, drawn
from .timit import MARK, PARTS, RATE, read_lists

SPEAKERS = {"train": 462, "development": 50, "test": 24}
"""As many as TIMIT has."""

SENTENCES = 8
"""Of each speaker, as TIMIT has beside the SA sentences."""

_OR_ELSE = ", or give a text file to python -m pymimic.speech.synthetic"
_SHORTEST, _LONGEST = 25, 60  # characters of a sentence: two to four seconds
_TAKEN = f"parts between . : ; ? and ! of {_SHORTEST} to {_LONGEST} letters, spaces, commas, hyphens and apostrophes"
# flite's phones of US English, which have TIMIT's names; a stop's closure is part of the stop
_SPOKEN = "aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p pau r s sh t th uh uw v w y z zh"


def make(
    folder: str | os.PathLike[str], sentences: Sequence[str] | None = None, speakers: Mapping[str, int] = SPEAKERS, each: int = SENTENCES,
    seed: int = 0, progress: bool = True,
) -> Path:  # fmt: skip
    """Have flite speak the corpus, or what of it is not there yet; the same arguments give the same files.

    Parameters
    ----------
    folder : gets TRAIN, TEST and `synthetic.json`, and is made if need be
    sentences : distinct texts, of which each is spoken once; None: the King James Bible's, as `bible_sentences` has them
    speakers : how many in "train", "development" and "test"
    each : sentences of a speaker
    seed : of the speakers, of who says what, and of the noise

    Returns
    -------
    The folder.

    Raises
    ------
    FileNotFoundError
        flite, or without `sentences` the program `bible`, is not installed; the message says how to.
    ValueError
        There are too few sentences; the folder holds another corpus; flite speaks a phone that TIMIT has no name for.
    OSError
        A file cannot be written; as ChildProcessError, flite or `bible` fails.
    """
    flite = _program("flite", "flite")
    if missing := [part for part in PARTS if part not in speakers]:
        raise ValueError(f"speakers: expected numbers of {', '.join(PARTS)}, got none of {', '.join(missing)}")
    counts = {part: _check.integer(f"speakers[{part!r}]", speakers[part], 1, 1000) for part in PARTS}
    each, total = _check.integer("each", each, 1, 1000), sum(counts.values())
    texts = list(dict.fromkeys(bible_sentences() if sentences is None else sentences))
    if len(texts) < each * total:
        raise ValueError(f"sentences: expected at least {each * total} that differ, {each} for each of {total} speakers, got {len(texts)}")
    streams = dict(zip(("speakers", "sentences", "noise"), np.random.SeedSequence(_check.integer("seed", seed, 0, 1 << 64)).spawn(3)))
    order = np.random.default_rng(streams["sentences"]).permutation(len(texts))[: each * total]
    people, root = drawn(total, streams["speakers"]), Path(expanded(folder, "folder"))
    names = iter(one.name for one in people)
    _mark(root, {part: [next(names) for _ in range(count)] for part, count in counts.items()}, each, seed, texts)
    todo = []
    for i, (number, stream) in enumerate(zip(order, streams["noise"].spawn(len(order)))):
        speaker = people[i // each]
        half = "TRAIN" if i // each < counts["train"] else "TEST"
        stem = root / half / speaker.region / speaker.name / f"SI{number}"
        if not all(stem.with_suffix(suffix).exists() for suffix in (".WAV", ".PHN")):
            todo.append((stem, speaker, texts[number], stream))
    with (
        ThreadPoolExecutor(get_num_threads()) as pool,
        Progress(total=len(todo), disable=None if progress else True, unit="sentence", desc="flite speaks") as bar,
    ):
        for _ in pool.map(lambda job: _speak(flite, *job), todo):
            bar.update()
    return root


def demand_programs() -> None:
    """Demand what `make` without sentences of one's own runs; FileNotFoundError says what to install."""
    _program("flite", "flite")
    _program("bible", "bible-kjv", _OR_ELSE)


def bible_sentences() -> list[str]:
    """Parts of verses of the King James Bible, in the order of the books."""
    bible = _program("bible", "bible-kjv", _OR_ELSE)
    said = _output([bible, "-f", "gen1:1-rev22:21"])
    return split(re.sub(r"^\S+:\d+ ", "", said, flags=re.MULTILINE))


def split(text: str) -> list[str]:
    """Distinct sentences of a text, or parts of them between marks, that take two to four seconds to say.

    They have 25 to 60 letters, spaces, commas, hyphens and apostrophes. Parts with digits or other characters are left out.
    """
    parts = (" ".join(part.split()) for part in re.split(r"[.:;?!]", text))
    return list(
        dict.fromkeys(part for part in parts if _SHORTEST <= len(part) <= _LONGEST and re.fullmatch(r"[A-Za-z][A-Za-z ,'-]*", part))
    )


def _mark(root: Path, speakers: dict[str, list[str]], each: int, seed: int, texts: Sequence[str]) -> None:
    """Note whose corpus it is, and demand that it is no other one's."""
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    lists = {"speakers": speakers, "sentences": each, "seed": seed, "texts": digest, "about": "synthetic speech by flite in TIMIT's layout"}
    root.mkdir(parents=True, exist_ok=True)
    path = root / MARK
    if path.exists():
        read_lists(path)
        there = json.loads(path.read_bytes())
        if there | {"texts": there.get("texts", digest)} != lists:  # an earlier version noted no texts
            raise ValueError(f"folder: expected none, or one with the same synthetic corpus, got another in {str(root)!r}")
    elif any(root.iterdir()):
        raise ValueError(f"folder: expected a synthetic corpus or an empty folder, got other files in {str(root)!r}")
    else:
        with replacing(path) as file:
            file.write(json.dumps(lists, indent=1).encode())


def _speak(flite: str, stem: Path, speaker: Speaker, text: str, stream: np.random.SeedSequence) -> None:
    """Write one sentence's .TXT, .WAV and, as a sign that it is whole, last its .PHN."""
    soundfile = package("speech", "soundfile")
    stem.parent.mkdir(parents=True, exist_ok=True)
    options = (f"duration_stretch={speaker.stretch:.4f}", f"int_f0_target_mean={speaker.pitch:.2f}")
    flags = [word for option in options for word in ("--setf", option)]
    with TemporaryDirectory() as room:
        clean = Path(room) / "clean.wav"
        command = [flite, "-voice", speaker.voice, *flags, "-psdur", "-t", text, "-o", str(clean)]
        ends = [_phone(word) for word in _output(command).split()]
        if not ends:
            raise ValueError(f"flite: expected phones of {text!r}, got none")
        samples = read_audio(clean, RATE)
    heard = speaker.recorded(samples, np.random.default_rng(stream))
    with replacing(stem.with_suffix(".TXT")) as file:
        file.write(f"0 {len(heard)} {text}\n".encode())
    with replacing(stem.with_suffix(".WAV")) as file:
        soundfile.write(file, heard, RATE, subtype="PCM_16", format="WAV")
    with replacing(stem.with_suffix(".PHN")) as file:
        file.write(write_segments(_segments(ends, len(samples), len(heard))).encode())


def _segments(ends: Sequence[tuple[str, float]], before: int, after: int) -> list[Segment]:
    """Phones by their ends in seconds of `before` samples, as those of `after` samples that were made of them."""
    segments, start = [], 0
    for i, (phone, end) in enumerate(ends):
        at = after if i == len(ends) - 1 else min(round(end * RATE * after / before), after - 1)
        if at > start:
            segments.append(Segment(start, at, "h#" if i in (0, len(ends) - 1) else phone))
            start = at
    return segments


def _phone(word: str) -> tuple[str, float]:
    """One of those that flite prints, as "ax:0.866", with its end."""
    name, _, end = word.rpartition(":")
    if name not in _SPOKEN.split():
        raise ValueError(f"flite: expected phones of its US voices, got {printable(word[:80])!r}")
    return name, float(end)


def _output(command: Sequence[str]) -> str:
    """What a program prints; ChildProcessError where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        how = f"exit status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        said = printable(" ".join(done.stderr.split())[:200])
        raise ChildProcessError(f"{Path(command[0]).name}: expected it to end well, got {how}{said and ': '}{said}")
    return done.stdout


def _program(name: str, debian: str, otherwise: str = "") -> str:
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"synthetic: expected the program {name} to be installed: apt install {debian}{otherwise}")
    return path


def _read(path: Path, count: int) -> list[str]:
    """So many distinct sentences of a text file, or more."""
    demand_plain(path, "sentences")
    texts = split(path.read_text(errors="replace"))
    if len(texts) < count:
        raise ValueError(f"sentences: {str(path)!r}: expected {count} distinct sentences or more, got {len(texts)}; it takes {_TAKEN}")
    return texts


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m pymimic.speech.synthetic", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", metavar="DEST")
    text = f"a text in English, of which it takes {_TAKEN} (default: the King James Bible, of Debian's bible-kjv)"
    parser.add_argument("--sentences", metavar="FILE", help=text)
    counts = [SPEAKERS[part] for part in PARTS]
    parser.add_argument("--speakers", nargs=3, type=int, default=counts, metavar="N", help=f"in train, development and test ({counts})")
    parser.add_argument("--each", type=int, default=SENTENCES, metavar="N", help=f"sentences of a speaker ({SENTENCES})")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args(arguments)
    try:
        texts = None if options.sentences is None else _read(Path(options.sentences), options.each * sum(options.speakers))
        print(make(options.folder, texts, dict(zip(PARTS, options.speakers)), options.each, options.seed))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on where it was stopped")


if __name__ == "__main__":
    main()
