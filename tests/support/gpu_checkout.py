"""A checkout in which benchmarks/gpu_session.py runs without a GPU, as it is but for sizes.

Stand-ins: the CUDA driver, CMake (it copies modules that are built already, _cuda with the emulated kernels), CuPy, torch.compile and
CUDA graphs.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from bare import bare_python

ROOT = Path(__file__).parents[2]
COPIED = (
    "CMakeLists.txt",
    "benchmarks/gpu_session.py",
    "benchmarks/ceilings_cuda.py",
    "benchmarks/gpu",
    "benchmarks/peers",
    "csrc",
    "kernels",
    "pymimic",
)
SMALL = {
    "gpu/checks.py": {"BATCHES": "(1, 9)", "RUNS": "3"},
    "gpu/problems.py": {"POISON_VALUES": "1 << 12"},
    "gpu/kernels.py": {"CEILING_SIZE, CEILING_BYTES": "32, 1 << 20", "_SHAPES": 'SHAPES | {"k = C = 128": SHAPES["letter-4k"]}'},
    "gpu/measure.py": {"FLUSH_BYTES": "1 << 12", "LEAST, MOST": "2, 2"},
    "gpu/smoke.py": {"SIZES": "(9, 20, 70, 11)", "KNOWN_ROWS, KNOWN_UNITS": "(9, 70)"},
    "gpu/tasks.py": {"BATCHES": "[9, 5]", "BITS": '(("mnist-8k", 9), ("wide-100k", 5))'},
}
SMALL_SHAPES = "\nfor _name in SHAPES:\n    SHAPES[_name] = SHAPES[_name].small()._replace(H=70)\n"
DRIVER = """
int cuInit(unsigned flags) { return 0; }
int cuDeviceGet(int *device, int number) { return *device = 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return 0; }
"""
CMAKE = """#!/bin/sh
echo "$@" >>'{log}'
case "$1" in
  --build) cp '{modules}'/*.so '{root}/pymimic/' ;;
  *) echo '-- CUDA kernels: a stand-in' ;;
esac
"""
STAND_IN = "from peers.pymimic_cuda_bf16 import *\nfrom peers.pymimic_cuda_bf16 import TOLERANCE\n\nTITLE = 'a stand-in'\n"


class Checkout:
    """The copy, in `root`."""

    def __init__(self, folder: Path, modules: list[str]) -> None:
        self.root, self.out, self.cmake_log = folder / "checkout", folder / "out", folder / "cmake.log"
        self._python, packages = bare_python(folder)
        for name in COPIED:
            source, target = ROOT / name, self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
            else:
                shutil.copy(source, target)
        for name, values in SMALL.items():
            for variable, value in values.items():
                self.replace(f"benchmarks/{name}", rf"^{variable} = .*$", f"{variable} = {value}")
        shapes = self.root / "pymimic" / "bench" / "shapes.py"
        shapes.write_text(shapes.read_text() + SMALL_SHAPES)
        for name in ("torch_compile_cuda_bf16", "pymimic_cuda_graph_bf16"):  # here no graph can capture a kernel
            (self.root / "benchmarks" / "peers" / f"{name}.py").write_text(STAND_IN)
        for name in ("bin", "lib", "modules"):
            (folder / name).mkdir()
        for module in modules:
            shutil.copy(module, folder / "modules")
        (folder / "bin" / "cmake").write_text(CMAKE.format(log=self.cmake_log, modules=folder / "modules", root=self.root))
        (folder / "bin" / "cmake").chmod(0o755)
        (folder / "driver.c").write_text(DRIVER)
        compiler = os.environ.get("CXX", "c++")
        subprocess.run([compiler, "-x", "c", folder / "driver.c", "-shared", "-fPIC", "-o", folder / "lib" / "libcuda.so.1"], check=True)
        paths = os.pathsep.join(map(str, (ROOT / "tests" / "cuda" / "stub", packages)))
        programs = os.pathsep.join((str(folder / "bin"), "/usr/bin", "/bin"))
        self._environment = os.environ | {"PYTHONPATH": paths, "PATH": programs, "LD_LIBRARY_PATH": str(folder / "lib")}

    def replace(self, name: str, pattern: str, new: str) -> None:
        """Exactly one piece of a file."""
        path = self.root / name
        text, count = re.subn(pattern, lambda _: new, path.read_text(), flags=re.MULTILINE)
        assert count == 1, f"{name}: {count} times {pattern}"
        path.write_text(text)

    def send_again(self) -> None:
        """All files as if they had been copied here just now."""
        for path in self.root.rglob("*"):
            os.utime(path)

    def call(self, *arguments: str) -> tuple[int, list[dict], str, str]:
        """The exit status, the records that were printed as JSON, what was printed after them, and standard error."""
        command = [self._python, self.root / "benchmarks" / "gpu_session.py", "--out", self.out, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, cwd=self.root.parent)
        lines = done.stdout.splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return done.returncode, records, "\n".join(lines[len(records) :]), done.stderr
