"""What the CUDA compiler made of the kernels: registers, spills, shared memory, tensor-core and local-memory instructions.

    python tools/sass_report.py [--check] [--json] [--if-possible] [FILE.cu ...]

Needs nvcc, and PyPI's nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm, which read its cubins; no GPU. Where one of them is
missing, says so and exits with 2, or with --if-possible with 0. `--check` exits with 1 where a budget below is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "kernels"
ARCHITECTURES = {"sm_80": "arch=compute_80,code=sm_80", "sm_90a": "arch=compute_90a,code=sm_90a"}
INSTRUCTIONS = ("HMMA", "HGMMA", "LDL", "STL")  # what is counted
MOST_MATRIX_KERNELS = 24  # instantiations with tensor-core instructions, for one architecture
JOBS = 2  # compilations at a time
MOST_SECONDS = 60.0  # of processor time for each job, to compile all for one architecture: what it takes on as many idle cores
MATRIX_KERNELS = "shallow_"  # kernels of such names must use tensor cores,
WARPGROUP_SOURCES = "_sm90a.cu"  # those of such files by warpgroups (HGMMA),
STUB_REGISTERS = 64  # kStubRegisters of kernels/tile/launch.cuh: how a launcher tells stubs from kernels
STUB = 64  # but for kernels of no more instructions than this: they are compiled for chips that another one is for


@dataclass(frozen=True)
class Kernel:
    """One kernel in one cubin. `shared_bytes` is what its source has statically: the rest is asked for at the launch."""

    source: str
    architecture: str
    name: str
    registers: int
    stack_bytes: int
    shared_bytes: int
    spill_bytes: int
    length: int  # in instructions
    instructions: dict[str, int]  # of INSTRUCTIONS, how many
    serialized: str = ""  # why products of warpgroups wait for each other; nothing where they do not

    @property
    def products(self) -> int:
        """Tensor-core instructions."""
        return self.instructions["HMMA"] + self.instructions["HGMMA"]


class MissingToolError(Exception):
    """Something that the report needs is not on this machine."""


def parse_spills(ptxas: str) -> dict[str, int]:
    """Spill bytes, stores and loads together, by mangled name, from what `-Xptxas -v` prints."""
    pattern = r"Function properties for (\S+)\n.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
    return {name: int(stores) + int(loads) for name, stores, loads in re.findall(pattern, ptxas)}


def parse_serialized(ptxas: str) -> dict[str, str]:
    """Why, by mangled name, each product of warpgroups waits for the one before it: no spill, and yet half of the speed or less."""
    pattern = r"Potential Performance Loss: wgmma.mma_async instructions are serialized due to (.*?) in the function '(\S+)'"
    return {name: why for why, name in re.findall(pattern, ptxas)}


def parse_static_shared(ptxas: str) -> dict[str, int]:
    """Bytes of static shared memory by mangled name; cuobjdump counts what the system reserves on sm_90 as well."""
    found = re.findall(r"Function properties for (\S+)\n.*\n.*?Used \d+ registers(.*)", ptxas)
    return {name: int(bytes_[1]) if (bytes_ := re.search(r"(\d+) bytes smem", rest)) else 0 for name, rest in found}


def parse_resources(text: str) -> dict[str, dict[str, int]]:
    """REG, STACK, ... by mangled name, from `cuobjdump -res-usage`."""
    found = re.findall(r"^ *Function (\S+):\n(.*)$", text, re.MULTILINE)
    return {name: {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)} for name, line in found}


def parse_instructions(sass: str) -> dict[str, Counter[str]]:
    """How often each operation stands in each function, from `cuobjdump -sass`; modifiers and predicates are left out."""
    counts: dict[str, Counter[str]] = {}
    name = ""
    for line in sass.splitlines():
        if function := re.match(r"\s*Function : (\S+)", line):
            name = function[1]
            counts[name] = Counter()
        elif name and (operation := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)", line)):
            counts[name][operation[1]] += 1
    return counts


def readable(mangled: str) -> str:
    """A kernel's own name, with the numbers and the last names of its template arguments."""
    rest, name = mangled.removeprefix("_ZN"), ""
    while length := re.match(r"\d+", rest):
        size = int(length[0])
        name, rest = rest[length.end() : length.end() + size], rest[length.end() + size :]
    if not name or not rest.startswith("I"):
        return name or mangled
    arguments, at = [], 1
    while at < len(rest) and rest[at] != "E":
        if number := re.compile(r"L[a-z](n?\d+)E").match(rest, at):
            arguments.append(number[1].replace("n", "-"))
            at = number.end()
        elif typename := re.compile(r"N(?:S\w?_)*(\d+)").match(rest, at):
            end = typename.end() + int(typename[1])
            arguments.append(rest[typename.end() : end])
            at = end + 1  # its E
        else:
            return mangled
    return f"{name}<{', '.join(arguments)}>"


