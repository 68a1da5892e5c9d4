"""One file by two names is found, whether or not it is there yet."""

import os

import pytest

from pymimic.targets import demand_distinct


@pytest.fixture
def names(tmp_path):
    """A folder with one file under many names."""
    (tmp_path / "f").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "f")
    (tmp_path / "here").symlink_to(tmp_path)
    os.link(tmp_path / "f", tmp_path / "hard")
    return tmp_path


@pytest.mark.parametrize("other", ["f", "./f", "folder/../f", "link", "here/f", "here/link", "hard", "here/folder/../hard"])
def test_one_file_by_two_names_is_found(names, other):
    with pytest.raises(ValueError, match=r"out: expected another file than student's, got '.*' for student '.*'"):
        demand_distinct({"student": names / "f"}, {"out": f"{names}/{other}"})
    with pytest.raises(ValueError, match="out: expected another file than checkpoint's"):
        demand_distinct({}, {"out": f"{names}/{other}", "checkpoint": names / "f"})
    demand_distinct({"inputs": names / "f", "val-inputs": f"{names}/{other}"}, {"out": names / "g"})  # reading twice does no harm
    demand_distinct({"checkpoint": names / "f"}, {"checkpoint": names / "f", "out": None})


@pytest.mark.parametrize("other", ["g", "./g", "folder/../g", "here/g"])
def test_one_file_that_is_not_there_yet(names, other):
    with pytest.raises(ValueError, match="out: expected another file than checkpoint's"):
        demand_distinct({}, {"out": names / "g", "checkpoint": f"{names}/{other}"})


def test_names_that_differ_by_case(names, monkeypatch):
    demand_distinct({}, {"out": names / "S.st", "checkpoint": names / "s.st"})  # this file system tells them apart
    lexists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: lexists(path) or "S.st" in path)
    with pytest.raises(ValueError, match="out: expected another file than checkpoint's"):
        demand_distinct({}, {"out": names / "s.st", "checkpoint": names / "S.st"})
    assert not list(names.glob(".*"))
