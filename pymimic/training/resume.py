"""Whether a checkpoint is of this run, and whether its place is free."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import _check
from ..data.cases import Cases, Rows, both, read
from ..differences import short
from ..errors import FileFormatError
from ..files import Path, read_safetensors
from ..foreign import printable
from ..targets import demand_writable

_ROWS, _VALUES = 256, 1 << 21  # of a sample
_FIXED = {"rows", "optimizer", "slots", "keep_best", "standardise_inputs", "standardise_targets"}  # the state has their shape
_FREE_OF_STUDENT = {"student.dropout", "student.input_dropout", "student.seed"}

Sample = Rows


def sample(name: str, cases: Cases) -> Sample:
    """Some rows from the first to the last: enough to tell sets apart, few enough to read from any set; `name` is the argument's."""
    rows = max(16, min(_ROWS, _VALUES // (cases.inputs + cases.outputs)))
    return read(name, cases, np.linspace(0, len(cases) - 1, min(rows, len(cases))).astype(np.int64))


def fingerprint(rows: Sample) -> str:
    """What tells sets of equal length apart: a digest of a sample, as the training sees it."""
    x, targets, weights = rows
    digest = hashlib.sha256()
    for array in (x, *both(targets), weights):
        dtype = np.int64 if array is not None and array.dtype.kind in "iu" else np.float32
        digest.update(b"none" if array is None else np.ascontiguousarray(array, dtype).tobytes())
    return f"sha256 {digest.hexdigest()[:16]} of {len(x)} rows"


def as_stored(configuration: dict[str, Any]) -> dict[str, Any]:
    """The configuration as a checkpoint gives it back; TypeError names what it cannot hold."""
    for name, value in configuration.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: expected what JSON can hold, for checkpoints, got {value!r}") from error
    return json.loads(json.dumps(configuration))  # type: ignore[no-any-return]


class OtherRunError(ValueError):
    """A checkpoint is of a run with other settings.

    Attributes
    ----------
    where : the checkpoint
    found : what differs, as (setting, the checkpoint's value, this run's)
    may_differ : whether `resume_with` takes all of these settings
    """

    def __init__(self, where: str, found: list[tuple[str, str, str]], may_differ: bool) -> None:
        self.where, self.found, self.may_differ = where, found, may_differ
        names = [name for name, _, _ in found]
        hint = f"; to go on with this run's all the same, pass resume_with={names}" if may_differ else ""
        message = f"resume: expected a checkpoint of a run with the same settings, got {where!r}: {in_words(found)}{hint}"
        super().__init__(printable(message))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.where, self.found, self.may_differ)  # by default it would be the message alone


def in_words(found: Iterable[tuple[str, str, str]]) -> str:
    """What differs between a checkpoint and this run."""
    return "; ".join(f"the checkpoint has {name} = {theirs}, this run has {ours}" for name, theirs, ours in found)


def changeable(settings: Iterable[str]) -> set[str]:
    """Those of the settings that may differ between a checkpoint and the run that goes on from it."""
    return {name for name in settings if name not in _FIXED and (not name.startswith("student.") or name in _FREE_OF_STUDENT)}


def demand_same_run(path: Path, have: Any, want: dict[str, Any], resume_with: Iterable[str]) -> None:
    """Demand that a checkpoint's configuration is this run's, but for the names in `resume_with`.

    Earlier versions wrote fewer names; what they did not write is not compared.
    """
    where = os.fspath(path)
    if not isinstance(have, dict) or not isinstance(have.get("student"), dict):
        raise FileFormatError(f"resume: expected a checkpoint with a configuration in {where!r}, got {short(have)}")
    wanted, given = flat(want), flat(have)
    if "learning_rate" not in given:  # of an earlier version, which kept less of functions
        wanted |= {"loss": wanted["loss"].partition("(")[0].rpartition(".")[2], "augment": wanted["augment"] is not None}
    free = changeable(wanted)
    asked = list(resume_with)
    if other := [name for name in asked if not _check.one_of(name, free)]:
        raise ValueError(f"resume_with: expected names among {', '.join(sorted(free))}, got {', '.join(sorted(map(str, other)))}")
    common = [name for name in wanted if name in given and name not in asked]
    found = [(name, short(given[name]), short(wanted[name])) for name in common if wanted[name] != given[name]]
    if have["student"].keys() != want["student"].keys():  # nets of two kinds
        theirs, ours = (f"one with {', '.join(net['student'])}" for net in (have, want))
        found = [("student", theirs, ours), *found]
    if found:
        raise OtherRunError(where, found, free.issuperset(name for name, _, _ in found))


def demand_epochs(path: Path, reached: int, epochs: int) -> None:
    """Demand that a run that goes on from a checkpoint is to have no fewer epochs than it has begun."""
    if reached > epochs:
        where = f"as the checkpoint in {os.fspath(path)!r} is in epoch {reached}"
        raise ValueError(f"epochs: expected at least {reached}, {where}, got {epochs}")


def other_measure(have: dict[str, Any], want: dict[str, Any]) -> bool:
    """Whether a run with the configuration `want` measures what chooses the best epoch otherwise than the checkpoint's, `have`."""
    of_loss = ("loss", "temperature", "alpha") if want["monitor"] == "loss" else ()
    return any(name in have and name in want and have[name] != want[name] for name in ("validation", "monitor", *of_loss))


def flat(configuration: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the student's in it, as "student.rank" and so on."""
    flat = {name: value for name, value in configuration.items() if name != "student"}
    return flat | {f"student.{name}": value for name, value in configuration["student"].items()}


def home(name: str, path: Path | None) -> str | None:
    """The path with `~` as the home folder; `name` is the argument's."""
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name}: expected a path, a str or a pathlib.Path, got {type(path).__name__}")
    return None if path is None else os.path.expanduser(os.fspath(path))


class Place:
    """Where a run keeps its checkpoint. It replaces the file that was there when it began, and its own, but none that another run wrote.

    That first file may be the one that the run goes on from, or the checkpoint of a run that came to its end, or any with `overwrite`.

    Raises
    ------
    OSError
        There is no such folder, or it cannot be written to.
    ValueError
        The file has the state of a run that is not finished, or is something else.
    """

    def __init__(self, checkpoint: Path, resume: Path | None, overwrite: bool) -> None:
        demand_writable("checkpoint", checkpoint)
        self.path = os.fspath(checkpoint)
        self._known = _state(self.path)
        if self._known is not None and (resume is None or not os.path.exists(resume) or not os.path.samefile(resume, self.path)):
            self._demand_of_no_use(overwrite)

    def demand(self) -> None:
        """Demand that no other run has written the file; ValueError where one has."""
        if _state(self.path) not in (None, self._known):
            raise ValueError(
                f"checkpoint: expected no file, or this run's, in {self.path!r}, got one that another run has written since: "
                "give each run a file of its own"
            )

    def note(self) -> None:
        """Note that this run has written the file."""
        self._known = _state(self.path)

    @property
    def kept(self) -> bool:
        """Whether the file is there, and no other run has written it."""
        return self._known is not None and _state(self.path) == self._known

    def _demand_of_no_use(self, overwrite: bool) -> None:
        """Demand a checkpoint that nobody needs."""
        try:
            _, metadata = read_safetensors(self.path, "checkpoint", "checkpoint")
        except FileFormatError as error:
            raise ValueError(f"checkpoint: expected a file that is not there yet, or a checkpoint, got another file: {error}") from error
        if not metadata.get("finished", False) and not overwrite:
            counters = metadata.get("counters")
            step = short(counters.get("step") if isinstance(counters, dict) else None)
            raise ValueError(
                f"checkpoint: expected a file that is not there yet, got {self.path!r}, which has an unfinished run after step {step}; "
                f"fit(resume={self.path!r}) goes on with it; fit(overwrite=True) starts anew in its place"
            )


def _state(path: str) -> tuple[int, ...] | None:
    """What a file that is written again, or that another replaces, has otherwise; None where there is none."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return None
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns
