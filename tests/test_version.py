"""The version is known wherever the package lies: as an archive, as a copied folder, and installed."""

import importlib.metadata
import shutil
from pathlib import Path

import pytest
from bare import run_bare

import pymimic

PACKAGE = Path(pymimic.__file__).parent


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_without_metadata(tmp_path, form):
    place = tmp_path / "place"
    shutil.copytree(PACKAGE, place / "pymimic", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    if form == "zip":
        place = Path(shutil.make_archive(str(tmp_path / "pymimic"), "zip", place))
    script = (
        "import importlib.metadata, pymimic\n"
        "print(pymimic.__version__, pymimic.__file__)\n"
        "try: importlib.metadata.version('pymimic')\n"
        "except importlib.metadata.PackageNotFoundError: print('no metadata')\n"
    )
    done = run_bare(tmp_path, "-c", script, path=(place,))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [pymimic.__version__, str(place / "pymimic" / "__init__.py"), "no", "metadata"]


def test_the_metadata_say_the_same():
    try:
        found = importlib.metadata.version("pymimic")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("pymimic is not installed here")
    assert found == pymimic.__version__
