"""What a test sees of an executor from outside: what it says, and its processes."""

import contextlib
import os
import time
from pathlib import Path

from stages.events import Silent


class Recording(Silent):
    """Keeps what it is told, and when."""

    def __init__(self):
        self.events = []
        self.times = []

    def emit(self, event):
        self.events.append(event)
        self.times.append(time.time())


def children():
    """Process ids of this process's children, from the kernel."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid() and fields[0] != "Z":
                found.append(int(path.parent.name))
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
