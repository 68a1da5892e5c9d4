"""`tools/gpu_model`: how it walks through machine code, what it counts, and the page that it writes."""

import math
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gpu_model.launches import Shape
from gpu_model.machine import Launched, Machine, UnknownBranchError, Walk
from gpu_model.one_pass import one_pass, slabs
from gpu_model.registers import Registers
from gpu_model.sass import parse_functions, parse_instruction
from gpu_model.units import cycles, unit_of, work_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "inside" / "gpu.md").read_text()

# c[0x0][0x210] slabs; a product of each kind in each; a load without effect; a copy of 4096 bytes by an elected lane; a root whose
# argument is unknown, with a slow routine; and a way that is never taken.
SASS = """
		Function : _ZN5mimic6kernelEv
        /*0000*/                   S2R R0, SR_TID.X ;                          /* 0x0000000000007919 */
        /*0010*/                   UMOV UR4, URZ ;
        /*0020*/                   ISETP.GE.U32.AND P1, PT, R0.reuse, 0x20, PT ;
        /*0030*/               @P1 EXIT ;
        /*0040*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR7+0x18720], R8 ;
        /*0050*/              @!P0 BRA 0x40 ;
        /*0060*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR20], R24, UP0 ;
        /*0070*/                   HGMMA.64x64x16.F32.BF16 R88, R184, gdesc[UR16].tnspB, R88, gsb0 ;
        /*0080*/                   HGMMA.64x8x16.F16 RZ, gdesc[URZ], RZ, !UPT, gsb0 ;
        /*0090*/               @P1 LDG.E.128 R4, desc[UR34][R2.64] ;
        /*00a0*/                   MOV R2, 0x1000 ;
        /*00b0*/                   SYNCS.ARRIVE.TRANS64 RZ, [R11+UR13], R2 ;
        /*00c0*/                   PLOP3.LUT P0, PT, PT, PT, PT, 0x80, 0x0 ;
        /*00d0*/               @P0 ELECT P2, URZ, PT ;
        /*00e0*/                   UTMALDG.2D [UR16], [UR20] ;
        /*00f0*/               @P2 PLOP3.LUT P0, PT, P2, PT, PT, 0x8, 0x0 ;
        /*0100*/               @P0 BRA.U.ANY 0xd0 ;
        /*0110*/                   MUFU.RSQ R46, R3 ;
        /*0120*/                   FADD R3, R24, R46 ;
        /*0130*/                   ISETP.GT.U32.AND P0, PT, R3, 0x727fffff, PT ;
        /*0140*/              @!P0 BRA 0x170 ;
        /*0150*/                   MOV R50, 0x170 ;
        /*0160*/                   CALL.REL.NOINC 0x1d0 ;
        /*0170*/                   STS.64 [R5], R24 ;
        /*0180*/                   UIADD3 UR4, UR4, 0x1, URZ ;
        /*0190*/                   ULDC UR5, c[0x0][0x210] ;
        /*01a0*/                   UISETP.GE.AND UP0, UPT, UR4, UR5, UPT ;
        /*01b0*/                   PLOP3.LUT P0, PT, PT, PT, UP0, 0x80, 0x0 ;
        /*01c0*/              @!P0 BRA 0x40 ;
        /*01d0*/                   EXIT ;
"""


def walk(slabs: int, thread: int = 0) -> tuple[Machine, Walk]:
    (instructions,) = parse_functions(SASS).values()
    machine = Machine(instructions)
    return machine, machine.walk(Launched({0: bytes(0x210) + slabs.to_bytes(4, "little")}, thread))


def test_the_walk_takes_each_turn_of_the_loop_and_no_slow_routine():
    machine, found = walk(3)
    at = {i.address: found.counts[number] for number, i in enumerate(machine.instructions)}
    assert (at[0x0], at[0x40], at[0x60], at[0xE0], at[0x160], at[0x1D0]) == (1, 3, 3, 3, 0, 1)
    assert found.copied_bytes == 3 * 4096
    assert found.idle == {9: 3}
    _, other = walk(3, thread=32)
    assert other.counts.total() == 4


def test_the_work_is_that_of_the_busiest_quarter_and_all_products():
    machine, found = walk(5)
    none = walk(5, 32)[1]
    work = work_of(machine.instructions, [found, none, none, none])
    assert (work["products"], work["empty products"], work["tensor"]) == (10, 5, 5 * (64 + 32))
    assert work["multiply-adds"] == 5 * 64 * 16 * (128 + 64)
    read_by_products = 2 * 16 * (64 + 128) + 2 * 16 * 64  # rows of the second one are in registers
    assert work["shared"] == 5 * (read_by_products + 4096 + 32 * 8)
    assert work["L2"] == 5 * 4096  # a load whose predicate is false brings nothing
    assert work["issue"] == found.counts.total()
    taken = cycles(work)
    assert taken["tensor"] == work["tensor"]
    assert taken["issue"] == work["issue"]  # a quarter issues one a cycle
    assert taken["ALU"] == 2 * work["ALU"]  # and has 16 lanes for these
    assert taken["special"] == 8 * 5


