"""The options of `wm play`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wm_cli import completing
from wm_cli.options import SettingOptions

if TYPE_CHECKING:
    from stages.pipeline import Request


@dataclass(frozen=True, kw_only=True)
class PlayOptions(SettingOptions):
    """Who plays, in front of whom, and what is kept of it."""

    parents: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="ID",
            help="Play with this vision, memory or control instead of the newest. Repeatable.",
            autocompletion=completing.parents,
        ),
    ] = None
    agent: Annotated[
        Path | None,
        typer.Option("--agent", metavar="DIR", help="Let this packed agent drive and see."),
    ] = None
    driver: Annotated[
        Literal["keyboard", "agent", "random"] | None,
        typer.Option(
            "--driver", help="Who drives at first; for a film the agent, if there is one."
        ),
    ] = None
    record: Annotated[
        Path | None,
        typer.Option("--record", metavar="FILE.mp4", help="Make a film instead; needs no display."),
    ] = None
    episodes: Annotated[
        int | None,
        typer.Option(
            "--episodes", metavar="N", min=1, help="Leave after N; a film has 1 when left out."
        ),
    ] = None
    save: Annotated[
        Literal["ask", "all"] | None,
        typer.Option("--save", help="Ask after each episode whether to keep it, or keep all."),
    ] = None
    terminal: Annotated[
        bool,
        typer.Option("--terminal", metavar="", help="In the terminal although there is a display."),
    ] = False
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Replace a film that is there already.")
    ] = False

    def request(self, named: dict[str, Any] | None = None) -> "Request":
        """What these options ask of the pipeline."""
        from dataclasses import replace

        parents = tuple(self.parents or ())
        return replace(super().request(named), parents=parents, agent=self.agent)
