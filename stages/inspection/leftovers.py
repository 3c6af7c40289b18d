"""What a killed run left in a workspace: unfinished work, temporaries, locks. Only looked at."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from stages import PLAY, stage_writing
from stages.artifacts.artifact import Artifact, load_manifest
from stages.artifacts.disk import TEMPORARY, explained, is_alive
from stages.artifacts.folders import MANIFEST
from stages.artifacts.lock import StageLock
from stages.artifacts.manifest import is_payload_name
from stages.artifacts.partial import PARTIAL, partial_path
from stages.artifacts.state import STARTS, STATE, recorded_in
from stages.artifacts.workspace import KINDS, VIDEOS, Workspace
from stages.errors import (
    ArtifactDamaged,
    InputMissing,
    InputsMismatch,
    StageError,
    UsageError,
)
from stages.events import Silent
from stages.inspection.expectations import expectations
from stages.inspection.overview import look
from stages.pipeline import Prepared, Request, verb

UNFINISHED = "unfinished work"
FINISHED = "finished work"
HALF_REMOVED = "half-removed work"
TEMPORARY_FILE = "temporary file"
STALE_LOCK = "stale lock"
NUMBERLESS = "It is finished and lacks only its number."
HERE = ""  # the place of what lies in the workspace itself; other places are its folders

_ASIDE = re.compile(r"\.tmp-\d+-partial-[0-9a-f]{16}")


@dataclass(frozen=True)
class Size:
    """What a file or a folder takes; links are not followed."""

    files: int  # that are work; logs and checkpoints among them
    bytes: int  # everything
    written: float  # when it changed last, in seconds of the clock


@dataclass(frozen=True)
class Leftover:
    """One thing that a crash left."""

    what: str  # UNFINISHED, FINISHED, ...
    path: Path
    place: str  # the kind of artifact whose folder holds it, VIDEOS or HERE
    size: Size
    whose: str = ""  # of a lock: who died with it
    kept: str = ""  # why it must not be removed; empty: it may

    @property
    def age(self) -> int:
        """Seconds since it was written; 0 where the clock went back."""
        return max(0, round(time.time() - self.size.written))

    def name(self, workspace: Workspace) -> str:
        """How people find it: its path inside the workspace."""
        return str(self.path.relative_to(workspace.root))


def leftovers(workspace: Workspace) -> list[Leftover]:
    """What nobody works on any more, place by place. What a live run holds is its own."""
    free = [place for place in (*KINDS, VIDEOS, HERE) if holder(workspace, place) is None]
    return [one for place in free for one in left_in(workspace, place)]


def left_in(workspace: Workspace, place: str) -> Iterator[Leftover]:
    """What was left in one place; nobody may be working there, or the caller holds its lock."""
    folder = workspace.root / place
    lock = lock_of(workspace, place)
    with explained("look into", folder):
        link = _link(folder if place != HERE else None, lock.path if lock is not None else None)
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        found = [one for entry in entries for one in _judged(entry, place)]
    yield from (replace(one, kept=one.kept or link) for one in found)
    whose = lock.stale() if lock is not None else None
    if lock is not None and whose is not None:
        yield from _leftover(STALE_LOCK, lock.path, place, whose=whose, kept=link)


def _link(*paths: Path | None) -> str:
    """Why a place is left alone that one of these leads out of; empty when none does."""
    links = [path.name for path in paths if path is not None and path.is_symlink()]
    return f"{links[0]} is a symbolic link: what lies behind it is left alone." if links else ""


def lock_of(workspace: Workspace, place: str) -> StageLock | None:
    """The lock under which this place is written; None where there is none."""
    if place == VIDEOS:
        return None
    return workspace.settings_lock if place == HERE else workspace.lock(place)


def holder(workspace: Workspace, place: str) -> str | None:
    """Who works in this place, in words; None when nobody does."""
    lock = lock_of(workspace, place)
    return lock.holder() if lock is not None else None


def aside(path: Path) -> Path:
    """The name under which unfinished work is removed, so that none of it is gone on with."""
    return path.with_name(f".tmp-{os.getpid()}-{path.name.lstrip('.')}")


def advice(workspace: Workspace, found: Sequence[Leftover]) -> dict[Path, tuple[str, str]]:
    """For each leftover what to know about it, and the command for it, ready to be pasted."""
    prepared = _prepared(workspace)
    return {one.path: _advice(workspace, prepared, one) for one in found}


def command(workspace: Workspace, *words: str) -> str:
    """A command on this workspace that works when it is pasted."""
    verb_name, *rest = words
    return " ".join(["wm", verb_name, "-w", quote(str(workspace.root)), *map(quote, rest)])


def measured(path: Path) -> Size | None:
    """The size of a file, or of a folder with all that it holds; None when it is gone meanwhile."""
    try:
        with explained("read", path):
            status = path.lstat()
            if not _is_folder(path):
                return Size(1, status.st_size, status.st_mtime)
            entries = sorted(path.iterdir())
    except StageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    inside = [size for entry in entries if (size := measured(entry)) is not None]
    return Size(
        files=sum(is_payload_name(entry.name) and entry.name != STATE for entry in entries),
        bytes=sum(size.bytes for size in inside),
        written=max([status.st_mtime, *(size.written for size in inside)]),
    )


def _judged(path: Path, place: str) -> Iterator[Leftover]:
    """What an entry of a place is, if it is a leftover: one of our own names and nothing else."""
    if place in KINDS and PARTIAL.fullmatch(path.name):
        yield from _partial(path, place)
    elif place in KINDS and _ASIDE.fullmatch(path.name):
        if _is_folder(path) and _is_orphan(path):
            yield from _leftover(HALF_REMOVED, path, place)
    else:
        yield from _temporary(path, place)


def _partial(path: Path, place: str) -> Iterator[Leftover]:
    """Unfinished work; a commit that was cut just before its end is as good as an artifact."""
    if path.is_symlink():
        yield from _leftover(UNFINISHED, path, place, kept=_link(path))
    elif _is_folder(path):
        finished = _finished(path, place)
        yield from _leftover(FINISHED if finished else UNFINISHED, path, place, kept=finished)
        for entry in sorted(path.iterdir()) if finished else ():
            yield from _temporary(entry, place)


def _temporary(path: Path, place: str) -> Iterator[Leftover]:
    if _is_orphan(path) and path.is_file() and not path.is_symlink():
        yield from _leftover(TEMPORARY_FILE, path, place)


def _leftover(
    what: str, path: Path, place: str, *, whose: str = "", kept: str = ""
) -> Iterator[Leftover]:
    """A leftover with its size; none when it is gone meanwhile."""
    if size := measured(path):
        yield Leftover(what, path, place, size=size, whose=whose, kept=kept)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_orphan(path: Path) -> bool:
    """Whether this is a temporary whose writer is gone; one with our own number is not ours."""
    match = TEMPORARY.fullmatch(path.name)
    if match is None:
        return False
    writer = int(match[1])
    return writer == os.getpid() or not is_alive(writer)


def _finished(path: Path, kind: str) -> str:
    """Why a partial that has its manifest must be kept; empty where something is missing in it.

    Reads every byte. What cannot be read, or not by this version, may be whole.
    """
    if not (path / MANIFEST).exists():
        return ""
    try:
        manifest = load_manifest(path, path.name)
    except StageError as error:
        return f"It may be finished: {error.what}"
    errors = Artifact(kind=kind, number=0, path=path, manifest=manifest).verify()
    for one in errors:
        if not isinstance(one, ArtifactDamaged | InputMissing):
            return f"It may be finished: {one.what}"
    return "" if errors else NUMBERLESS


def _advice(workspace: Workspace, prepared: Prepared | None, one: Leftover) -> tuple[str, str]:
    clean = command(workspace, "clean")
    simple = {
        STALE_LOCK: f"Left by {one.whose}, which was killed; it blocks nobody.",
        TEMPORARY_FILE: "Its writer is gone.",
        HALF_REMOVED: "A `wm clean` was killed here.",
    }
    if one.what in simple:
        return one.kept or simple[one.what], "" if one.kept else clean
    because, resuming = _going_on(workspace, prepared, one)
    if one.what == FINISHED and one.kept == NUMBERLESS:
        done = "the same command gives it one" if resuming else "the command that began it does"
        return f"{NUMBERLESS[:-1]}: {done}.", resuming
    return (one.kept, "") if one.kept else (because, resuming)


def _going_on(workspace: Workspace, prepared: Prepared | None, one: Leftover) -> tuple[str, str]:
    """Who goes on with unfinished work, in words, and the command that does."""
    if prepared is None:
        return "The workspace's settings cannot be read: who goes on with it is not known.", ""
    if one.place == PLAY.writes:
        told = "The next `wm play` makes an artifact of its episodes."
        return told, command(workspace, PLAY.name)
    try:
        resuming = _resuming(workspace, prepared, one)
    except StageError as error:  # the stage has no inputs, or is told what is wrong when it runs
        return f"Its command would be refused now: {error.what}", ""
    if resuming:
        return "The same command goes on with it.", resuming
    told = "It was begun with other settings or inputs than a command has here now: one with the "
    return f"{told}same options goes on with it.", ""


def _prepared(workspace: Workspace) -> Prepared | None:
    """The workspace with its settings; None where they cannot be read."""
    try:
        return look(workspace.root, Request(), progress=Silent())
    except StageError:
        return None


def _resuming(workspace: Workspace, prepared: Prepared, one: Leftover) -> str:
    """The command that goes on with this work; empty where the workspace's settings call for none.

    Work that began with settings of its own is found again by the same options only; the ids that
    `--from` named are remembered.
    """
    stage = stage_writing(one.place)
    if stage.section not in prepared.settings.sections:
        return ""
    for named in _starts(one.path):
        job = replace(prepared.job, parents=named)
        try:
            plan = verb(stage).plan(prepared.workspace, prepared.config(stage), job)
        except (UsageError, InputsMismatch):  # with the settings that hold now
            continue
        if partial_path(one.path.parent, plan.fingerprint) == one.path:
            words = [word for name in named for word in ("--from", name)]
            return command(workspace, stage.name, *words)
    return _next_in_line(workspace, prepared, one)


def _next_in_line(workspace: Workspace, prepared: Prepared, one: Leftover) -> str:
    """`wm run` where this is what it would go on with: the stages of later rounds are told more."""
    for expected in expectations(prepared):
        mine = expected.fingerprint and expected.stage.writes == one.place
        if mine and partial_path(one.path.parent, expected.fingerprint) == one.path:
            return command(workspace, "run")
    return ""


def _starts(path: Path) -> Iterator[tuple[str, ...]]:
    """The ids that `--from` may have named: none, or those that the work remembers."""
    yield ()
    yield tuple(recorded_in(path).get(STARTS, ()))
