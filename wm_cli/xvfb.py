"""The xvfb-run around this process, which dies of SIGTERM without telling what runs inside."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Self

PROC = Path("/proc")  # Linux; elsewhere nothing is found
LOOK_SECONDS = 0.5


class XvfbRun:
    """An ancestor that started an X server for this process and was to end it."""

    def __init__(self, pid: int, family: tuple[int, ...]) -> None:
        self._pid = pid
        self._family = family  # from this process up to it
        self._born = _born(pid)
        self._next_look = 0.0
        self._gone = False

    @classmethod
    def around(cls) -> Self | None:
        """The xvfb-run among the ancestors of this process; None without one."""
        if "XAUTHORITY" not in os.environ:
            return None
        family = [os.getpid()]
        while family[-1] > 1:
            pid = _parent(family[-1])
            if any(Path(word).name == "xvfb-run" for word in _words(pid)[:3]):
                return cls(pid, tuple(family))
            family.append(pid)
        return None

    def gone(self) -> bool:
        """Whether it has died; looked up twice a second at most."""
        if not self._gone and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_SECONDS
            self._gone = _born(self._pid) != self._born
        return self._gone

    def end_server(self) -> None:
        """End its X server, which nobody else would end, unless somebody else was given it too."""
        given = f"XAUTHORITY={os.environ['XAUTHORITY']}".encode()
        others = [int(path.name) for path in PROC.glob("[0-9]*")]
        users = [pid for pid in others if pid not in self._family and given in _environment(pid)]
        for pid in () if users else others:
            words = _words(pid)
            if words and Path(words[0]).name == "Xvfb" and os.environ["XAUTHORITY"] in words:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGTERM)


def _status(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on: state, parent ...; [] when it is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return []


def _parent(pid: int) -> int:
    fields = _status(pid)
    return int(fields[1]) if fields else 0


def _born(pid: int) -> str:
    """When it began, in ticks since the machine did: tells it from a later one of its number."""
    fields = _status(pid)
    return fields[19] if fields and fields[0] not in "ZX" else ""


def _words(pid: int) -> list[str]:
    try:
        return os.fsdecode((PROC / str(pid) / "cmdline").read_bytes()).split("\0")
    except OSError:
        return []


def _environment(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:  # gone, or of somebody else, who cannot read our cookie either
        return []
