"""Recorded episodes, forward and back."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.artifacts.episodes import EpisodeSet
from stages.contracts import ActionSpec
from stages.playing.scene import TERMINATED, TRUNCATED, Moment, Picture
from stages.playing.world_scene import EXPECTED, LANE, RECONSTRUCTION, Foreseen, foresee
from stages.vision.vae import decode_latents, encode_frames
from stages.worlds.following import Follower


class RecordedScene:
    """What an artifact holds, step by step; with V, what it makes of the frames."""

    told = ""
    drivers: tuple[str, ...] = ()
    action_spec: ActionSpec | None = None

    def __init__(
        self,
        name: str,
        episodes: EpisodeSet,
        actions: ActionSpec,
        *,
        follower: Follower | None,
        end_weight: float = 1.0,
    ) -> None:
        """`actions` are those that were recorded; `follower` is V, and perhaps M, looking on."""
        self.name, self._end_weight = name, end_weight
        self.num_episodes = episodes.num_episodes
        self._episodes, self._actions, self._follower = episodes, actions, follower

    def begin(self, number: int) -> Moment:
        """The first frame of an episode; numbers beyond the last begin again at the first."""
        number %= self.num_episodes
        self._record = self._episodes.episode(number)
        shard, _ = self._episodes.locate(number)
        self.told = f"{shard.policy} on {shard.engine}"
        self._totals = np.concatenate(([0.0], np.cumsum(self._record.rewards)))
        temperatures = self._record.facts.get("temperature")
        self._temperatures = None if temperatures is None else temperatures
        self._foreseen: list[Foreseen | None] = [None]  # by step, as far as somebody has looked
        if self._follower is not None:
            self._follower.reset([self._record.seed])
        return self._at(0)

    def choice(self, driver: str) -> NDArray[Any]:
        """Nobody chooses: it has happened."""
        raise AssertionError(f"{driver} cannot change what was recorded")

    def step(self, action: NDArray[Any]) -> Moment:  # noqa: ARG002  it was recorded
        """The next frame."""
        return self._at(min(self._place + 1, self._record.num_steps))

    def back(self) -> Moment:
        """The frame before."""
        return self._at(max(self._place - 1, 0))

    def warm(self, change: float) -> Moment:  # noqa: ARG002  a Scene's method
        """The same moment."""
        return self._at(self._place)

    def close(self) -> None:
        """Close the files."""
        for shard in self._episodes.shards:
            shard.close()

    def _at(self, place: int) -> Moment:
        """The moment after so many steps."""
        self._place = place
        record, frame = self._record, self._record.observations[place]
        pictures = [Picture("recorded frame", frame)]
        foreseen = self._look(place)
        if self._follower is not None:
            pictures += seen_by(self._follower, frame, foreseen)
        if place == 0:
            return Moment(tuple(pictures), frame, record.seed)
        last = place - 1
        ended = TERMINATED if record.terminations[last] else ""
        warmth = self._temperatures
        return Moment(
            pictures=tuple(pictures),
            frame=frame,
            seed=record.seed,
            num_steps=place,
            action=record.actions[last],
            reward=float(record.rewards[last]),
            total=float(self._totals[place]),
            end_probability=foreseen.end_probability if foreseen else None,
            temperature=None if warmth is None else float(warmth[last]),
            ended=ended or (TRUNCATED if record.truncations[last] else ""),
        )

    def _look(self, place: int) -> Foreseen | None:
        """What M had said of this moment: it follows the episode from its start, once."""
        follower, record = self._follower, self._record
        if follower is None or follower.memory is None:
            return None
        while len(self._foreseen) <= place:
            before = len(self._foreseen) - 1
            follower.see(record.observations[before][None], LANE)
            follower.did(self._actions.vectors(record.actions[before][None]), LANE)
            self._foreseen.append(foresee(follower, self._end_weight))
        return self._foreseen[place]


def seen_by(
    follower: Follower, frame: NDArray[np.uint8], foreseen: Foreseen | None
) -> list[Picture]:
    """V's picture of a frame, and beside it, where there is an M, the one that M expected."""
    mu, _ = encode_frames(follower.vision, frame[None])
    drawn = decode_latents(
        follower.vision, torch.cat([mu, *([foreseen.latent] if foreseen else [])])
    )
    shown = [Picture(RECONSTRUCTION, drawn[0])]
    if follower.memory is not None:
        shown.append(Picture(EXPECTED, drawn[1] if foreseen else np.zeros_like(drawn[0])))
    return shown
