"""Protocols and records that rooms share.

Axes, everywhere: `B` lanes (always the first axis), `T` time, `H W C` rows, columns and channels
of a frame, `A` size of an action as the memory sees it, `Z` latent size, `E` episodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]  # [B, H, W, C]
Seen = NDArray[Any]  # what lanes see: Frames, or latents float32 [B, Z] in a dream
Actions = NDArray[Any]  # float32 [B, A] for a box, int64 [B] for a choice
Mask = NDArray[np.bool_]  # [B]

Value = TypeVar("Value")
NO_WORLD = "none"  # `world.env` of data that were imported without an environment
IMPORTED = "imported"  # engine of pictures that were not drawn here
WHOLE_FRAME = (0, 0, 0, 0)  # `world.crop` that keeps everything

RULE = "rule"  # key of a field's metadata under which its SettingRule lies


@dataclass(frozen=True)
class SettingRule:
    """What a key of a recipe means and which values it takes; bounds hold for each element."""

    doc: str
    low: float | None = None  # smallest value allowed
    high: float | None = None  # largest value allowed
    above: float | None = None  # values must be greater than this
    choices: tuple[str | int, ...] = ()


def setting(
    default: Value,
    *,
    doc: str,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str | int, ...] = (),
) -> Value:
    """Declare a field of a frozen Config: its default, its documentation and its range."""
    rule = SettingRule(doc, low, high, above, choices)
    return field(default=default, metadata={RULE: rule})


@dataclass(frozen=True)
class WorldSpec:
    """The `[world]` section: which world is stepped and what the agent sees of it."""

    env: str = setting(
        "CarRacing-v3",
        doc="id of the environment, as gymnasium spells it; module:Id for your own; none: imported "
        "data without one",
    )
    engine: str = setting(
        "auto",
        choices=("auto", "gymnasium", "gymnasium-fast", "envpool"),
        doc="what steps the environment; auto is resolved once per workspace",
    )
    repeat: int = setting(1, low=1, doc="engine frames per action: the time step of M and C alike")
    crop: tuple[int, int, int, int] = setting(
        (0, 84, 0, 96),
        low=0,
        doc="part of the frame to keep: rows from, to, columns from, to; all 0: the whole frame",
    )
    size: int = setting(64, low=1, high=1024, doc="frames are resized to size x size pixels")
    max_frames: int = setting(
        0, low=0, doc="time limit in engine frames; 0 keeps the environment's own"
    )


@dataclass(frozen=True)
class ActionSpec:
    """What an action is: a box of `size` floats, or one of `size` choices.

    Of films nobody knows: the kind is "none", and a column of zeros stands for the actions.
    """

    kind: str  # "box" | "choice" | "none"
    size: int  # A: floats of a box, or number of choices (one-hot width)
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def vectors(self, actions: Actions) -> NDArray[np.float32]:
        """Actions as the memory sees them, float32 [..., A]: a box as it is, a choice one-hot."""
        if self.kind == "box":
            return np.asarray(actions, dtype=np.float32)
        if self.kind == "none":
            return np.zeros((*np.shape(actions), self.size), dtype=np.float32)
        return np.eye(self.size, dtype=np.float32)[np.asarray(actions, dtype=np.int64)]

    def empty(self, num_lanes: int) -> Actions:
        """The neutral action for every lane: zeros of the right shape and type."""
        if self.kind == "box":
            return np.zeros((num_lanes, self.size), dtype=np.float32)
        return np.zeros(num_lanes, dtype=np.int64)


@dataclass(frozen=True)
class Step:
    """What one step of every lane returned.

    A lane that had finished before repeats its last observation with zero reward, zero frames and
    its final flags.
    """

    observation: Seen  # [B, ...]
    reward: NDArray[np.float64]  # [B], summed over repeated frames
    terminated: Mask  # [B]
    truncated: Mask  # [B]
    num_frames: NDArray[np.int64]  # [B] engine frames spent in this step
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # each [B]


class World(Protocol):
    """B lanes that are stepped together; one episode per lane and reset, no auto-reset."""

    action_spec: ActionSpec
    live: Mask  # [B], lanes whose episode goes on; set by reset, step and retire
    fact_names: tuple[str, ...]  # e.g. ("off_road", "num_tiles", "lap_finished")

    def reset(self, seeds: Sequence[int]) -> Seen:
        """Start one episode per seed; B is the number of seeds. Seed k always gives episode k."""
        ...

    def step(self, actions: Actions) -> Step:
        """Advance every live lane by one action; finished lanes cost nothing."""
        ...

    def retire(self, lanes: Mask) -> None:
        """Stop stepping these lanes although their episode has not ended."""
        ...

    def close(self) -> None:
        """Free the engine."""
        ...


class FrameWorld(World, Protocol):
    """A World that is seen in frames."""

    observation_shape: tuple[int, int, int]  # H, W, C


class Policy(Protocol):
    """Chooses B actions for B lanes and keeps the state of every lane."""

    def reset(self, seeds: Sequence[int]) -> None:
        """Start B = len(seeds) episodes; randomness may depend on a lane's own seed only."""
        ...

    def act(self, observation: Seen, live: Mask) -> Actions:
        """Actions for all lanes; rows of lanes that are not live are ignored."""
        ...


@dataclass(frozen=True)
class EpisodeOutcome:
    """One episode as the driver saw it."""

    seed: int
    total_reward: float
    num_steps: int  # actions taken
    num_frames: int  # engine frames
    terminated: bool
    truncated: bool
    stopped: bool  # retired by a stop rule before its end
    facts: Mapping[str, float] = field(default_factory=dict)  # last value of every fact


@dataclass(frozen=True)
class Resources:
    """What a run may use. Changes how long it takes, never what comes out."""

    workers: int | None = None  # None: as many as cores this process may run on
    device: str = "auto"  # auto | cpu | cuda | mps
    threads: int = 0  # math threads of training; 0: as many as cores
    checkpoint_seconds: float = 60.0  # of training: time between checkpoints; 0: every step
    stall_seconds: float = 300.0  # a worker without a sign of life for so long is replaced


@dataclass(frozen=True)
class Job:
    """What a stage is told besides its own section of the settings."""

    family: str
    recipe: str
    preset: str
    seed: int
    world: WorldSpec  # engine already resolved
    parents: tuple[str, ...] = ()  # ids given by --from; empty: the newest complete ones
    agent: str | None = None  # folder of a packed agent that stands in for a controller
    force: bool = False
    resources: Resources = field(default_factory=Resources)
