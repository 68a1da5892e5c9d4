"""A Python that sees what this one does, but for pymimic and its metadata: what a checkout that was built in place is run with."""

import os
import subprocess
import sysconfig
import venv
from pathlib import Path


def bare_python(folder: Path) -> tuple[Path, Path]:
    """The program, and a folder for PYTHONPATH with links to all other packages."""
    venv.EnvBuilder(symlinks=True).create(folder / "venv")
    packages = folder / "packages"
    packages.mkdir()
    for source in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(source).iterdir():
            if "pymimic" not in entry.name and entry.suffix != ".pth" and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    return folder / "venv" / "bin" / "python", packages


def run_bare(folder: Path, *arguments: object, path: tuple[Path, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it with `path` before the other packages."""
    python, packages = bare_python(folder)
    paths = os.pathsep.join(map(str, (*path, packages)))
    words = [str(word) for word in (python, *arguments)]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, env=os.environ | environment | {"PYTHONPATH": paths})
