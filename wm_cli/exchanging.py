"""The commands of `wm` that take episodes in and carry things out: import and export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from stages.events import Monitor, Report
from wm_cli import completing
from wm_cli.options import PlaceOptions, SettingOptions
from wm_cli.session import carry_out
from wm_cli.taking import taking

__all__ = ["exchange"]

IN_AND_OUT = "In and out"
exchange = typer.Typer()

FormatArgument = Annotated[
    Literal["minari", "npz", "video"],
    typer.Argument(metavar="FORMAT", help="minari, npz or video."),
]
PlacesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH",
        help="A Minari data set (its folder, or the id of a local one), a folder of npz files, or "
        "films.",
    ),
]
WhatArgument = Annotated[
    Literal["agent", "minari", "npz", "mp4"],
    typer.Argument(metavar="WHAT", help="agent, minari, npz or mp4."),
]
TargetArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The folder to make, outside of the workspace.")
]
SourceOption = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="ID",
        help="Take this controller, or these recorded episodes, instead of the newest.",
        autocompletion=completing.parents,
    ),
]
ReplaceOption = Annotated[
    bool, typer.Option("--force", metavar="", help="Replace what an earlier export left there.")
]
ManyOption = Annotated[
    int | None,
    typer.Option("--episodes", metavar="N", min=1, help="The first N; all when left out."),
]


@dataclass(frozen=True, kw_only=True)
class ImportOptions(SettingOptions):
    """How episodes are taken in."""

    crop: Annotated[
        str | None,
        typer.Option(
            "--crop",
            metavar="T,B,L,R",
            help="Keep rows T to B and columns L to R of its frames; the whole when left out.",
        ),
    ] = None
    observation: Annotated[
        str,
        typer.Option(
            "--observation", metavar="KEY", help="Which of several observations (minari)."
        ),
    ] = ""
    every: Annotated[
        int, typer.Option("--every", metavar="N", min=1, help="Take every Nth frame (video).")
    ] = 1
    cut: Annotated[
        int,
        typer.Option(
            "--cut",
            metavar="N",
            min=2,
            max=100_000,
            help="Longer films become episodes of N frames (video).",
        ),
    ] = 1000
    force: Annotated[
        bool,
        typer.Option("--force", metavar="", help="Import it again although it is there already."),
    ] = False


@exchange.command(
    "import",
    epilog="Example: wm import npz recordings --set memory.steps=200",
    rich_help_panel=IN_AND_OUT,
)
@taking(ImportOptions)
def import_(options: ImportOptions, what: FormatArgument, places: PlacesArgument) -> None:
    """Take in episodes that others recorded: a Minari data set, npz files, or films."""

    def work(monitor: Monitor) -> Report:
        from dataclasses import replace

        from stages.exchange.importing import asked_for, run
        from stages.pipeline import for_import, prepare, unbound_on_refusal

        asked = asked_for(
            what,
            places,
            crop=options.crop,
            observation=options.observation,
            every=options.every,
            cut=options.cut,
        )
        request = for_import(options.workspace, options.request(), monitor)
        request = replace(request, force=options.force)
        prepared = prepare(options.workspace, request, progress=monitor)
        with unbound_on_refusal(prepared):
            return run(prepared.workspace, asked, prepared.job, progress=monitor)

    carry_out("import", options, work)


@exchange.command(
    "export", epilog="Example: wm export agent data/agents/mine --force", rich_help_panel=IN_AND_OUT
)
@taking(PlaceOptions)
def export(
    options: PlaceOptions,
    what: WhatArgument,
    target: TargetArgument,
    source: SourceOption = "",
    episodes: ManyOption = None,
    force: ReplaceOption = False,
) -> None:
    """Take something out of the workspace: an agent as one portable folder, or episodes."""

    def work(monitor: Monitor) -> Report:
        from stages.artifacts.workspace import Workspace
        from stages.errors import UsageError

        workspace = Workspace.open(options.workspace)
        if what == "agent":
            from stages.export import export_agent

            if episodes is not None:
                raise UsageError("An agent has no episodes.", fix="Leave out --episodes.")
            return export_agent(workspace, target, source=source, force=force, progress=monitor)
        from stages.exchange.exporting import export_episodes

        return export_episodes(
            workspace,
            what,
            target,
            source=source,
            num_episodes=episodes,
            force=force,
            progress=monitor,
        )

    carry_out("export", options, work)
