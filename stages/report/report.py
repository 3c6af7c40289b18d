"""`wm report`: read one or several workspaces and write one HTML file."""

import os
from collections.abc import Sequence
from pathlib import Path

from stages.artifacts.disk import explained, write_file
from stages.artifacts.workspace import REPORT
from stages.errors import EnvironmentLacks, ExitCode, StageError, UsageError
from stages.events import Monitor, Report, Table
from stages.report.comparing import compare
from stages.report.gathering import Seen, gather
from stages.report.page import is_report, page

COMPARISON = "comparison.html"  # in the current folder, where several workspaces are told of
HEAD = 64 * 1024  # bytes in which a report says what it is
ELSEWHERE = "Name another file with --out."


def report(
    places: Sequence[Path], out: Path | None, *, with_films: bool | None, progress: Monitor
) -> Report:
    """Write the report of a workspace, or the comparison of several.

    `with_films`: none, those of every world, or (None) of worlds that need no foreign code alone.

    Raises:
        StageError: a workspace is missing, empty or wholly damaged, or the file cannot be written.
    """
    roots = [place.resolve() for place in places]
    for number, root in enumerate(roots):
        if root in roots[:number]:
            raise UsageError(f"{places[number]} is named twice.", fix="Name every workspace once.")
    several = len(places) > 1
    target = out or (Path(COMPARISON) if several else places[0] / REPORT)
    seen = [gather(place, progress=progress) for place in places]
    _check_target(target)
    content = compare(seen) if several else page(seen[0], with_films=with_films)
    progress.poll()
    try:
        write_file(target, content)
    except EnvironmentLacks as error:
        raise EnvironmentLacks(error.what, why=error.why, fix=ELSEWHERE) from error
    return _told(seen, target, len(content))


def _check_target(target: Path) -> None:
    """Refuse, before any work, a place where no report can be written or somebody's file lies."""
    folder = target.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder} for {target.name}.", fix=ELSEWHERE)
    if target.is_dir():
        raise UsageError(f"{target} is a folder.", fix=ELSEWHERE)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise EnvironmentLacks(
            f"{target} cannot be written.", why="Permission denied.", fix=ELSEWHERE
        )
    if target.exists():
        with explained("read", target), target.open("rb") as opened:
            head = opened.read(HEAD)
        if not is_report(head):
            raise UsageError(
                f"{target} is there already, and is no report.",
                why="It would be lost.",
                fix=ELSEWHERE,
            )


def _told(seen: Sequence[Seen], target: Path, num_bytes: int) -> Report:
    troubles: list[StageError] = [error for one in seen for error in one.troubles]
    rows = [(str(error.what), str(error.fix)) for error in troubles]
    tables = (Table("Damaged", ("what", "fix"), rows),) if rows else ()
    return Report(
        command="report",
        path=str(target),
        summary={"workspaces": len(seen), "bytes": num_bytes},
        tables=tables,
        notes=("Open it in any browser.",),
        exit_code=ExitCode.DAMAGED if rows else ExitCode.DONE,
    )