def test_a_branch_that_depends_on_data_is_no_guess():
    text = "Function : f\n/*0000*/ LDG.E R4, desc[UR4][R2.64] ;\n/*0010*/ ISETP.GT.AND P0, PT, R4, 0x2, PT ;\n/*0020*/ @P0 BRA 0x0 ;\n"
    with pytest.raises(UnknownBranchError, match="@P0 BRA 0x0 depends on data"):
        Machine(parse_functions(text)["f"]).walk(Launched({}, 0))


@pytest.mark.parametrize(("text", "unit"), [
    ("FFMA R8, R0, R3, 1", "FP32"), ("IMAD.WIDE.U32 R2, R3, R4, RZ", "IMAD"), ("FSEL R1, R2, RZ, P0", "ALU"),
    ("F2FP.BF16.F32.PACK_AB R4, R5, R6", "ALU"), ("MUFU.RCP R3, R0", "special"), ("SHFL.BFLY PT, R2, R5, 0x1, 0x1f", "load/store"),
    ("UIADD3 UR4, UR4, 0x1, URZ", ""), ("HGMMA.64x64x16.F32.BF16 R88, R184, gdesc[UR16], R88", "tensor"),
])  # fmt: skip
def test_the_unit_of_an_instruction(text, unit):
    assert unit_of(parse_instruction(f"/*0000*/ {text} ;")) == unit


def after(text: str, **values: int) -> dict:
    """The registers after a few instructions."""
    lines = [f"/*{16 * n:04x}*/ {line} ;" for n, line in enumerate([*text.split("; "), "EXIT"])]
    machine = Machine([parse_instruction(line) for line in lines])
    registers = Registers({}, 0, (0, 0, 0))
    registers.values |= values
    for step in machine.steps[:-1]:
        step(registers)
    return registers.values


def test_integers_are_those_of_the_chip():
    rng = random.Random(0)
    for _ in range(200):
        a, b = (rng.choice([rng.getrandbits(64), rng.getrandbits(33), rng.getrandbits(3)]) for _ in range(2))
        both = dict(zip(("R0", "R1", "R2", "R3"), (a % 2**32, a >> 32, b % 2**32, b >> 32)))
        total = after("IADD3 R4, P0, R0, R2, RZ; IADD3.X R5, R1, R3, RZ, P0, !PT", **both)
        assert (total["R4"], total["R5"]) == ((a + b) % 2**32, (a + b) % 2**64 >> 32)
        less = after("IADD3 R4, P0, R0, -R2, RZ; IADD3.X R5, R1, ~R3, RZ, P0, !PT", **both)
        assert (less["R4"], less["R5"]) == ((a - b) % 2**32, (a - b) % 2**64 >> 32)
        order = after("ISETP.GE.U32.AND P0, PT, R0, R2, PT; ISETP.GE.U32.AND.EX P1, PT, R1, R3, PT, P0", **both)
        assert order["P1"] == (a >= b)
        same = after("ISETP.NE.U32.AND P0, PT, R0, R2, PT; ISETP.NE.AND.EX P1, PT, R1, R3, PT, P0", **both)
        assert same["P1"] == (a != b)
        product = after("IMAD.WIDE.U32 R4, R0, R2, RZ; IMAD R6, R0, -0x4, R2", **both)
        assert product["R4"] | product["R5"] << 32 == (a % 2**32) * (b % 2**32)
        assert product["R6"] == ((b - 4 * a) % 2**32)
        number = a % 2**31 * rng.choice([1, -1])
        signed = {"R0": number % 2**32, "R1": number % 2**32}
        rounded = after("SHF.R.S32.HI R2, RZ, 0x1f, R0; LEA.HI R2, R2, R0, RZ, 0x5; SHF.R.S32.HI R2, RZ, 0x5, R2", **signed)
        assert rounded["R2"] == math.trunc(number / 32) % 2**32
        shifted = after("SHF.L.U64.HI R4, R0, 0x2, R1; LEA R5, P0, R0, R2, 0x2; LEA.HI.X R6, R0, R3, R1, 0x2, P0", **both)
        assert shifted["R4"] == (a << 2 >> 32) % 2**32
        assert (shifted["R5"], shifted["R6"]) == ((4 * a + b) % 2**32, (4 * a + b) % 2**64 >> 32)
        bits = after("LOP3.LUT R4, R0, R1, R2, 0x96, !PT; PRMT R5, R0, 0x5410, R2", **both)
        assert bits["R4"] == (a % 2**32) ^ (a >> 32) ^ (b % 2**32)
        assert bits["R5"] == a % 2**16 | b % 2**16 << 16


