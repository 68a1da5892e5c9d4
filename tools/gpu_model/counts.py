"""The work of a kernel's blocks for a shape: what a slab costs, and what beginning and end cost."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from sass_report import ARCHITECTURES, KERNELS, compile_source, find_tools, readable, run

from gpu_model.elf import constant_banks
from gpu_model.launches import ALL_KEPT, OF_UNITS, Launch, Launchers, Plan, Shape
from gpu_model.machine import Launched, Machine, Walk
from gpu_model.sass import parse_functions
from gpu_model.units import LANES, PARTITIONS, Work, work_of

FEW, MORE = 4, 8  # slabs of the two blocks whose difference is what a slab costs: even, as warpgroups may take every other one
WARPGROUP = LANES * PARTITIONS  # threads


class Blocks(NamedTuple):
    """The work of a block of a kernel: `rest` once, and `slab` as often as it has slabs."""

    kernel: str
    rest: dict[str, float]
    slab: dict[str, float]


class Counts:
    """Compiles the kernels once, then walks through them."""

    def __init__(self, launchers: Launchers) -> None:
        self._launchers = launchers
        self._machines: dict[str, dict[str, tuple[Machine, dict[int, bytes]]]] = {}

    def blocks(self, op: str, shape: Shape, threshold: int = ALL_KEPT) -> Blocks:
        """Of one of KERNELS; a mask's threshold other than ALL_KEPT is dropout."""
        plan = self._launchers.plan(op, 8192, shape)
        found = [self._work(plan, self._launch(op, plan, shape, slabs, threshold)) for slabs in (FEW, MORE)]
        slab = {key: (found[1][1][key] - found[0][1][key]) / (MORE - FEW) for key in found[1][1]}
        return Blocks(found[0][0], {key: count - FEW * slab[key] for key, count in found[0][1].items()}, slab)

    def _launch(self, op: str, plan: Plan, shape: Shape, slabs: int, threshold: int) -> Launch:
        """Of a problem whose blocks have so many slabs each. Two parts of H, as sums of parts are stored otherwise than the only one."""
        if op in OF_UNITS:
            return self._launchers.launch(op, slabs * plan.row_block, shape, threshold)
        parts = min(plan.splits, 2)
        return self._launchers.launch(op, plan.row_block, shape._replace(H=parts * slabs * plan.slab), threshold, parts)

    def _work(self, plan: Plan, launch: Launch) -> tuple[str, Work]:
        if plan.source not in self._machines:
            self._machines[plan.source] = compiled(plan.source)
        machine, banks = self._machines[plan.source][launch.kernel]
        known = banks | {0: with_parameters(banks[0], launch)}
        return launch.kernel, work_of(machine.instructions, walks_of(machine, known, launch.threads))


def walks_of(machine: Machine, constants: dict[int, bytes], threads: int) -> list[Walk]:
    """Of all warps of a block. Where the third and the last warp of a warpgroup do the same, the second does so too."""
    walks: list[Walk] = []
    for first in range(0, threads, WARPGROUP):
        warps = [first + LANES * warp for warp in range(WARPGROUP // LANES)]
        one, third, last = (machine.walk(Launched(constants, warps[number])) for number in (0, 2, 3))
        walks += [one, third if third == last else machine.walk(Launched(constants, warps[1])), third, last]
    return walks


def with_parameters(bank: bytes, launch: Launch) -> bytes:
    """Constant bank 0 of a launch: the sizes of block and grid, and the parameters at its end."""
    sizes = b"".join(number.to_bytes(4, "little") for number in (launch.threads, 1, 1, *launch.grid))
    begin = len(bank) - len(launch.parameters)
    return sizes + bank[len(sizes) : begin] + launch.parameters


def compiled(stem: str) -> dict[str, tuple[Machine, dict[int, bytes]]]:
    """The kernels of a source file for sm_90a, and their constant banks, by their readable names."""
    tools = find_tools()
    source = next(KERNELS.rglob(f"{stem}.cu"))
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        compile_source(source, ARCHITECTURES["sm_90a"], cubin, tools)
        sass, banks = run(tools, "cuobjdump", "-sass", cubin).stdout, constant_banks(cubin)
    return {readable(name): (Machine(instructions), banks[name]) for name, instructions in parse_functions(sass).items()}