def broken_budgets(kernels: list[Kernel], seconds: dict[str, float]) -> list[str]:
    """What `--check` complains about."""
    complaints = []
    for k in kernels:
        where = f"{k.source}, {k.architecture}, {k.name}"
        if k.spill_bytes or k.stack_bytes:
            complaints.append(f"{where}: {k.spill_bytes} bytes of spills and {k.stack_bytes} of stack, expected none")
        if k.instructions["LDL"] or k.instructions["STL"]:
            complaints.append(f"{where}: {k.instructions['LDL']} LDL and {k.instructions['STL']} STL, expected none")
        if k.serialized:
            complaints.append(f"{where}: products of warpgroups wait for each other due to {k.serialized}")
        if k.shared_bytes:
            complaints.append(f"{where}: {k.shared_bytes} bytes of static shared memory, expected none: launches ask for all that there is")
        if k.name.startswith(MATRIX_KERNELS) and (k.length > STUB) != (k.registers > STUB_REGISTERS):
            complaints.append(
                f"{where}: {k.length} instructions and {k.registers} registers: a launcher would not tell whether it is a stub"
            )
        meant = "HGMMA" if k.source.endswith(WARPGROUP_SOURCES) else "HMMA"
        if k.name.startswith(MATRIX_KERNELS) and k.length > STUB and not k.instructions[meant]:
            complaints.append(f"{where}: no {meant}, expected its products on tensor cores")
    for source, name in sorted({(k.source, k.name) for k in kernels if k.name.startswith(MATRIX_KERNELS)}):
        if not any(k.products for k in kernels if (k.source, k.name) == (source, name)):
            complaints.append(f"{source}, {name}: no products on tensor cores on any architecture")
    for architecture, took in seconds.items():
        matrix_kernels = sum(k.architecture == architecture and k.products > 0 for k in kernels)
        if matrix_kernels > MOST_MATRIX_KERNELS:
            complaints.append(f"{architecture}: {matrix_kernels} matrix kernels, expected at most {MOST_MATRIX_KERNELS}")
        if took > MOST_SECONDS:
            complaints.append(f"{architecture}: {took:.1f} s to compile, expected at most {MOST_SECONDS:.0f} s")
    return complaints


def table(kernels: list[Kernel], seconds: dict[str, float]) -> str:
    """For people."""
    width = max([len(k.name) for k in kernels] + [6])
    lines = [
        f"{'arch':6}  {'source':24}  {'kernel':{width}}  {'regs':>4}  {'spill':>5}  {'stack':>5}  {'shared':>6}  {'length':>6}  "
        + "  ".join(f"{i:>5}" for i in INSTRUCTIONS)
    ]
    for k in kernels:
        counts = "  ".join(f"{k.instructions[i]:5}" for i in INSTRUCTIONS)
        numbers = f"{k.registers:4}  {k.spill_bytes:5}  {k.stack_bytes:5}  {k.shared_bytes:6}  {k.length:6}  {counts}"
        lines.append(f"{k.architecture:6}  {k.source:24}  {k.name:{width}}  {numbers}")
    for architecture, took in seconds.items():
        matrix_kernels = sum(k.architecture == architecture and k.products > 0 for k in kernels)
        lines.append(f"{architecture}: {matrix_kernels} matrix kernels, {took:.1f} s to compile")
    return "\n".join(lines)


