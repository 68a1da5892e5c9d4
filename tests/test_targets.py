"""Files to be written: whatever the file system does, the old file or the new one is whole, and errors come before the work."""

import errno
import io
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from children import in_child
from hypothesis import given
from hypothesis import strategies as st

from pymimic import Student, targets
from pymimic.data.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from pymimic.files import read_safetensors, write_safetensors
from pymimic.targets import demand_writable, remove_parts, replacing

OLD, NEW = b"the old file", b"the new file, which is longer than a buffer" * 5000
NO_RENAME = (errno.EBUSY, errno.EXDEV)


def write(path, content=NEW):
    with replacing(path) as file:
        file.write(content)


class Faults:
    """The module os as `targets` sees it, whose call number `at` fails; writing, closing and copying a file are calls too."""

    CALLS = ("open", "stat", "dup", "replace", "fsync", "fchmod", "fchown", "listdir", "unlink", "close")

    def __init__(self, at, code, rename=None):
        self.at, self.code, self.rename, self.done = at, code, rename, []

    def note(self, name):
        self.done.append(name)
        if len(self.done) == self.at:
            raise OSError(self.code, os.strerror(self.code), "/a/temporary/file")

    def __getattr__(self, name):
        function = getattr(os, name)

        def call(*arguments, **keywords):
            if name == "close":
                function(*arguments)  # some file systems say only now that data could not be written
            self.note(name)
            if name == "replace" and self.rename and not str(arguments[1]).endswith(".whole"):
                raise OSError(self.rename, os.strerror(self.rename))
            return None if name == "close" else function(*arguments, **keywords)

        return call if name in self.CALLS else function

    def fdopen(self, descriptor, mode):
        faults = self

        class Raw(io.FileIO):
            def write(self, data):
                faults.note("write")
                return super().write(data)

            def close(self):
                was_open = not self.closed
                super().close()
                if was_open:
                    faults.note("close")

        return io.BufferedWriter(Raw(descriptor, mode))

    def copyfileobj(self, source, file, length):
        file.write(source.read(10))
        self.note("copy")
        file.write(source.read())


@contextmanager
def injected(monkeypatch, *arguments):
    faults = Faults(*arguments)
    with monkeypatch.context() as patch:
        patch.setattr(targets, "os", faults)
        patch.setattr(targets, "shutil", faults)
        yield faults


def save_student(path):
    Student(3, 4, 2).save(path)


def save_checkpoint(path):
    write_safetensors(path, {"weights.U": np.ones((4, 3), np.float32)}, {"kind": "checkpoint"})


def save_manifest(path):
    write_manifest(path.parent, Manifest(3, 2, False, 10, {}, None))


WRITERS = {
    "bytes": ("f", write, lambda path: path.read_bytes() == NEW),
    "student": ("s.safetensors", save_student, lambda path: Student.load(path).hidden == 4),
    "checkpoint": ("run", save_checkpoint, lambda path: read_safetensors(path, "checkpoint")),
    "manifest": (MANIFEST, save_manifest, lambda path: read_manifest(path.parent)),
}


@pytest.mark.parametrize("rename", [None, *NO_RENAME])
@pytest.mark.parametrize("writer", WRITERS)
def test_whichever_call_fails_the_old_file_or_the_new_one_is_whole(tmp_path, monkeypatch, writer, rename):
    name, save, is_whole = WRITERS[writer]
    code = errno.EIO if rename else errno.ENOSPC
    path, at, failures = tmp_path / name, 0, 0
    while True:
        at += 1
        for left in tmp_path.iterdir():
            left.unlink()
        path.write_bytes(OLD)
        with injected(monkeypatch, at, code, rename) as faults:
            try:
                save(path)
                error = None
            except OSError as raised:
                error = raised
        if len(faults.done) < at:
            break
        beside = [left for left in tmp_path.iterdir() if left != path]
        if error is None:
            assert is_whole(path)
        else:
            failures += 1
            assert error.errno == code
            assert str(path) in str(error)
            assert "/a/temporary/file" not in str(error)
            if path.read_bytes() != OLD and not beside:
                assert is_whole(path)
        for left in beside:  # where the target cannot be replaced, a whole copy is kept, and the error says so
            assert rename
            assert error is None or str(left) in str(error), faults.done
            left.replace(path)
            assert is_whole(path)
    assert error is None
    assert failures >= 8
    assert is_whole(path)


