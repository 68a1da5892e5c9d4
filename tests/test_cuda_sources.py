"""The CUDA sources compile without spills, where an nvcc works. There is no GPU in CI: nothing here is run on one."""

import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[1] / "kernels"


@pytest.fixture(scope="module")
def nvcc() -> str:
    path = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if path is None:
        pytest.skip("no nvcc on this machine")
    if subprocess.run([path, "--version"], capture_output=True).returncode != 0:
        pytest.skip(f"{path} does not run")
    return path


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("source", sorted(KERNELS.glob("*.cu")), ids=lambda path: path.name)
def test_compiles_without_spills(nvcc, source, architecture, tmp_path):
    command = [
        nvcc,
        "-std=c++17",
        f"-arch={architecture}",
        "-Xptxas",
        "-warn-spills,-Werror",
        "-cubin",
        "-o",
        tmp_path / "out.cubin",
        source,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.cubin").stat().st_size > 0
