"""Instructions of SASS for sm_90 that make bits and predicates."""

from __future__ import annotations

from collections.abc import Callable

from gpu_model.arithmetic import signed
from gpu_model.registers import MASK, Act, Registers, Value, is_predicate, operand, predicate
from gpu_model.sass import Instruction


def logic(i: Instruction) -> Act:
    """LOP3.LUT: each bit looks up its result in 8 bits of a number. Some bits of a result may be known: predicates are kept so."""
    outs = [text for text in i.operands[:1] if is_predicate(text)]
    to, *names, table = i.operands[len(outs) : len(outs) + 5]
    lookup, sources = int(table, 0), [(name, operand(name)) for name in names]

    def act(r: Registers) -> None:
        can_be = [0, 0]  # the bits of the result that can be 0, and those that can be 1
        known = []
        for name, source in sources:
            value = source(r)
            known.append(r.partial.get(name, (0, 0)) if value is None else (value, MASK))
        for combination in range(8):
            bits = MASK
            for n, (value, mask) in enumerate(known):
                bits &= ~mask | (value if combination & 4 >> n else ~value)
            can_be[lookup >> combination & 1] |= bits & MASK
        zeros, ones = can_be[0] & ~can_be[1], can_be[1] & ~can_be[0]
        unknown = can_be[0] & can_be[1]
        r.set(to, None if unknown else ones)
        if unknown and to != "RZ":
            r.partial[to] = (ones, zeros | ones)
        for out in outs:
            r.set(out, 1 if ones else None if unknown else 0)

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


def vote(i: Instruction) -> Act:
    """As if all lanes agreed with the first."""
    read = predicate(i.operands[-1])
    return lambda r: r.set(i.operands[0], read(r))


def predicates_to_register(i: Instruction) -> Act:
    """P2R."""
    to, bits = i.operands[0], int(i.operands[3], 0)

    def act(r: Registers) -> None:
        values = [r.values.get(f"P{n}", 0) if bits >> n & 1 else 0 for n in range(7)]
        r.set(to, None if None in values else sum(v << n for n, v in enumerate(values) if v))

    return act
