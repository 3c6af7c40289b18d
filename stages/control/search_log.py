"""The log of a search: enough to resume it in the same space, and the history that people read.

`search.jsonl` has a line per generation (fitness of every candidate, digest of what was asked,
step size, engine frames) and a line per scored mean vector. `pending.jsonl` holds the finished
tasks of the generation in progress, so that a kill costs one task, not one generation.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.metrics import STEP, MetricsLog
from stages.artifacts.partial import Partial
from stages.artifacts.plain import COUNT, NUMBER, TEXT, fault, listed, optional, row
from stages.artifacts.scores import log_line, parse_log
from stages.control.search import digest_of
from stages.errors import ArtifactDamaged
from stages.events import Monitor

LOG = "search.jsonl"
PENDING = "pending.jsonl"  # not payload

_LINE = {"generation": COUNT, "frames": COUNT}
_GENERATION = {"fitness": listed(NUMBER, least=1), "asked": TEXT, "sigma": NUMBER}
_SCORE = {"selection": listed(NUMBER, least=1), "dreamt": optional(listed(NUMBER, least=1))}
_TASK = {"of": TEXT, "task": COUNT, "rows": listed(row(NUMBER, COUNT))}

Row = tuple[float, int]  # return of an episode, and its frames: the engine's, or dreamt ones


class Searched(Protocol):
    """A search, as its log sees it."""

    @property
    def generation(self) -> int:
        """Generations so far."""

    @property
    def awaits_score(self) -> bool:
        """Whether its mean vector must be scored before anything else."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """Its answer so far [P]."""

    @property
    def sigma(self) -> float:
        """How far around it is tried."""

    def replay(self, fitness: Sequence[float], digest: str) -> None:
        """Go through a logged generation again."""

    def judge(self, score: float) -> None:
        """The score of the mean vector."""


class SearchLog:
    """Writes and replays the log of one search inside its partial."""

    def __init__(self, partial: Partial, progress: Monitor) -> None:
        self._partial = partial
        self._progress = progress
        self._metrics = MetricsLog(partial, progress)
        self.records: list[dict[str, Any]] = []
        self.best_score = -np.inf  # of a mean vector on the selection seeds
        self.best_generation = 0
        self.best_dreamt: float | None = None  # what that mean vector returned in the dream
        self.best_vector: NDArray[np.float64] | None = None

    def replay(self, search: Searched) -> None:
        """Bring a fresh search to where the log ends; a line that a death cut is dropped."""
        for record in parse_log(self._partial.lines(LOG), source=LOG, rules=_LINE):
            self._progress.poll()
            is_score = "selection" in record
            wrong = fault(record, _SCORE if is_score else _GENERATION)
            if wrong or search.generation + (not is_score) != record["generation"]:
                raise _damaged(record, wrong or "it is not the next one")
            if not is_score:
                if search.awaits_score:
                    raise _damaged(record, "a score is due before it")
                search.replay(record["fitness"], record["asked"])
            self._take(record, search)
        self._metrics.restart(list(self._lines()))

    def add_generation(
        self,
        search: Searched,
        asked: NDArray[np.float64],
        fitness: NDArray[np.float64],
        frames: int,
    ) -> None:
        """Log what the search has just been told."""
        self._append(
            {
                "generation": search.generation,
                "fitness": fitness.tolist(),
                "asked": digest_of(asked),
                "sigma": search.sigma,
                "frames": frames,
            },
            search,
        )

    def add_selection(
        self, search: Searched, rows: Sequence[Row], dreamt: Sequence[Row] = ()
    ) -> None:
        """Log the returns of the search's mean vector; it is kept when they are the best so far.

        `dreamt` are its returns in the dream, where the search is held in one.
        """
        returns, frames = zip(*rows, strict=True)
        record = {
            "generation": search.generation,
            "selection": list(returns),
            "frames": sum(frames),
        }
        if dreamt:
            record["dreamt"] = [row[0] for row in dreamt]
        self._append(record, search)

    def has_selection(self, generation: int) -> bool:
        """Whether the mean vector of this generation has been scored."""
        return any("selection" in r and r["generation"] == generation for r in self.records)

    @property
    def num_frames(self) -> int:
        """Frames of the whole search, dreamt ones too."""
        return sum(int(record["frames"]) for record in self.records)

    @property
    def num_selection_frames(self) -> int:
        """Engine frames on which mean vectors were scored."""
        return sum(int(record["frames"]) for record in self.records if "selection" in record)

    def pending(self, name: str) -> dict[int, list[Row]]:
        """Tasks of this piece of work that are done already; a line that a death cut is dropped."""
        if not self._partial.has(PENDING):  # or it has rotted
            self._partial.remove(PENDING)  # no more than the generation in progress
        records = parse_log(self._partial.lines(PENDING), source=PENDING, rules=_TASK)
        return {record["task"]: record["rows"] for record in records if record["of"] == name}

    def add_pending(self, name: str, task: int, rows: Sequence[Row]) -> None:
        """Keep the rows of one finished task."""
        self._partial.append(PENDING, log_line({"of": name, "task": task, "rows": list(rows)}))

    def _lines(self) -> Iterator[dict[str, Any]]:
        """The search as metrics: one line per generation and one per scored mean vector."""
        frames = 0
        for record in self.records:
            frames += record["frames"]
            yield self._line(record, frames)

    def _line(self, record: Mapping[str, Any], frames: int) -> dict[str, Any]:
        return {STEP: record["generation"], "frames": frames, **_measures(record)}

    def _append(self, record: dict[str, Any], search: Searched) -> None:
        self._partial.append(LOG, log_line(record))
        self._partial.remove(PENDING)
        self._take(record, search)
        self._metrics.add(self._line(record, self.num_frames))

    def _take(self, record: dict[str, Any], search: Searched) -> None:
        self.records.append(record)
        if "selection" not in record:
            return
        score = float(np.mean(record["selection"]))
        if score > self.best_score:
            self.best_score = score
            self.best_generation = int(record["generation"])
            self.best_vector = search.mean
            self.best_dreamt = float(np.mean(record["dreamt"])) if "dreamt" in record else None
        search.judge(score)


def _damaged(record: Mapping[str, Any], wrong: str) -> ArtifactDamaged:
    return ArtifactDamaged(
        f"{LOG} does not tell generation {record['generation']} as it was.",
        why=f"{wrong}.".capitalize(),
        fix="Remove the partial folder named by `wm doctor` and run the command again.",
    )


def _measures(record: Mapping[str, Any]) -> dict[str, float]:
    if "selection" in record:
        scores = {"control/selection/mean": float(np.mean(record["selection"]))}
        if "dreamt" in record:
            scores["control/selection/dreamt"] = float(np.mean(record["dreamt"]))
        return scores
    fitness = np.array(record["fitness"])
    return {
        "control/fitness/best": float(fitness.max()),
        "control/fitness/mean": float(fitness.mean()),
        "control/fitness/std": float(fitness.std()),
        "control/sigma": record["sigma"],
    }
