"""The worker's side: read a task, do it, answer; end when the supervisor is gone."""

import atexit
import contextlib
import faulthandler
import math
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from stages.errors import NumbersBad, StageError
from stages.execution.channel import dump, pack, read_frame, unpack
from stages.execution.protocol import TaskFailed

READY, BEAT, RESULT, FAILURE = "ready", "beat", "result", "failure"
SIGN = pack((BEAT, None))
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class _Pulse:
    """Sends signs of life while a task runs: at most one per pause, and never waits for that."""

    def __init__(self) -> None:
        self._end: socket.socket | None = None
        self._owner: tuple[int, int] | None = None
        self._pause = self._due = math.inf  # outside of a worker nothing is ever due

    def connect(self, end: socket.socket) -> None:
        """From now on this thread of this process speaks through `end`, and no other."""
        self._end, self._owner = end, _thread()

    def start(self, pause: float) -> None:
        """A task begins, of which a sign is wanted about every `pause` seconds."""
        self._pause = pause
        self._due = time.monotonic() + pause

    def beat(self) -> None:
        now = time.monotonic()
        if now < self._due or self._end is None or self._owner != _thread():
            return
        self._due = now + self._pause
        # A supervisor that is away finds signs enough in a full buffer; one that is gone ends us.
        with contextlib.suppress(OSError):
            sent = self._end.send(SIGN, socket.MSG_DONTWAIT)
            if sent < len(SIGN):  # a frame that has begun must be finished
                self._end.sendall(SIGN[sent:])


class _Loading:
    """Finds nothing, and takes every module that is looked for as a sign: torch has thousands."""

    def find_spec(self, *_: object) -> None:
        _pulse.beat()


def _thread() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


_pulse = _Pulse()


def sign_of_life() -> None:
    """Tell the supervisor that the task at hand makes progress.

    Costs a look at the clock, so that it may be called at every step. Does nothing outside of a
    worker, or in another thread than the task's.
    """
    _pulse.beat()


_last_acts: list[Callable[[], None]] = []


def at_the_end(act: Callable[[], None]) -> None:
    """Have this done before this process ends, a worker or not, unless it is killed.

    In a worker it runs beside the task, which is not waited for: remove what no other process can.
    """
    _last_acts.append(act)
    atexit.register(act)


def main(descriptor: int, parent: int) -> None:
    """Serve tasks from the socket with this descriptor until the process `parent` hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides what Ctrl-C means
    faulthandler.enable()  # a crash in native code leaves its stack in the log
    end = socket.socket(fileno=descriptor)
    _end_with_parent(end, parent)
    _pulse.connect(end)
    sys.meta_path.insert(0, _Loading())
    end.sendall(pack((READY, None)))
    while (frame := read_frame(end)) is not None:
        answer = perform(frame)
        sys.stdout.flush()
        sys.stderr.flush()
        end.sendall(answer)


def perform(frame: bytes | bytearray) -> bytes:
    """Do the task in a frame; the frame of its result or of its failure."""
    name = "?"
    try:
        name, call, pause = unpack(frame)
        _pulse.start(pause)
        function, payload = unpack(call)
        return pack((RESULT, function(payload)))
    except Exception as error:  # noqa: BLE001  edge of the process: the supervisor raises it
        return pack((FAILURE, as_failure(name, error)))


def as_failure(name: str, error: Exception) -> StageError:
    """The error itself when it is meant for users and survives the pipe, else a TaskFailed.

    `name` is the task's, with its seeds: whoever looks for bad numbers has to know them.
    """
    if isinstance(error, StageError) and _survives(error):
        if isinstance(error, NumbersBad):
            error.why = f"{error.why} It came up in task {name}.".lstrip()
        return error
    place = traceback.format_exception(error, limit=-4)
    return TaskFailed(
        f"Task {name} failed with {type(error).__name__}: {error}",
        why="".join(place).rstrip(),
    )


def _survives(error: StageError) -> bool:
    """Whether the error can be rebuilt on the other side."""
    try:
        unpack(dump(error))
    except Exception:  # noqa: BLE001  whatever a foreign __init__ or __reduce__ raises
        return False
    return True


def _end_with_parent(end: socket.socket, parent: int) -> None:
    """Leave no orphan: the kernel kills us with the supervisor, and we watch for its hang-up."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(0)
    threading.Thread(target=_watch, args=(end,), daemon=True).start()


def _watch(end: socket.socket) -> NoReturn:
    """Wait, without waking up in between, until the other side hangs up; then end at once."""
    poller: Any = select.poll()
    poller.register(end, 0)  # hang-up and error are always reported
    poller.poll()
    for act in _last_acts:
        with contextlib.suppress(Exception):
            act()
    os._exit(0)
