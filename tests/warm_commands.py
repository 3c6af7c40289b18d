"""Runs commands by `torture.warm_server`: without the seconds in which a command imports torch."""

import atexit
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path

TESTS = Path(__file__).resolve().parent
START_SECONDS, SECONDS = 120.0, 900.0  # that the server and a command may take


class WarmCommands:
    """One server, and the commands that it runs for this process."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="wm-warm-"))
        self._numbers = itertools.count()
        self._server = subprocess.Popen(
            [sys.executable, "-m", "torture.warm_server", str(self._address)],
            cwd=TESTS,
            env=environment,
            stdin=subprocess.PIPE,  # its end is the server's
        )
        atexit.register(self.close)
        end = time.monotonic() + START_SECONDS
        while not self._address.exists():
            assert self._server.poll() is None, "the server of commands did not start"
            assert time.monotonic() < end, "the server of commands is not ready"
            time.sleep(0.01)

    @property
    def _address(self) -> Path:
        return self._folder / "socket"

    def run(
        self, words: list[str], folder: Path, environment: dict[str, str]
    ) -> tuple[int, str, str]:
        """Exit code, output and errors of a command."""
        number = next(self._numbers)
        out, err = (self._folder / f"{number}.{name}" for name in ("out", "err"))
        asked = {
            "words": words,
            "folder": str(folder),
            "environment": environment,
            "out": str(out),
            "err": str(err),
        }
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._address))
            connection.sendall(json.dumps(asked).encode() + b"\n")
            connection.settimeout(SECONDS)
            with connection.makefile("rb") as lines:
                pid = int(lines.readline())
                try:
                    code = int(lines.readline())
                except TimeoutError:
                    os.killpg(pid, signal.SIGKILL)
                    raise
        said = out.read_text(), err.read_text()
        out.unlink()
        err.unlink()
        return code, *said

    def close(self) -> None:
        """End the server, which removes its folder."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()


@lru_cache(maxsize=1)
def _commands(process: int) -> WarmCommands:
    from command_line import environment

    assert process == os.getpid()
    return WarmCommands(environment())


def run_warm(words: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    """Run a command by the server of this process, which is started for the first one."""
    return _commands(os.getpid()).run(words, folder, environment)
