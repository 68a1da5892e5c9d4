"""One input after the other in this process, watched: exceptions, time, memory, files outside the folder. What fails is kept."""

from __future__ import annotations

import faulthandler
import hashlib
import json
import mmap
import os
import random
import re
import resource
import shutil
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

LONGEST = 1 << 20  # bytes of an input
LONGEST_MESSAGE = 3000
_FAR = 0.7  # share of inputs that are mutated from what reached new lines; the others from a seed
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {f"os.{name}" for name in ("rename", "remove", "rmdir", "mkdir", "link", "symlink", "truncate", "chmod", "chown", "utime")}
_RUNS = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "ctypes.dlopen")


class Watch:
    """Runs inputs of a target, and writes what fails into a folder.

    Parameters
    ----------
    name, target : see `files.Target`
    home : for the inputs' own files (`home/work`), the input in hand (`home/input`) and the failures (`home/failures`, a line each)
    keep : for inputs that fail
    seconds : that an input may take; the process ends by SIGALRM then
    """

    def __init__(self, name: str, target: Any, home: Path, keep: Path, seconds: float) -> None:
        self.name, self.target, self.keep, self.seconds = name, target, keep, seconds
        self.work, self._failures = home / "work", home / "failures"
        self.work.mkdir()
        self._places: set[str] = set()
        self._outside: list[str] = []
        with open(home / "input", "w+b") as file:
            file.truncate(16 + LONGEST)
            self._hand = mmap.mmap(file.fileno(), 16 + LONGEST)  # who started this process finds the input there, however this one ends
        sys.addaudithook(self._audit)
        faulthandler.enable()
        faulthandler.register(signal.SIGALRM, chain=True)
        warnings.simplefilter("ignore")
        sanitized = "asan" in os.environ.get("LD_PRELOAD", "")  # which takes all addresses that there are
        if sys.platform == "linux" and not sanitized:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + (target.megabytes << 20)
            resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

    def run(self, data: bytes) -> None:
        """Run one input, of at least one byte."""
        if not data:
            return
        self._hand[16 : 16 + len(data)] = data
        self._hand[:16] = (self._runs() + 1).to_bytes(8, "little") + len(data).to_bytes(4, "little") + b"\1\0\0\0"
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        came: BaseException | None = None
        why = ""
        try:
            self.target.run(data, self.work)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            came, why = error, self._wrong(error) if isinstance(error, self.target.allowed) else "not a documented exception"
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._hand[12] = 0
        if came is not None and why:
            self._failed(data, f"{why}: {type(came).__name__}: {came}", came)
        if self._outside:
            self._failed(data, self._outside[0], None)
            self._outside.clear()
        self._clean()

    def _runs(self) -> int:
        return int.from_bytes(self._hand[:8], "little")

    def _clean(self) -> None:
        for entry in os.scandir(self.work):
            shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)

    def _wrong(self, error: Exception) -> str:
        """What is the matter with the message of a documented exception."""
        message = str(error)
        if not self.target.says or isinstance(error, MemoryError):
            return ""
        if len(message) > LONGEST_MESSAGE:
            return f"a message of {len(message)} characters"
        if not message.isprintable():
            return "a message that cannot be printed as it is"
        if isinstance(error, OSError):
            return "" if error.filename else "a message that names no file"
        if not re.search(r"expected|diverged", message):
            return "a message that does not say what was expected"
        return "" if not self.target.names_file or str(self.work) in message else "a message that names no file"

    def _failed(self, data: bytes, why: str, error: BaseException | None) -> None:
        frames = traceback.extract_tb(error.__traceback__) if error else []
        where = next((f"{frame.filename}:{frame.lineno}" for frame in reversed(frames) if "pymimic" in frame.filename), "")
        if (place := f"{why.partition('/')[0][:60]} {where}") in self._places:
            return
        self._places.add(place)
        path = kept(self.keep, self.name, data)
        with open(self._failures, "a") as file:
            file.write(json.dumps({"why": why[:400], "where": where, "input": str(path)}) + "\n")

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take note of files that are written outside of the folder, and of what runs other programs."""
        if self._hand[12] == 0:
            return
        if event in _RUNS:
            self._outside.append(f"{event} {arguments[:2]!r}")
        if event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES):
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                if isinstance(path, (str, bytes, os.PathLike)):
                    where = os.path.realpath(os.fsdecode(path))
                    if not where.startswith(str(self.work)) and where != os.devnull:
                        self._outside.append(f"{event} outside of the folder: {where}")


def kept(keep: Path, name: str, data: bytes) -> Path:
    """Write an input that fails into the folder; its path."""
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def plain(watch: Watch, seeds: list[bytes], runs: int, seed: int) -> None:
    """The seeds, then inputs that a few mutations make of one."""
    rng = random.Random(seed)
    for data in seeds[:runs]:
        watch.run(data)
    for _ in range(runs - len(seeds)):
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            data = watch.target.mutate(data, rng)
        watch.run(data[:LONGEST])


def by_coverage(watch: Watch, seeds: list[bytes], runs: int, seed: int, home: Path) -> None:
    """The same, by atheris: inputs that reach new lines are mutated again. Ends the process."""
    import atheris

    corpus = home / "corpus"
    corpus.mkdir()
    for i, data in enumerate(seeds):
        (corpus / str(i)).write_bytes(data)

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        made: bytes = watch.target.mutate(data if data and rng.random() < _FAR else rng.choice(seeds), rng)
        return made if len(made) <= longest else data

    options = [f"-runs={runs + 1}", f"-seed={seed + 1}", f"-max_len={LONGEST}", "-timeout=0", "-rss_limit_mb=0"]  # the first input is empty
    handled = [f"-handle_{name}=0" for name in ("abrt", "bus", "fpe", "ill", "int", "segv", "term")]
    atheris.Setup([watch.name, *options, *handled, str(corpus)], watch.run, custom_mutator=mutate)
    atheris.Fuzz()
