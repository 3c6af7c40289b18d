"""Ctrl-C and SIGTERM: the first asks to stop at a safe point, the second stops at once."""

import contextlib
import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any, Self

from stages.errors import ExitCode, Interrupted, Terminated
from wm_cli.__main__ import stop_at_once

WATCHED = (signal.SIGINT, signal.SIGTERM)
RESUMES = "Run the same command again: it goes on where it stopped."
_FIRST = {
    signal.SIGINT: "finishing the step, press Ctrl-C again to stop at once",
    signal.SIGTERM: "finishing the step, a second signal stops at once",
}


class Stopper:
    """Holds the signals while a `with` block runs, and answers at safe points whether to stop."""

    def __init__(self) -> None:
        self._received: list[int] = []
        self._previous: dict[int, Any] = {}
        # xvfb-run dies of SIGTERM without telling the program inside, which is then adopted.
        self._parent = os.getppid() if "xvfb-run" in os.environ.get("XAUTHORITY", "") else None

    def __enter__(self) -> Self:
        for number in WATCHED:
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> ExitCode:
        """How a command ends that the newest signal broke off."""
        terminated = self._received[-1:] == [signal.SIGTERM]
        return ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED

    def check(self) -> None:
        """Raise Interrupted or Terminated when a signal came, or when xvfb-run is gone."""
        if self._received:
            if self._received[0] == signal.SIGTERM:
                raise Terminated("Stopped by SIGTERM; progress is saved.", fix=RESUMES)
            raise Interrupted("Stopped by Ctrl-C; progress is saved.", fix=RESUMES)
        if self._parent is not None and os.getppid() != self._parent:
            raise Terminated("Stopped because xvfb-run ended; progress is saved.", fix=RESUMES)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
        if len(self._received) == 1:
            _say(_FIRST[signal.Signals(number)])
            return
        for each in WATCHED:  # a third one does not even wait for Python
            signal.signal(each, signal.SIG_DFL)
        stop_at_once(number, frame)


def _say(text: str) -> None:
    """Write to stderr from inside a signal handler, where its buffer may be in use."""
    start = "\n" if sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{start}wm: {text}\n".encode())
