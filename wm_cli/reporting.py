"""The command `wm report`."""

from pathlib import Path
from typing import Annotated

import typer

from stages.errors import UsageError
from stages.events import Monitor, Report
from wm_cli.options import PlaceOptions
from wm_cli.session import carry_out
from wm_cli.taking import taking

__all__ = ["reporting"]

WorkspacesArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="DIR", help="Workspaces; several are compared. Left out: that of -w."),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Where to write; left out: report.html in the workspace, comparison.html here.",
    ),
]
FilmsOption = Annotated[
    bool, typer.Option("--no-videos", metavar="", help="Drive no episode again, film none.")
]
ForeignFilmsOption = Annotated[
    bool,
    typer.Option(
        "--videos",
        metavar="",
        help="Film a world of a module of somebody's own too: this runs its code.",
    ),
]

reporting = typer.Typer()


@reporting.command(
    "report", epilog="Example: wm report -w runs/first", rich_help_panel="Whole pipeline"
)
@taking(PlaceOptions)
def report(
    options: PlaceOptions,
    workspaces: WorkspacesArgument = None,
    out: OutOption = None,
    no_videos: FilmsOption = False,
    videos: ForeignFilmsOption = False,
) -> None:
    """Write one HTML file that shows a workspace, or compares several."""

    def work(monitor: Monitor) -> Report:
        from stages.report.report import report

        places = workspaces or [options.workspace]
        if videos and no_videos:
            raise UsageError("--videos and --no-videos contradict each other.")
        with_films = False if no_videos else True if videos else None
        return report(places, out, with_films=with_films, progress=monitor)

    carry_out("report", options, work)