@pytest.mark.parametrize("rename", [None, *NO_RENAME])
def test_all_of_a_file_is_there_when_it_is_synced(tmp_path, monkeypatch, rename):
    """The temporary one and, where the target cannot be replaced, the target: what is still in a buffer is not on disk then."""
    sizes, replace = [], os.replace

    def refuse(source, target):
        if rename and target == str(tmp_path / "f"):
            raise OSError(rename, os.strerror(rename))
        replace(source, target)

    (tmp_path / "f").write_bytes(OLD)
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    monkeypatch.setattr(os, "replace", refuse)
    for content in (NEW, NEW[:100]):
        sizes.clear()
        write(tmp_path / "f", content)
        assert sizes[:2].count(len(content)) == (2 if rename else 1)
        assert (tmp_path / "f").read_bytes() == content


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_file_systems_that_cannot_sync_are_written_to(tmp_path, monkeypatch, code):
    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    write(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == NEW


def test_file_systems_without_locks_are_written_to(tmp_path, monkeypatch):
    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(targets.fcntl, "flock", refuse)
    stale = tmp_path / f".f.{'0' * 16}.part"
    stale.write_bytes(b"")
    write(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == NEW
    assert stale.exists()  # for all we know its writer lives


def test_the_mode_stays_and_new_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "new")
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
        for mode in (0o600, 0o664, 0o755):
            (tmp_path / "new").chmod(mode)
            write(tmp_path / "new")
            assert (tmp_path / "new").stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)


