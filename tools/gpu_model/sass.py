"""The instructions of a kernel, as `cuobjdump -sass` prints them."""

from __future__ import annotations

import re
from dataclasses import dataclass

LINE = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?)(U?P(?:\d|T)))?\s*([A-Z][A-Z0-9_.a-z]*)\s*([^;]*);")


@dataclass(frozen=True)
class Instruction:
    """One of them. `predicate`: it takes effect where this register is true, or with `negated` where it is false."""

    address: int
    predicate: str
    negated: bool
    opcode: str  # without its modifiers
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]

    def __str__(self) -> str:
        guard = f"@{'!' * self.negated}{self.predicate} " if self.predicate else ""
        return f"{self.address:#x}: {guard}{'.'.join((self.opcode, *self.modifiers))} {', '.join(self.operands)}"


def parse_instruction(line: str) -> Instruction | None:
    """None where the line has none."""
    found = LINE.match(line)
    if not found:
        return None
    address, negated, predicate, name, operands = found.groups()
    opcode, *modifiers = name.split(".")
    parts = tuple(part.strip().replace(".reuse", "") for part in operands.split(",")) if operands.strip() else ()
    return Instruction(int(address, 16), predicate or "", bool(negated), opcode, tuple(modifiers), parts)


def parse_functions(text: str) -> dict[str, list[Instruction]]:
    """By mangled name."""
    functions: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if function := re.match(r"\s*Function : (\S+)", line):
            current = functions.setdefault(function[1], [])
        elif instruction := parse_instruction(line):
            current.append(instruction)
    return functions


def product_shape(instruction: Instruction) -> tuple[int, int, int]:
    """Rows, columns and depth of a product of warpgroups."""
    rows, columns, depth = map(int, instruction.modifiers[0].split("x"))
    return rows, columns, depth


def is_empty_product(instruction: Instruction) -> bool:
    """Whether it only ends a group of products: the compiler puts such ones at branches, and nothing keeps their result."""
    return instruction.operands[0] == "RZ"


def access_bytes(instruction: Instruction) -> int:
    """Of a load or a store, for one thread."""
    widths = {"64": 8, "128": 16, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
    return next((widths[modifier] for modifier in instruction.modifiers if modifier in widths), 4)
