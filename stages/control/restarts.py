"""Several searches begin, and the most promising goes on.

The first generations of a search decide a lot by luck: after eight generations of the same search
two seeds stood at 462 and 104 (docs/experiments.md). They are also the cheapest, since episodes are
short then. So some searches begin with other draws on the same tracks; after `trial` generations
the mean vector of each is scored on held-out seeds, and the best search goes on alone.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.control.search import Search, SearchShape


class Restarts:
    """One search out of several, with the interface of one: ask, tell, replay, mean, sigma."""

    def __init__(
        self,
        shapes: Sequence[SearchShape],
        *,
        trial: int,
        start: NDArray[np.floating] | None = None,
    ) -> None:
        """`shapes` differ in their seeds; a single one is just a search. `start` is their mean."""
        assert shapes and trial > 0, f"{len(shapes)} searches, {trial} generations of trial"
        self.shapes = tuple(shapes)
        self.trial = trial
        self.generation = 0  # told so far, those of given-up searches included
        self.scores: list[float] = []  # of the mean vectors after the trial, by search
        self._start = start
        self._begun = [Search(self.shapes[0], start)]

    @property
    def active(self) -> Search:
        """The search that is asked and told now."""
        return self._begun[-1]

    @property
    def num_parameters(self) -> int:
        """Dimensions of the space that is searched."""
        return self.active.shape.num_parameters

    @property
    def within(self) -> int:
        """Generations of the active search."""
        return self.active.generation

    @property
    def awaits_score(self) -> bool:
        """Whether the active search's mean vector must be scored before anything else."""
        on_trial = len(self.scores) < len(self.shapes) > 1
        return on_trial and self.within >= self.trial

    def resume(self) -> None:
        """Nothing: the log tells all that is needed to go on."""

    def hold(self) -> None:
        """Nothing: any mean comes again when the log is replayed."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of the active search [P]."""
        return self.active.mean

    @property
    def sigma(self) -> float:
        """Step size of the active search."""
        return self.active.sigma

    def total(self, generations: int) -> int:
        """Generations in all when the one that goes on has so many."""
        return generations + (len(self.shapes) - 1) * self.trial

    def share(self, efforts: Sequence[float]) -> float:
        """Of all work, what is done; `efforts` are those of a search's generations."""
        trial, others = sum(efforts[: self.trial]), len(self.shapes) - 1
        done = min(len(self.scores), others) * trial + sum(efforts[: self.within])
        return done / (others * trial + sum(efforts))

    def ask(self) -> NDArray[np.float64]:
        """The next population [population, P]."""
        assert not self.awaits_score, "the trial of a search ends with its score"
        return self.active.ask()

    def tell(self, fitness: NDArray[np.float64]) -> None:
        """Higher is better; [population]."""
        self.active.tell(fitness)
        self.generation += 1

    def replay(self, fitness: Sequence[float], digest: str) -> None:
        """Go through a logged generation again."""
        self.active.replay(fitness, digest)
        self.generation += 1

    def judge(self, score: float) -> None:
        """The score of the mean vector: at the end of a trial it moves on to the next search."""
        if not self.awaits_score:
            return
        self.scores.append(score)
        if len(self.scores) < len(self.shapes):
            self._begun.append(Search(self.shapes[len(self.scores)], self._start))
            return
        self._begun = [self._begun[int(np.argmax(self.scores))]]
