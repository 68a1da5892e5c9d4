"""`pymimic predict`: a saved student's logits for a file of rows."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .. import _check
from ..data.mapped import demand_npy_or_none, map_npy
from ..distributed.launch import joined
from ..distributed.student import ShardedStudent
from ..exits import counted, option, say
from ..nets.student import Student
from ..numerics import BadRows
from ..progress import Progress
from ..targets import demand_distinct, demand_writable, replacing
from .options import use_threads

_SLAB = 16384  # rows held at once


def predict(
    student: Annotated[Path, typer.Argument(metavar="S.safetensors", help="a saved student")],
    inputs: Annotated[Path, typer.Option(metavar="X.npy", help="(N, D) float inputs; memory-mapped")],
    out: Annotated[Path, typer.Option(metavar="Y.npy", help="where to write (N, C) float32 logits")],
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="where to compute")] = "cpu",
    proba: Annotated[bool, typer.Option("--proba", help="write probabilities, the softmax of the logits")] = False,
    threads: Annotated[int | None, typer.Option(metavar="N", help="of the kernels  [default: the cores at hand]")] = None,
) -> None:
    """Write a student's logits for every row of a file that may be larger than memory.

    Started by torchrun, each process reads and uses some of the hidden units, and the first one writes.
    """
    use_threads(threads)
    group = joined()
    with group.together():
        demand_distinct({"student": student, "inputs": inputs}, {"out": out})
        demand_writable("out", out)
        demand_npy_or_none("out", out)
    with option("student", path="student"):
        net = Student.load(student) if group.size == 1 else ShardedStudent.load(student, group=group)
    with group.together():
        if group.size > 1 and device != "cpu":
            raise ValueError(f"device: expected cpu in {group.size} processes, got {device!r}")
        net.to(device)
        x = map_npy("inputs", inputs)
        _check.float_dtype("inputs", x)
        if x.ndim != 2 or x.shape[1] != net.inputs:
            raise ValueError(f"inputs: expected shape (N, {net.inputs}), as the student has, got {x.shape}")
    form = {"descr": "<f4", "fortran_order": False, "shape": (len(x), net.outputs)}
    answer, bad = net.predict_proba if proba else net.predict, BadRows()
    place = replacing(out) if group.rank == 0 else open(os.devnull, "wb")  # noqa: SIM115  (it is entered below)
    with place as file, Progress(total=len(x), unit="row", unit_scale=True, disable=group.rank > 0 or None) as bar:
        np.lib.format.write_array_header_1_0(file, form)
        for start in range(0, len(x), _SLAB):
            slab = x[start : start + _SLAB]
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # `bad` has the numbers of the file's rows
                y = answer(slab)
            bad.look(slab, y, start)
            file.write(y.astype("<f4", copy=False).data)
            bar.update(len(slab))
    bad.warn("inputs")
    if group.rank == 0:
        say(f"{out}: {counted(len(x), 'row')} of {net.outputs} {'probabilities' if proba else 'logits'}")
