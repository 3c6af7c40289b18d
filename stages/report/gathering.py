"""What a workspace holds, for whoever tells of it: artifacts, logs, and what is damaged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from stages import stage_writing
from stages.artifacts.artifact import Artifact, repairable
from stages.artifacts.disk import read_file
from stages.artifacts.metrics import METRICS
from stages.artifacts.plain import COUNT, NUMBER, Rule, listed, optional
from stages.artifacts.producing import DREAM
from stages.artifacts.scores import parse_log, read_csv
from stages.artifacts.workspace import KINDS, Workspace
from stages.control.search_log import LOG
from stages.errors import ArtifactDamaged, InputMissing, StageError
from stages.events import Monitor, Silent
from stages.inspection.expectations import visitor
from stages.inspection.lineage import Rounds, rounds_of
from stages.inspection.overview import look, status
from stages.pipeline import Prepared, Request
from stages.report.markup import trouble

EPISODES = "episodes.csv"
LOG_LIMIT = 64 * 2**20  # bytes of a log that are read
_MAYBE = optional(listed(NUMBER, least=1))
_SEARCH = {
    "generation": COUNT,
    "frames": COUNT,
    "fitness": _MAYBE,
    "selection": _MAYBE,
    "dreamt": _MAYBE,
    "sigma": optional(NUMBER),
}

Values = NDArray[np.float64]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Series:
    """One measure over steps."""

    x: Values
    y: Values


@dataclass(frozen=True)
class Search:
    """The log of a search; `scored` are the generations whose mean vector drove in the world."""

    generations: Values  # [G]
    mean: Values  # [G], of the population
    best: Values  # [G]
    sigma: Values  # [G]
    scored: Values  # [S]
    score: Values  # [S], mean return of the mean vector in the world
    stderr: Values  # [S]
    frames: Values  # [S], frames of the world so far
    dreamt: Values  # [D], mean return of the mean vector in the dream
    dreamt_at: Values  # [D], the generations of these


@dataclass(frozen=True)
class Episode:
    """A row of `episodes.csv`."""

    who: str  # agent | random
    seed: int
    total_reward: float
    num_steps: int
    num_frames: int


@dataclass(frozen=True)
class Seen:
    """A workspace, read."""

    place: str  # its folder as it was named
    prepared: Prepared
    artifacts: Mapping[str, Sequence[Artifact]]  # kind -> by number; those that are whole
    rounds: Rounds
    states: Mapping[str, tuple[str, str]]  # stage -> state of its last round, and why
    progress: Monitor = field(default_factory=Silent)
    troubles: list[StageError] = field(default_factory=list)  # what was found damaged
    parsed: dict[tuple[str, str], Any] = field(default_factory=dict)  # by artifact and file

    @property
    def workspace(self) -> Workspace:
        """The folder."""
        return self.prepared.workspace

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.workspace.root.name or str(self.workspace.root)

    def newest(self, kind: str) -> Artifact | None:
        """The whole artifact with the highest number; what is damaged is told elsewhere."""
        found = self.artifacts[kind]
        return found[-1] if found else None

    def command(self, words: str) -> str:
        """A command in this workspace."""
        return f"wm {words} -w {quote(self.place)}"

    def tried(self, make: Callable[[], Element], *, about: str = "") -> Element:
        """What `make` makes; where something stands in its way, what that is."""
        self.progress.poll()
        try:
            return make()
        except StageError as error:
            if isinstance(error, ArtifactDamaged):
                self.note(error)
            return trouble(error, about=about)

    def noted(self, read: Callable[[], Found]) -> Found | None:
        """What `read` finds; None where it is damaged, which is told above the page."""
        try:
            return read()
        except StageError as error:
            self.note(error)
            return None

    def note(self, error: StageError) -> None:
        """Tell of it above the page, once."""
        if all((one.what, one.fix) != (error.what, error.fix) for one in self.troubles):
            self.troubles.append(error)

    def parse(self, artifact: Artifact, name: str, read: Callable[[bytes, str], Found]) -> Found:
        """What `read` makes of a payload file; it is read once, and its damage found once.

        Raises:
            StageError: it is damaged.
        """
        key = (artifact.id, name)
        if key not in self.parsed:
            try:
                self.parsed[key] = read(*_content(artifact, name))
            except StageError as error:
                self.parsed[key] = error
        found = self.parsed[key]
        if isinstance(found, StageError):
            raise found
        kept: Found = found
        return kept


def gather(root: Path, *, progress: Monitor) -> Seen:
    """Read what a workspace holds.

    Raises:
        InputMissing: there is no workspace, or nothing in it yet.
        ArtifactDamaged: all that is there is damaged, or workspace.json is.
    """
    Workspace.open(root)
    prepared = look(root, Request(), progress=progress)
    workspace = prepared.workspace
    found: dict[str, Sequence[Artifact]] = {}
    troubles: list[StageError] = []
    for kind in KINDS:
        found[kind], damaged = workspace.scan(kind)
        troubles += [*damaged, *workspace.bare(kind)]
    if not any(found.values()):
        for error in troubles:
            raise error
        raise InputMissing(
            f"{root} holds no artifact yet.",
            why="There is nothing to report.",
            fix=f"Make some: wm run -w {quote(str(root))}",
        )
    troubles += [error for kind in KINDS for one in found[kind] for error in one.misfits()]
    return Seen(
        place=str(root),
        prepared=prepared,
        artifacts=found,
        rounds=rounds_of(workspace),
        states=_states(prepared),
        progress=progress,
        troubles=troubles,
    )


def _states(prepared: Prepared) -> dict[str, tuple[str, str]]:
    tables = [table for table in status(prepared).tables if table.title == "Stages"]
    rows = [dict(zip(one.columns, row, strict=True)) for one in tables for row in one.rows]
    return {str(row["stage"]): (str(row["state"]), str(row["because"] or "")) for row in rows}


def metrics(seen: Seen, artifact: Artifact) -> dict[str, Series]:
    """Every measure of an artifact's metrics over its steps; none where it has no such file."""
    return seen.parse(artifact, METRICS, metrics_in) if METRICS in artifact.names() else {}


