"""Who takes part: the processes of a group of torch.distributed, or this process alone. What they pass to each other are sums."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from ..backends.interface import Array
from ..errors import GroupError

_MADE: weakref.WeakSet[ProcessGroup] = weakref.WeakSet()
_LOOKS = 20  # at whether other processes are alive, after one has been lost
_PAUSE = 0.1  # seconds between them


class Group:
    """This process alone: the base of `ProcessGroup`, which has others beside it.

    Attributes
    ----------
    rank : of this process, from 0
    size : how many there are
    """

    rank, size = 0, 1

    @property
    def rows(self) -> Group:
        """Those that have the same units as this process, and other rows of a batch."""
        return Group()

    @property
    def everyone(self) -> Group:
        """All processes of the run: those of this group, and those that have other rows."""
        return self

    @property
    def without_rows(self) -> Group:
        """This group as if there were no others with other rows."""
        return self

    def sum(self, array: Array) -> Array:
        """Add the arrays of all processes up, in place; all get the same bits. Returns it."""
        return array

    def gather(self, array: Array) -> list[Array]:
        """The arrays of all processes, which have one shape and dtype, in the order of ranks."""
        return [array]

    def told(self, value: Any) -> list[Any]:
        """What each process says, in the order of ranks: anything that JSON can hold."""
        return [value]

    def anyone(self, flag: bool) -> bool:
        """Whether it is true for any process of the run."""
        return flag

    def agree(self, **values: Any) -> None:
        """Demand the same values on all processes of the run.

        Raises
        ------
        ValueError
            On every process: the first name whose values differ, and on which processes.
        """
        digests = {name: hashlib.sha256(_bytes(value)).hexdigest() for name, value in values.items()}
        all_of_them = self.everyone
        everyone = all_of_them.told(digests)
        _demand_same_call(everyone, dict)
        for name in digests:
            groups: dict[str, list[int]] = {}
            for rank, theirs in enumerate(everyone):
                groups.setdefault(theirs.get(name, "nothing"), []).append(rank)
            if len(groups) > 1:
                shown = " and ".join(f"one on rank {', '.join(map(str, ranks))}" for ranks in groups.values())
                mine = "" if isinstance(values[name], np.ndarray) else f"; rank {all_of_them.rank} has {values[name]!r}"
                raise ValueError(f"{name}: expected the same on all {all_of_them.size} processes, got {shown}{mine}")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let an exception that the block raises on one process of the run end it on all: on the others as a GroupError that names it.

        The block itself asks nothing of the group.
        """
        error = None
        try:
            yield
        except Exception as raised:
            error = raised
        everyone = self.everyone.told(None if error is None else f"{type(error).__name__}: {error}")
        _demand_same_call(everyone, (str, type(None)))
        if any(said is not None for said in everyone):
            with suppress(GroupError):
                self.everyone.told(None)  # so that all have heard it before the first of them ends
        if error is not None:
            raise error
        for rank, said in enumerate(everyone):
            if said is not None:
                raise GroupError(f"group: expected all {len(everyone)} processes to go on, but rank {rank} stopped with {said}")


