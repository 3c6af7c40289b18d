"""How bytes reach the disk: the one layer through which everything that matters is written.

A file is written whole beside its final name, flushed, renamed, and its folder flushed, so that a
file that carries its final name is complete whatever moment the machine died.
"""

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from stages.errors import ArtifactDamaged, EnvironmentLacks, InputMissing

TEMPORARY = re.compile(r"\.tmp-(\d+)-.+")
_RESUMES = "then run the same command again: it goes on where it stopped."
_REASONS = {
    errno.ENOSPC: ("the disk is full", f"Free some space, {_RESUMES}"),
    errno.EDQUOT: ("the disk quota is used up", f"Free some space, {_RESUMES}"),
    errno.EFBIG: (
        "the file is larger than this process may write (ulimit -f)",
        f"Raise the limit, {_RESUMES}",
    ),
    errno.EACCES: ("permission denied", "Choose a folder that you may write with --workspace."),
    errno.EPERM: ("permission denied", "Choose a folder that you may write with --workspace."),
    errno.EROFS: ("the file system is read-only", "Choose another folder with --workspace."),
    errno.ENAMETOOLONG: ("the path is too long", "Choose a shorter folder with --workspace."),
    errno.ELOOP: ("it is a symbolic link, or lies behind too many", "Put the folder itself there."),
    errno.EIO: ("the device reported an input/output error", f"Check the disk, {_RESUMES}"),
}


