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

Lane = tuple[NDArray[np.float32], int]  # all weights of a controller [P], and an episode's seed


@dataclass(frozen=True)
class Fleet:
    """Who drives: one V and M for all, in one world, `task_lanes` episodes per task."""

    world: WorldSpec
    agent: AgentFiles
    task_lanes: int
    executor: LocalExecutor
    log: SearchLog
    progress: Monitor

    def drive(
        self, name: str, lanes: Sequence[Lane], *, patience: int, max_steps: int
    ) -> list[Row]:
        """Return and engine frames per lane, in order; `name` is the piece of work in the log."""
        chunks = list(_chunks(lanes, self.task_lanes))
        name = f"{name} {digest_of(_weights(lanes))}"
        rows = self.log.pending(name)  # of these very candidates
        tasks = [
            Task(key, run_lanes, self._trial(chunk, patience, max_steps))
            for key, chunk in enumerate(chunks)
            if key not in rows
        ]
        for finished in self.executor.run(tasks, monitor=self.progress, deadline=TASK_DEADLINE):
            key = int(finished.key)
            rows[key] = finished.value
            self.log.add_pending(name, key, finished.value)
        return [row for key in range(len(chunks)) for row in rows[key]]

    def _trial(self, lanes: Sequence[Lane], patience: int, max_steps: int) -> Trial:
        return Trial(
            world=self.world,
            engine=self.world.engine,
            agent=self.agent,
            parameters=_weights(lanes),
            seeds=tuple(seed for _, seed in lanes),
            patience=patience,
            max_steps=max_steps,
        )


def run_lanes(trial: Trial) -> list[Row]:
    """Return and engine frames of every lane; runs in a worker."""
    return [(outcome.total_reward, outcome.num_frames) for outcome in run_trial(trial)]


def _weights(lanes: Sequence[Lane]) -> Parameters:
    return np.stack([weights for weights, _ in lanes])


def _chunks(lanes: Sequence[Lane], size: int) -> Iterator[list[Lane]]:
    rest = iter(lanes)
    while chunk := list(islice(rest, size)):
        yield chunk
