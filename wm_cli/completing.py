"""What Tab offers: recipes, presets, ids of artifacts, settings. Quick, and silent about errors.

The shell calls `wm` with `_WM_COMPLETE` set; typer finds the option at the cursor and asks the
function that belongs to it. Nothing here loads torch, and nothing reaches the screen but words.
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from stages.settings.recipes import Recipe

COMPLETING = "_WM_COMPLETE"  # set while a shell asks
BREAKS = "=:"  # where bash breaks words, besides blanks
DEFAULT_PLACE = Path("data/workspaces/default")
Words = list[str]
Offer = Callable[[typer.Context, str], Iterable[str]]


def is_completing() -> bool:
    """Whether a shell asks what could come next."""
    return COMPLETING in os.environ


@contextlib.contextmanager
def answering_bash() -> Iterator[None]:
    """Where bash asks: put words together that it splits, as `--set key=val`, and split answers.

    Bash breaks words at `=` and `:`, hands them over as pieces, a line each, and replaces the last
    piece alone by what it is told.
    """
    if os.environ.get(COMPLETING) != "complete_bash":
        yield
        return
    pieces = os.environ.get("COMP_WORDS", "").split("\n")
    cursor = os.environ.get("COMP_CWORD", "")
    words = _joined([*pieces, ""][: int(cursor) + 1] if cursor.isdigit() else pieces)
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = "\n".join(words), str(len(words) - 1)
    cut = max(words[-1].rfind(mark) for mark in BREAKS) + 1
    if cut == 0 or words[-1].startswith("-"):  # of --option=value typer gives the value alone
        yield
        return
    screen = sys.stdout
    with contextlib.redirect_stdout(io.StringIO()) as told:
        try:
            yield
        finally:
            screen.write("".join(line[cut:] + "\n" for line in told.getvalue().splitlines()))


def _joined(pieces: Sequence[str]) -> Words:
    words: Words = []
    glued = False
    for piece in pieces:
        breaks = bool(piece) and not piece.strip(BREAKS) and len(words) > 1
        if words and (glued or breaks):
            words[-1] += piece
        else:
            words.append(piece)
        glued = breaks
    return words


def offering(offer: Offer) -> Callable[[typer.Context, str], Words]:
    """The offers that begin as the word does; none where anything goes wrong."""

    def offered(ctx: typer.Context, incomplete: str) -> Words:
        try:
            return [word for word in offer(ctx, incomplete) if word.startswith(incomplete)]
        except Exception:  # noqa: BLE001 - a half command line may be wrong in any way
            return []

    return offered


@offering
def recipes(_ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Shipped recipes, and TOML files and folders below what was typed."""
    from stages.settings.recipes import available

    yield from available()
    typed, slash, _ = incomplete.rpartition("/")
    folder = Path(f"{typed}{slash}").expanduser()
    for path in sorted(folder.iterdir()):
        shown = f"{typed}{slash}{path.name}"
        if path.suffix == ".toml" and path.is_file() and path.name != "pyproject.toml":
            yield shown
        elif slash and path.is_dir():
            yield f"{shown}/"


@offering
def presets(ctx: typer.Context, _incomplete: str) -> Iterable[str]:
    """Presets of the recipe that was named, of the workspace's, or of the default one."""
    return list(_recipe(ctx).presets)


@offering
def ids(ctx: typer.Context, _incomplete: str) -> Iterable[str]:
    """Ids of all complete artifacts of the workspace, in the pipeline's order."""
    return _ids(ctx)


@offering
def parents(ctx: typer.Context, _incomplete: str) -> Iterable[str]:
    """Ids that `--from` of this command takes, those of its inputs first."""
    return _ids(ctx, _readable(str(ctx.info_name)))


@offering
def scenes(ctx: typer.Context, _incomplete: str) -> Iterable[str]:
    """What `wm play` plays."""
    from stages import PLAY

    return ["world", "dream", *_ids(ctx, ("rollouts", PLAY.writes))]


@offering
def changes(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """`key=`, and after it the values that the key may have, or the one that it has by default."""
    from stages.pipeline import sections
    from stages.settings.schema import describe

    key, equals, _ = incomplete.partition("=")
    rows = describe(sections(_recipe(ctx).family))
    found = [row for row in rows if (row.key == key if equals else row.key.startswith(key))]
    for row in found:
        choices = row.limits.split(" | ") if " | " in row.limits else []
        choices = choices or (["true", "false"] if row.type == "true or false" else [])
        if row.key == "rollout.policy":
            from stages.control.data_policies import DATA_POLICIES

            choices = [*DATA_POLICIES, *_ids(ctx, ("control",))]
        yield from [] if equals else [f"{row.key}="]
        if equals or len(found) == 1:  # with its values: behind a lone `key=` comes a blank
            yield from (
                f"{row.key}={choice}" for choice in choices or [row.default.replace(" ", "")]
            )


@offering
def trackers(_ctx: typer.Context, _incomplete: str) -> Iterable[str]:
    """Where --track shows metrics."""
    from stages.tracking.protocol import KINDS

    return list(KINDS)


@offering
def bench_rows(_ctx: typer.Context, _incomplete: str) -> Iterable[str]:
    """Rows of `wm bench`."""
    from stages.bench.bench import ROWS

    return list(ROWS)


def _recipe(ctx: typer.Context) -> "Recipe":
    """The recipe that a command line speaks of."""
    import json

    from stages.settings.recipes import Recipe, load_recipe

    if named := ctx.params.get("recipe"):
        return load_recipe(named)
    try:
        stored = json.loads((_root(ctx) / "workspace.json").read_text())["settings"]["recipe"]
        return Recipe(**stored)
    except (OSError, ValueError, KeyError, TypeError):  # no workspace yet
        return load_recipe("carracing")


def _root(ctx: typer.Context) -> Path:
    """The workspace that a command line speaks of."""
    given = ctx.params.get("workspace") or os.environ.get("WM_WORKSPACE") or DEFAULT_PLACE
    return Path(given).expanduser()


def _ids(ctx: typer.Context, kinds: Sequence[str] = ()) -> Words:
    from stages import PLAY, STAGES
    from stages.artifacts.folders import complete_folders

    root = _root(ctx)
    wanted = kinds or [stage.writes for stage in (*STAGES, PLAY)]
    return [f"{kind}/{path.name}" for kind in wanted for path in complete_folders(root / kind)]


def _readable(command: str) -> tuple[str, ...]:
    """Kinds that a command reads by name; all where it is no stage."""
    from stages import PLAY, STAGES

    for stage in STAGES:
        if command == stage.name or command in stage.aliases:
            played = (PLAY.writes,) if "rollouts" in stage.reads else ()
            return (*stage.reads, *played, *((stage.writes,) if stage.warm else ()))
    models = ("vision", "memory", "control")
    return {"play": models, "export": ("control", "rollouts", PLAY.writes)}.get(command, ())
