"""Workspaces with what a crash left, and ways to die, for the tests of this room."""

import subprocess
import sys

import pytest
from command_line import environment

from stages.artifacts.canonical import fingerprint
from stages.artifacts.disk import SystemCalls, replaced
from stages.artifacts.manifest import Certificate
from stages.clean import clean
from stages.errors import Interrupted
from stages.events import Silent
from stages.inspection.leftovers import leftovers

SHARDS = {f"shard-{number:05d}.h5": bytes([number]) * 4000 for number in range(3)}
BOX = {"kind": "box", "size": 3, "low": [-1, 0, 0], "high": [1, 1, 1]}
HOLD = """
import sys
from pathlib import Path
from stages.artifacts.workspace import Workspace
with Workspace.open(Path(sys.argv[1])).lock(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


class Killed(BaseException):
    """Stands for kill -9: nothing that the program does afterwards has any effect."""


class KilledAtPublishing(SystemCalls):
    """Dies at the very last step of a commit, when the folder gets its number."""

    def rename(self, source, target):
        if target.name.isdigit():
            raise Killed
        super().rename(source, target)


class InterruptedAt(Silent):
    """A monitor that hears Ctrl-C before the n-th safe point."""

    def __init__(self, at):
        self.left = at

    def poll(self):
        self.left -= 1
        if self.left == 0:
            raise Interrupted("Stopped by Ctrl-C; progress is saved.")


def identity(number=1):
    return fingerprint(
        "rollout", algorithm=1, config={"n": number}, parents=[], family="world-models"
    )


def begin(workspace, kind="rollouts", *, key=None, files=SHARDS, starts=()):
    """Unfinished work as a killed stage leaves it; where it lies."""
    with workspace.lock(kind):
        partial = workspace.begin(kind, key or identity())
        for name, content in files.items():
            partial.write(name, content)
        partial.record({"threads": 1})
        partial.record_starts(starts)
        return partial.path


def certificate():
    world = {"env": "CarRacing-v3", "repeat": 1, "crop": [0, 84, 0, 96], "size": 64}
    return Certificate(
        stage="rollout",
        family="world-models",
        recipe="carracing",
        preset="debug",
        algorithm=1,
        config={"seed": 1, "world": {**world, "max_frames": 0}},
        parents=(),
        seeds={"purpose": "rollout", "first": 1, "count": 2},
        summary={"engines": ["gymnasium"], "actions": BOX},
        provenance={"host": "here"},
    )


def commit(workspace, *, number=2):
    """A whole artifact."""
    begin(workspace, key=identity(number))
    with workspace.lock("rollouts"):
        return workspace.begin("rollouts", identity(number)).commit(certificate())


def cut_commit(workspace):
    """Work whose commit was killed just before its number; where it lies."""
    path = begin(workspace)
    with replaced(KilledAtPublishing()), pytest.raises(Killed), workspace.lock("rollouts"):
        workspace.begin("rollouts", identity()).commit(certificate())
    return path


def kill_a_holder(workspace, kind="rollouts"):
    """Let a process die that holds the lock of a stage; its number."""
    with holding(workspace, kind) as process:
        process.kill()
        process.wait()
    return process.pid


def holding(workspace, kind):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workspace.root), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout.readline() == "held\n"
    return process


def found_in(workspace):
    """Name -> what it is."""
    return {one.name(workspace): one.what for one in leftovers(workspace)}


def cleaned(workspace, *, progress=None):
    """Clean; name -> what became of it, and the report."""
    report = clean(workspace, leftovers(workspace), progress=progress or Silent())
    rows = report.tables[0].rows if report.tables else []
    return {row[0]: row[1] for row in rows}, report


def tree(folder):
    """Everything below a folder: files with their content, links with their target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found


def total_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
