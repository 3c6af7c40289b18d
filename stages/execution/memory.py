"""How much memory this process and its workers use now."""

import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes


@dataclass(frozen=True)
class Use:
    """What a command takes of the machine."""

    num_bytes: int | None  # resident; None where the system does not tell (it does on Linux)
    num_workers: int  # processes that this one has started


def in_use() -> Use:
    """Resident memory of this process, and what its workers have besides shared files."""
    found = _pages("self")
    if found is None:
        return Use(None, 0)
    workers = [pages for process in _children() if (pages := _pages(process)) is not None]
    # The code of libraries, which all share, counts once.
    return Use((found[0] + sum(own for _, own in workers)) * _PAGE, len(workers))


def _pages(process: str) -> tuple[int, int] | None:
    """Resident pages of a process, and those that belong to no file; None when it is gone."""
    try:
        _, resident, shared, *_ = map(int, (_PROC / process / "statm").read_text().split())
    except (OSError, ValueError):
        return None
    return resident, resident - shared


def _children() -> list[str]:
    """Numbers of the processes that this one has started, from any of its threads."""
    found: list[str] = []
    try:
        for thread in (_PROC / "self" / "task").iterdir():
            found += (thread / "children").read_text().split()
    except OSError:  # a thread ended meanwhile, or the kernel does not tell
        pass
    return found
