"""`tools/sass_report.py`: how it reads what nvcc and cuobjdump print, and what it complains about."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "sass_report.py"

FORWARD = "_ZN5mimic51_GLOBAL__N__c77d21a0_18_shallow_forward_cu_9de69f7515shallow_forwardINS_4Bf16ELi2ELi1EEEvNS0_7ForwardE"
SUM = "_ZN5mimic40_GLOBAL__N__1dd749b8_8_serve_cu_04d2c39e10sum_splitsEPKfiilS2_lPf"
SERVE = "_ZN5mimic40_GLOBAL__N__1dd749b8_8_serve_cu_04d2c39e5serveINS0_10ServedInt8EEEvNS0_5ServeE"

PTXAS = f"""ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{FORWARD}' for 'sm_80'
ptxas info    : Function properties for {FORWARD}
    40 bytes stack frame, 36 bytes spill stores, 28 bytes spill loads
ptxas info    : Used 254 registers, used 1 barriers, 40 bytes cumulative stack size, 472 bytes cmem[0]
ptxas info    : Compile time = 4312.221 ms
ptxas info    : Compiling entry function '{SUM}' for 'sm_80'
ptxas info    : Function properties for {SUM}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 26 registers, used 1 barriers, 48 bytes smem, 400 bytes cmem[0]
"""

SERIALIZED = (
    "ptxas info    : (C7519) warpgroup.arrive is injected in around line 11064 by compiler to allow use of registers in GMMA in function "
    f"'{SUM}'\nptxas info    : (C7511) Potential Performance Loss: wgmma.mma_async instructions are serialized due to insufficient "
    f"register resources for the wgmma pipeline in the function '{FORWARD}'\n"
)

RESOURCES = f"""
Resource usage:
 Common:
  GLOBAL:0
 Function {FORWARD}:
  REG:254 STACK:40 SHARED:1024 LOCAL:0 CONSTANT[2]:16 CONSTANT[0]:664 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function {SUM}:
  REG:26 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:576 TEXTURE:0 SURFACE:0 SAMPLER:0
