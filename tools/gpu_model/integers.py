"""What each instruction of SASS for sm_90 does to the registers that branches may depend on."""

from __future__ import annotations

from collections.abc import Callable

from gpu_model.arithmetic import add, lea, least, multiply, permute, plain, reciprocal, shift, signed, to_float, to_integer
from gpu_model.predicates import compare, logic, logic_of_predicates, predicates_to_register, select, vote
from gpu_model.registers import CONSTANT, MASK, Act, Registers, next_register, operand
from gpu_model.sass import Instruction


def load_constant(i: Instruction) -> Act:
    """LDC and ULDC."""
    to, found = i.operands[0], CONSTANT.fullmatch(i.operands[1])
    if not found:
        raise ValueError(f"{i}: expected a constant")
    bank, index, offset = int(found[1], 16), operand(found[2] or "RZ"), int(found[3] or "0", 16)
    names = [to, next_register(to)] if "64" in i.modifiers else [to]
    bits = next((size for modifier, size in (("U8", 0xFF), ("U16", 0xFFFF)) if modifier in i.modifiers), MASK)

    def act(r: Registers) -> None:
        at = index(r)
        for n, name in enumerate(names):
            value = None if at is None else r.constant(bank, (at + offset + 4 * n) // 4 * 4)
            r.set(name, None if value is None else value >> 8 * ((at or 0) + offset & 3) & bits)

    return act


def special(i: Instruction) -> Act:
    """S2R and S2UR."""
    return lambda r: r.set(i.operands[0], r.special.get(i.operands[1]))


def zeros(i: Instruction) -> Act:
    """CS2R of zeros; clocks are unknown."""
    value = 0 if i.operands[1] == "SRZ" else None

    def act(r: Registers) -> None:
        r.set(i.operands[0], value)
        r.set(next_register(i.operands[0]), value)

    return act


def always(i: Instruction) -> Act:
    """Sets its predicate: a barrier's phase has ended, registers are free, this lane is the elected one."""
    return lambda r: r.set(i.operands[0], 1)


def synchronise(i: Instruction) -> Act | None:
    """SYNCS: a try to wait succeeds."""
    return always(i) if "TRYWAIT" in i.modifiers else lambda r: None


def shuffle(i: Instruction) -> Act:
    """Of the first lane's own value where all read that; else unknown."""
    source = operand(i.operands[2])
    own = "IDX" in i.modifiers and i.operands[3] == "RZ"
    return lambda r: r.set(i.operands[1], source(r) if own else None)


EVALUATED: dict[str, Callable[[Instruction], Act | None]] = {
    **dict.fromkeys(("MOV", "UMOV", "R2UR"), plain(lambda a: a, 1)),
    **dict.fromkeys(("IADD3", "UIADD3", "VIADD"), add),
    **dict.fromkeys(("IMAD", "UIMAD"), multiply),
    **dict.fromkeys(("LEA", "ULEA"), lea),
    **dict.fromkeys(("SHF", "USHF"), shift),
    **dict.fromkeys(("LOP3", "ULOP3"), logic),
    **dict.fromkeys(("PLOP3", "UPLOP3"), logic_of_predicates),
    **dict.fromkeys(("ISETP", "UISETP"), compare),
    **dict.fromkeys(("SEL", "USEL"), select),
    **dict.fromkeys(("VIMNMX", "VIADDMNMX"), least),
    **dict.fromkeys(("LDC", "ULDC"), load_constant),
    **dict.fromkeys(("S2R", "S2UR"), special),
    **dict.fromkeys(("ELECT", "USETMAXREG"), always),
    **dict.fromkeys(("VOTE", "VOTEU"), vote),
    **dict.fromkeys(("I2F", "I2FP"), to_float),
    **dict.fromkeys(("PRMT", "UPRMT"), permute),
    "CS2R": zeros, "SYNCS": synchronise, "SHFL": shuffle, "P2R": predicates_to_register, "MUFU": reciprocal, "F2I": to_integer,
    "IABS": plain(lambda a: abs(signed(a)), 1),
}  # fmt: skip
