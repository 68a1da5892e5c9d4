"""The units of a Hopper multiprocessor: which one an instruction needs, and what each can do in a cycle.

Lanes a cycle: NVIDIA's CUDA programming guide, the table of throughputs of arithmetic instructions, column 9.0. That IMAD runs on one of
the two FP32 pipes: an answer of NVIDIA's in its forum (302018). Tensor cores: 989 TFLOP/s dense at 1,830 MHz on 132 multiprocessors.
Shared memory: 128 bytes. L2: 5,120 bytes for all multiprocessors (of A100's white paper; 9.0 TB/s at 1,755 MHz).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gpu_model.machine import Walk
from gpu_model.sass import Instruction, access_bytes, is_empty_product, product_shape

MULTIPROCESSORS, PARTITIONS, LANES = 132, 4, 32
TENSOR_MULTIPLY_ADDS, SHARED_BYTES, L2_BYTES = 2048, 128, 5120 / MULTIPROCESSORS  # of a multiprocessor and cycle
HBM_BYTES, L2_SIZE = 4.8e12, 50 << 20  # of an H200: a second; in all
RATE = 790e12  # operations a second that an H200 reaches in bf16 products, under its power limit
CLOCK = RATE / (2 * TENSOR_MULTIPLY_ADDS * MULTIPROCESSORS)  # at which busy tensor cores have that rate

LANES_A_CYCLE = {"issue": 128, "FP32": 128, "IMAD": 64, "ALU": 64, "special": 16, "load/store": 32}
FLOATS = ("FADD", "FMUL", "FFMA")
SPECIAL = ("MUFU", "I2F", "F2I", "F2F", "POPC", "FLO", "BREV")
LOADS, STORES = ("LDS", "LDG", "LDGSTS", "LDSM"), ("STS", "STG", "STSM", "RED", "ATOM", "ATOMS")
PRODUCTS = ("HGMMA", "HMMA")
ONLY_ISSUED = (
    "BRA", "BRX", "CALL", "RET", "EXIT", "BSSY", "BSYNC", "NOP", "BAR", "WARPSYNC", "WARPGROUP", "MEMBAR", "FENCE", "SYNCS", "ELECT",
    "VOTE", "S2R", "CS2R", "LDC", "R2UR", "LDGDEPBAR", "DEPBAR", "YIELD", "ERRBAR", "BREAK", "CCTL",
)  # fmt: skip
UNITS = ("tensor", "shared", "L2", "issue", "ALU", "FMA", "special", "load/store")


def unit_of(instruction: Instruction) -> str:
    """A key of LANES_A_CYCLE; "tensor"; or "" for what is only issued: control, barriers, copies, and all of the uniform data path."""
    opcode = instruction.opcode
    if opcode in PRODUCTS:
        return "tensor"
    if opcode in FLOATS:
        return "FP32"
    if opcode in ("IMAD", "IDP"):
        return "IMAD"
    if opcode in SPECIAL:
        return "special"
    if opcode in LOADS + STORES or opcode == "SHFL":
        return "load/store"
    return "" if opcode in ONLY_ISSUED or opcode.startswith("U") else "ALU"


Work = Counter[str]
"""Of a block: warp instructions by unit, of its busiest partition; "products", "empty products", "multiply-adds", "tensor" cycles; bytes
of "shared" memory and of "L2"."""


def work_of(instructions: list[Instruction], walks: Iterable[Walk]) -> Work:
    """The work of a block, from the walks of its warps, the first one first."""
    partitions: list[Work] = [Counter() for _ in range(PARTITIONS)]
    work: Work = Counter()
    for warp, walk in enumerate(walks):
        mine = partitions[warp % PARTITIONS]
        mine["issue"] += walk.counts.total()
        work["L2"] += walk.copied_bytes
        work["shared"] += walk.copied_bytes
        for number, count in walk.counts.items():
            instruction = instructions[number]
            unit, effective = unit_of(instruction), count - walk.idle[number]
            if unit in LANES_A_CYCLE:
                mine[unit] += count
            if unit == "tensor" and warp % PARTITIONS == 0:  # a product is issued by four warps
                work += product_work(instruction, effective)
            if instruction.opcode in ("LDS", "STS", "LDGSTS", "LDSM", "STSM"):
                work["shared"] += effective * LANES * access_bytes(instruction)
            if instruction.opcode in ("LDG", "STG", "LDGSTS"):
                work["L2"] += effective * LANES * access_bytes(instruction)
    busiest: Work = max(partitions, key=lambda partition: partition["issue"])
    return work + busiest


def product_work(instruction: Instruction, count: int) -> Work:
    """Of `count` products of a warpgroup. Rows and columns that come from shared memory are read there by each product."""
    if is_empty_product(instruction):
        return Counter({"empty products": count})
    rows, columns, depth = product_shape(instruction)
    from_registers = instruction.operands[1].startswith("R")
    multiply_adds = rows * columns * depth
    read = 2 * depth * (columns + (0 if from_registers else rows))
    return Counter({
        "products": count, "multiply-adds": count * multiply_adds, "tensor": count * multiply_adds // TENSOR_MULTIPLY_ADDS,
        "shared": count * read,
    })  # fmt: skip


def cycles(work: dict[str, float]) -> dict[str, float]:
    """Of each unit, if it did nothing else and never waited. A partition has a quarter of the lanes."""

    def lanes(unit: str) -> float:
        return work.get(unit, 0) * LANES * PARTITIONS / LANES_A_CYCLE[unit]

    return {
        "tensor": work.get("tensor", 0), "shared": work.get("shared", 0) / SHARED_BYTES, "L2": work.get("L2", 0) / L2_BYTES,
        "issue": lanes("issue"), "ALU": lanes("ALU"),
        "FMA": max(lanes("FP32") + work.get("IMAD", 0) * LANES * PARTITIONS / LANES_A_CYCLE["FP32"], lanes("IMAD")),
        "special": lanes("special"), "load/store": lanes("load/store"),
    }  # fmt: skip
