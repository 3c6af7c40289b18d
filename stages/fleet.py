"""Many short drives of many controllers, spread over workers; finished tasks survive a kill."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from stages.agents import AgentFiles, Parameters, Trial, run_trial
from stages.contracts import WorldSpec
from stages.control.search import digest_of
from stages.control.search_log import Row, SearchLog
from stages.events import Monitor
from stages.execution.local import LocalExecutor
from stages.execution.protocol import TASK_DEADLINE, Task

FEW = 8  # lanes that one task drives at least
Lane = tuple[NDArray[np.float32], int]  # all weights of a controller [P], and an episode's seed


@dataclass(frozen=True)
class Terms:
    """On what terms an episode is driven."""

    max_steps: int  # actions at most; 0: to its end
    patience: int = 0  # give it up after so many actions without reward; 0: never
    random_start: bool = False  # begin anywhere on the track


@dataclass(frozen=True)
class Fleet:
    """Who drives: one V and M for all, in one world, `task_lanes` episodes per task."""

    world: WorldSpec
    agent: AgentFiles
    task_lanes: int
    executor: LocalExecutor
    log: SearchLog
    progress: Monitor

    def race(
        self,
        name: str,
        candidates: Parameters,
        tracks: Sequence[Sequence[int]],
        terms: Terms,
        *,
        finalists: int = 0,
    ) -> tuple[NDArray[np.float64], int]:
        """Fitness [n] of candidates [n, P] on tracks [n][e], and the engine frames of all.

        With finalists the first half of the tracks is for all, the second for the best so many.
        Their fitness is the mean of both halves; what they did in the second is first moved by the
        same amount for all of them, to the level of what they did in the first: other tracks may be
        harder. (Racing: Heidrich-Meisner & Igel 2009.)
        """
        each = len(tracks[0]) // 2 if finalists else len(tracks[0])
        fitness, frames = self._heat(name, candidates, [own[:each] for own in tracks], terms)
        if not finalists:
            return fitness, frames
        best = np.argsort(-fitness, kind="stable")[:finalists]
        second = [tracks[index][each:] for index in best]
        again, more = self._heat(f"{name}, final", candidates[best], second, terms)
        return with_final(fitness, best, again), frames + more

    def _heat(
        self,
        name: str,
        candidates: Parameters,
        tracks: Sequence[Sequence[int]],
        terms: Terms,
    ) -> tuple[NDArray[np.float64], int]:
        owned = zip(candidates, tracks, strict=True)
        rows = self.drive(name, [(weights, seed) for weights, own in owned for seed in own], terms)
        returns = np.array([row[0] for row in rows]).reshape(len(candidates), -1)
        return returns.mean(axis=1), sum(row[1] for row in rows)

    def drive(self, name: str, lanes: Sequence[Lane], terms: Terms) -> list[Row]:
        """Return and engine frames per lane, in order; `name` is the piece of work in the log."""
        each = min(self.task_lanes, max(FEW, -(-len(lanes) // 2)))  # two cores at least
        chunks = list(_chunks(lanes, each))
        name = f"{name} {digest_of(_weights(lanes))}"
        rows = self.log.pending(name)  # of these very candidates
        tasks = [
            Task(key, run_lanes, self._trial(chunk, terms))
            for key, chunk in enumerate(chunks)
            if key not in rows
        ]
        for finished in self.executor.run(tasks, monitor=self.progress, deadline=TASK_DEADLINE):
            key = int(finished.key)
            rows[key] = finished.value
            self.log.add_pending(name, key, finished.value)
        return [row for key in range(len(chunks)) for row in rows[key]]

    def _trial(self, lanes: Sequence[Lane], terms: Terms) -> Trial:
        return Trial(
            world=self.world,
            engine=self.world.engine,
            agent=self.agent,
            parameters=_weights(lanes),
            seeds=tuple(seed for _, seed in lanes),
            patience=terms.patience,
            max_steps=terms.max_steps,
            random_start=terms.random_start,
        )


def with_final(
    fitness: NDArray[np.float64], best: NDArray[np.intp], again: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fitness [n] of a heat, in which the `best` [k] count their final [k] as much."""
    first = fitness[best]
    both = np.isfinite(first) & np.isfinite(again)
    level = (first[both] - again[both]).mean() if both.any() else 0.0
    mixed = fitness.copy()
    mixed[best] = (first + again + level) / 2
    return mixed


def run_lanes(trial: Trial) -> list[Row]:
    """Return and engine frames of every lane; runs in a worker."""
    return [(outcome.total_reward, outcome.num_frames) for outcome in run_trial(trial)]


def _weights(lanes: Sequence[Lane]) -> Parameters:
    return np.stack([weights for weights, _ in lanes])


def _chunks(lanes: Sequence[Lane], size: int) -> Iterator[list[Lane]]:
    rest = iter(lanes)
    while chunk := list(islice(rest, size)):
        yield chunk
