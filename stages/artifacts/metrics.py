"""The metrics of a stage: one flushed line per event in metrics.jsonl, and told to trackers.

A line holds `step` and numbers named `<section>/<name>`, and no times: equal runs write equal
bytes. docs/metrics.md lists the names.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from stages.artifacts.partial import Partial
from stages.artifacts.scores import log_line
from stages.events import Measured, Monitor

METRICS = "metrics.jsonl"
STEP = "step"

Found = TypeVar("Found")
Line = tuple[int, Mapping[str, float]]  # step, and values by name


class MetricsLog:
    """Adds lines to the metrics of a partial."""

    def __init__(self, partial: Partial, progress: Monitor) -> None:
        self._partial = partial
        self._progress = progress

    def restart(self, records: Sequence[Mapping[str, Any]] = ()) -> None:
        """Replace what an earlier run has left by these records, each with its step."""
        self._partial.remove(METRICS)
        if records:
            self._partial.keep_lines(METRICS, [log_line(record) for record in records])
        self.tell(records)

    def add(self, record: Mapping[str, Any]) -> None:
        """One more line. It counts after a death only if `Partial.seal` was called after it."""
        self._partial.append(METRICS, log_line(record), sealed=False)
        self.tell([record])

    def tell(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Let trackers know of lines that are there."""
        for record in records:
            values = {
                name: float(value)
                for name, value in record.items()
                if name != STEP and isinstance(value, int | float)
            }
            self._progress.emit(Measured(int(record[STEP]), values))


class TaskMetrics(Generic[Found]):
    """A line per task, in the order of the tasks, whatever the order in which they finish.

    So the lines do not depend on the workers. A run that goes on hands in all that is there again.
    """

    def __init__(self, log: MetricsLog, line: Callable[[Found], Line]) -> None:
        """`line` is called once per task, in their order, with what the task found."""
        self._log = log
        self._line = line
        self._waiting: dict[int, Found] = {}
        self._next = 0
        log.restart()

    def finished(self, number: int, found: Found) -> None:
        """Task `number` is finished; write all lines that are due."""
        self._waiting[number] = found
        while self._next in self._waiting:
            step, values = self._line(self._waiting.pop(self._next))
            self._log.add({STEP: step, **values})
            self._next += 1
