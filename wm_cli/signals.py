"""Signals that ask a command to stop: at a safe point, else soon, and at once when asked again.

`timeout`, make, service managers and terminals that close tell their child and then its whole
group, so what comes within a second of the first signal is taken for the same request. SIGHUP is
obeyed unless it was ignored when the command began (nohup). SIGINT is obeyed always, also by a
background job of a script, for which shells ignore it: `kill -INT` shall work there too.
"""

import os
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from stages.errors import ExitCode, Interrupted, StopNow, Terminated
from wm_cli.__main__ import obeyed, stop_at_once
from wm_cli.streams import hurry, say_now
from wm_cli.xvfb import XvfbRun

SAME_SECONDS = 1.0
PATIENCE = 2.0  # seconds that a safe point is waited for; supervisors often kill after ten
AGAIN = 10.0  # seconds until that is tried again: some libraries catch whatever is raised
RESUMES = "Run the same command again: it goes on where it stopped."
OUTLIVES = f"{RESUMES} In tmux or with nohup it outlives its terminal."
_FIRST = {
    signal.SIGINT: "finishing the step, press Ctrl-C again to stop at once",
    signal.SIGTERM: "finishing the step, a second signal stops at once",
    signal.SIGHUP: "the terminal was closed: finishing the step",
}
_REASONS: dict[int, tuple[type[Interrupted], str, str]] = {
    signal.SIGINT: (Interrupted, "Stopped by Ctrl-C", RESUMES),
    signal.SIGTERM: (Terminated, "Stopped by SIGTERM", RESUMES),
    signal.SIGHUP: (Terminated, "Stopped because the terminal was closed (SIGHUP)", OUTLIVES),
}


class Stopper:
    """Holds the signals while a `with` block runs, and answers at safe points whether to stop."""

    def __init__(self) -> None:
        self._asked: list[int] = []  # by which signals; one or two
        self._asked_at = 0.0
        self._previous: dict[int, Any] = {}
        self._xvfb = XvfbRun.around()

    def __enter__(self) -> Self:
        for number in obeyed():
            self._previous[number] = signal.signal(number, self._receive)
        self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._insist)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._xvfb is not None and self._xvfb.gone():
            self._xvfb.end_server()

    @property
    def reason(self) -> Interrupted:
        """Why a command ends that was asked to stop, by the newest signal."""
        kind, what, fix = _REASONS[self._asked[-1] if self._asked else signal.SIGINT]
        return kind(f"{what}; progress is saved.", fix=fix)

    @property
    def exit_code(self) -> ExitCode:
        """How it ends."""
        return self.reason.exit_code

    def check(self) -> None:
        """Raise Interrupted or Terminated when a signal came, or when xvfb-run is gone."""
        if self._asked:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise self.reason
        if self._xvfb is not None and self._xvfb.gone():
            raise Terminated("Stopped because xvfb-run ended; progress is saved.", fix=RESUMES)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._asked:
            self._asked, self._asked_at = [number], now
            hurry()
            signal.setitimer(signal.ITIMER_REAL, PATIENCE, AGAIN)
            start = "\n" if sys.stderr.isatty() else ""
            say_now(f"{start}wm: {_FIRST[signal.Signals(number)]}\n")
        elif now - self._asked_at > SAME_SECONDS:
            self._asked.append(number)
            signal.setitimer(signal.ITIMER_REAL, 0)
            for each in obeyed():  # a third one does not even wait for Python
                signal.signal(each, signal.SIG_DFL)
            if _importing(frame):
                self._leave()
            stop_at_once(number, frame)

    def _insist(self, _number: int, frame: FrameType | None) -> NoReturn:
        """No safe point has come: stop wherever the work stands, which a kill may do too."""
        if _importing(frame):
            self._leave()
        raise StopNow

    def _leave(self) -> NoReturn:
        reason = self.reason
        cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # that a live bar has hidden
        say_now(f"{cursor}wm: {reason.what} {reason.fix}\n")
        os._exit(self.exit_code)


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being loaded: compiled ones crash when they meet an exception then."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
