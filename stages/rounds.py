"""Rounds: the pipeline again on what its own controller drove, everything trained on.

Round 1 is the pipeline as the settings have it. In a later round the controller of the round
before records on tracks that no round had, V learns on from all recordings so far and M from their
latents, and C goes on in what they see (Ha & Schmidhuber 2018, section 5). Old recordings stay in
the mix: frames off the track would vanish otherwise. Nothing says which round an artifact belongs
to but its parents.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stages import Stage
from stages.artifacts.workspace import Workspace
from stages.contracts import setting
from stages.errors import UsageError
from stages.events import Scalar, Table

if TYPE_CHECKING:
    from stages import rollout, train_memory, train_vision
    from stages.control import config as search

SECTION = "rounds"
GATHERED = "rollouts"  # the kind of which a round reads those of all rounds before, too
Made = Sequence[Mapping[str, str]]  # of every round so far: kind -> id of what it made


@dataclass(frozen=True)
class Config:
    """The `[rounds]` section: how many, and how the later ones differ from the first."""

    num_rounds: int = setting(
        0, doc="rounds that `wm run` makes; 0: one, and those that were begun", low=0
    )
    episodes: int = setting(
        0, doc="episodes that a later round records, driven by C; 0: as in round 1", low=0
    )
    epsilon: float = setting(
        0.0,
        doc="share of C's actions in them that are random instead (rollout.epsilon)",
        low=0,
        high=1,
    )
    vision_steps: int = setting(0, doc="training steps of V in it; 0: as in round 1", low=0)
    vision_rate: float = setting(0.0, doc="learning rate of V in it; 0: as in round 1", low=0)
    memory_steps: int = setting(0, doc="training steps of M in it; 0: as in round 1", low=0)
    memory_rate: float = setting(0.0, doc="learning rate of M in it; 0: as in round 1", low=0)
    generations: int = setting(
        0, doc="generations of the search that goes on in it; 0: as in round 1", low=0
    )
    sigma: float = setting(
        0.0,
        doc="standard deviation at which it goes on; 0: control.sigma_end, or control.sigma "
        "where that is 0",
        low=0,
    )


def check(sections: Mapping[str, Any]) -> None:
    """Refuse settings with which no later round could go on, before anything is made.

    Raises:
        UsageError: the search moves in a space that the next round would not have.
    """
    components = sections["control"].components
    if components:
        raise UsageError(
            f"With control.components={components} there is no second round.",
            why="A later round starts from the controller before it, whose weights need not lie in "
            "the space of its own principal components.",
            fix="Use --set control.components=0, or leave out --rounds.",
        )


def inputs_in(stage: Stage, made: Made) -> tuple[str, ...]:
    """The ids that a stage is given in the round whose earlier stages made `made[-1]`.

    They are what --from would name: recordings of all rounds, otherwise those of this round, and of
    the stage's own kind the one of the round before.
    """
    of_rounds = {kind: made if kind == GATHERED else made[-1:] for kind in stage.reads}
    if stage.warm:
        of_rounds[stage.writes] = made[-2:-1]
    return tuple(one[kind] for kind, rounds in of_rounds.items() for one in rounds if kind in one)


def config_in(stage: Stage, sections: Mapping[str, Any], made: Made) -> Any:
    """The settings of a stage in the round whose earlier stages made `made[-1]`."""
    config = sections[stage.section]
    change = _CHANGES.get(stage.section)
    if len(made) < 2 or change is None:
        return config
    return change(config, sections[SECTION], made)


def _recording(config: "rollout.Config", rounds: Config, made: Made) -> "rollout.Config":
    """The newest controller drives, where no round has recorded; engines keep their shares."""
    episodes = rounds.episodes or config.episodes
    foreign = min(config.gymnasium_episodes, config.episodes)
    return replace(
        config,
        policy=made[-2]["control"],
        episodes=episodes,
        epsilon=rounds.epsilon,
        gymnasium_episodes=foreign * episodes // config.episodes,
        first_episode=config.first_episode + config.episodes + (len(made) - 2) * episodes,
    )


def _seeing(config: "train_vision.Config", rounds: Config, _: Made) -> "train_vision.Config":
    rate = rounds.vision_rate or config.learning_rate
    return replace(config, steps=rounds.vision_steps or config.steps, learning_rate=rate)


def _foreseeing(config: "train_memory.Config", rounds: Config, _: Made) -> "train_memory.Config":
    rate = rounds.memory_rate or config.learning_rate
    return replace(config, steps=rounds.memory_steps or config.steps, learning_rate=rate)


def _searching(config: "search.Config", rounds: Config, _: Made) -> "search.Config":
    """The search goes on as the first one ended: what begins easy or wide does so once."""
    return replace(
        config,
        generations=rounds.generations or config.generations,
        episodes=config.episodes[-1:],
        max_steps=config.max_steps[-1:],
        sigma=rounds.sigma or config.sigma_end or config.sigma,
        starts=1,
    )


_CHANGES: Mapping[str, Callable[[Any, Config, Made], Any]] = {
    "rollout": _recording,
    "vision": _seeing,
    "memory": _foreseeing,
    "control": _searching,
}
_COLUMNS: Mapping[str, tuple[str, tuple[str, ...]]] = {  # -> kind, where in its summary
    "frames": ("latents", ("frames",)),  # that V and M learnt from
    "V_error": ("vision", ("reconstruction",)),
    "M_nll": ("memory", ("nll",)),
    "selected": ("control", ("selected_score",)),
    "dreamt": ("control", ("selected_dreamt",)),
    "score": ("evaluations", ("scores", "agent", "mean")),
    "stderr": ("evaluations", ("scores", "agent", "stderr")),
}
CHOICE = (
    "All rounds were scored on the same held-out tracks: to choose one by these scores would be to "
    "train on them. The selected score is for that; its tracks are others."
)


def rounds_table(workspace: Workspace, made: Made) -> Table:
    """What every round recorded, learnt and reached; empty where it has not come so far."""
    rows: list[dict[str, Scalar]] = []
    for number, artifacts in enumerate(made, 1):
        told = {kind: workspace.get(name).manifest.summary for kind, name in artifacts.items()}
        cells = {name: _number(told.get(kind), path) for name, (kind, path) in _COLUMNS.items()}
        rows.append({"round": number, **cells})
    columns = [name for name in ("round", *_COLUMNS) if any(row[name] is not None for row in rows)]
    return Table("Rounds", tuple(columns), [tuple(row[name] for name in columns) for row in rows])


def _number(summary: Any, path: Sequence[str]) -> Scalar:
    """The number at this place of a summary; None where there is none."""
    for name in path:
        summary = summary.get(name) if isinstance(summary, Mapping) else None
    return summary if type(summary) in (int, float) else None
