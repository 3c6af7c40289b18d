"""What is played: scenes that are stepped one action at a time, and the moments that they show."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.contracts import ActionSpec, Step

KEYBOARD, AGENT, RANDOM = DRIVERS = ("keyboard", "agent", "random")
TERMINATED, TRUNCATED = "ended", "cut"  # how an episode ends: by itself, or by a limit


@dataclass(frozen=True)
class Picture:
    """One of the pictures that stand side by side."""

    title: str
    pixels: NDArray[np.uint8]  # [H, W, 3]


@dataclass(frozen=True)
class Moment:
    """What there is to see after an action, or at the start of an episode."""

    pictures: tuple[Picture, ...]
    frame: NDArray[np.uint8]  # [H, W, 3] as recordings hold it
    seed: int
    num_steps: int = 0
    action: NDArray[Any] | None = None  # float32 [A] of a box, int64 [] of a choice; None: none yet
    reward: float | None = 0.0  # None: M does not foresee any
    total: float | None = 0.0  # return so far
    end_probability: float | None = None  # as M says; None: nobody does
    temperature: float | None = None  # of a dream
    ended: str = ""  # TERMINATED or TRUNCATED
    outcome: Step | None = None  # of one lane, its observation the frame; None at the start


class Scene(Protocol):
    """Something that is played in episodes, one lane of it."""

    name: str  # "world", "dream", or the id of what was recorded
    told: str  # of this episode, beside its numbers; may be empty
    drivers: tuple[str, ...]  # who can drive, of DRIVERS
    num_episodes: int  # that there are; 0: as many as one likes

    @property
    def action_spec(self) -> ActionSpec | None:
        """What an action is; None: there is nothing to steer."""
        ...

    def begin(self, number: int) -> Moment:
        """The start of the episode with this number, from 0."""
        ...

    def choice(self, driver: str) -> NDArray[Any]:
        """What the agent, or chance, would do now: an action."""
        ...

    def step(self, action: NDArray[Any]) -> Moment:
        """One action; a recording goes on as it was recorded."""
        ...

    def back(self) -> Moment:
        """One step back, where that is possible; else the same moment."""
        ...

    def warm(self, change: float) -> Moment:
        """The same moment at a temperature that differs by so much, where there is one."""
        ...

    def close(self) -> None:
        """Free the engine."""
        ...


Seeds = Callable[[int], int]  # number of an episode -> its seed


def how_ended(step: Step) -> str:
    """How the only lane of a step ended, in a word; empty while it goes on."""
    if step.terminated[0]:
        return TERMINATED
    return TRUNCATED if step.truncated[0] else ""
