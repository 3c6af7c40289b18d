"""Recorded episodes, forward and back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.episodes import EpisodeSet
from stages.contracts import ActionSpec
from stages.playing.scene import TERMINATED, TRUNCATED, Moment, Picture
from stages.vision.vae import VAE, decode_latents, encode_frames


class RecordedScene:
    """What an artifact holds, step by step; with V, what it makes of the frames."""

    told = ""
    drivers: tuple[str, ...] = ()
    action_spec: ActionSpec | None = None

    def __init__(self, name: str, episodes: EpisodeSet, *, vision: VAE | None) -> None:
        self.name = name
        self.num_episodes = episodes.num_episodes
        self._episodes, self._vision = episodes, vision

    def begin(self, number: int) -> Moment:
        """The first frame of an episode; numbers beyond the last begin again at the first."""
        number %= self.num_episodes
        self._record = self._episodes.episode(number)
        shard, _ = self._episodes.locate(number)
        self.told = f"{shard.policy} on {shard.engine}"
        self._totals = np.concatenate(([0.0], np.cumsum(self._record.rewards)))
        temperatures = self._record.facts.get("temperature")
        self._temperatures = None if temperatures is None else temperatures
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
        if self._vision is not None:
            mu, _ = encode_frames(self._vision, frame[None])
            pictures.append(Picture("V's reconstruction", decode_latents(self._vision, mu)[0]))
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
            temperature=None if warmth is None else float(warmth[last]),
            ended=ended or (TRUNCATED if record.truncations[last] else ""),
        )
