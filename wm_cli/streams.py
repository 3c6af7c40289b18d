"""Standard streams that never break the work: whoever read them may leave at any time.

A terminal closes (EIO), a pipe loses its reader (EPIPE), the disk below a log is full (ENOSPC):
what cannot be written is dropped. A terminal that is held (Ctrl-S) or a pager that pauses is
waited for, but not any more once the command has been asked to stop.
"""

import contextlib
import errno
import io
import os
import select
import sys
import time
from typing import Any

AT_ONCE = 4096  # bytes; a pipe that is ready takes so many without waiting (pipe(7), PIPE_BUF)
SLICE = 0.1  # seconds between two looks at whether the command has been asked to stop
LAST_WORDS = 1.0  # seconds that a stream which takes nothing is waited for after that
LEFT = (errno.EPIPE, errno.EIO)  # the reader went away, as readers may

_hurried = False


class LastingStream(io.FileIO):
    """The raw end of a standard stream; it drops what cannot be written and remembers why."""

    lost: OSError | None = None
    _deaf = False  # it took nothing when the command was in a hurry; later writes wait no more

    def write(self, content: Any, /) -> int:
        """Write some of the bytes, or drop them all."""
        with memoryview(content) as view:
            if not self._takes_more():
                return len(view)
            try:
                return os.write(self.fileno(), view[:AT_ONCE])
            except OSError as error:
                self.lost = self.lost or error
                return len(view)

    def _takes_more(self) -> bool:
        """Wait until a write would not block; False when that takes too long to wait for."""
        poller = select.poll()
        poller.register(self.fileno(), select.POLLOUT)
        started = time.monotonic()
        while not poller.poll(SLICE * 1000):
            if _hurried and (self._deaf or time.monotonic() - started > LAST_WORDS):
                self._deaf = True
                return False
        return True


def outlast_readers() -> None:
    """Put lasting streams in the place of stdout and stderr; closed ones go to the null device.

    Otherwise the first file that is opened takes their number, and receives what is printed.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # not one that a test put there
            setattr(sys, name, _lasting(stream))


def _lasting(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(LastingStream(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",  # a path that the terminal cannot spell ends nothing
        line_buffering=stream.line_buffering or stream is sys.stderr,
        write_through=stream.write_through,
    )


def lost_output() -> OSError | None:
    """Why stdout is not complete, unless its reader went away; flushes it first."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    lost = raw.lost if isinstance(raw, LastingStream) else None
    return None if lost is None or lost.errno in LEFT else lost


def hurry() -> None:
    """From now on wait no longer for a stream that takes nothing."""
    global _hurried  # noqa: PLW0603  asked for from a signal handler, for streams of every thread
    _hurried = True


def say_now(text: str) -> None:
    """Write to stderr from inside a signal handler: past its buffer, and never waiting."""
    poller = select.poll()
    poller.register(2, select.POLLOUT)
    with contextlib.suppress(OSError):
        if poller.poll(0):
            os.write(2, text.encode())
