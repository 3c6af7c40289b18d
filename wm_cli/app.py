"""The commands of `wm`: parse, call, render."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup
from typer.main import get_command

from stages.errors import UsageError
from stages.events import Monitor, Report
from wm_cli.__main__ import main
from wm_cli.completing import answering_bash, is_completing
from wm_cli.exchanging import exchange
from wm_cli.helping import tidied
from wm_cli.hints import command_of, usage_error
from wm_cli.inspecting import inspect
from wm_cli.options import (
    AgentOption,
    EpisodesOption,
    ForesightOption,
    PlaceOption,
    PlaceOptions,
    RecordOption,
    RoundsOption,
    StageOptions,
    YesOption,
)
from wm_cli.reporting import reporting
from wm_cli.session import carry_out
from wm_cli.taking import taking

if TYPE_CHECKING:
    from stages.pipeline import Prepared

__all__ = ["app", "main", "run"]
PIPELINE = "Pipeline stages, in order"
WHOLE = "Whole pipeline"
DISTRIBUTION = "wm-pixels"
NO_AGENT = "`wm evaluate --memory` reads a memory, and scores no agent."
NO_AGENT_FIX = "Leave out --memory, or all other options but --workspace, --from and --json."

app = typer.Typer(
    epilog="Start with: wm run --preset debug",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def run(words: Sequence[str]) -> int:
    """Run the command line in `words` and return its exit code."""
    group = tidied(cast(TyperGroup, get_command(app)))
    if os.environ.get("NO_COLOR") and not is_completing():
        from typer import rich_utils

        rich_utils.COLOR_SYSTEM = None  # its help would still be bold
    try:
        with answering_bash():
            return group.main(list(words), prog_name="wm", standalone_mode=False) or 0
    except typer.TyperException as error:
        from wm_cli.render import show_error

        command = command_of(error, words, group.commands)
        show_error(command, usage_error(error, words, group.commands))
        return error.exit_code


app.add_typer(inspect)
app.add_typer(exchange)
app.add_typer(reporting)


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="Print the version and leave.")
    ] = False,
) -> None:
    """World models from pixels: record a world, learn to see and foresee it, and act.

    A stage reads the newest artifacts of a workspace and writes a new one.
    The first command of a workspace stores recipe, preset, seed and --set.
    """
    if version:
        typer.echo(f"wm {_version()}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


@app.command("rollout", epilog="Example: wm rollout --episodes 4", rich_help_panel=PIPELINE)
@taking(StageOptions)
def rollout(options: StageOptions, episodes: EpisodesOption = None) -> None:
    """Record episodes of the world with a data policy."""
    _make("rollout", options, {"rollout.episodes": episodes})


@app.command(
    "train-vision",
    epilog="Example: wm train-vision --set vision.steps=2000",
    rich_help_panel=PIPELINE,
)
@app.command("train-vae", epilog="Example: wm train-vae --device cpu", hidden=True)
@taking(StageOptions)
def train_vision(options: StageOptions) -> None:
    """Train V: frames to latents and back. Also as `wm train-vae`."""
    _make("train-vision", options)


@app.command(
    "sample-latents", epilog="Example: wm sample-latents --workers 2", rich_help_panel=PIPELINE
)
@taking(StageOptions)
def sample_latents(options: StageOptions) -> None:
    """Encode every recorded frame with V."""
    _make("sample-latents", options)


@app.command(
    "train-memory", epilog="Example: wm train-memory --from latents/0001", rich_help_panel=PIPELINE
)
@taking(StageOptions)
def train_memory(options: StageOptions) -> None:
    """Train M: predict the next latent from latent and action."""
    _make("train-memory", options)


@app.command(
    "train-control", epilog="Example: wm train-control --in dream", rich_help_panel=PIPELINE
)
@taking(StageOptions)
def train_control(options: StageOptions, place: PlaceOption = None) -> None:
    """Search the controller C in the world, or in M's dream."""
    _make("train-control", options, {"control.place": place})


