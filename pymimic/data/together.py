"""Labelling one folder in several processes: each claims shards that nobody has labelled, and the last one out makes the set of them.

A process that dies leaves its claim: the kernel unlocks the file. Its shard's inputs are on disk before the teacher is asked, so that
any other can label them, also one whose iterable of inputs has gone on.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.interface import Array
from ..errors import ManifestError
from ..progress import Progress
from ..targets import remove_parts
from .agreement import AGAIN, demand_alike, demand_recorded, demand_same
from .asking import Answers, packed_logits
from .given import Given
from .locks import Lock
from .manifest import MANIFEST, UNDER_WAY, Manifest, read_manifest
from .records import FIRST, PRESENT, TURN, Records, begun, clear, demand_own_folders, demand_room_beside, remove
from .shards import finish, open_shard, remove_unfinished, write_shard

_PAUSE = 0.05  # seconds between looks at what others do


def demand_part(part: object) -> tuple[int, int] | None:
    """Demand the argument of `TransferSet.create`; "auto" is what the environment says of torch.distributed's launcher."""
    if isinstance(part, str) and part == "auto":
        rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
        if rank is None and size is None:
            return None
        try:
            part = int(rank or ""), int(size or "")
        except ValueError:
            message = f"part: expected ints in RANK and WORLD_SIZE of the environment, as torchrun sets them, got {rank!r} and {size!r}"
            raise ValueError(message) from None
    if part is None:
        return None
    wanted = f'part: expected two ints (i, n), 0 <= i < n, "auto" or None, got {part!r}'
    if not isinstance(part, (tuple, list)) or len(part) != 2:
        raise TypeError(wanted)
    if any(isinstance(number, (bool, np.bool_)) or not isinstance(number, (int, np.integer)) for number in part):
        raise TypeError(wanted)
    if not 0 <= part[0] < part[1]:
        raise ValueError(wanted)
    return int(part[0]), int(part[1])


def label_together(
    folder: Path, answers: Answers, given: Given, described: dict[str, Any], part: tuple[int, int] | None, standardise: bool, progress: bool
) -> bool:
    """Label what nobody else does, and return when the set is complete; False where it was so before, and nothing has been compared.

    part : the worker's; None for one process that goes on with what several have begun
    """
    first_rows = [array[:AGAIN].copy() for array in given.first()]
    with closing(_turn(folder, needed=part is not None)) as turn, closing(Lock(turn.path.with_name(PRESENT))) as present:
        complete = False
        try:
            try:
                manifest = _agreed(folder, answers, first_rows, described, nobody_else=present.take() is not False)
                if manifest is None:
                    complete = True
                    return False
                present.take(shared=True)
            finally:
                turn.release()
            records = Records(folder, manifest)
            rows = _Worker(records, answers, given, part or (0, 1)).work(progress)
            present.release()
            _complete(folder, records, rows, turn, present, standardise)
            complete = True
            return True
        finally:
            present.release()
            _leave(folder, turn, present, complete)


def _turn(folder: Path, needed: bool) -> Lock:
    """The lock under which workers come and go, taken."""
    path = folder / UNDER_WAY
    demand_own_folders(path)
    while True:
        path.mkdir(exist_ok=True)
        with ExitStack() as stack:
            try:
                turn = stack.enter_context(closing(Lock(path / TURN)))
            except FileNotFoundError:  # the last one out has removed the folder
                continue
            if turn.take(wait=True) is None and needed:
                if not begun(folder):
                    remove(path)
                wanted = "part: expected a folder on a file system that knows locks, which say who labels what, got one without"
                raise OSError(errno.ENOLCK, f"{wanted}: label in one process, without part", os.fspath(folder))
            if turn.there():
                stack.pop_all()
                return turn


def _agreed(folder: Path, answers: Answers, arrays: list[Array], described: dict[str, Any], nobody_else: bool) -> Manifest | None:
    """What is common to all shards, after it was compared with what is given; None where the set is complete.

    arrays : the first rows, inputs or inputs and weights
    """
    manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
    if manifest is not None and manifest.complete:
        return None
    if manifest is not None and manifest.shards:
        demand_alike(folder / MANIFEST, manifest, described)
    path = folder / UNDER_WAY
    first = path / FIRST
    if nobody_else:
        remove_unfinished(folder, manifest)
        remove_parts(path, r".*")
        kinds = ("inputs", "logits", "weights") if described["weighted"] else ("inputs", "logits")
        demand_room_beside(folder, manifest.files if manifest else [], kinds)
        if not begun(folder):  # what was begun binds nobody before there is a shard
            remove(first)
            remove(path, keep=(TURN, PRESENT))
    if not (first / MANIFEST).exists() or not read_manifest(first).shards:
        remove(first)
        _write_first(first, answers, arrays, described)
        stored = read_manifest(first)
    else:
        stored = read_manifest(first)
        demand_alike(first / MANIFEST, stored, described)
        files = dict(zip(stored.kinds, zip((first / name for name in stored.names(0)), open_shard(first, stored, 0, True))))
        demand_same(stored, files, arrays, answers, 0)
    if manifest is not None and manifest.shards:
        return manifest
    stored.files = []
    return stored