class ProcessGroup(Group):
    """The processes of a group of torch.distributed, which is to be initialised.

    Parameters
    ----------
    group : a process group whose processes share out the units: None for that of all processes, or one axis of a DeviceMesh,
        `mesh.get_group("units")`
    rows : a process group whose processes have the same units and share out the rows of a batch, the mesh's other axis; None for none

    Raises
    ------
    ImportError
        There is no PyTorch.
    RuntimeError
        torch.distributed is not initialised, or this process is not in the group.
    ValueError
        The group's backend is for GPUs alone, or the groups are not those of a mesh.
    """

    def __init__(self, group: Any = None, rows: Any = None) -> None:
        import torch  # optional, and slow to import
        from torch import distributed

        self._torch, self._distributed = torch, distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            raise RuntimeError("group: expected torch.distributed to be initialised: call torch.distributed.init_process_group first")
        backends = distributed.get_backend_config(group)  # "cpu:gloo,cuda:nccl"
        if "cpu" not in [named.partition(":")[0] for named in backends.split(",")]:
            raise ValueError(f"group: expected one whose backend knows arrays on the CPU, as gloo does, got {backends}")
        self._group = group
        _MADE.add(self)
        self.rank = distributed.get_rank(self._group)
        if self.rank < 0:
            raise RuntimeError("group: expected one that this process is in, got another")
        self.size = distributed.get_world_size(self._group)
        self._there: list[Any] = []  # host and process number of each rank
        self._there = self.told([socket.gethostname(), os.getpid()])
        self._rows = Group() if rows is None else ProcessGroup(rows)
        self._everyone: Group = self if rows is None else ProcessGroup()
        self._without_rows: Group = self if rows is None else ProcessGroup(group)
        if self._everyone.size != self.size * self._rows.size:
            raise ValueError(
                f"rows: expected all {self._everyone.size} processes in a mesh, got one of {self._rows.size} by {self.size} processes"
            )

    @property
    def rows(self) -> Group:
        return self._rows

    @property
    def everyone(self) -> Group:
        return self._everyone

    @property
    def without_rows(self) -> Group:
        return self._without_rows

    def sum(self, array: Array) -> Array:
        self._do(lambda: self._distributed.all_reduce(self._tensor(array), group=self._group))
        return array

    def gather(self, array: Array) -> list[Array]:
        mine = self._tensor(array)
        all_of_them = [self._torch.empty_like(mine) for _ in range(self.size)]
        self._do(lambda: self._distributed.all_gather(all_of_them, mine, group=self._group))
        return [tensor.numpy() for tensor in all_of_them]

    def told(self, value: Any) -> list[Any]:
        text = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = [int(length[0]) for length in self.gather(np.array([len(text)], np.int64))]
        padded = np.zeros(max(lengths), np.uint8)
        padded[: len(text)] = text
        return [json.loads(theirs[:length].tobytes()) for theirs, length in zip(self.gather(padded), lengths)]

    def anyone(self, flag: bool) -> bool:
        if self._everyone is not self:
            return self._everyone.anyone(flag)
        return bool(self.sum(np.array([flag], np.int32))[0])

    def _tensor(self, array: Array) -> Any:
        return self._torch.from_numpy(array)

    def _do(self, collective: Any) -> None:
        """Call it, and let its error say who is gone."""
        try:
            collective()
        except RuntimeError as error:
            raise GroupError(
                f"group: expected all {self.size} processes to go on, but rank {self.rank} waits for {self._gone()}: {error}"
            ) from error

    def _gone(self) -> str:
        """The processes that are no more, as far as this one can see."""
        gone: list[int] = []
        for _ in range(_LOOKS if self._there else 0):
            gone = [rank for rank, (host, number) in enumerate(self._there) if host == socket.gethostname() and not _is_alive(number)]
            if gone:
                break
            time.sleep(_PAUSE)
        return f"rank {', '.join(map(str, gone))}, which is gone" if gone else "another one, which is on another host or does not answer"


def _demand_same_call(everyone: list[Any], kinds: Any) -> None:
    """Demand of what all processes said that it belongs to one call."""
    others = [rank for rank, said in enumerate(everyone) if not isinstance(said, kinds)]
    if others:
        raise GroupError(f"group: expected all processes to make the same calls, but rank {', '.join(map(str, others))} makes another")


def _let_go() -> None:
    """Forget torch's groups while Python still runs: their threads end with them, and after it that ends the process by SIGABRT."""
    for group in list(_MADE):
        group._group = None


def _is_alive(number: int) -> bool:
    """Whether the process runs: one that has ended, and that nobody has asked after, does not."""
    try:
        os.kill(number, 0)
        with open(f"/proc/{number}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except ProcessLookupError:
        return False
    except OSError:  # another user's, or a system without /proc
        return True


atexit.register(_let_go)


def _bytes(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return f"{value.shape}{value.dtype}".encode() + np.ascontiguousarray(value).tobytes()
    return json.dumps(value, sort_keys=True).encode()
