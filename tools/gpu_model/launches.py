"""What the library would launch: the emulator's build of the launchers, asked without running a kernel."""

from __future__ import annotations

import ctypes as ct
from typing import NamedTuple

from emulator import CMask, CParameter, CPlan, CShallow, CUpdate, Emulator, build
from sass_report import readable

from gpu_model.elf import functions

NOWHERE = 1 << 30  # an address: nothing is read or written
ALL_KEPT, HALF_KEPT = 256, 128  # a dropout mask's threshold
KERNELS = {"forward": "forward", "rows": "backward_rows", "units": "backward_units", "step": "backward_units"}  # as plans call them
OF_UNITS = ("units", "step")  # whose blocks own hidden units


class Shape(NamedTuple):
    """k, H and C of a shallow net."""

    k: int
    H: int
    C: int


class Launch(NamedTuple):
    """A kernel's name with its template arguments, its grid, threads and shared bytes, and its parameters as bytes."""

    kernel: str
    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int
    parameters: bytes


class Plan(NamedTuple):
    """pymimic_plan: the source file's stem, and how the work is cut."""

    source: str
    row_block: int
    slab: int
    splits: int
    column_chunks: int
    workspace: int


class Launchers:
    """For a device of sm_90a with 132 multiprocessors."""

    def __init__(self) -> None:
        path = build()
        self._simt = Emulator(path)
        self._simt.compute_capability(90)
        self._simt.run_kernels(False)
        self._names = functions(path)
        marker = next(offset for offset, name in self._names.items() if name == "simt_run")
        self._base = (ct.cast(self._simt.lib.simt_run, ct.c_void_p).value or 0) - marker

    def plan(self, op: str, B: int, shape: Shape) -> Plan:
        """How `op` of KERNELS cuts a batch."""
        needs = (1, 1) if op in OF_UNITS else ()
        found: CPlan = self._simt.plan(f"pymimic_shallow_{KERNELS[op]}_plan", problem(B, shape), *needs)
        return Plan(found.kernel.decode(), found.row_block, found.slab, found.splits, found.column_chunks, found.workspace)

    def launch(self, op: str, B: int, shape: Shape, threshold: int = ALL_KEPT, splits: int = 0) -> Launch:
        """Its first kernel. A step is one of AdamW."""
        self._simt.seed(0)
        asked, somewhere = problem(B, shape, threshold, splits), ct.c_void_p(NOWHERE)
        if op == "forward":
            self._simt.call("pymimic_shallow_forward", asked, somewhere, somewhere, somewhere, None)
        elif op == "rows":
            self._simt.call("pymimic_shallow_backward_rows", asked, somewhere, padded(shape.C), somewhere, somewhere, None)
        elif op == "units":
            self._simt.call("pymimic_shallow_backward_units", asked, somewhere, padded(shape.C), somewhere, somewhere, somewhere, None)
        else:
            of = [parameter(columns) for columns in (shape.k, 0, shape.C)]
            self._simt.call("pymimic_shallow_backward_step", asked, somewhere, padded(shape.C), *of, None)
        first = self._simt.launches()[0]
        name = readable(self._names[(first.kernel or 0) - self._base])
        return Launch(
            name, tuple(first.grid), first.threads, first.shared_bytes, ct.string_at(first.parameters, first.parameter_bytes)
        )  # fmt: skip


def padded(columns: int) -> int:
    """Of an operand: its row's elements."""
    return -(-columns // 16) * 16


def problem(B: int, shape: Shape, threshold: int = ALL_KEPT, splits: int = 0) -> CShallow:
    """In bfloat16 with relu."""
    mask, ldu, ldw = CMask(threshold, 1, 1, None, None, 0, 0), padded(shape.k), padded(shape.C)
    return CShallow(B, shape.k, shape.H, shape.C, 0, 0, NOWHERE, ldu, NOWHERE, ldu, NOWHERE, NOWHERE, ldw, mask, splits)


def parameter(columns: int) -> CParameter:
    """An array that AdamW updates; with columns it has a working operand."""
    slots = (ct.c_void_p * 2)(NOWHERE, NOWHERE)
    return CParameter(NOWHERE, slots, NOWHERE if columns else None, padded(columns), CUpdate(rule=1), None)