"""

SASS = f"""
	code for sm_80
	.target	sm_80

		Function : {FORWARD}
	.headerflags	@"EF_CUDA_SM80"
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;     /* 0x00000a00ff017624 */
                                                                               /* 0x000fe400078e00ff */
        /*0010*/              @!P0 HMMA.16816.F32.BF16 R8, R4, R20, R8 ;       /* 0x000000140408723c */
        /*0020*/                   HMMA.16816.F32.BF16 R8, R4, R22, R8 ;       /* 0x000000160408723c */
        /*0030*/          @!UP1 STL.64 [R1+0x8], R2 ;                          /* 0x0000080201007387 */
        /*10040*/                  LDL R2, [R1] ;                              /* 0x0000000001027983 */
        /*10050*/             @PT  BRA `(.L_x_1) ;                             /* 0xfffffff000007947 */
		..........

		Function : {SUM}
        /*0000*/                   HGMMA.64x64x16.F32.BF16 R24, R4, gdesc[UR4] ;  /* 0x000000ff */
        /*0010*/                   EXIT ;                                      /* 0x000000000000794d */
"""


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("sass_report", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["sass_report"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_what_is_printed_is_read(tool):
    assert tool.parse_spills(PTXAS) == {FORWARD: 64, SUM: 0}
    assert tool.parse_serialized(SERIALIZED + PTXAS) == {FORWARD: "insufficient register resources for the wgmma pipeline"}
    assert tool.parse_static_shared(PTXAS) == {FORWARD: 0, SUM: 48}
    resources = tool.parse_resources(RESOURCES)
    assert list(resources) == [FORWARD, SUM]
    assert {key: resources[FORWARD][key] for key in ("REG", "STACK")} == {"REG": 254, "STACK": 40}
    instructions = tool.parse_instructions(SASS)
    assert instructions == {FORWARD: {"IMAD": 1, "HMMA": 2, "STL": 1, "LDL": 1, "BRA": 1}, SUM: {"HGMMA": 1, "EXIT": 1}}


@pytest.mark.parametrize(
    ("mangled", "name"),
    [
        (FORWARD, "shallow_forward<Bf16, 2, 1>"), (SUM, "sum_splits"), (SERVE, "serve<ServedInt8>"), ("_Z3fooPf", "_Z3fooPf"),
        ("_ZN5mimic5scaleILin3EEEvv", "scale<-3>"), ("_ZN5mimic5scaleIfEEvv", "_ZN5mimic5scaleIfEEvv"),
    ],
)  # fmt: skip
def test_names(tool, mangled, name):
    assert tool.readable(mangled) == name


def kernel(tool, **changes):
    good = tool.Kernel(
        source="forward_sm80.cu", architecture="sm_80", name="shallow_forward<Bf16, 2, 1>", registers=254, stack_bytes=0,
        shared_bytes=0, spill_bytes=0, length=4000, instructions={"HMMA": 304, "HGMMA": 0, "LDL": 0, "STL": 0},
    )  # fmt: skip
    return dataclasses.replace(good, **{**changes, "instructions": good.instructions | changes.get("instructions", {})})


def test_budgets(tool):
    seconds = {"sm_80": 59.0, "sm_90a": 59.0}
    on_80, on_90 = kernel(tool), kernel(tool, source="forward_sm90a.cu", architecture="sm_90a", instructions={"HMMA": 0, "HGMMA": 64})
    stub = kernel(tool, architecture="sm_90a", registers=8, length=16, instructions={"HMMA": 0})
    plain = kernel(tool, source="pack.cu", name="pack", instructions={"HMMA": 0})
    assert tool.broken_budgets([on_80, on_90, stub, plain, *[on_80] * 23], seconds) == []
    for changes, what in (
        ({"spill_bytes": 4}, "spills"), ({"stack_bytes": 8}, "stack"), ({"instructions": {"LDL": 1}}, "LDL"),
        ({"instructions": {"STL": 1}}, "STL"), ({"shared_bytes": 16}, "16 bytes of static shared"),
        ({"registers": 64}, "whether it is a stub"), ({"length": 64}, "whether it is a stub"),
        ({"serialized": "non wgmma instructions"}, "wait for each other due to non wgmma"),
    ):  # fmt: skip
        (complaint,) = tool.broken_budgets([kernel(tool, **changes)], seconds)
        assert "forward_sm80.cu, sm_80, shallow_forward<Bf16, 2, 1>" in complaint
        assert what in complaint
    assert any("no HMMA" in c for c in tool.broken_budgets([kernel(tool, instructions={"HMMA": 0})], seconds))
    with_hmma = kernel(tool, source="forward_sm90a.cu")
    assert any("no HGMMA" in c for c in tool.broken_budgets([with_hmma], seconds))
    assert any("on any architecture" in c for c in tool.broken_budgets([stub], seconds))
    assert any("25 matrix kernels" in c for c in tool.broken_budgets([on_80] * 25, seconds))
    assert any("61.0 s" in c for c in tool.broken_budgets([on_80], {"sm_80": 61.0}))


def test_table(tool):
    text = tool.table([kernel(tool, spill_bytes=12)], {"sm_80": 7.0})
    header, row, last = text.splitlines()
    assert dict(zip(header.split()[3:], row.replace("<Bf16, 2, 1>", "").split()[3:])) == {
        "regs": "254", "spill": "12", "stack": "0", "shared": "0", "length": "4000", "HMMA": "304", "HGMMA": "0", "LDL": "0", "STL": "0",
    }  # fmt: skip
    assert last == "sm_80: 1 matrix kernels, 7.0 s to compile"


@pytest.mark.parametrize(("options", "status"), [([], 2), (["--check"], 2), (["--check", "--if-possible"], 0)])
def test_without_the_tools(options, status, tmp_path):
    """An nvcc that does not work stands before any other."""
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\nexit 1\n")
    nvcc.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([sys.executable, TOOL, *options], env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == status
    assert "NOTICE: no nvcc that works" in done.stderr


def test_one_small_kernel(tool):
    """The real tools, where they are."""
    try:
        tool.find_tools()
    except tool.MissingToolError as error:
        pytest.skip(f"{error}: what the compiler makes of the kernels is NOT checked")
    command = [sys.executable, TOOL, "--check", "--json", TOOL.parents[1] / "kernels" / "layers" / "column_sums.cu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert [(k["architecture"], k["name"]) for k in report["kernels"]] == [
        ("sm_80", "column_sums"), ("sm_80", "sum_splits"), ("sm_90a", "column_sums"), ("sm_90a", "sum_splits"),
    ]  # fmt: skip
    assert set(report["seconds"]) == {"sm_80", "sm_90a"}