def test_a_private_file_is_private_while_it_is_written(tmp_path):
    write(tmp_path / "f", b"secret")
    (tmp_path / "f").chmod(0o600)
    with replacing(tmp_path / "f"):
        (part,) = tmp_path.glob(".*")
        assert part.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_stays(tmp_path):
    write(tmp_path / "f")
    os.chown(tmp_path / "f", 1234, 2345)
    write(tmp_path / "f")
    assert ((tmp_path / "f").stat().st_uid, (tmp_path / "f").stat().st_gid) == (1234, 2345)


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(lambda name: name not in (".", "..")))
def test_any_name_that_the_file_system_takes(tmp_path_factory, name):
    path = tmp_path_factory.getbasetemp() / f"x{name}"
    if len(os.fsencode(path.name)) > 255:
        with pytest.raises(OSError, match="File name too long"):
            demand_writable("out", path)
        with pytest.raises(OSError, match="File name too long"):
            write(path)
        return
    demand_writable("out", path)
    write(path, OLD)
    assert path.read_bytes() == OLD
    path.unlink()


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "n" * 240 + ".safetensors"])
def test_the_longest_names(tmp_path, name):
    demand_writable("out", tmp_path / name)
    write(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(OSError, match="out: File name too long"):
        demand_writable("out", tmp_path / ("n" * 256))


def test_two_writers_do_not_mix(tmp_path):
    path, contents = tmp_path / "f", [bytes([letter]) * 300_000 for letter in b"abcdef"]
    writers = [threading.Thread(target=lambda content=content: [write(path, content) for _ in range(20)]) for content in contents]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.add(path.read_bytes())
    assert seen <= set(contents)
    assert os.listdir(tmp_path) == ["f"]


def test_a_killed_writers_file_goes_and_a_living_ones_stays(tmp_path):
    code = "import time; from pymimic.targets import replacing\nwith replacing('f') as file: print(flush=True); time.sleep(60)"
    process = start(code, cwd=tmp_path, stdout=subprocess.PIPE)
    process.stdout.readline()
    (part,) = tmp_path.glob(".f.*.part")
    write(tmp_path / "f")
    remove_parts(tmp_path, "f")
    assert part.exists()
    process.kill()
    process.wait()
    for foreign in (".f.part", ".f.notours0notours0.part", f".g.{'0' * 16}.part", f".f.{'0' * 16}.part.whole"):
        (tmp_path / foreign).write_bytes(b"")
    before = {path.name for path in tmp_path.iterdir()}
    write(tmp_path / "f")
    assert {path.name for path in tmp_path.iterdir()} == before - {part.name}


def start(code, *arguments, **how):
    """Python in another process, with the package that is tested here."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env={**os.environ, "PYTHONPATH": str(Path(targets.__file__).parents[1])}, **how
    )


def test_what_was_there_under_the_temporary_name_is_left(tmp_path, monkeypatch):
    tokens = iter(["0" * 16, "1" * 16])
    monkeypatch.setattr(targets.secrets, "token_hex", lambda count: next(tokens))
    (tmp_path / f".f.{'0' * 16}.part").symlink_to(tmp_path / "precious")
    (tmp_path / "precious").write_bytes(OLD)
    with pytest.raises(FileExistsError, match=r"/f'"):
        write(tmp_path / "f")
    assert (tmp_path / "precious").read_bytes() == OLD
    assert (tmp_path / f".f.{'0' * 16}.part").is_symlink()


BAD_TARGETS = {
    "no folder": (lambda f: f / "nope" / "f", FileNotFoundError, "expected a file in a folder that exists"),
    "a file for a folder": (lambda f: f / "file" / "f", NotADirectoryError, "Not a directory"),
    "a folder": (lambda f: f, OSError, "expected a plain file or none, got something else"),
    "a folder to be": (lambda f: f"{f}/x/", IsADirectoryError, "expected a file's name, got a folder's"),
    "a link to nothing": (lambda f: f / "dangling", FileNotFoundError, "expected a file, got a link to nothing"),
    "a link to a link to nothing": (lambda f: f / "dangling2", FileNotFoundError, "expected a file, got a link to nothing"),
    "a loop": (lambda f: f / "loop", OSError, "Too many levels of symbolic links"),
    "a device": (lambda f: "/dev/full", OSError, "expected a plain file or none"),
    "a pipe": (lambda f: f / "pipe", OSError, "expected a plain file or none"),
    "a read-only file system": (lambda f: "/proc/f", OSError, "/proc/f"),
    "a name too long": (lambda f: f / ("n" * 256), OSError, "File name too long"),
    "a path too long": (lambda f: f / "/".join(["n" * 200] * 30), OSError, "File name too long"),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_what_cannot_be_written_is_found_first(tmp_path, case):
    where, kind, says = BAD_TARGETS[case]
    (tmp_path / "file").write_bytes(OLD)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "dangling2").symlink_to(tmp_path / "dangling")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    path = where(tmp_path)
    with pytest.raises(kind, match=f"out: .*{re.escape(says)}") as caught:
        demand_writable("out", path)
    assert caught.value.filename == str(path)
    with pytest.raises(kind, match=re.escape(says)) as caught:
        write(path)
    assert caught.value.filename == str(path)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(("path", "kind"), [(3, TypeError), (b"f", TypeError), (None, TypeError), ("", ValueError), ("a\0b", ValueError)])
def test_what_is_no_path_is_refused_by_name(path, kind):
    with pytest.raises(kind, match="out: expected"):
        demand_writable("out", path)
    with pytest.raises(kind, match="path: expected"):
        write_safetensors(path, {}, {})
    with pytest.raises(kind, match="path: expected"):
        read_safetensors(path)


def test_a_folder_or_a_file_without_the_right_to_write(tmp_path):
    (tmp_path / "f").write_bytes(OLD)
    (tmp_path / "f").chmod(0o444)
    open_folder = tmp_path / "open"
    open_folder.mkdir(mode=0o777)
    open_folder.chmod(0o1777)
    (open_folder / "others").write_bytes(OLD)
    (open_folder / "others").chmod(0o666)
    (tmp_path / "closed").mkdir(mode=0o555)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)

    def as_another_user(name):
        if os.geteuid() == 0:
            os.setuid(65534)
        demand_writable("out", tmp_path / name)

    lines = [in_child(lambda name=name: as_another_user(name)) for name in ("f", "closed/new", "open/others", "open/new")]
    assert "out: expected a file that may be written" in lines[0]
    assert "out: Permission denied" in lines[1]
    assert ("out: expected a file that may be written" in lines[2]) == (os.geteuid() == 0)
    assert lines[3] == "None"


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    demand_writable("out", "~/f")
    write(Path("~/f"))
    assert (tmp_path / "f").read_bytes() == NEW


def test_a_file_that_shrinks_while_it_is_read_kills_nobody(tmp_path):
    path = tmp_path / "f"
    write_safetensors(path, {"a": np.zeros(1 << 20)}, {})
    size, stop = path.stat().st_size, time.monotonic() + 0.5
    code = (
        "import sys; from pymimic.files import read_safetensors; from pymimic.errors import FileFormatError\n"
        "for _ in range(100):\n"
        "    try: read_safetensors(sys.argv[1])\n"
        "    except FileFormatError: pass\n"
    )
    process = start(code, path)
    while process.poll() is None and time.monotonic() < stop + 10:
        os.truncate(path, 200)
        os.truncate(path, size)
        time.sleep(0.001)
    assert process.wait(30) == 0
