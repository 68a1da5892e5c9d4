"""Integer arithmetic of SASS for sm_90, over values that may be unknown (None)."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from gpu_model.registers import MASK, Act, Read, Registers, Value, is_predicate, next_register, operand, predicate
from gpu_model.sass import Instruction


def plain(compute: Callable[..., Value], count: int) -> Callable[[Instruction], Act]:
    """destination = compute(the operands behind it)."""

    def make(i: Instruction) -> Act:
        to, sources = i.operands[0], [operand(text) for text in i.operands[1 : 1 + count]]

        def act(r: Registers) -> None:
            values = [source(r) for source in sources]
            r.set(to, None if None in values else compute(*values) & MASK)

        return act

    return make


def signed(value: int) -> int:
    """Of 32 bits."""
    return value - (1 << 32) if value >> 31 else value


def split(i: Instruction) -> tuple[str, list[str], list[str], list[str]]:
    """Destination, carries out, sources, carries in."""
    to, *rest = i.operands
    carries = 0
    while carries < len(rest) and is_predicate(rest[carries]):
        carries += 1
    outs, rest = rest[:carries], rest[carries:]
    sources = [text for text in rest if not is_predicate(text)]
    return to, outs, sources, rest[len(sources) :]


def addend(text: str, extended: bool) -> Read:
    """An operand of a sum, so that the sum's bit 32 is its carry. With `extended` the 1 of -x is in the carry already."""
    if text[0] not in "-~" or text[1].isdigit():
        return operand(text)
    inner, one = operand(text[1:]), int(text[0] == "-" and not extended)

    def inverted(r: Registers) -> Value:
        value = inner(r)
        return None if value is None else (~value & MASK) + one

    return inverted


def upper(text: str) -> Read:
    """The upper half of 64 bits that begin with this register; 0 for a number."""
    return operand(next_register(text)) if re.fullmatch(r"U?R\d+", text) else lambda r: 0


def add(i: Instruction) -> Act:
    """IADD3, UIADD3, VIADD, also .X and .64."""
    to, outs, sources, ins = split(i)
    if "64" in i.modifiers:
        return add_pairs(to, sources)
    parts = [addend(source, "X" in i.modifiers) for source in sources] + [predicate(p) for p in ins if p not in ("!PT", "!UPT")]

    def act(r: Registers) -> None:
        total: Value = 0
        for part in parts:
            value = part(r)
            total = None if total is None or value is None else total + value
        r.set(to, None if total is None else total & MASK)
        for out in outs:
            r.set(out, None if total is None else int(total >> 32 > 0))

    return act


def add_pairs(to: str, sources: list[str]) -> Act:
    """UIADD3.64."""
    pairs = [(operand(source), upper(source)) for source in sources]
    to_upper = next_register(to)

    def act(r: Registers) -> None:
        values = [(low(r), high(r)) for low, high in pairs]
        total = None if any(None in pair for pair in values) else sum((low or 0) + ((high or 0) << 32) for low, high in values)
        r.set(to, None if total is None else total & MASK)
        r.set(to_upper, None if total is None else total >> 32 & MASK)

    return act


def multiply(i: Instruction) -> Act:
    """IMAD and UIMAD."""
    to, outs, sources, ins = split(i)
    a, b, c = (operand(source) for source in sources[:3])
    wide, high, unsigned = "WIDE" in i.modifiers, "HI" in i.modifiers, "U32" in i.modifiers
    c_upper = upper(sources[2]) if wide or high else lambda r: 0
    carried = predicate(ins[0]) if ins and "X" in i.modifiers else lambda r: 0

    def act(r: Registers) -> None:
        x, y, z, carry, z_high = a(r), b(r), c(r), carried(r), c_upper(r)
        if x is None or y is None or z is None or carry is None or z_high is None:
            for name in [to, *outs] + ([next_register(to)] if wide else []):
                r.set(name, None)
            return
        total = (x * y if unsigned else signed(x) * signed(y)) + z + carry + (z_high << 32)
        r.set(to, (total >> 32 if high else total) & MASK)
        if wide:
            r.set(next_register(to), total >> 32 & MASK)
        for out in outs:
            r.set(out, int((x * y & MASK) + z + carry > MASK))

    return act


