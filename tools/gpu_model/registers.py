"""A thread's registers, as far as they are known, and how instructions name them."""

from __future__ import annotations

import functools
import itertools
import re
import struct
from collections.abc import Callable, Mapping

from gpu_model.sass import Instruction, product_shape

Value = int | None
MASK = 0xFFFFFFFF
CONSTANT = re.compile(r"c\[(0x[0-9a-f]+)\]\[(?:(U?R\d+|U?RZ)\+?)?(-?0x[0-9a-f]+)?\]")


class Registers:
    """Of one thread: 32-bit registers as numbers, predicates as 0 or 1. What was never written is 0: nothing depends on it."""

    def __init__(self, constants: Mapping[int, bytes], thread: int, block: tuple[int, int, int]) -> None:
        self.values: dict[str, Value] = {"RZ": 0, "URZ": 0, "SRZ": 0, "PT": 1, "UPT": 1}
        self.partial: dict[str, tuple[int, int]] = {}  # of unknown values: bits, and which of them are known
        self.constants = constants
        self.special = {"SR_TID.X": thread, "SR_TID.Y": 0, "SR_TID.Z": 0, "SR_LANEID": thread % 32, "SR_CgaCtaId": 0}
        self.special |= {f"SR_CTAID.{axis}": number for axis, number in zip("XYZ", block)}

    def set(self, name: str, value: Value) -> None:
        """RZ and PT stay as they are."""
        if name not in ("RZ", "URZ", "PT", "UPT"):
            self.values[name] = value
            self.partial.pop(name, None)

    def constant(self, bank: int, offset: int) -> Value:
        """32 bits of a constant bank."""
        data = self.constants.get(bank, b"")
        return struct.unpack_from("<I", data, offset)[0] if 0 <= offset <= len(data) - 4 else None


Read = Callable[[Registers], Value]
Act = Callable[[Registers], None]


@functools.cache
def predicate(text: str) -> Read:
    """A predicate, perhaps negated."""
    name = text.lstrip("!")
    if text[0] != "!":
        return lambda r: r.values.get(name, 0)

    def negated(r: Registers) -> Value:
        value = r.values.get(name, 0)
        return None if value is None else 1 - value

    return negated


def guard(i: Instruction) -> Read:
    """Whether the instruction takes effect."""
    return predicate("!" * i.negated + i.predicate) if i.predicate else lambda r: 1


@functools.cache
def operand(text: str) -> Read:
    """32 bits: a register, a constant or a number; negated or inverted where it says so."""
    plain = text.lstrip("-~")
    if text[0] in "-~" and not plain[0].isdigit():
        inner, one = operand(plain), int(text[0] == "-")

        def inverted(r: Registers) -> Value:
            value = inner(r)
            return None if value is None else (~value + one) & MASK

        return inverted
    if re.fullmatch(r"U?R(\d+|Z)", text):
        return lambda r: r.values.get(text, 0)
    if found := CONSTANT.fullmatch(text):
        bank, index, offset = int(found[1], 16), found[2] or "RZ", int(found[3] or "0", 16)

        def constant(r: Registers) -> Value:
            at = r.values.get(index, 0)
            return None if at is None else r.constant(bank, at + offset)

        return constant
    try:
        number = int(text, 0) & MASK
    except ValueError:
        return lambda r: None
    return lambda r: number


def next_register(name: str, more: int = 1) -> str:
    """The register `more` behind it."""
    found = re.fullmatch(r"(UR|R)(\d+)", name)
    return f"{found[1]}{int(found[2]) + more}" if found else name


def is_predicate(text: str) -> bool:
    """Whether an operand is a predicate register."""
    return re.fullmatch(r"!?U?P[0-7T]", text) is not None


STORES = ("STG", "STS", "ST", "RED", "UTMALDG", "UBLKPF", "BAR", "BSSY", "BSYNC")
SETS_PREDICATES = ("PLOP3", "UPLOP3", "FCHK", "ELECT", "VOTE", "VOTEU", "SYNCS", "USETMAXREG")


def destinations(i: Instruction) -> list[str]:
    """The registers that an instruction changes: its first operands, as many as its modifiers say."""
    if not i.operands or i.opcode in STORES:
        return []
    if i.opcode == "R2P":
        return [f"P{n}" for n in range(7)]
    lead = list(itertools.takewhile(is_predicate, i.operands[:2]))
    if i.opcode.endswith("SETP") or i.opcode in SETS_PREDICATES:
        return lead
    name = i.operands[len(lead)] if len(lead) < len(i.operands) else ""
    if not re.fullmatch(r"U?R\d+", name):
        return lead
    wide = 1
    if i.opcode == "HGMMA":
        wide = product_shape(i)[1] // 2
    elif "128" in i.modifiers:
        wide = 4
    elif "64" in i.modifiers or "WIDE" in i.modifiers or i.opcode == "CS2R":
        wide = 2
    return [*lead, *(next_register(name, n) if n else name for n in range(wide))]
