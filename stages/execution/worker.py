"""The worker's side: read a task, do it, answer; end when the supervisor is gone."""

import faulthandler
import os
import select
import signal
import socket
import sys
import threading
import traceback
from typing import Any, NoReturn

from stages.errors import StageError
from stages.execution.channel import dump, pack, read_frame, unpack
from stages.execution.protocol import TaskFailed

READY, RESULT, FAILURE = "ready", "result", "failure"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(descriptor: int, parent: int) -> None:
    """Serve tasks from the socket with this descriptor until the process `parent` hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides what Ctrl-C means
    faulthandler.enable()  # a crash in native code leaves its stack in the log
    end = socket.socket(fileno=descriptor)
    _end_with_parent(end, parent)
    end.sendall(pack((READY, None)))
    while (frame := read_frame(end)) is not None:
        answer = perform(frame)
        sys.stdout.flush()
        sys.stderr.flush()
        end.sendall(answer)


def perform(frame: bytes | bytearray) -> bytes:
    """Do the task in a frame; the frame of its result or of its failure."""
    key: object = "?"
    try:
        key, call = unpack(frame)
        function, payload = unpack(call)
        return pack((RESULT, function(payload)))
    except Exception as error:  # noqa: BLE001  edge of the process: the supervisor raises it
        return pack((FAILURE, as_failure(key, error)))


def as_failure(key: object, error: Exception) -> StageError:
    """The error itself when it is meant for users and survives the pipe, else a TaskFailed."""
    if isinstance(error, StageError) and _survives(error):
        return error
    place = traceback.format_exception(error, limit=-4)
    return TaskFailed(
        f"Task {key} failed with {type(error).__name__}: {error}",
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
    os._exit(0)
