"""What a search does in which generation: how long, on how many tracks, with which seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.training.seeding import episode_seeds


@dataclass(frozen=True)
class Schedule:
    """Settings that may change over a search; several values share its generations equally."""

    generations: int
    population: int
    episodes: tuple[int, ...]  # per candidate
    max_steps: tuple[int, ...]  # actions per episode at most; 0: to its end
    common_tracks: bool  # all candidates of a generation drive the same seeds
    heats: int = 1  # of a generation: a second one is for its best candidates alone

    def episodes_in(self, generation: int) -> int:
        """Tracks per candidate in this generation, counted from 0; those of all heats."""
        return self._part(self.episodes, generation) * self.heats

    def longest_in(self, generation: int) -> int:
        """Actions per episode at most; short episodes first reward speed."""
        return self._part(self.max_steps, generation)

    def tracks(self, root_seed: int, generation: int, driven: int = 0) -> list[list[int]]:
        """Seeds [population, episodes]: common to a generation, or each candidate's own.

        `driven` seeds were used by the searches that this one started from.
        """
        each = self.episodes_in(generation)
        own = 1 if self.common_tracks else self.population
        before = driven + sum(self.episodes_in(earlier) for earlier in range(generation)) * own
        seeds = episode_seeds("search", root_seed, before, each * own)
        if self.common_tracks:
            return [seeds] * self.population
        return [seeds[start : start + each] for start in range(0, len(seeds), each)]

    def efforts(self) -> list[float]:
        """How long each generation takes in comparison: its episodes times their longest length.

        An episode that may go to its end counts like the longest that may not.
        """
        unbounded = max(self.max_steps) or 1
        return [
            float(self.episodes_in(number) * (self.longest_in(number) or unbounded))
            for number in range(self.generations)
        ]

    def num_seeds(self) -> int:
        """How many seeds the whole search uses."""
        own = 1 if self.common_tracks else self.population
        return own * sum(self.episodes_in(number) for number in range(self.generations))

    def _part(self, values: Sequence[int], generation: int) -> int:
        return values[generation * len(values) // self.generations]
