"""`wm clean`: removes what a crash left in a workspace, and nothing else.

Everything is looked at once more under the lock of its place: what a command works on, what has
changed since it was listed and what is finished stays. Unfinished work is renamed before it is
removed, so that a death in the middle leaves nothing that a command would go on with.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from stages import stage_writing
from stages.artifacts.disk import (
    explained,
    remove_file,
    remove_folder,
    rename_folder,
    sync_folder,
)
from stages.artifacts.workspace import KINDS, VIDEOS, Workspace
from stages.errors import ExitCode, Interrupted, StageBusy, StageError
from stages.events import Monitor, Report, Scalar, Table
from stages.inspection.leftovers import (
    HERE,
    STALE_LOCK,
    UNFINISHED,
    Leftover,
    advice,
    aside,
    command,
    holder,
    left_in,
    lock_of,
    measured,
)

NAME = "clean"
PLACES = (*KINDS, VIDEOS, HERE)


@dataclass(frozen=True)
class Outcome:
    """What became of one leftover."""

    leftover: Leftover
    state: str  # removed | kept | failed
    because: str = ""
    freed: int = 0  # bytes


def removable(found: Sequence[Leftover]) -> list[Leftover]:
    """Those of them that `clean` removes."""
    return [one for one in found if not one.kept]


def listing(workspace: Workspace, found: Sequence[Leftover]) -> Table:
    """What would go, with the work that is in it."""
    told = advice(workspace, found)
    rows = [
        (one.name(workspace), one.what, one.size.files, one.size.bytes, one.age, because)
        for one in found
        for because, _ in [told[one.path]]
    ]
    columns = ("leftover", "what", "files", "bytes", "age_seconds", "because")
    return Table("Would be removed", columns, rows)


def untouched(workspace: Workspace) -> Report:
    """The report to somebody who was asked and said no."""
    return _report(workspace, [], note="Nothing was removed.")


def clean(workspace: Workspace, found: Sequence[Leftover], *, progress: Monitor) -> Report:
    """Remove these leftovers but for those that must be kept; exit code 6 when one resists.

    Raises:
        Interrupted: a signal came; it tells how much was removed by then.
    """
    outcomes: list[Outcome] = []
    try:
        for place in PLACES:
            for outcome in _cleaned(workspace, place, found, progress):
                outcomes.append(outcome)  # noqa: PERF402  # what was done counts when the next stops
    except Interrupted as stop:
        removed = sum(one.state == "removed" for one in outcomes)
        raise type(stop)(
            f"Stopped: {removed} of {len(removable(found))} things were removed.",
            fix=f"Remove the rest: {command(workspace, NAME)}",
        ) from stop
    note = "" if removable(found) else "There is nothing to remove."
    return _report(workspace, outcomes, note=note)


def _cleaned(
    workspace: Workspace, place: str, found: Sequence[Leftover], progress: Monitor
) -> Iterator[Outcome]:
    """Remove what was found in one place, under its lock."""
    here = [one for one in found if one.place == place]
    yield from (Outcome(one, "kept", one.kept) for one in here if one.kept)
    doomed = sorted(removable(here), key=lambda one: one.what == UNFINISHED)  # aside is free then
    if not doomed:
        return
    with ExitStack() as stack:
        try:
            if lock := lock_of(workspace, place):
                stack.enter_context(lock)
            now = {one.path: one for one in left_in(workspace, place)}
        except StageError as error:
            state = "kept" if isinstance(error, StageBusy) else "failed"
            yield from (Outcome(one, state, _said(error)) for one in doomed)
            return
        for one in doomed:
            progress.poll()
            yield _removed(one, now.get(one.path), progress)


def _removed(one: Leftover, now: Leftover | None, progress: Monitor) -> Outcome:
    """Remove one leftover, if it still is as it was listed. Hold the lock of its place."""
    if one.what == STALE_LOCK:  # whoever takes the lock and gives it back empties its file
        return Outcome(one, "removed", freed=one.size.bytes)
    if now != one:
        told = "It has changed since it was listed." if now else "It is gone already."
        return Outcome(one, "kept", told)
    try:
        if one.path.is_dir():
            _remove_work(one, progress)
        else:
            remove_file(one.path)
            sync_folder(one.path.parent)
    except Interrupted:
        raise
    except StageError as error:
        return _resisted(one, error)
    return Outcome(one, "removed", freed=one.size.bytes)


def _remove_work(one: Leftover, progress: Monitor) -> None:
    """Remove a folder of unfinished work, file by file; links are removed, never followed."""
    folder = one.path
    if one.what == UNFINISHED:
        folder = aside(one.path)
        rename_folder(one.path, folder)
    with explained("list", folder):
        entries = sorted(folder.iterdir())
    for entry in entries:
        progress.poll()
        if entry.is_symlink() or not entry.is_dir():
            remove_file(entry)
    remove_folder(folder)
    sync_folder(folder.parent)


def _resisted(one: Leftover, error: StageError) -> Outcome:
    """What became of a leftover of which something could not be removed."""
    for path, told in (
        (one.path, "It is as it was." if one.what == UNFINISHED else ""),
        (aside(one.path), f"What is left of it is called {aside(one.path).name}."),
    ):
        if (size := measured(path)) is not None:
            because = " ".join(filter(None, (_said(error), told)))
            return Outcome(one, "failed", because, freed=one.size.bytes - size.bytes)
    return Outcome(one, "removed", freed=one.size.bytes)  # all but the last flush


def _said(error: StageError) -> str:
    return f"{error.what} {error.why}".strip()


def _report(workspace: Workspace, outcomes: Sequence[Outcome], *, note: str) -> Report:
    told = advice(workspace, [one.leftover for one in outcomes if one.state != "removed"])
    rows: list[tuple[Scalar, ...]] = []
    for one in outcomes:
        left = one.leftover
        fix = told[left.path][1] if one.state != "removed" else ""
        name = left.name(workspace)
        rows.append(
            (
                name,
                one.state,
                left.what,
                left.size.files,
                left.size.bytes,
                one.because or None,
                fix or None,
            )
        )
    columns = ("leftover", "state", "what", "files", "bytes", "because", "fix")
    states = [one.state for one in outcomes]
    return Report(
        command=NAME,
        path=str(workspace.root),
        summary={
            "removed": states.count("removed"),
            "kept": states.count("kept"),
            "failed": states.count("failed"),
            "freed_bytes": sum(one.freed for one in outcomes),
        },
        tables=(Table("Leftovers", columns, rows),) if rows else (),
        notes=tuple(filter(None, (note, *_at_work(workspace)))),
        exit_code=ExitCode.ENVIRONMENT if "failed" in states else ExitCode.DONE,
    )


def _at_work(workspace: Workspace) -> Iterator[str]:
    """A sentence for every place that is not looked into, because a command works there."""
    for place in PLACES:
        if who := holder(workspace, place):
            name = stage_writing(place).name if place in KINDS else "a command"
            yield f"{name} is at work ({who}): what it holds is left alone."