def find_tools() -> tuple[str, dict[str, str]]:
    """The path of nvcc, and an environment in which cuobjdump and nvdisasm are found. Raises MissingToolError."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None or subprocess.run([nvcc, "--version"], capture_output=True).returncode != 0:
        raise MissingToolError("no nvcc that works on this machine")
    wheels = [str(folder) for entry in sys.path for folder in sorted(Path(entry or ".").glob("nvidia/*/bin"))]
    path = os.pathsep.join([*wheels, os.environ.get("PATH", ""), str(Path(nvcc).parent)])
    for tool in ("cuobjdump", "nvdisasm"):
        if shutil.which(tool, path=path) is None:
            raise MissingToolError(f"no {tool} on this machine: pip install nvidia-cuda-{tool}")
    return nvcc, os.environ | {"PATH": path}


def run(tools: tuple[str, dict[str, str]], *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Raises subprocess.CalledProcessError where the command fails."""
    return subprocess.run(command, env=tools[1], check=True, capture_output=True, text=True)


def compile_source(source: Path, gencode: str, cubin: Path, tools: tuple[str, dict[str, str]]) -> str:
    """What ptxas says. Raises subprocess.CalledProcessError where it fails."""
    flags = ("-std=c++17", f"-I{ROOT / 'csrc'}", f"-I{KERNELS}", f"-gencode={gencode}", "-Xptxas", "-v", "-cubin", "-o")
    return run(tools, tools[0], *flags, cubin, source).stderr


def read(source: str, architecture: str, cubin: Path, ptxas: str, tools: tuple[str, dict[str, str]]) -> Iterator[Kernel]:
    """The kernels of one cubin."""
    spills, serialized, shared = parse_spills(ptxas), parse_serialized(ptxas), parse_static_shared(ptxas)
    resources = parse_resources(run(tools, "cuobjdump", "-res-usage", cubin).stdout)
    instructions = parse_instructions(run(tools, "cuobjdump", "-sass", cubin).stdout)
    for mangled in sorted(resources, key=readable):
        usage, counts = resources[mangled], instructions[mangled]
        yield Kernel(
            source, architecture, readable(mangled), usage["REG"], usage["STACK"], shared[mangled], spills[mangled], counts.total(),
            {operation: counts[operation] for operation in INSTRUCTIONS}, serialized.get(mangled, ""),
        )  # fmt: skip


def processor_seconds() -> float:
    """Of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(sources: list[Path], tools: tuple[str, dict[str, str]]) -> tuple[list[Kernel], dict[str, float]]:
    """All kernels for each architecture, and the seconds that each took to compile."""
    kernels: list[Kernel] = []
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(JOBS) as pool:
        for architecture, gencode in ARCHITECTURES.items():
            cubins = [Path(folder) / f"{source.stem}.{architecture}.cubin" for source in sources]
            start = processor_seconds()
            logs = [pool.submit(compile_source, source, gencode, cubin, tools) for source, cubin in zip(sources, cubins)]
            printed = [log.result() for log in logs]
            seconds[architecture] = (processor_seconds() - start) / JOBS
            for source, cubin, ptxas in zip(sources, cubins, printed):
                kernels += read(source.name, architecture, cubin, ptxas, tools)
    return kernels, seconds


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, metavar="FILE.cu", help="default: all of kernels/")
    parser.add_argument("--check", action="store_true", help="fail where a budget is broken")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--if-possible", action="store_true", help="succeed where a tool is missing")
    given = parser.parse_args()
    try:
        tools = find_tools()
    except MissingToolError as error:
        print(f"NOTICE: {error}; NOTHING is known about registers, spills and tensor cores", file=sys.stderr)
        return 0 if given.if_possible else 2
    try:
        kernels, seconds = report(given.sources or sorted(KERNELS.rglob("*.cu")), tools)
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(map(str, error.cmd))}\n{error.stdout}{error.stderr}", file=sys.stderr)
        return 1
    print(json.dumps({"kernels": [asdict(k) for k in kernels], "seconds": seconds}, indent=1) if given.json else table(kernels, seconds))
    complaints = broken_budgets(kernels, seconds) if given.check else []
    for complaint in complaints:
        print(f"BROKEN: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