def _write_first(first: Path, answers: Answers, arrays: list[Array], described: dict[str, Any]) -> None:
    """A set of the first rows."""
    first.mkdir(exist_ok=True)
    manifest = Manifest(inputs=arrays[0].shape[1], outputs=0, **described)
    logits, manifest.outputs = packed_logits(answers, manifest.stored, arrays[0], 0, [])
    write_shard(first, manifest, [arrays[0], logits, *arrays[1:]])


def _complete(folder: Path, records: Records, rows: int, turn: Lock, present: Lock, standardise: bool) -> None:
    """Wait for those who still label, or compare; the last one makes the set."""
    while True:
        turn.take(wait=True)
        try:
            manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
            if manifest is not None and manifest.complete:
                Records(folder, manifest).demand_rows(rows)
                finish(folder, manifest, standardise)
                return
            if present.take() is not False:
                records.demand_rows(rows)
                records.publish(standardise)
                return
        finally:
            turn.release()
        time.sleep(_PAUSE)


def _leave(folder: Path, turn: Lock, present: Lock, complete: bool) -> None:
    """Remove the records of a set that is complete, or of none, where nobody else is there; what is left the next one removes."""
    if turn.take() is False or not turn.there() or present.take() is False:
        return
    with suppress(OSError, ManifestError):
        if complete or not begun(folder) or ((folder / MANIFEST).exists() and read_manifest(folder).complete):
            clear(folder)


class _Worker:
    """One of those who label."""

    def __init__(self, records: Records, answers: Answers, given: Given, part: tuple[int, int]) -> None:
        self._records, self._answers, self._given, self._part = records, answers, given, part
        self._found: list[str] = []  # what there is to say of the logits

    def work(self, progress: bool) -> int:
        """Compare the shards that are there, and label the others until there are none; how many rows were given."""
        given, records, (first, count) = self._given, self._records, self._part
        there = [shard for shard in records.shards() if records.whole(shard)]
        ends = {*there[:1], *there[-1:]}
        shards = rows = 0
        unseen = list[int]()  # recorded logits of shards that others are writing
        hidden = None if progress and first == 0 else True  # all may have one terminal
        with Progress(total=given.total, unit="row", unit_scale=True, desc=self._answers.doing, disable=hidden) as bar:
            for shard, arrays in given.visits(self._part, ends):
                shards += 1
                rows += 0 if arrays is None else len(arrays[0])
                if not self._begin(shard, arrays) and (arrays is not None or shard in ends or shard % count == first):
                    recorded, arrays = self._answers.recorded, arrays or given.read(shard)
                    compared = records.whole(shard) if recorded else shard in ends
                    demand_same(records.manifest, records.open(shard), arrays, self._answers if compared else None, shard * given.rows)
                    if recorded and not compared:
                        unseen.append(shard)
                self._show(bar)
            self._help(shards, bar)
        for shard in unseen:
            demand_recorded(records.manifest, *records.open(shard)["logits"], self._answers, shard * given.rows)
        rows = rows if given.total is None else given.total
        records.demand_rows(rows)
        return rows

    def _begin(self, shard: int, arrays: list[Array] | None) -> bool:
        """Label a shard that nobody has begun; False where another has, and its inputs are on disk."""
        while not self._records.of(shard):
            with self._records.claim(shard) as mine:
                if mine and not self._records.of(shard):
                    arrays = arrays or self._given.read(shard)
                    self._records.write(shard, dict(zip(("inputs", "weights"), arrays)))
                    self._label(shard, arrays[0])
                    return True
            time.sleep(0 if self._records.of(shard) else _PAUSE)
        return False

    def _help(self, shards: int, bar: Progress) -> None:
        """Wait for the shards that others label, and label those that they leave."""
        left = [shard for shard in range(shards) if not self._records.whole(shard)]
        while left:
            for shard in left:
                with self._records.claim(shard) as mine:
                    if mine and not self._records.whole(shard):
                        self._label(shard, self._records.open(shard)["inputs"][1][:])
            left = [shard for shard in left if not self._records.whole(shard)]
            self._show(bar)
            time.sleep(_PAUSE if left else 0)

    def _show(self, bar: Progress) -> None:
        """How far all workers are, in shards that were begun."""
        if not bar.disable:
            rows = len(self._records.shards()) * self._given.rows
            bar.update(min(rows, self._given.total or rows) - bar.n)

    def _label(self, shard: int, inputs: Array) -> None:
        """Ask for a shard's logits, and write them."""
        manifest = self._records.manifest
        logits, outputs = packed_logits(self._answers, manifest.stored, inputs, shard * manifest.rows_per_shard, self._found)
        if outputs != manifest.outputs:
            raise ValueError(f"logits: expected {manifest.outputs} columns from the teacher, got {outputs}")
        self._records.write(shard, {"logits": logits})
