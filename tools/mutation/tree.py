"""A copy of the tree, in which faults are made one at a time, and the tests that are run there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_HERE = Path(__file__).resolve().parent
_PRELOADED = ("numpy", "pytest", "hypothesis", "ml_dtypes", "safetensors.numpy", "tqdm", "typer", "sklearn", "numba")
_OPTIONS = ("-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--tb=line", "--no-header")


class Outcome(NamedTuple):
    """What the tests said."""

    status: str  # lived, killed, timed out
    seconds: float
    test: str = ""  # that killed it


class Tree:
    """The copy at `folder`: as the tree is, but for the compiled core, which is the installed one or built from the copy."""

    def __init__(self, folder: Path) -> None:
        folder = folder.resolve()
        self.folder, self.log = folder / "tree", folder / "log.txt"
        self._build = folder / "build"
        listed = _said(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z"])
        names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
        for name in names:
            to, text = self.folder / name, (ROOT / name).read_bytes()
            if not to.exists() or to.read_bytes() != text:  # what stays as it is need not be compiled again
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(text)
        for path in (self.folder / "tests").rglob("*.py"):
            if str(path.relative_to(self.folder)) not in names:
                path.unlink()
        self._install(Path(_said([sys.executable, "-c", "import pymimic._core as core; print(core.__file__)"])))

    def environment(self) -> dict[str, str]:
        """In which a Python takes the package from the copy."""
        threads = {"OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "5", "OMP_WAIT_POLICY": "passive"}
        paths = os.pathsep.join(map(str, (_HERE / "site", self.folder)))
        return os.environ | threads | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}  # a fault may leave size and time as they were

    def _install(self, core: Path) -> None:
        for old in (self.folder / "pymimic").glob("_core*.so"):
            old.unlink()
        shutil.copy2(core, self.folder / "pymimic" / core.name)

    def build(self) -> bool:
        """Compile the copy's core for one instruction set, with the model of tiles; whether that worked."""
        if not (self._build / "build.ninja").exists():
            pybind11 = _said([sys.executable, "-m", "pybind11", "--cmakedir"])
            settings = {
                "PYMIMIC_ISAS": "baseline", "PYMIMIC_CUDA": "OFF", "pybind11_DIR": pybind11, "Python_EXECUTABLE": sys.executable,
            }  # fmt: skip
            where = ["-S", self.folder, "-B", self._build, "-G", "Ninja"]
            _said(["cmake", *where, *(f"-D{name}={value}" for name, value in settings.items())])
        with open(self.log, "w") as log:
            built = subprocess.run(["cmake", "--build", self._build], stdout=log, stderr=log).returncode == 0
        if built:
            self._install(next(self._build.glob("_core*.so")))
        return built

    @contextlib.contextmanager
    def changed(self, path: str, text: str) -> Iterator[None]:
        """The file with this text."""
        file = self.folder / path
        before = file.read_bytes()
        file.write_text(text)
        try:
            yield
        finally:
            file.write_bytes(before)

    def collected(self) -> set[str]:
        """The tests that there are."""
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider", "tests"]
        said = subprocess.run(command, cwd=self.folder, env=self.environment(), capture_output=True, text=True).stdout
        return {line for line in said.splitlines() if "::" in line}

    def failing(self, tests: Sequence[str]) -> set[str]:
        """Those of the tests, or of the tests in these files, that fail as the tree is."""
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "--tb=no", *tests]
        said = subprocess.run(command, cwd=self.folder, env=self.environment(), capture_output=True, text=True).stdout
        return {line.partition(" ")[2].partition(" - ")[0] for line in said.splitlines() if line.startswith(("FAILED ", "ERROR "))}

    def test(self, tests: Sequence[str], limit: float) -> Outcome:
        """The tests, until the first that fails. A fork of this process, which has read what takes long to read."""
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _become_pytest(self, [*_OPTIONS, *tests])
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            seconds = round(time.monotonic() - began, 1)
            if ended:
                break
            if seconds > limit:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return Outcome("timed out", seconds)
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what a test has left
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return Outcome("lived", seconds)
        said = self.log.read_text(errors="replace")
        failed = [
            line for line in said.splitlines() if line.startswith(("FAILED ", "ERROR ", "ERROR: not found", "ImportError while loading"))
        ]
        if code > 2 and not failed:  # pytest itself, or this program, is at fault
            raise RuntimeError(f"pytest ended with {code}: {said[-2000:]}")
        return Outcome("killed", seconds, failed[0][:200] if failed else "the process ended")


def _said(command: Sequence[str | Path]) -> str:
    """What a command prints, which must end well."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def preload() -> None:
    """Import what tests import, but for the package."""
    sys.path[:0] = [str(_HERE / "site")]
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            __import__(name)


def _become_pytest(tree: Tree, arguments: Sequence[str]) -> None:
    """The child's part; does not return."""
    os.setsid()
    log = os.open(tree.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(tree.folder)
    os.environ.update(tree.environment())
    sys.dont_write_bytecode = True
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ScikitBuildRedirectingFinder"]
    sys.path[:0] = [str(tree.folder)]
    code = 70
    try:
        import pytest

        code = int(pytest.main(list(arguments)))
    finally:
        sys.stdout.flush()
        os._exit(code)