def search(seen: Seen, control: Artifact) -> Search:
    """The search behind a controller."""
    in_dream = control.manifest.summary.get("place") == DREAM
    read = partial(search_in, in_dream=in_dream, dreams_alone=dreams_alone(control))
    return seen.parse(control, LOG, read)


def dreams_alone(control: Artifact) -> bool:
    """Whether a search had no world: its mean vectors were scored in the dream, too."""
    return control.manifest.summary.get("engine") == DREAM


def episodes(seen: Seen, evaluation: Artifact) -> list[Episode]:
    """Every episode of an evaluation."""
    return seen.parse(evaluation, EPISODES, episodes_in)


def _content(artifact: Artifact, name: str) -> tuple[bytes, str]:
    """A payload file, and how messages call it."""
    with repairable(artifact.remedy):
        return read_file(artifact.file(name), limit=LOG_LIMIT), f"{artifact.id}/{name}"


def _records(content: bytes, source: str, rules: Mapping[str, Rule]) -> list[dict[str, Any]]:
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ArtifactDamaged(f"{source} is not text.", why=f"{error}.") from error
    return parse_log(lines, source=source, rules=rules)


def metrics_in(content: bytes, source: str) -> dict[str, Series]:
    """Every measure of a log over its steps; what is no number is passed by.

    Raises:
        ArtifactDamaged: it is no log.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for record in _records(content, source, {}):
        step = record.get("step")
        if not isinstance(step, int | float):
            continue
        for name, value in record.items():
            if name != "step" and NUMBER.holds(value):
                points.setdefault(name, []).append((step, value))
    arrays = {name: np.array(rows, dtype=np.float64) for name, rows in points.items()}
    return {name: Series(rows[:, 0], rows[:, 1]) for name, rows in arrays.items()}


def search_in(content: bytes, source: str, *, in_dream: bool, dreams_alone: bool = False) -> Search:
    """What the log of a search tells; of one in the dream only scores cost frames of the world.

    Of one that had no world (`dreams_alone`) what the log calls `selection` was dreamt.

    Raises:
        ArtifactDamaged: it is no such log.
    """
    records = _records(content, source, _SEARCH)
    made = [r for r in records if r.get("fitness") and r.get("sigma") is not None]
    scores = [r for r in records if r.get("selection") and not dreams_alone]
    spent = np.cumsum([float(r["frames"]) * (not in_dream or "selection" in r) for r in records])
    at_scores = [bool(r.get("selection")) and not dreams_alone for r in records]
    dreamt = [r for r in records if r.get("selection") and r.get("dreamt")]
    return Search(
        generations=_array(r["generation"] for r in made),
        mean=_array(np.mean(r["fitness"]) for r in made),
        best=_array(np.max(r["fitness"]) for r in made),
        sigma=_array(r["sigma"] for r in made),
        scored=_array(r["generation"] for r in scores),
        score=_array(np.mean(r["selection"]) for r in scores),
        stderr=_array(_standard_error(r["selection"]) for r in scores),
        frames=spent[at_scores],
        dreamt=_array(np.mean(r["dreamt"]) for r in dreamt),
        dreamt_at=_array(r["generation"] for r in dreamt),
    )


def episodes_in(content: bytes, source: str) -> list[Episode]:
    """The rows of a table of episodes.

    Raises:
        ArtifactDamaged: it is no such table.
    """
    counts = ("seed", "num_steps", "num_frames")
    rows = read_csv(content, source=source, columns=("who", "total_reward"), counts=counts)
    try:
        returns = [float(row["total_reward"]) for row in rows]
    except ValueError as error:
        raise ArtifactDamaged(f"{source} holds a return that is no number.") from error
    if not np.isfinite(returns).all():
        raise ArtifactDamaged(f"{source} holds a return that is not finite.")
    return [
        Episode(row["who"], int(row["seed"]), total, int(row["num_steps"]), int(row["num_frames"]))
        for row, total in zip(rows, returns, strict=True)
    ]


def returns_of(seen: Seen, evaluation: Artifact, who: str) -> list[float]:
    """The returns of the agent or of the random policy, in the order of the table."""
    return [one.total_reward for one in episodes(seen, evaluation) if one.who == who]


def evaluation_of(seen: Seen) -> Artifact | None:
    """The newest evaluation of an agent of the workspace's own; a packed one is a visitor."""
    own = [one for one in seen.artifacts["evaluations"] if not visitor(one)]
    return own[-1] if own else None


def maker(kind: str) -> str:
    """The command that makes this kind of artifact."""
    return stage_writing(kind).name


def number_at(summary: Mapping[str, Any], *names: str) -> float | None:
    """The number at this place of a summary; None where there is none."""
    found: Any = summary
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if NUMBER.holds(found) else None


def _standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _array(values: Any) -> Values:
    return np.array(list(values), dtype=np.float64)
