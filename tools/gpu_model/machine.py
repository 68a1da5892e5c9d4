"""One warp's walk through a kernel, as far as it does not depend on data: how often each instruction is issued.

Only what decides where branches go is computed: integers and predicates of the warp's first thread, from the kernel's parameters and
from constants. All else is unknown. A barrier's phase has always ended. Where a branch depends on unknown numbers, the way is taken
that calls no slow routine (of a division, say); where neither way does, `UnknownBranchError` is raised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gpu_model.integers import EVALUATED
from gpu_model.registers import Registers, destinations, guard, operand, predicate
from gpu_model.sass import Instruction

Step = Callable[[Registers], int | None]
MOST_STEPS = 20_000_000
BYTES = 16  # of an instruction
BRANCHES = ("BRA", "EXIT", "CALL", "BRX", "RET")
NEAR = 40  # instructions of a way in which a call of a slow routine is looked for


def expects_bytes(instruction: Instruction) -> bool:
    """Whether it arrives at a barrier and says how many bytes of copies the barrier has to wait for."""
    return instruction.opcode == "SYNCS" and "ARRIVE" in instruction.modifiers and instruction.operands[-1] != "RZ"


class UnknownBranchError(Exception):
    """A branch that depends on data."""


class Launched(NamedTuple):
    """What a warp can know: constant banks, the thread's number in its block, the block's in the grid."""

    constants: Mapping[int, bytes]
    thread: int
    block: tuple[int, int, int] = (0, 0, 0)


class Walk(NamedTuple):
    """How often a warp issues each instruction, by its number; how often without effect, as its predicate was false; and the bytes that
    it has the copy engine bring."""

    counts: Counter[int]
    idle: Counter[int]
    copied_bytes: int


class Machine:
    """A kernel, made ready to be walked through."""

    def __init__(self, instructions: list[Instruction]) -> None:
        self.instructions = instructions
        self.at = {instruction.address: number for number, instruction in enumerate(instructions)}
        self.steps = [None if i.opcode in BRANCHES else make_step(i) for i in instructions]
        self.guards = [guard(i) for i in instructions]

    def walk(self, launched: Launched) -> Walk:
        """All that the warp issues. An instruction whose predicate is false counts too: it takes its turn."""
        registers = Registers(launched.constants, launched.thread, launched.block)
        counts, idle, place, copied = [0] * len(self.steps), [0] * len(self.steps), 0, 0
        for _ in range(MOST_STEPS):
            counts[place] += 1
            step = self.steps[place]
            if step:
                moved = step(registers)
                if moved is None:
                    idle[place] += 1
                else:
                    copied += moved
                place += 1
                continue
            instruction = self.instructions[place]
            taken = self._goes(place, registers)
            if taken and instruction.opcode == "EXIT":
                return Walk(kept(counts), kept(idle), copied)
            place = self._target(instruction, registers) if taken else place + 1
        raise UnknownBranchError(f"no end after {MOST_STEPS} instructions, at {self.instructions[place]}")

    def _goes(self, place: int, registers: Registers) -> bool:
        """Whether a branch is taken."""
        instruction = self.instructions[place]
        if "DIV" in instruction.modifiers:
            return False  # taken only where lanes part
        goes = self.guards[place](registers)
        if goes and instruction.opcode == "BRA" and len(instruction.operands) > 1:
            goes = predicate(instruction.operands[0])(registers)
        if goes is not None:
            return bool(goes)
        if instruction.opcode == "CALL":
            return False
        if instruction.opcode == "BRA":
            slow = [self._is_slow(start) for start in (place + 1, self._target(instruction, registers))]
            if slow[0] != slow[1]:
                return slow[0]
        raise UnknownBranchError(f"{instruction} depends on data")

    def _is_slow(self, place: int) -> bool:
        """Whether a slow routine is called before the next branch."""
        for instruction in self.instructions[place : place + NEAR]:
            if instruction.opcode in ("CALL", "BRA", "EXIT", "BSYNC"):
                return instruction.opcode == "CALL"
        return False

    def _target(self, instruction: Instruction, registers: Registers) -> int:
        text = instruction.operands[-1]
        if instruction.opcode == "BRX":  # a register, and a number to add to it and to the address behind the branch
            register, _, more = text.partition(" ")
            base = operand(register)(registers)
            if base is not None:
                return self.at[(base + int(more, 16) + instruction.address + BYTES) & 0xFFFFFFFF]
        if instruction.opcode not in ("BRA", "CALL"):
            raise UnknownBranchError(f"{instruction} depends on data")
        return self.at[int(text, 16)]


def kept(counts: list[int]) -> Counter[int]:
    """Those that are not 0."""
    return Counter({number: count for number, count in enumerate(counts) if count})


def make_step(instruction: Instruction) -> Step:
    """What an instruction that is no branch does to the registers.

    The step returns the bytes of copies that it announces; None where the predicate is false.
    """
    evaluate, lost, does = EVALUATED.get(instruction.opcode), destinations(instruction), guard(instruction)
    known = evaluate(instruction) if evaluate else None
    announces = operand(instruction.operands[-1]) if expects_bytes(instruction) else None

    def step(registers: Registers) -> int | None:
        takes_effect = does(registers)
        if takes_effect == 0:
            return None
        if known and takes_effect:
            known(registers)
        else:
            for name in lost:
                registers.set(name, None)
        return (announces(registers) or 0) if announces else 0

    return step