@app.command(
    "evaluate", epilog="Example: wm evaluate --episodes 100 --record 2", rich_help_panel=PIPELINE
)
@taking(StageOptions)
def evaluate(
    options: StageOptions,
    episodes: EpisodesOption = None,
    record: RecordOption = 0,
    agent: AgentOption = None,
    memory: ForesightOption = False,
) -> None:
    """Score the agent on held-out episodes of the reference world, or M on held-out recordings."""
    if memory:
        _show_foresight(options, besides=bool(episodes or record or agent))
        return
    _make("evaluate", options, {"evaluate.episodes": episodes}, num_videos=record, agent=agent)


@app.command("run", epilog="Example: wm run -w runs/first --preset debug", rich_help_panel=WHOLE)
@taking(StageOptions)
def run_pipeline(options: StageOptions, rounds: RoundsOption = None) -> None:
    """Make everything that is missing or stale, in order."""

    def work(monitor: Monitor) -> Report:
        from stages.pipeline import prepare
        from stages.run import run_all

        request = options.request({"rounds.num_rounds": rounds})
        prepared = prepare(options.workspace, request, progress=monitor)
        return run_all(prepared, progress=monitor)

    carry_out("run", options, work)


@app.command("clean", epilog="Example: wm clean -w runs/first --yes", rich_help_panel=WHOLE)
@taking(PlaceOptions)
def clean(options: PlaceOptions, yes: YesOption = False) -> None:
    """Remove what a crash left: unfinished work, temporary files, stale locks. Asks first."""

    def work(monitor: Monitor) -> Report:
        from stages.artifacts.workspace import Workspace
        from stages.clean import clean, untouched
        from stages.inspection.leftovers import leftovers
        from wm_cli.question import may_remove

        workspace = Workspace.open(options.workspace)
        found = leftovers(workspace)
        if yes or may_remove(workspace, found, monitor):
            return clean(workspace, found, progress=monitor)
        return untouched(workspace)

    carry_out("clean", options, work)


def _make(
    stage: str,
    options: StageOptions,
    named: dict[str, Any] | None = None,
    *,
    num_videos: int = 0,
    agent: Path | None = None,
) -> None:
    """Run one stage; `named` holds the options that stand for a key."""

    def work(monitor: Monitor) -> Report:
        from stages.pipeline import prepare, run_stage

        if num_videos:
            from stages.artifacts.video import require_encoder

            require_encoder()  # before hours of scoring
        request = replace(options.request(named), agent=agent)
        prepared = prepare(options.workspace, request, progress=monitor)
        report = run_stage(prepared, stage, progress=monitor)
        return _with_videos(report, prepared, num_videos, monitor) if num_videos else report

    carry_out(stage, options, work)


def _show_foresight(options: StageOptions, *, besides: bool) -> None:
    """Tables of M alone; `besides` says whether options that score the agent were given too."""

    def work(monitor: Monitor) -> Report:
        from stages.artifacts.workspace import Workspace
        from stages.inspection.foresight import foresight

        if besides or options.chosen:
            raise UsageError(NO_AGENT, fix=NO_AGENT_FIX)
        return foresight(Workspace.open(options.workspace), options.parents or (), progress=monitor)

    carry_out("evaluate", options, work)


def _with_videos(report: Report, prepared: "Prepared", num_videos: int, monitor: Monitor) -> Report:
    """The report of an evaluation with that of its recorded videos beside it."""
    from stages.evaluate import record

    assert report.artifact is not None, "an evaluation has an id"
    videos = record(prepared.workspace, report.artifact, num_videos, prepared.job, progress=monitor)
    return replace(
        report,
        tables=(*report.tables, *videos.tables),
        notes=(*report.notes, *videos.notes),
    )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # run from a checkout
        return "of an uninstalled checkout"