def test_what_depends_on_data_is_unknown_unless_it_does_not_matter():
    made = "LDS R0, [R9]; LOP3.LUT R1, R0, 0xff, RZ, 0xc0, !PT; LOP3.LUT R2, RZ, R0, RZ, 0xc0, !PT"
    found = after(f"{made}; PLOP3.LUT P0, PT, PT, PT, PT, 0x8, 0x0")
    assert (found["R0"], found["R1"], found["R2"], found["P0"]) == (None, None, 0, 0)
    kept = "LDS R0, [R9]; LOP3.LUT R0, R0, 0xfffffffd, RZ, 0xc0, !PT; LOP3.LUT P0, RZ, R0, 0x2, RZ, 0xc0, !PT"
    assert after(kept)["P0"] == 0
    assert after(f"{kept}; LOP3.LUT R0, R0, 0x6, RZ, 0xfc, !PT; LOP3.LUT P1, R1, R0, 0x7, RZ, 0xc0, !PT")["P1"] == 1
    assert after("LDS R0, [R9]; LOP3.LUT P0, RZ, R0, 0x2, RZ, 0xc0, !PT")["P0"] is None


def counted() -> dict[tuple[str, str, str], dict[str, float]]:
    """The page's first table."""
    text = PAGE.split("### A slab")[1].split("Cycles of each unit")[0]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    header, _, *rows = lines
    return {tuple(row[:3]): dict(zip(header[3:], (float(cell.replace(",", "")) for cell in row[3:]))) for row in rows}


def test_products_of_a_slab_are_what_the_sources_say():
    """At k = C = 128 nothing is padded. The unit kernel makes z U^T once."""
    found = counted()
    for dropout in ("no", "yes"):
        assert found["forward", "k = C = 128", dropout]["multiply-adds"] == 128 * 128 * (128 + 128)
        assert found["rows", "k = C = 128", dropout]["multiply-adds"] == 128 * 64 * (128 + 2 * 128)
        for kernel in ("units", "units, AdamW"):
            assert found[kernel, "k = C = 128", dropout]["multiply-adds"] == 64**2 * 2 * (128 + 128)
            padded_k, padded_C = 256, 192  # of 250 and 183
            assert found[kernel, "timit-400k", dropout]["multiply-adds"] == 64**2 * 2 * (padded_k + padded_C)
    assert len(found) == 32


def test_the_page_says_that_its_figures_are_predicted():
    assert "Compiled and emulated, not yet run on a GPU" in PAGE
    made = re.search("<!-- made by tools/gpu_model: begin -->(.*)<!-- made by tools/gpu_model: end -->", PAGE, re.DOTALL)
    assert made
    assert "**predicted**" in made[1]
    assert all("measured" not in line or "predicted" in line for line in made[1].splitlines() if line.startswith("|"))


@pytest.mark.slow
def test_the_page_is_what_the_kernels_say():
    if not (shutil.which("nvcc") and shutil.which("cmake")):
        pytest.skip("no nvcc or no cmake on this machine: docs/inside/gpu.md is NOT checked")
    done = subprocess.run([sys.executable, "tools/gpu_model", "--check"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 2:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("blocks", "shared_kib", "l2_kib", "tightest"),
    [(1, 288, 56 + 128, "L2"), (2, 288 + 64, 28 + 64, "shared"), (4, 288 + 96, 14 + 32, "shared")],
)
def test_what_a_backward_pass_in_one_kernel_would_need(blocks, shared_kib, l2_kib, tightest):
    """At timit-400k, by hand: products with U and W 112 KiB, with z and dy 56, of dz 48; copies 56, trade 16; sums of dz 64 KiB."""
    way = one_pass(Shape(250, 400_000, 183), blocks)
    assert (way.multiply_adds, way.shared, way.l2) == (64 * 64 * (3 * 256 + 2 * 192), 1024 * shared_kib, 1024 * l2_kib)
    assert way.cycles["tensor"] == 2304
    assert max(way.cycles, key=way.cycles.__getitem__) == tightest
    assert slabs(8192, 400_000) == 128 * 6250
