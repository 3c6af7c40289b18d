"""What a killed run left in a workspace: unfinished work and temporary files."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages import stage_writing
from stages.artifacts.disk import TEMPORARY
from stages.artifacts.partial import STARTS, recorded_in
from stages.artifacts.workspace import KINDS, Workspace
from stages.errors import StageError


@dataclass(frozen=True)
class Leftover:
    """One thing that a crash left, in words, and what to do about it."""

    text: str
    fix: str


def leftovers(root: Path) -> Iterator[Leftover]:
    """Unfinished work that nobody goes on with, and temporary files; nothing is removed.

    Locks are the kernel's and die with their process, so that none is ever left.
    """
    if not Workspace.exists(root):
        return
    workspace = Workspace(root.absolute())
    for kind in KINDS:
        if workspace.lock_holder(kind) is None:
            for path in workspace.partials(kind):
                yield _unfinished(path, kind)
            yield from _temporaries(workspace.root / kind)
    yield from _temporaries(workspace.root)


def _unfinished(path: Path, kind: str) -> Leftover:
    files = [one for one in path.iterdir() if one.is_file()]
    age = time.time() - max((one.stat().st_mtime for one in files), default=path.stat().st_mtime)
    return Leftover(
        f"{path}: {len(files)} files, {_megabytes(files)}, last written {_hours(age)} ago",
        f"wm {stage_writing(kind).name}{_starts(path)}   (goes on; or: rm -r {path})",
    )


def _starts(path: Path) -> str:
    try:
        return "".join(f" --from {name}" for name in recorded_in(path).get(STARTS, ()))
    except StageError:  # a damaged state is for the command that goes on to tell
        return ""


def _temporaries(folder: Path) -> Iterator[Leftover]:
    files = [path for path in folder.glob(".tmp-*") if TEMPORARY.fullmatch(path.name)]
    if files:
        shown = f"{len(files)} temporary files in {folder}, {_megabytes(files)}"
        yield Leftover(shown, f"rm {folder}/.tmp-*   (while no command runs)")


def _megabytes(files: list[Path]) -> str:
    return f"{sum(path.stat().st_size for path in files) / 1e6:.1f} MB"


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
