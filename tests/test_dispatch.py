"""Any choice of instruction sets can be compiled into the core (CMake's PYMIMIC_ISAS): those that run here are offered, slowest first."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"
TABLES = {  # by name, what they are called in each build's namespace
    "baseline": {"amx_model": "isa_amx_model", "baseline": "isa"},
    "avx2": {"avx2": "isa"},
    "avx512": {"avx512": "isa", "avx512_bf16": "isa_bf16", "amx": "isa_amx"},
}
MAIN = """
#include <cstdio>
#include "cpu/dispatch.h"
namespace mimic {{ {tables} }}
int main() {{
  for (const auto* isa : mimic::compiled_isas()) std::printf("%s ", isa->name);
  std::printf("\\n");
  for (const auto* isa : mimic::runnable_isas()) std::printf("%s ", isa->name);
}}
"""


@pytest.fixture(scope="module")
def offers(tmp_path_factory):
    """What is compiled and what runs of a choice, whose kernels are not there."""
    compiler = os.environ.get("CXX", "c++")
    if platform.machine() not in ("x86_64", "AMD64") or shutil.which(compiler) is None:
        pytest.skip("this needs an x86 machine with a C++ compiler")

    def of(*isas):
        folder = tmp_path_factory.mktemp("dispatch")
        tables = [f'namespace {isa} {{ extern const Isa {table} = {{"{name}"}}; }}' for isa in isas for name, table in TABLES[isa].items()]
        (folder / "main.cpp").write_text(MAIN.format(tables=" ".join(tables)))
        chosen = [f"-DMIMIC_HAS_{isa}" for isa in isas]
        flags = ["-std=c++17", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror", "-DMIMIC_X86", f"-I{CSRC}"]
        command = [compiler, *flags, *chosen, folder / "main.cpp", CSRC / "cpu" / "dispatch.cpp", "-o", folder / "main"]
        subprocess.run(command, check=True)
        printed = subprocess.run([folder / "main"], check=True, capture_output=True, text=True).stdout
        return [line.split() for line in printed.split("\n")]

    return of


def test_each_choice(offers):
    _, here = offers(*TABLES)
    assert here[:2] == ["amx_model", "baseline"]
    for isas in (("baseline",), ("avx2",), ("avx512",), ("baseline", "avx512")):
        compiled, runnable = offers(*isas)
        assert compiled == [name for isa in isas for name in TABLES[isa]]
        assert runnable == [name for name in here if name in compiled]
