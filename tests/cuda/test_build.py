"""The build of the real module: it needs no GPU and no driver, and where nvcc is missing or broken the package is built without it."""

import importlib.util
import shutil
import subprocess
import sys

import emulator
import pytest

CALL = """
import sys
import numpy as np
sys.path.insert(0, {folder!r})
{imported}
class Claim:
    __cuda_array_interface__ = {{"shape": (4, 32), "typestr": "<f4", "data": (1 << 20, False), "version": 3}}
try:
    print(_cuda.devices())
except ValueError as error:
    assert type(error).__name__ == "CudaError", error
    print("no device:", error)
    try:
        _cuda.dropout(Claim(), Claim(), (128, 0, 0, 0, 0), 0)
        sys.exit("a call without a device must fail")
    except ValueError as error:
        assert type(error).__name__ == "CudaError", error
        assert str(error).startswith("x: cuda"), error
        assert "install or update the driver, or pass NumPy arrays" in str(error), error
"""


@pytest.fixture
def configure(tmp_path):
    pytest.importorskip("pybind11", reason="no pybind11 in this environment")
    if shutil.which("cmake") is None:
        pytest.skip("no cmake on this machine")
    import pybind11

    def run(*settings, path=None):
        settings = (*settings, f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}")
        done = subprocess.run(["cmake", "-S", emulator.ROOT, "-B", tmp_path / "build", *settings], capture_output=True, text=True, env=path)
        return done.returncode, done.stdout + done.stderr, tmp_path / "build"

    return run


@pytest.fixture
def broken_nvcc(tmp_path):
    path = tmp_path / "nvcc"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    return f"-DPYMIMIC_NVCC={path}"


def test_a_broken_nvcc_is_left_aside(configure, broken_nvcc):
    status, said, _ = configure("-DPYMIMIC_CUDA=AUTO", broken_nvcc)
    assert status == 0, said
    assert "No CUDA kernels:" in said


def test_a_broken_nvcc_that_is_asked_for(configure, broken_nvcc):
    status, said, _ = configure("-DPYMIMIC_CUDA=ON", broken_nvcc)
    assert status != 0
    assert "PYMIMIC_CUDA is ON, but there is" in said


def test_no_nvcc_is_tried_when_it_is_off(configure, broken_nvcc):
    status, said, build = configure("-DPYMIMIC_CUDA=OFF", broken_nvcc)
    assert status == 0, said
    assert "CUDA" not in said
    assert not (build / "cuda-probe").exists()
    assert configure("-DPYMIMIC_CUDA=PERHAPS")[0] != 0


def test_instruction_sets_to_choose_from(configure):
    status, said, build = configure("-DPYMIMIC_CUDA=OFF", "-DPYMIMIC_ISAS=baseline")
    assert status == 0, said
    targets = subprocess.run(["cmake", "--build", build, "--target", "help"], capture_output=True, text=True).stdout
    assert ("isa_baseline" in targets, "isa_avx2" in targets, "isa_avx512" in targets) == (True, False, False)
    status, said, _ = configure("-DPYMIMIC_CUDA=OFF", "-DPYMIMIC_ISAS=baseline;mmx")
    assert status != 0
    assert "PYMIMIC_ISAS: expected some of" in said


def imports_and_refuses(folder, imported):
    done = subprocess.run([sys.executable, "-c", CALL.format(folder=str(folder), imported=imported)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_installed_module():
    if importlib.util.find_spec("pymimic._cuda") is None:
        pytest.skip("this installation was made without nvcc")
    imports_and_refuses(emulator.ROOT / "no-such-folder", "from pymimic import _cuda")


@pytest.mark.slow
def test_nvcc_builds_the_module(configure):
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on this machine")
    status, said, build = configure("-DPYMIMIC_CUDA=ON")
    assert status == 0, said
    done = subprocess.run(["cmake", "--build", build, "--target", "_cuda", "-j2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    imports_and_refuses(build, "import _cuda")