class SystemCalls:
    """The system calls that read and change the disk, one method each.

    Tests put a subclass in its place (`replaced`) to make the n-th call fail.
    """

    def create(self, path: Path) -> int:
        """Open a new file for writing; FileExistsError when there is one."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    def open_end(self, path: Path) -> int:
        """Open a file for appending, made when missing; what a link points at is not touched."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)

    def open_folder(self, path: Path) -> int:
        """Open a folder, to flush it."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def write(self, handle: int, content: memoryview) -> int:
        """Write some of the bytes; returns how many."""
        return os.write(handle, content)

    def sync(self, handle: int) -> None:
        """Wait until the device has everything of this file or folder."""
        os.fsync(handle)

    def close(self, handle: int) -> None:
        """Close a file or folder."""
        os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder another name in one step; a file there is replaced."""
        source.rename(target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def make_folder(self, path: Path) -> None:
        """Make a folder; FileExistsError when there is something."""
        path.mkdir()

    def read(self, path: Path) -> bytes:
        """The whole content of a file."""
        return path.read_bytes()

    def open_read(self, path: Path) -> io.BufferedReader:
        """Open a file, to read it in pieces."""
        return path.open("rb")


_calls: ContextVar[SystemCalls] = ContextVar("system_calls", default=SystemCalls())  # noqa: B039


@contextlib.contextmanager
def replaced(calls: SystemCalls) -> Iterator[None]:
    """Let everything inside this block go through other system calls."""
    token = _calls.set(calls)
    try:
        yield
    finally:
        _calls.reset(token)


@contextlib.contextmanager
def explained(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside this block into an EnvironmentLacks that says what to do."""
    try:
        yield
    except OSError as error:
        why, fix = _REASONS.get(error.errno or 0, (error.strerror or str(error), ""))
        raise EnvironmentLacks(f"Cannot {doing} {path}.", why=_sentence(why), fix=fix) from error


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def write_file(path: Path, content: bytes) -> None:
    """Put `content` at `path`: whole or not at all, and on the device when this returns."""
    with explained("write", path):
        temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        try:
            _write_new(temporary, content)
            _calls.get().rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                _calls.get().remove(temporary)
            raise
        _sync_folder(path.parent)


def _write_new(path: Path, content: bytes) -> None:
    calls = _calls.get()
    try:
        handle = calls.create(path)
    except FileExistsError:  # left by a dead process that had our number
        calls.remove(path)
        handle = calls.create(path)
    try:
        _write_all(handle, content)
        calls.sync(handle)
    finally:
        calls.close(handle)


def _write_all(handle: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[_calls.get().write(handle, rest) :]


def append_line(path: Path, line: str) -> None:
    """Add one line at the end of a file; it is on the device when this returns.

    A death in the middle leaves a cut last line, which readers drop.
    """
    assert "\n" not in line, "one line at a time"
    with explained("append to", path):
        calls = _calls.get()
        is_new = not path.exists()
        handle = calls.open_end(path)
        try:
            _write_all(handle, f"{line}\n".encode())
            calls.sync(handle)
        finally:
            calls.close(handle)
        if is_new:
            _sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Wait until the device knows every name in this folder."""
    with explained("flush", path):
        _sync_folder(path)


def sync_file(path: Path) -> None:
    """Wait until the device has all of a file that another library wrote."""
    calls = _calls.get()
    with explained("flush", path):
        handle = calls.open_end(path)
        try:
            calls.sync(handle)
        finally:
            calls.close(handle)


def _sync_folder(path: Path) -> None:
    calls = _calls.get()
    handle = calls.open_folder(path)
    try:
        calls.sync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
    finally:
        calls.close(handle)


def rename_folder(source: Path, target: Path) -> None:
    """Publish a finished folder under another name beside it; an existing one is never replaced."""
    with explained("rename to", target):
        if target.exists():
            raise FileExistsError(errno.EEXIST, "There is something already", str(target))
        _calls.get().rename(source, target)
        _sync_folder(target.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing, and flush their names."""
    with explained("make the folder", path):
        missing = [path, *path.parents]
        while missing and missing[-1].is_dir():
            missing.pop()
        for folder in reversed(missing):
            _make_folder(folder)


def _make_folder(path: Path) -> None:
    with contextlib.suppress(FileExistsError):  # somebody else may be faster
        _calls.get().make_folder(path)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "There is a file in its place", str(path))
    _sync_folder(path.parent)


def remove_file(path: Path) -> None:
    """Remove a file; one that is gone already is fine."""
    with explained("remove", path), contextlib.suppress(FileNotFoundError):
        _calls.get().remove(path)


def remove_folder(path: Path) -> None:
    """Remove a folder of work in progress with all that it holds."""
    with explained("remove", path):
        shutil.rmtree(path)


def read_file(path: Path, *, limit: int | None = None) -> bytes:
    """The content of a plain file of at most `limit` bytes.

    Raises:
        FileNotFoundError: there is no such file.
        ArtifactDamaged: it is not a plain file, or too large.
        EnvironmentLacks: it cannot be read.
    """
    size = plain_size(path)
    if limit is not None and size > limit:
        raise ArtifactDamaged(f"{path} has {size} bytes; at most {limit} were expected.")
    with _readable(path):
        return _calls.get().read(path)


def plain_size(path: Path) -> int:
    """Size in bytes of a plain file, not a folder, link or device; FileNotFoundError if none."""
    with _readable(path):
        status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactDamaged(f"{path} is not a plain file.", fix="Put the file itself there.")
    return status.st_size


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        with explained("read", path):
            yield
    except EnvironmentLacks as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path)) from None
        raise


def digest_bytes(content: bytes) -> str:
    """sha256 of these bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def digest_file(path: Path) -> str:
    """sha256 of a file's content, in hexadecimal, read in pieces.

    Raises:
        InputMissing: there is no such file.
    """
    try:
        with explained("read", path), _calls.get().open_read(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except EnvironmentLacks as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise InputMissing(f"{path} is not there.") from error
        raise


def remove_stale_temporaries(folder: Path) -> None:
    """Remove what writers that no longer live left in this folder; those of others stay."""
    for path in folder.glob(".tmp-*"):
        match = TEMPORARY.fullmatch(path.name)
        if match and (int(match[1]) == os.getpid() or not is_alive(int(match[1]))):
            remove_file(path)


def is_alive(process: int) -> bool:
    """Whether a process of this number lives on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
