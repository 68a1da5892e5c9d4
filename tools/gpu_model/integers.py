"""Integer instructions and predicates of SASS for sm_90, over values that may be unknown (None)."""

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
        self.constants = constants
        self.special = {"SR_TID.X": thread, "SR_TID.Y": 0, "SR_TID.Z": 0, "SR_LANEID": thread % 32, "SR_CgaCtaId": 0}
        self.special |= {f"SR_CTAID.{axis}": number for axis, number in zip("XYZ", block)}

    def set(self, name: str, value: Value) -> None:
        """RZ and PT stay as they are."""
        if name not in ("RZ", "URZ", "PT", "UPT"):
            self.values[name] = value

    def constant(self, bank: int, offset: int) -> Value:
        """32 bits of a constant bank."""
        data = self.constants.get(bank, b"")
        return struct.unpack_from("<I", data, offset)[0] if 0 <= offset <= len(data) - 4 else None


Read = Callable[[Registers], Value]


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


Act = Callable[[Registers], None]


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


def logic(i: Instruction) -> Act:
    """LOP3.LUT: each bit looks up its result in 8 bits of a number."""
    outs = [text for text in i.operands[:1] if is_predicate(text)]
    to, a, b, c, table = i.operands[len(outs) : len(outs) + 5]
    lookup, sources = int(table, 0), [operand(text) for text in (a, b, c)]

    def act(r: Registers) -> None:
        values = [source(r) for source in sources]
        result: Value = None
        x, y, z = (value if value is not None else 0 for value in values)
        if None not in values or (lookup == 0xC0 and 0 in values[:2]):
            result = 0
            for bits in range(8):
                if lookup >> bits & 1:
                    result |= (x if bits & 4 else ~x) & (y if bits & 2 else ~y) & (z if bits & 1 else ~z)
            result &= MASK
        r.set(to, result)
        for out in outs:
            r.set(out, None if result is None else int(result != 0))

    return act


def logic_of_predicates(i: Instruction) -> Act:
    """PLOP3.LUT."""
    sources = [predicate(text) for text in i.operands[2:5]]
    tables = [(to, int(table, 0)) for to, table in zip(i.operands[:2], i.operands[5:7])]

    def act(r: Registers) -> None:
        values = [source(r) for source in sources]
        for to, table in tables:
            results = {
                table >> bits & 1
                for bits in range(8)
                if all(value is None or value == (bits >> 2 - n & 1) for n, value in enumerate(values))
            }
            r.set(to, results.pop() if len(results) == 1 else None)

    return act


COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "EQ": lambda a, b: a == b, "NE": lambda a, b: a != b, "LT": lambda a, b: a < b, "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b, "GE": lambda a, b: a >= b,
}  # fmt: skip


def compare(i: Instruction) -> Act:
    """ISETP and UISETP. .EX: the upper halves, after the lower ones, whose result is the last operand."""
    to, other = i.operands[:2]
    a, b, more = operand(i.operands[2]), operand(i.operands[3]), predicate(i.operands[4])
    unsigned, both, holds = "U32" in i.modifiers, "AND" in i.modifiers, COMPARISONS[i.modifiers[0]]
    lower = predicate(i.operands[5]) if "EX" in i.modifiers else None

    def joined(x: Value, y: Value) -> Value:
        if x is not None and y is not None:
            return x & y if both else x | y
        return (0 if both else 1) if (0 if both else 1) in (x, y) else None

    def act(r: Registers) -> None:
        x, y, result = a(r), b(r), None
        if x is not None and y is not None:
            if not unsigned:
                x, y = signed(x), signed(y)
            result = lower(r) if lower and x == y else int(holds(x, y))
        with_more = more(r)
        r.set(to, joined(result, with_more))
        r.set(other, joined(None if result is None else 1 - result, with_more))

    return act


def select(i: Instruction) -> Act:
    """SEL and USEL."""
    to, (a, b), which = i.operands[0], map(operand, i.operands[1:3]), predicate(i.operands[3])

    def act(r: Registers) -> None:
        first, x, y = which(r), a(r), b(r)
        r.set(to, (x if x == y else None) if first is None else x if first else y)

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


def vote(i: Instruction) -> Act:
    """As if all lanes agreed with the first."""
    read = predicate(i.operands[-1])
    return lambda r: r.set(i.operands[0], read(r))


def shuffle(i: Instruction) -> Act:
    """Of the first lane's own value where all read that; else unknown."""
    source = operand(i.operands[2])
    own = "IDX" in i.modifiers and i.operands[3] == "RZ"
    return lambda r: r.set(i.operands[1], source(r) if own else None)


def predicates_to_register(i: Instruction) -> Act:
    """P2R."""
    to, bits = i.operands[0], int(i.operands[3], 0)

    def act(r: Registers) -> None:
        values = [r.values.get(f"P{n}", 0) if bits >> n & 1 else 0 for n in range(7)]
        r.set(to, None if None in values else sum(v << n for n, v in enumerate(values) if v))

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
