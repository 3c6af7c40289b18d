"""Recorded episodes in which nothing happens: rewards, pictures or actions that never change."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.contracts import Frames
from stages.events import OnceEach

# Steps before which equal rewards say nothing. Breakout pays a random player once in 143 steps
# (8,865 were recorded, with gaps of up to 512): a start of 2,000 without is one case in a million.
REWARD_STEPS = 2000
STILL_STEPS = 100  # the same for pictures and actions, which in a sound world change at once
BLOCK = 16  # frames that are read at once


class Shown(Protocol):
    """What is looked at of a shard (artifacts.episodes.EpisodeShard)."""

    @property
    def observation_offsets(self) -> NDArray[np.int64]:
        """First row of each episode among the frames, and one past the last."""
        ...

    def frames(self, start: int, stop: int) -> Frames:
        """Rows start to stop of the frames."""
        ...

    def column(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows of a per-step column."""
        ...


@dataclass(frozen=True)
class Glance:
    """What a short look at some recorded episodes tells."""

    num_episodes: int
    num_steps: int
    reward: float | None  # the one that every step earned; None: there are several
    ended: bool  # whether an episode ended by itself: then its length may be what counts
    action: tuple[float, ...] | None  # the one that was always taken
    still: bool  # no picture ever changed inside an episode

    def __add__(self, other: "Glance") -> "Glance":
        """The same of both together."""
        return Glance(
            self.num_episodes + other.num_episodes,
            self.num_steps + other.num_steps,
            self.reward if self.reward == other.reward else None,
            self.ended or other.ended,
            self.action if self.action == other.action else None,
            self.still and other.still,
        )

    @property
    def monotonous(self) -> bool:
        """Whether anything never changed."""
        return self.reward is not None or self.action is not None or self.still


def glance(shard: Shown) -> Glance:
    """Look at a shard; of the frames only as many are read as it takes to see one change."""
    rewards, actions = shard.column("rewards"), shard.column("actions")
    offsets = shard.observation_offsets
    episodes = list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
    return Glance(
        num_episodes=len(episodes),
        num_steps=len(rewards),
        reward=float(rewards[0]) if (rewards == rewards[0]).all() else None,
        ended=bool(shard.column("terminations").any()),
        action=tuple(np.atleast_1d(actions[0]).tolist()) if _same(actions) else None,
        still=all(_same(rows) for start, stop in episodes for rows in _pairs(shard, start, stop)),
    )


def _pairs(shard: Shown, start: int, stop: int) -> Iterator[Frames]:
    """The first frame of an episode beside others of it, the last one first."""
    first = shard.frames(start, start + 1)
    yield np.concatenate([first, shard.frames(stop - 1, stop)])
    for begin in range(start, stop, BLOCK):
        yield np.concatenate([first, shard.frames(begin, min(begin + BLOCK, stop))])


def _same(rows: NDArray[Any]) -> bool:
    return bool((rows == rows[0]).all())


class Monotony:
    """Looks at all that is recorded in a stage, and warns of what never changes."""

    def __init__(self, warnings: OnceEach) -> None:
        self._warnings = warnings
        self._seen: Glance | None = None

    def see_first(self, shards: Iterable[Shown]) -> None:
        """Look at what was recorded before, as far as it takes to see everything change."""
        for shard in shards:
            if self._seen is not None and not self._seen.monotonous:
                return
            self.see(glance(shard))

    def see(self, found: Glance) -> None:
        """Add what a finished shard shows."""
        seen = self._seen = found if self._seen is None else self._seen + found
        survival = seen.reward != 0 and seen.ended
        if seen.reward is not None and not survival and seen.num_steps >= REWARD_STEPS:
            self._warnings.say(
                "reward",
                f"All {seen.num_steps:,} steps recorded so far earned the same reward, "
                f"{seen.reward:g}: nothing can be learnt from that. Let somebody drive who earns "
                "something (rollout.policy), for longer (rollout.max_steps), or look at the "
                "environment.",
            )
        if seen.still and seen.num_steps >= STILL_STEPS:
            self._warnings.say(
                "picture",
                f"In all {seen.num_episodes} episodes recorded so far the picture never changes: V "
                "could learn one picture only. Look at world.crop, and at what the environment "
                "draws.",
            )
        if seen.action is not None and seen.num_steps >= STILL_STEPS:
            self._warnings.say(
                "action",
                f"All {seen.num_steps:,} actions recorded so far are the same, "
                f"{list(seen.action)}: M could not learn what an action does. Use another "
                "rollout.policy.",
            )
