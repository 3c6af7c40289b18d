"""The options that commands share: records whose fields are the options."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wm_cli import completing

if TYPE_CHECKING:
    from stages.pipeline import Request

SETTINGS = "Settings, inherited from the workspace when left out"
RUNNING = "How to run"
OUTPUT = "Output"

EpisodesOption = Annotated[
    int | None,
    typer.Option("--episodes", metavar="N", min=1, help="Episodes, for this command only."),
]
PlaceOption = Annotated[
    Literal["world", "dream", "oracle"] | None,
    typer.Option(
        "--in",
        help="Where candidates are tried: the world, M's dream, or the world seen as a dream is.",
    ),
]
RoundsOption = Annotated[
    int | None,
    typer.Option(
        "--rounds",
        metavar="N",
        min=1,
        help="Rounds in all: in a later one the newest C records, and V, M and C are trained on.",
    ),
]
RecordOption = Annotated[
    int, typer.Option("--record", metavar="N", min=0, help="Replay N of its seeds as mp4 videos.")
]
AgentOption = Annotated[
    Path | None,
    typer.Option(
        "--agent", metavar="DIR", help="Score this packed agent instead of the workspace's own."
    ),
]
ForesightOption = Annotated[
    bool,
    typer.Option(
        "--memory",
        metavar="",
        help="Show how good M's dreams are instead; no episode is driven.",
    ),
]
PlayArgument = Annotated[
    str,
    typer.Argument(
        metavar="WHAT",
        help="world, dream, or an id such as rollouts/0001.",
        autocompletion=completing.scenes,
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", metavar="", help="Remove without asking.")]
IdsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID",
        help="Artifacts such as vision/0001; all when left out.",
        autocompletion=completing.ids,
    ),
]
ShownArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="An artifact such as vision/0001, or the folder of one or of a packed agent.",
        autocompletion=completing.ids,
    ),
]
RowsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ROW",
        help="Rows such as rollout or train-vision; all when left out.",
        autocompletion=completing.bench_rows,
    ),
]
QuickOption = Annotated[
    bool, typer.Option("--quick", metavar="", help="Under a minute: smaller laps, fewer rounds.")
]
MemoryOption = Annotated[
    bool,
    typer.Option(
        "--memory",
        help="Measure memory instead: peak of the training stages on 0.2 and 2 million generated "
        "frames (10 GB of disk for some minutes).",
    ),
]
Device = Literal["auto", "cpu", "cuda", "mps"]
DEVICE = typer.Option(
    "--device", help="Where networks are trained, and dream.", rich_help_panel=RUNNING
)
WORKERS = typer.Option(
    "--workers",
    metavar="N",
    min=1,
    help="Worker processes; as many as cores when left out.",
    rich_help_panel=RUNNING,
)


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """How a command answers."""

    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            metavar="",
            rich_help_panel=OUTPUT,
            help="Print the report as JSON on stdout, all else on stderr.",
        ),
    ] = False
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", metavar="", rich_help_panel=OUTPUT, help="Show tracebacks of errors."
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class BenchOptions(OutputOptions):
    """What a benchmark may use; it needs no workspace."""

    quick: QuickOption = False
    memory: MemoryOption = False
    device: Annotated[Device, DEVICE] = "auto"
    workers: Annotated[int | None, WORKERS] = None


@dataclass(frozen=True, kw_only=True)
class PlaceOptions(OutputOptions):
    """Which workspace."""

    workspace: Annotated[
        Path,
        typer.Option(
            "--workspace",
            "-w",
            metavar="DIR",
            envvar="WM_WORKSPACE",
            help="Folder with the artifacts of one experiment.",
        ),
    ] = completing.DEFAULT_PLACE


@dataclass(frozen=True, kw_only=True)
class SettingOptions(PlaceOptions):
    """Which settings; what is left out is inherited from the workspace."""

    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME|FILE",
            rich_help_panel=SETTINGS,
            help="carracing, doom, breakout, imported or a TOML file; at first carracing, of an "
            "import imported.",
            autocompletion=completing.recipes,
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            rich_help_panel=SETTINGS,
            help="How long and how large: debug, quick, hour ...; at first quick.",
            autocompletion=completing.presets,
        ),
    ] = None
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            rich_help_panel=SETTINGS,
            help="Change one setting; `wm config` lists them. Repeatable.",
            autocompletion=completing.changes,
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            min=0,
            rich_help_panel=SETTINGS,
            help="Root of all randomness; at first 0.",
        ),
    ] = None

    def request(self, named: dict[str, Any] | None = None) -> "Request":
        """What these options ask of the pipeline; `named` holds options that stand for a key."""
        from stages.pipeline import Request

        return Request(
            recipe=self.recipe,
            preset=self.preset,
            seed=self.seed,
            overrides=tuple(self.changes or ()),
            named=named,
        )


@dataclass(frozen=True, kw_only=True)
class StageOptions(SettingOptions):
    """How to run a stage."""

    parents: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="ID",
            rich_help_panel=RUNNING,
            help="Read this artifact instead of the newest; one of the kind that the command makes "
            "is where training starts. Repeatable.",
            autocompletion=completing.parents,
        ),
    ] = None
    device: Annotated[Device, DEVICE] = "auto"
    workers: Annotated[int | None, WORKERS] = None
    checkpoint_seconds: Annotated[
        float,
        typer.Option(
            "--checkpoint-seconds",
            metavar="S",
            min=0,
            hidden=True,  # for machines that may vanish at any moment; changes no result
            help="Seconds of training between checkpoints; 0: after every step.",
        ),
    ] = 60.0
    stall_seconds: Annotated[
        float,
        typer.Option(
            "--stall-seconds",
            metavar="S",
            min=1,
            hidden=True,  # for machines that are very slow; changes no result
            help="Replace a worker that gives no sign of life for so many seconds.",
        ),
    ] = 300.0
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            metavar="",
            rich_help_panel=RUNNING,
            help="Make another artifact although one is up to date.",
        ),
    ] = False

    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="TRACKER",
            rich_help_panel=OUTPUT,
            autocompletion=completing.trackers,
            help="Show metrics and pictures in tensorboard too. Repeatable.",
        ),
    ] = None

    @property
    def chosen(self) -> bool:
        """Whether anything was given besides a place, --from and how to answer."""
        settings = (self.recipe, self.preset, self.seed, self.changes, self.workers)
        return self.force or self.device != "auto" or any(each is not None for each in settings)

    def request(self, named: dict[str, Any] | None = None) -> "Request":
        """What these options ask of the pipeline, with parents, force and resources."""
        from dataclasses import replace

        from stages.contracts import Resources

        return replace(
            super().request(named),
            parents=tuple(self.parents or ()),
            force=self.force,
            resources=Resources(
                workers=self.workers,
                device=self.device,
                checkpoint_seconds=self.checkpoint_seconds,
                stall_seconds=self.stall_seconds,
            ),
        )
