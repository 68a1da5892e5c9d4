"""Files to be written: found out before the work whether they can be, and put in place whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import combinations
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Path = str | os.PathLike[str]
_TOKEN = "[0-9a-f]{16}"  # tells temporary files of one name apart
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # as network file systems say, of folders above all
_NO_RENAME = (errno.EBUSY, errno.EXDEV)  # a file that is a mount point of its own, as containers have them
_LONGEST_NAME = 255  # bytes, where the file system does not say


def expanded(path: Path, name: str = "path") -> str:
    """The path with `~` as the home folder; `name` is what errors call it."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"{name}: expected a str or a pathlib.Path, got {type(path).__name__}")
    text = os.path.expanduser(path)
    if not text or "\0" in text:
        raise ValueError(f"{name}: expected the path of a file, got {text!r}")
    return text


@contextmanager
def replacing(path: Path, check: Callable[[str], None] | None = None, links: bool = True) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` once it is whole and on disk; if it does not come to that, nothing is left of it.

    The data goes to `.NAME.TOKEN.part` beside `path`, with a random token: of several writers each writes a whole file, and the last stays.
    A file that is replaced keeps its mode, and its owner where that is allowed.

    Parameters
    ----------
    path : the file
    check : is called with the temporary file's path, once its data are on disk; what it raises keeps the file from taking the place
    links : whether a link at `path` is followed; otherwise it is refused, as others may have put it there

    Raises
    ------
    OSError
        What went wrong on the way; it names `path`.
    """
    with naming(expanded(path)):
        if not links and os.path.islink(expanded(path)):
            raise FileExistsError(errno.EEXIST, "expected a file, or none, got a link")
        target, there = _resolve(expanded(path))
        _remove_stale(os.path.dirname(target), re.escape(_stem(target)))
        part, descriptor = _create(target, there)
        lock = None
        try:
            with os.fdopen(descriptor, "wb") as file:
                lock = None if fcntl is None else os.dup(descriptor)  # held until the file has its name: `_remove_stale` leaves it alone
                if there is not None:
                    _take_over(descriptor, there)
                yield file
                file.flush()
                _sync(descriptor)
            if check is not None:
                check(part)
            _put_in_place(part, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
        finally:
            if lock is not None:
                with suppress(OSError):  # the data are on disk already
                    os.close(lock)
        _sync_folder(os.path.dirname(target))


def demand_writable(name: str, path: Path) -> None:
    """Find out before the work that `replacing(path)` could not write: no folder, no right, not a plain file, too long a name.

    Raises
    ------
    OSError
        With what is the matter, the argument's `name` and the path.
    """
    text = expanded(path, name)
    with naming(text, f"{name}: "):
        target, _ = _resolve(text)
        part, descriptor = _create(target, None)
        try:
            os.close(descriptor)
        finally:
            os.unlink(part)


def demand_distinct(reads: Mapping[str, Path | None], writes: Mapping[str, Path | None]) -> None:
    """Demand that no file is written that is also read, or written twice; paths by the names of their arguments, None for none.

    Links, hard links and other spellings are seen through, on file systems that don't tell case apart too.

    Raises
    ------
    ValueError
        With the names of both.
    """
    paths = {name: expanded(path, name) for name, path in {**writes, **reads}.items() if path is not None}
    for one, other in combinations(paths, 2):  # those to be written come first
        if one in writes and _same(paths[one], paths[other]):
            raise ValueError(f"{one}: expected another file than {other}'s, got {paths[one]!r} for {other} {paths[other]!r}")


def remove_parts(folder: Path, names: str) -> None:
    """Remove the temporary files of killed writers of files in `folder`; `names` is a regular expression of the files' names."""
    _remove_stale(os.fspath(folder), names)


@contextmanager
def naming(path: str, before: str = "") -> Iterator[None]:
    """Let every OSError on the way name `path`, which the caller knows, and no temporary file; `before` begins the message."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{before}{error.strerror or error}", path) from error


def _resolve(path: str) -> tuple[str, os.stat_result | None]:
    """The file that `path` leads to through links, and what is there, if anything; OSError where we can put no plain file."""
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    try:
        there = os.stat(target)
    except FileNotFoundError:
        if os.path.islink(path):
            raise FileNotFoundError(errno.ENOENT, "expected a file, got a link to nothing") from None
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, "expected a file in a folder that exists") from None
        if not os.path.basename(path):
            raise IsADirectoryError(errno.EISDIR, "expected a file's name, got a folder's") from None
        return target, None
    if not stat.S_ISREG(there.st_mode):
        raise OSError(errno.EISDIR if stat.S_ISDIR(there.st_mode) else errno.EINVAL, "expected a plain file or none, got something else")
    above = os.stat(folder)
    others = hasattr(os, "geteuid") and os.geteuid() not in (0, above.st_uid, there.st_uid)
    if not os.access(target, os.W_OK) or (others and above.st_mode & stat.S_ISVTX):  # as in /tmp: only the owner may rename
        raise PermissionError(errno.EACCES, "expected a file that may be written")
    return target, there


def _stem(target: str) -> str:
    """The target's name, so far as there is room for it in the name of a temporary file."""
    folder, stem = os.path.split(target)
    longest = _LONGEST_NAME
    if hasattr(os, "pathconf"):
        with suppress(OSError, ValueError):
            longest = os.pathconf(folder, "PC_NAME_MAX")
    while len(os.fsencode(stem)) > longest - len(f"..{'x' * 16}.part.whole"):
        stem = stem[:-1]
    return stem


def _create(target: str, there: os.stat_result | None) -> tuple[str, int]:
    """A new temporary file beside `target`, readable by no more people than what is `there`, and its descriptor."""
    folder, flags = os.path.dirname(target), os.O_WRONLY | os.O_CREAT | os.O_EXCL
    for flag in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, flag, 0)
    while True:
        part = os.path.join(folder, f".{_stem(target)}.{secrets.token_hex(8)}.part")
        descriptor = os.open(part, flags, 0o666 if there is None else there.st_mode & 0o666)
        if _lock(descriptor) is not False and os.path.lexists(part):
            return part, descriptor
        os.close(descriptor)  # before it was locked, another process took it for a dead one's


def _lock(descriptor: int) -> bool | None:
    """Say that this file's writer lives; False where another does, None where the file system knows no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_stale(folder: str, names: str) -> None:
    """Remove temporary files whose writer is dead: nobody holds their lock."""
    if fcntl is None:
        return
    with suppress(OSError):
        for found in os.listdir(folder):
            if re.fullmatch(rf"\.(?:{names})\.{_TOKEN}\.part", found):
                part = os.path.join(folder, found)
                with suppress(OSError), open(part, "r+b", opener=_no_link) as file:
                    if _lock(file.fileno()):
                        os.unlink(part)


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _take_over(descriptor: int, there: os.stat_result) -> None:
    """Give the new file the owner, where that is allowed, and the mode of the one that it replaces."""
    if hasattr(os, "fchown"):
        with suppress(OSError):
            os.fchown(descriptor, there.st_uid, there.st_gid)
        with suppress(OSError):  # file systems that know no modes
            os.fchmod(descriptor, stat.S_IMODE(there.st_mode) & 0o777)


def _put_in_place(part: str, target: str) -> None:
    """Rename the temporary file; where the target is a mount point, copy it, and keep it until the copy is on disk."""
    try:
        os.replace(part, target)
        return
    except OSError as error:
        if error.errno not in _NO_RENAME:
            raise
    kept = f"{part}.whole"  # whatever happens now, nobody removes it
    os.replace(part, kept)
    try:
        with open(kept, "rb") as source, open(target, "r+b") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            file.truncate()
            file.flush()
            _sync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; the new file is whole in {kept!r}") from error
    with suppress(OSError):
        os.unlink(kept)


def _sync(descriptor: int) -> None:
    """Wait until the data are on disk, where the file system can say so."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _sync_folder(folder: str) -> None:
    """Make the new name last through a power cut, where folders can be opened and synced."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a folder that may be written and not read
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _same(one: str, other: str) -> bool:
    """Whether two paths lead to one file, whether or not there is one yet."""
    one, other = os.path.realpath(one), os.path.realpath(other)
    if one == other:
        return True
    with suppress(OSError):
        return os.path.samefile(one, other)
    if _folded(one) != _folded(other) or os.path.exists(one) or os.path.exists(other):
        return False
    return _same(os.path.dirname(one), os.path.dirname(other)) and _is_blind_to_case(one, other)


def _folded(path: str) -> str:
    """The name as a file system has it that tells neither case nor spellings of an accent apart."""
    return unicodedata.normalize("NFC", os.path.basename(path)).casefold()


def _is_blind_to_case(one: str, other: str) -> bool:
    """Whether two names that differ by case or spelling alone are one file in this folder: tried with temporary files."""
    try:
        part, descriptor = _create(one, None)
    except OSError:
        return False  # it cannot be written anyway
    os.close(descriptor)
    try:
        folder, name = os.path.split(part)
        return os.path.lexists(os.path.join(folder, name.replace(f".{_stem(one)}.", f".{_stem(other)}.", 1)))
    finally:
        os.unlink(part)
