"""Many short drives of many controllers, spread over workers; finished tasks survive a kill."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.agents import AgentFiles, Parameters
from stages.contracts import WorldSpec
from stages.control.search import digest_of
from stages.control.search_log import Row, SearchLog
from stages.events import Doing, Monitor
from stages.execution.inline import InlineExecutor
from stages.execution.local import LocalExecutor
from stages.execution.protocol import Executor, Task
from stages.training.seeding import named_seeds
from stages.trials import DreamFiles, Trial, run_trial

FEW = 8  # lanes that one task drives at least


class Lane(NamedTuple):
    """One controller in one episode."""

    weights: NDArray[np.floating]  # all of them, [P]
    seed: int
    driver: str  # for messages: "candidate 3"


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
    deadline: float  # seconds without a sign of life after which a worker is replaced
    dream: DreamFiles | None = None  # where candidates race, if not in the world
    dream_lanes: int = FEW  # episodes per task there
    oracle: bool = False  # they race in the world as a dream shows it

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
        names = [f"candidate {number} of {name}" for number in range(1, len(candidates) + 1)]
        first = [own[:each] for own in tracks]
        fitness, frames = self._heat(name, candidates, first, terms, names)
        if not finalists:
            return fitness, frames
        best = np.argsort(-fitness, kind="stable")[:finalists]
        second = [tracks[index][each:] for index in best]
        finals = [names[index] for index in best]
        again, more = self._heat(f"{name}, final", candidates[best], second, terms, finals)
        return with_final(fitness, best, again), frames + more

    def _heat(
        self,
        name: str,
        candidates: Parameters,
        tracks: Sequence[Sequence[int]],
        terms: Terms,
        names: Sequence[str],
    ) -> tuple[NDArray[np.float64], int]:
        owned = zip(candidates, tracks, names, strict=True)
        lanes = [Lane(weights, seed, driver) for weights, own, driver in owned for seed in own]
        rows = self.drive(name, lanes, terms, dream=self.dream, oracle=self.oracle)
        returns = np.array([row[0] for row in rows]).reshape(len(candidates), -1)
        return returns.mean(axis=1), sum(row[1] for row in rows)

    def drive(
        self,
        name: str,
        lanes: Sequence[Lane],
        terms: Terms,
        *,
        dream: DreamFiles | None = None,
        oracle: bool = False,
    ) -> list[Row]:
        """Return and frames per lane, in order; `name` is the piece of work in the log.

        In the world itself, unless told otherwise.
        """
        most = self.dream_lanes if dream else self.task_lanes
        elsewhere = dream is not None and dream.device != "cpu"
        few = min(most, max(FEW, -(-len(lanes) // 2)))  # for two cores
        each = max(1, len(lanes)) if elsewhere else few
        chunks = list(_chunks(lanes, each))
        piece = f"{name} {digest_of(_weights(lanes))}"
        rows = self.log.pending(piece)  # of these very candidates
        rows = {k: r for k, r in rows.items() if k < len(chunks) and len(r) == len(chunks[k])}
        tasks = [
            Task(
                key, run_lanes, self._trial(chunk, terms, dream, oracle=oracle), _named(name, chunk)
            )
            for key, chunk in enumerate(chunks)
            if key not in rows
        ]
        # Workers would each open the device; this process is the only one that needs it.
        executor: Executor = InlineExecutor() if elsewhere else self.executor
        self.progress.emit(Doing(f"driving {name}", len(rows), len(chunks)))
        for finished in executor.run(tasks, monitor=self.progress, deadline=self.deadline):
            key = int(finished.key)
            rows[key] = finished.value
            self.log.add_pending(piece, key, finished.value)
            self.progress.emit(Doing(f"driving {name}", len(rows), len(chunks)))
        return [row for key in range(len(chunks)) for row in rows[key]]

    def _trial(
        self, lanes: Sequence[Lane], terms: Terms, dream: DreamFiles | None, *, oracle: bool
    ) -> Trial:
        return Trial(
            world=self.world,
            engine=self.world.engine,
            agent=self.agent,
            parameters=_weights(lanes),
            seeds=tuple(lane.seed for lane in lanes),
            drivers=tuple(lane.driver for lane in lanes),
            patience=terms.patience,
            max_steps=terms.max_steps,
            random_start=terms.random_start,
            dream=dream,
            oracle=oracle,
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
    """Return and frames of every lane; runs in a worker."""
    return [(outcome.total_reward, outcome.num_frames) for outcome in run_trial(trial)]


def _named(name: str, lanes: Sequence[Lane]) -> str:
    """A task for messages: the piece of work and its seeds."""
    return f"{name}, {named_seeds(lane.seed for lane in lanes)}"


def _weights(lanes: Sequence[Lane]) -> Parameters:
    return np.stack([lane.weights for lane in lanes])


def _chunks(lanes: Sequence[Lane], size: int) -> Iterator[list[Lane]]:
    rest = iter(lanes)
    while chunk := list(islice(rest, size)):
        yield chunk
