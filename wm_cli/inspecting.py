"""The commands of `wm` that look: at a workspace, a world, this machine."""

from typing import Annotated

import typer

from stages.errors import UsageError
from stages.events import Monitor, Report
from wm_cli.options import (
    BenchOptions,
    IdsArgument,
    PlaceOptions,
    PlayArgument,
    RowsArgument,
    SettingOptions,
    ShownArgument,
)
from wm_cli.playing.options import PlayOptions
from wm_cli.session import carry_out, look_on
from wm_cli.taking import taking

__all__ = ["inspect"]

INSPECT = "Inspect"

WatchOption = Annotated[
    bool,
    typer.Option("--watch", metavar="", help="Show what runs here, again and again, until Ctrl-C."),
]
EveryOption = Annotated[
    float,
    typer.Option("--every", metavar="SECONDS", min=0.1, help="How often --watch looks."),
]

inspect = typer.Typer()


@inspect.command(
    "play", epilog="Example: wm play dream --record dream.mp4", rich_help_panel=INSPECT
)
@taking(PlayOptions)
def play(options: PlayOptions, what: PlayArgument = "world") -> None:
    """Play the world, M's dream or recorded episodes: in a window, the terminal or a film."""

    def work(monitor: Monitor) -> Report:
        from wm_cli.playing.play import play

        return play(what, options, monitor)

    carry_out("play", options, work)


@inspect.command("status", epilog="Example: wm status --json", rich_help_panel=INSPECT)
@taking(SettingOptions)
def status(options: SettingOptions, watch: WatchOption = False, every: EveryOption = 2.0) -> None:
    """Show the workspace: what is there, what is stale and why, and what came from what.

    With --watch: the stages that run in it, how far they are and their newest numbers.
    """
    if watch:
        look_on(options, every)

    def work(monitor: Monitor) -> Report:
        from stages.inspection.overview import look, status

        return status(look(options.workspace, options.request(), progress=monitor))

    carry_out("status", options, work)


@inspect.command("show", epilog="Example: wm show vision/0001", rich_help_panel=INSPECT)
@taking(PlaceOptions)
def show(options: PlaceOptions, what: ShownArgument) -> None:
    """Show one artifact: what it is, from what, its numbers, its pictures, how to make it again."""

    def work(_monitor: Monitor) -> Report:
        from stages.inspection.showing import show

        return show(options.workspace, what)

    carry_out("show", options, work)


@inspect.command("verify", epilog="Example: wm verify vision/0001", rich_help_panel=INSPECT)
@taking(PlaceOptions)
def verify(options: PlaceOptions, ids: IdsArgument = None) -> None:
    """Read every file of every artifact again and compare it with its digest."""

    def work(monitor: Monitor) -> Report:
        from stages.artifacts.workspace import Workspace
        from stages.inspection.verification import refuse_paths, verify

        refuse_paths(ids or ())
        return verify(Workspace.open(options.workspace), ids or (), progress=monitor)

    carry_out("verify", options, work)


@inspect.command("doctor", epilog="Example: wm doctor", rich_help_panel=INSPECT)
@taking(PlaceOptions)
def doctor(options: PlaceOptions) -> None:
    """Say what this machine can do, what is missing, and what a crash has left."""

    def work(_monitor: Monitor) -> Report:
        from stages.inspection.doctor import examine

        return examine(options.workspace)

    carry_out("doctor", options, work)


@inspect.command("config", epilog="Example: wm config --preset paper", rich_help_panel=INSPECT)
@taking(SettingOptions)
def config(options: SettingOptions) -> None:
    """Show every setting: its value, who chose it, and what it means."""

    def work(monitor: Monitor) -> Report:
        from stages.inspection.overview import config_report, look

        return config_report(look(options.workspace, options.request(), progress=monitor).settings)

    carry_out("config", options, work)


@inspect.command(
    "bench", epilog="Example: wm bench rollout control --quick", rich_help_panel=INSPECT
)
@taking(BenchOptions)
def bench(options: BenchOptions, rows: RowsArgument = None) -> None:
    """Time every stage beside the machine's ceiling and the plain way. Needs no workspace."""

    def work(monitor: Monitor) -> Report:
        from stages.bench.bench import Request, run
        from stages.bench.memory_use import measure

        if options.memory:
            others = (options.quick, options.workers is not None, options.device != "auto")
            if rows or any(others):
                raise UsageError(
                    "`wm bench --memory` measures memory alone, on the CPU.",
                    fix="Leave out --memory, or the rows and all other options but --json.",
                )
            return measure(progress=monitor)
        request = Request(
            rows=tuple(rows or ()),
            quick=options.quick,
            workers=options.workers,
            device=options.device,
        )
        return run(request, progress=monitor)

    carry_out("bench", options, work)
