"""Commands as processes that can be hurt: really started, or forked from one that is warm.

A forked one skips the imports of its first second and is a real command in all other ways: a
session of its own, `wm_cli.__main__.main()`, and worker processes that are started afresh.
"""

import atexit
import ctypes
import os
import pkgutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from command_line import NO_BAR, session_members, start_wm

PR_SET_PDEATHSIG = 1  # linux/prctl.h
SLOW = 600.0  # seconds after which a command counts as hanging


class Process(Protocol):
    """What `subprocess.Popen` and `Forked` have in common."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


class Forked:
    """A child that was forked; used like a Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (SLOW if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError(f"process {self.pid} did not end in time")
            time.sleep(0.002)
        assert self.returncode is not None
        return self.returncode


def warm() -> None:
    """Import what commands import, so that forked ones need not; starts no thread."""
    import stages
    import wm_cli

    for package in (stages, wm_cli):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "__main__" not in found.name and ".bench" not in found.name:
                import_module(found.name)
    for name in ("cma", "h5py._hl", "safetensors.numpy", "gymnasium.envs.box2d.car_racing"):
        import_module(name)
    import_module("torch")


def forked(work: Callable[[], int], *, log: Path | int, errors: Path | None = None) -> Forked:
    """Do this work in a child of its own session; it ends with the work's exit code.

    It writes into `log`, its errors as well where `errors` names no file of their own.
    """
    tasks = len(list(Path("/proc/self/task").iterdir()))
    assert tasks == 1, f"{tasks} threads: a fork would copy locks that nobody opens"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Forked(pid)
    code = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # the torturer may be killed, too
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _redirect(log, errors)
        code = work()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001  as an interpreter does at its end
        traceback.print_exc()
    finally:
        threading._shutdown()  # waits for its threads ...
        atexit._run_exitfuncs()  # ... as an interpreter does at its end
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(log: Path | int, errors: Path | None) -> None:
    target = _opened(log) if isinstance(log, Path) else log
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(target, 1)
    os.dup2(_opened(errors) if errors else target, 2)
    # As fresh as in a new interpreter: those of before know what the old files could do.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


def forked_wm(*words: object, log: Path | int, before: Callable[[], Any] = lambda: None) -> Forked:
    """`wm` with these words in a forked child; `before` is called in it first."""

    def work() -> int:
        os.environ.update(NO_BAR)
        sys.argv = ["wm", *map(str, words)]
        before()
        from wm_cli.__main__ import main

        main()
        return 0

    return forked(work, log=log)


def launch(*words: object, log: Path, real: bool) -> Process:
    """`wm` with these words: in a fresh interpreter, or forked."""
    return start_wm(*words, log=log) if real else forked_wm(*words, log=log)


def session_ends(process: Process, *, seconds: float = 15.0) -> bool:
    """Whether all of a command's session ends within so long."""
    return wait_while(lambda: bool(session_members(process.pid)), seconds=seconds, pause=0.05)


def workers_of(process: Process) -> list[int]:
    """Process ids of the workers of a command."""
    return sorted(set(session_members(process.pid)) - {process.pid})


def killed(pid: int) -> bool:
    """Kill a process; False when it had ended just before."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def wait_while(condition: Callable[[], bool], *, seconds: float, pause: float = 0.002) -> bool:
    """Wait until this does not hold any more; whether that came in time."""
    end = time.monotonic() + seconds
    while condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True
