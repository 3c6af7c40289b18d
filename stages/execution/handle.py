"""One worker process as the supervisor sees it: started, given a job, heard, ended."""

import contextlib
import errno
import fcntl
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.errors import EnvironmentLacks
from stages.execution.channel import Channel, dump, pack
from stages.execution.protocol import Task
from stages.execution.worker import BEAT, READY

KILL_SECONDS = 5.0  # that a killed worker gets to be gone
START_SECONDS = 120.0  # a worker that is not ready by then hangs
BEAT_SECONDS = 1.0  # between signs of life that a worker sends ...
BEATS = 10  # ... but so many at least within its deadline
LOG_BYTES = 2000  # of the end of a log, for messages
CRASH_BYTES = 50_000  # of the end of a log, in which a crash is looked for

# A fresh interpreter with the supervisor's own search path: nothing is inherited but this, and no
# module is taken from the folder in which the command was given (-P).
BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from stages.execution.worker import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)
ONE_MATH_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}


@dataclass
class Job:
    """A task on its way through one call of run()."""

    task: Task
    run: int  # which call of run() it belongs to
    num_losses: int = 0  # workers it has cost so far


@contextlib.contextmanager
def _started() -> Iterator[None]:
    """Say what to do where the machine has no process, file or folder left for a worker."""
    try:
        yield
    except OSError as error:
        crowded = error.errno in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
        raise EnvironmentLacks(
            "A worker process could not be started.",
            why=str(error),
            fix="Use fewer with --workers."
            if crowded
            else "Set TMPDIR to a folder that may be written and has room.",
        ) from error


class WorkerHandle:
    """A child process, the channel to it and its log."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.num_done = 0  # tasks
        self._ready = False
        self._seconds: float | None = None
        self._expires = math.inf
        with _started():
            # No name on disk, so that nothing is left behind, whoever is killed.
            self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by free()
            try:
                fcntl.fcntl(self._log, fcntl.F_SETFL, os.O_APPEND)  # it may be cut meanwhile
                self.channel, self.process = self._connected()
            except OSError:
                self._log.close()
                raise

    def _connected(self) -> tuple[Channel, "subprocess.Popen[bytes]"]:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                return Channel(ours), self._start(theirs.fileno())
        except OSError:
            ours.close()
            raise

    def _start(self, descriptor: int) -> subprocess.Popen[bytes]:
        words = [
            json.dumps([str(folder) for folder in sys.path]),
            str(descriptor),
            str(os.getpid()),
        ]
        return subprocess.Popen(
            [sys.executable, "-P", "-c", BOOT, *words],
            env={**os.environ, **ONE_MATH_THREAD},
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def assign(self, job: Job, *, deadline: float | None, now: float) -> None:
        """Hand over a job; its clock starts now, and anew with every sign of life.

        `deadline` is in seconds without one; a worker that is not ready yet has START_SECONDS.
        """
        self.job = job
        self._seconds = deadline
        self._expires = now + (self._limit() if self._ready else self._start_limit())
        os.ftruncate(self._log.fileno(), 0)  # the log then tells about this job only
        call = dump((job.task.function, job.task.payload))
        pause = min(BEAT_SECONDS, self._limit() / BEATS)
        self.channel.send(pack((str(job.task), call, pause)))

    def _limit(self) -> float:
        return math.inf if self._seconds is None else self._seconds

    def _start_limit(self) -> float:
        return max(START_SECONDS, self._seconds or 0.0)

    def hear(self, now: float) -> list[tuple[str, Any]]:
        """Answers that have arrived: (RESULT, value) or (FAILURE, error)."""
        self.channel.flush()
        answers = []
        for kind, content in self.channel.receive():
            if kind in (READY, BEAT):
                self._ready = True
                self._expires = now + self._limit()
            else:
                answers.append((kind, content))
        return answers

    def overdue(self, now: float) -> str:
        """What the worker did not do in time, for messages; empty while it has time."""
        if self.job is None or now <= self._expires:
            return ""
        if not self._ready:
            return f"did not start within {self._start_limit():g} s"
        return f"gave no sign of life for {self._limit():g} s"

    def postpone(self, seconds: float) -> None:
        """Give the job more time because the supervisor itself was away."""
        self._expires += seconds

    def ending(self) -> str:
        """How the process ended, for messages."""
        code = self.process.poll()
        if code is None:
            return "closed its connection, or cannot be ended"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"exited with status {code}"

    def log_tail(self) -> str:
        """The end of what the worker wrote to standard output and error during its job.

        Of a crash in native code the beginning is kept: the innermost calls come first there.
        """
        size = os.fstat(self._log.fileno()).st_size
        content = os.pread(self._log.fileno(), CRASH_BYTES, max(0, size - CRASH_BYTES))
        crash = content.rfind(b"Fatal Python error")
        if crash >= 0:
            content = content[: crash + LOG_BYTES // 2]
        return content[-LOG_BYTES:].decode(errors="replace").strip()

    def hang_up(self) -> None:
        """Close the connection: an orderly worker ends by itself."""
        self.channel.close()

    def end(self, *, patience: float = 0.0) -> None:
        """Wait `patience` seconds, then kill; the log and the way it ended stay readable."""
        self.channel.close()
        try:
            self.process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            # One that hangs inside the kernel (a network disk that is gone) ends when it can.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=KILL_SECONDS)

    def free(self) -> None:
        """Close the log too."""
        self._log.close()
