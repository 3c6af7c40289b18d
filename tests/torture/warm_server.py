"""Commands for tests, each forked from this process, which has imported what commands import.

A connection is one command: a line of JSON comes in; the process id goes out, and at its end the
exit code, a line each. It ends with the tests: when its standard input does.
"""

import json
import os
import select
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

from torture.processes import forked, warm


def main(address: Path) -> None:
    """Serve at a socket of this path until the tests are over; then remove its folder."""
    warm()
    with socket.socket(socket.AF_UNIX) as server:
        begun = address.with_suffix(".begun")
        server.bind(str(begun))
        server.listen()
        begun.rename(address)  # only now may anybody connect
        _serve(server)
    shutil.rmtree(address.parent, ignore_errors=True)


def _serve(server: socket.socket) -> None:
    running: dict[int, tuple[int, socket.socket]] = {}  # by descriptors of processes
    poller = select.poll()
    poller.register(0, select.POLLHUP | select.POLLIN)
    poller.register(server, select.POLLIN)
    while True:
        for number, _ in poller.poll():
            if number == 0:
                return
            if number == server.fileno():
                connection, _ = server.accept()
                pid = _begun(connection, server)
                connection.sendall(f"{pid}\n".encode())
                watch = os.pidfd_open(pid)
                running[watch] = pid, connection
                poller.register(watch, select.POLLIN)
                continue
            pid, connection = running.pop(number)
            poller.unregister(number)
            os.close(number)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with connection:
                connection.sendall(f"{code}\n".encode())


def _begun(connection: socket.socket, server: socket.socket) -> int:
    with connection.makefile("rb") as lines:
        asked: dict[str, Any] = json.loads(lines.readline())

    def work() -> int:
        server.close()
        connection.close()
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["folder"])
        sys.path[0] = asked["folder"]  # as `python -m` has it
        sys.argv = asked["words"]
        from wm_cli.__main__ import main

        main()
        return 0

    return forked(work, log=Path(asked["out"]), errors=Path(asked["err"])).pid


if __name__ == "__main__":
    main(Path(sys.argv[1]))
