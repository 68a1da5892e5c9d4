"""The CUDA sources compile without spills, where an nvcc works. There is no GPU in CI: nothing here is run on one.

Marked slow: tools/sass_report.py, which continuous integration runs every time, compiles the same sources and looks closer.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "kernels"
INCLUDES = [f"-I{ROOT / folder}" for folder in ("csrc", "kernels")]
ARCHITECTURES = {"sm_80": "arch=compute_80,code=sm_80", "sm_90a": "arch=compute_90a,code=sm_90a"}
MOST_REGISTERS = 255
MOST_MATRIX_KERNELS = 24


@pytest.fixture(scope="module")
def nvcc() -> str:
    path = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if path is None:
        pytest.skip("no nvcc on this machine")
    if subprocess.run([path, "--version"], capture_output=True).returncode != 0:
        pytest.skip(f"{path} does not run")
    return path


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", sorted(KERNELS.rglob("*.cu")), ids=lambda path: path.name)
def test_compiles_without_spills(nvcc, source, architecture, tmp_path):
    flags = ["-std=c++17", *INCLUDES, f"-gencode={ARCHITECTURES[architecture]}", "-Xptxas", "-v,-warn-spills,-Werror"]
    # an object, not a cubin: the launchers are compiled too
    done = subprocess.run([nvcc, *flags, "-c", "-o", tmp_path / "out.o", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "wgmma.mma_async instructions are serialized" not in done.stderr
    kernels = re.findall(r"Compiling entry function", done.stderr)
    clean = re.findall(r"^ *0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads$", done.stderr, re.MULTILINE)
    assert len(kernels) == len(clean), done.stderr
    assert bool(kernels) == ("__global__" in source.read_text() or "split_sums.cuh" in source.read_text())
    assert max((int(n) for n in re.findall(r"Used (\d+) registers", done.stderr)), default=0) <= MOST_REGISTERS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_matrix_kernels_are_few_and_use_tensor_cores(nvcc, architecture, tmp_path):
    """Counted in PTX, as no disassembler comes with nvcc."""
    matrix_kernels = 0
    for source in sorted(KERNELS.glob("shallow/*_sm*.cu")):
        target = tmp_path / "out.ptx"
        subprocess.run(
            [nvcc, "-std=c++17", *INCLUDES, f"-arch={architecture.replace('sm', 'compute')}", "-ptx", "-o", target, source], check=True
        )
        entries = re.split(r"^\.entry |^\s*\.visible \.entry ", target.read_text(), flags=re.MULTILINE)[1:]
        with_products = [entry for entry in entries if re.search(r"\bmma\.sync|\bwgmma\.mma_async", entry)]
        meant = {"sm_80": not source.stem.endswith("_sm90a"), "sm_90a": True}[architecture]
        assert bool(with_products) == meant, f"{source.name}: {len(with_products)} kernels use tensor cores"
        if architecture == "sm_90a" and source.stem.endswith("_sm90a"):
            assert all("wgmma.mma_async" in entry and "cp.async.bulk.tensor" in entry for entry in with_products)
        matrix_kernels += len(with_products)
    assert matrix_kernels <= MOST_MATRIX_KERNELS
