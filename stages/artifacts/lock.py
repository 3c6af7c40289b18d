"""One run per stage and workspace: a kernel lock that dies with its holder, and says who it is.

An orderly end empties the lock file; the note of a holder that was killed stays in it, and blocks
nobody. Meanwhile the note also tells how far the holder is, for `wm status`.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from stages.artifacts.disk import explained, is_alive, make_folder
from stages.errors import EnvironmentLacks, StageBusy

RUNNING, KILLED, SILENT = "running", "killed", "silent"  # what a note says of its holder
_PATIENCE = 0.5  # seconds; `holder` of another process takes the lock for an instant
_PAUSE = 0.02
_NOTE_LIMIT = 4096  # bytes
_TOLD_BYTES = 2048  # a note that tells how far its holder is always fills so many
_READS = 4  # of a note that is being written
_REREAD = 0.002  # seconds between them
_SILENT = 15.0  # seconds: who tells how far he is does so every second


@dataclass(frozen=True)
class Note:
    """What a lock file says of its holder."""

    host: str
    process: int
    since: str  # ISO 8601
    told: Mapping[str, Any] = field(default_factory=dict)  # how far it is, as it last said
    told_at: float = 0.0  # in seconds of the clock; 0: it has told nothing

    @property
    def in_words(self) -> str:
        """Who it is."""
        return f"process {self.process} on {self.host} since {self.since}"

    def state(self, now: float) -> str:
        """RUNNING, KILLED or SILENT, as far as the note tells; the lock itself is not tried.

        Only a process of this machine can be looked for. Of another machine's nothing is known but
        when it was heard of, by clocks that may differ.
        """
        if self.host == socket.gethostname() and self.process > 0:
            return RUNNING if is_alive(self.process) else KILLED
        return RUNNING if abs(now - self.told_at) < _SILENT else SILENT


class StageLock:
    """Holds a stage while a `with` block runs. The same object may be entered again inside.

    The lock file stays in place: removing it would let two processes hold two files of one name.
    """

    def __init__(self, path: Path, stage: str, *, patience: float = _PATIENCE) -> None:
        """`patience` is how many seconds to wait for a holder to let go."""
        self.path = path
        self.stage = stage
        self._patience = patience
        self._handle = -1
        self._depth = 0
        self._note = b""
        self._open = threading.Lock()  # held while the file is written or closed

    def __enter__(self) -> "StageLock":
        """Take the lock; StageBusy names the holder when there is one."""
        if self._depth == 0:
            self._handle = self._take()
        self._depth += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back when the outermost block ends."""
        self._depth -= 1
        if self._depth == 0:
            with self._open:
                handle, self._handle = self._handle, -1
            with contextlib.suppress(OSError):  # a full disk or a lost one: only the note stays
                os.ftruncate(handle, 0)
            os.close(handle)

    def tell(self, progress: Mapping[str, Any]) -> None:
        """Say how far the holder is, for whoever looks; any thread may. Nothing without the lock.

        What does not fit into a note, or cannot be written, is not told.
        """
        note = {**json.loads(self._note), "told_at": round(time.time(), 1), "told": {**progress}}
        content = json.dumps(note).encode()
        if len(content) >= _TOLD_BYTES:
            return
        with self._open, contextlib.suppress(OSError):
            if self._handle >= 0:
                # One size, so that a reader meets no end of an older and longer note.
                os.pwrite(self._handle, content.ljust(_TOLD_BYTES - 1) + b"\n", 0)

    @property
    def held(self) -> bool:
        """Whether this object holds the lock now."""
        return self._depth > 0

    def holder(self) -> str | None:
        """Who holds the lock, in words; None when nobody does. Never waits, changes nothing."""
        if self.held:
            return _in_words(self._note)
        try:
            handle = _opened(self.path, os.O_RDONLY)
        except OSError:  # never locked, or not ours to see
            return None
        try:
            return None if _locked(handle, fcntl.LOCK_SH) else _read_note(handle)
        finally:
            os.close(handle)

    def stale(self) -> str | None:
        """Who was killed while holding the lock, in words; None where nobody was. Never waits."""
        if self.held:
            return None
        try:
            handle = _opened(self.path, os.O_RDONLY)
        except OSError:
            return None
        try:
            # Earlier versions of wm left their note after an orderly end, too.
            noted = b'"cleared"' in os.pread(handle, _NOTE_LIMIT, 0)
            return _read_note(handle) if noted and _locked(handle, fcntl.LOCK_SH) else None
        finally:
            os.close(handle)

    def note(self) -> Note | None:
        """What the file says, of a holder that may be dead; None when it says nothing.

        Takes no lock and writes nothing, wherever and whose it is.
        """
        try:
            handle = _opened(self.path, os.O_RDONLY)
        except OSError:
            return None
        try:
            for _ in range(_READS):
                found = _parsed(os.pread(handle, _NOTE_LIMIT, 0))
                if found is not None:
                    return found
                time.sleep(_REREAD)  # it may be half written
        except OSError:
            return None
        finally:
            os.close(handle)
        return None

    def _take(self) -> int:
        make_folder(self.path.parent)
        with explained("lock", self.path):
            handle = _opened(self.path, os.O_RDWR | os.O_CREAT)
        try:
            if not self._wait(handle):
                raise self._busy(_read_note(handle))
            self._note = _note_bytes()
            with contextlib.suppress(OSError):  # it is for messages: on a full disk nobody is named
                os.ftruncate(handle, 0)
                os.pwrite(handle, self._note, 0)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _wait(self, handle: int) -> bool:
        deadline = time.monotonic() + self._patience
        while not _locked(handle, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def _busy(self, holder: str) -> StageBusy:
        return StageBusy(
            f"Another run holds {self.stage} of this workspace: {holder}.",
            why="One run at a time writes the artifacts of a stage.",
            fix="Wait for it, end it, or choose another --workspace.",
        )


def _opened(path: Path, flags: int) -> int:
    """A plain file of this name: what a link points at is not touched, a pipe is not waited for."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "It is not a plain file", str(path))
    return handle


def _locked(handle: int, mode: int) -> bool:
    """Try the lock once; EnvironmentLacks where the file system has none."""
    try:
        fcntl.flock(handle, mode | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise EnvironmentLacks(
            "This file system has no locks.",
            why=f"{error.strerror}.",
            fix="Choose a --workspace on a local disk.",
        ) from error
    return True


def _note_bytes() -> bytes:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    note = {"host": socket.gethostname(), "process": os.getpid(), "since": now, "cleared": True}
    return (json.dumps(note) + "\n").encode()


def _read_note(handle: int) -> str:
    return _in_words(os.pread(handle, _NOTE_LIMIT, 0))


def _in_words(content: bytes) -> str:
    found = _parsed(content)
    return found.in_words if found is not None else "a process that has not said its name"


def _parsed(content: bytes) -> Note | None:
    """A note, if this is one."""
    try:
        note = json.loads(content)
        told = note.get("told")
        return Note(
            host=str(note["host"]),
            process=int(note["process"]),
            since=str(note["since"]),
            told=told if isinstance(told, dict) else {},
            told_at=float(note.get("told_at", 0.0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