def lea(i: Instruction) -> Act:
    """LEA and ULEA: a shifted to the left, plus b; .HI: the upper half of (c, a) shifted, plus b."""
    to, outs, sources, ins = split(i)
    high, extended = "HI" in i.modifiers, "X" in i.modifiers
    signs = "SX32" in i.modifiers
    shift = int(sources[-1], 0)
    first, second = operand(sources[0]), operand(sources[1])
    third = operand(sources[2]) if high and not signs else lambda r: 0
    carried = predicate(ins[0]) if extended and ins else lambda r: 0

    def act(r: Registers) -> None:
        a, b, c, carry = first(r), second(r), third(r), carried(r)
        if a is None or b is None or c is None or carry is None:
            for name in (to, *outs):
                r.set(name, None)
            return
        whole = signed(a) if signs else a | c << 32
        total = ((whole << shift >> 32 if high else a << shift) & MASK) + b + carry
        r.set(to, total & MASK)
        for out in outs:
            r.set(out, int(total > MASK))

    return act


def shift(i: Instruction) -> Act:
    """SHF and USHF: of the 64 bits (third, first operand)."""
    to = i.operands[0]
    low_of, by_of, high_of = (operand(text) for text in i.operands[1:4])
    right, top = "R" in i.modifiers, "HI" in i.modifiers
    narrow = "U32" in i.modifiers or "S32" in i.modifiers

    def act(r: Registers) -> None:
        low, by, high = low_of(r), by_of(r), high_of(r)
        if low is None or by is None or high is None:
            return r.set(to, None)
        if not right and narrow and not top:
            return r.set(to, low << min(by, 32) & MASK)
        both = (signed(high) if "S32" in i.modifiers or "S64" in i.modifiers else high) << 32 | low
        moved = both >> min(by, 63) if right else both << min(by, 63)
        return r.set(to, (moved >> 32 if top else moved) & MASK)

    return act


def least(i: Instruction) -> Act:
    """VIMNMX, and with a sum before it VIADDMNMX."""
    to, sources, which = i.operands[0], [operand(text) for text in i.operands[1:-1]], predicate(i.operands[-1])
    convert = (lambda x: x) if "U32" in i.modifiers else signed

    def act(r: Registers) -> None:
        values, first = [source(r) for source in sources], which(r)
        if None in values or first is None:
            return r.set(to, None)
        numbers = [convert(value) for value in values if value is not None]
        if len(numbers) == 3:
            numbers = [numbers[0] + numbers[1], numbers[2]]
        return r.set(to, (min(numbers) if first else max(numbers)) & MASK)

    return act


def permute(i: Instruction) -> Act:
    """PRMT: each byte is one of the eight of the first and the third operand, or with bit 3 its sign throughout."""
    to, choice = i.operands[0], i.operands[2]
    first, which, third = (operand(text) for text in i.operands[1:4])
    takes = [int(choice, 0) >> 4 * n & 7 for n in range(4)] if choice.startswith("0x") else range(8)
    # 0x7610 writes the lower half, a number of 16 bits: nobody reads the other one.
    uses_first, uses_third = any(take < 4 for take in takes), any(take > 3 for take in takes) and choice != "0x7610"

    def act(r: Registers) -> None:
        a, chosen, c = first(r) if uses_first else 0, which(r), third(r) if uses_third else 0
        if a is None or chosen is None or c is None:
            return r.set(to, None)
        pool, result = a | c << 32, 0
        for n in range(4):
            take = chosen >> 4 * n & 15
            byte = pool >> 8 * (take & 7) & 0xFF
            result |= (0xFF * (byte >> 7) if take & 8 else byte) << 8 * n
        return r.set(to, result)

    return act


def to_float(i: Instruction) -> Act:
    """I2F and I2FP of a known integer: divisions of integers begin so."""
    number = (lambda x: x) if "U32" in i.modifiers or "S32" not in i.modifiers else signed

    def act(r: Registers) -> None:
        value = operand(i.operands[1])(r)
        r.set(i.operands[0], None if value is None else _bits(float(number(value))))

    return act


def reciprocal(i: Instruction) -> Act:
    """MUFU.RCP of a known number."""

    def act(r: Registers) -> None:
        value = operand(i.operands[1])(r) if "RCP" in i.modifiers else None
        number = 0.0 if value is None else struct.unpack("<f", struct.pack("<I", value))[0]
        r.set(i.operands[0], _bits(1 / number) if number else None)

    return act


def to_integer(i: Instruction) -> Act:
    """F2I of a known number, towards zero."""

    def act(r: Registers) -> None:
        value = operand(i.operands[1])(r)
        r.set(i.operands[0], None if value is None else int(struct.unpack("<f", struct.pack("<I", value))[0]) & MASK)

    return act


def _bits(number: float) -> int:
    value: int = struct.unpack("<I", struct.pack("<f", number))[0]
    return value
