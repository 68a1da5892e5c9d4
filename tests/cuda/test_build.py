"""The build of the real module. PYMIMIC_CUDA says when: AUTO where nvcc works and a GPU's driver is, ON wherever nvcc works, OFF never."""

import importlib.util
import os
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

    def run(*settings, **environment):
        pybind11_dir = f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"
        command = ["cmake", "-S", emulator.ROOT, "-B", tmp_path / "build", f"-DPython_EXECUTABLE={sys.executable}", pybind11_dir]
        environment |= {name: value for name, value in os.environ.items() if not name.startswith("PYMIMIC_")}
        settings = (*settings, "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON")
        done = subprocess.run([*command, *settings], capture_output=True, text=True, env=environment)
        return done.returncode, done.stdout + done.stderr, tmp_path / "build"

    return run


@pytest.fixture
def broken_nvcc(tmp_path):
    path = tmp_path / "nvcc"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    return f"-DPYMIMIC_NVCC={path}"


def no_kernels(said):
    """The one line that says why."""
    (line,) = (line for line in said.splitlines() if "CUDA kernels" in line)
    assert line.startswith("-- No CUDA kernels: ")
    return line.removeprefix("-- No CUDA kernels: ")


DRIVER = f"-DPYMIMIC_DRIVER={__file__}"  # a file that stands for it


@pytest.mark.parametrize("settings", [(), ("-DPYMIMIC_CUDA=AUTO",)])
def test_auto_leaves_a_broken_nvcc_aside(configure, broken_nvcc, settings):
    status, said, _ = configure(*settings, DRIVER, broken_nvcc)
    assert status == 0, said
    assert no_kernels(said).endswith("does not compile them")


def test_auto_wants_a_driver(configure, broken_nvcc):
    status, said, build = configure("-DPYMIMIC_DRIVER=OFF", broken_nvcc)
    assert status == 0, said
    assert no_kernels(said) == "no GPU's driver on this machine; PYMIMIC_CUDA=ON builds them wherever nvcc is"
    assert not (build / "cuda-probe").exists()


def test_on_wants_an_nvcc_that_works_and_no_driver(configure, broken_nvcc):
    status, said, _ = configure("-DPYMIMIC_CUDA=ON", "-DPYMIMIC_DRIVER=OFF", broken_nvcc)
    assert status != 0
    assert "PYMIMIC_CUDA is ON, but there is" in said


def test_off_tries_no_nvcc(configure, broken_nvcc):
    status, said, build = configure("-DPYMIMIC_CUDA=OFF", DRIVER, broken_nvcc)
    assert status == 0, said
    assert no_kernels(said) == "PYMIMIC_CUDA is OFF"
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


def test_settings_come_from_the_environment_where_no_define_says_otherwise(configure, broken_nvcc):
    environment = {"PYMIMIC_CUDA": "OFF", "PYMIMIC_WERROR": "ON", "PYMIMIC_ISAS": "baseline"}
    _, said, build = configure(DRIVER, broken_nvcc, **environment)
    assert no_kernels(said) == "PYMIMIC_CUDA is OFF"
    assert "-- CPU kernels: baseline\n" in said
    commands = (build / "compile_commands.json").read_text()
    assert "-Werror" in commands
    assert "avx2" not in commands
    _, said, build = configure("-DPYMIMIC_CUDA=AUTO", "-DPYMIMIC_WERROR=OFF", DRIVER, broken_nvcc, **environment)
    assert no_kernels(said).endswith("does not compile them")
    assert "-Werror" not in (build / "compile_commands.json").read_text()


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
