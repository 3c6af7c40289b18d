"""The executor without workers: tasks run one after another in this process."""

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from stages.events import Monitor
from stages.execution.protocol import Done, Task
from stages.execution.worker import as_failure


class InlineExecutor:
    """For debugging and tests. A deadline cannot be kept here and is ignored."""

    num_workers = 0
    num_lost = 0

    def run(
        self,
        tasks: Iterable[Task],
        *,
        monitor: Monitor,
        deadline: float | None = None,  # noqa: ARG002
    ) -> Iterator[Done]:
        """Yield results in the order of the tasks; errors as protocol.Executor says."""
        for task in tasks:
            monitor.poll()
            try:
                value = task.function(task.payload)
            except Exception as error:
                failure = as_failure(str(task), error)
                if failure is error:
                    raise
                raise failure from error
            yield Done(task.key, value)

    def close(self) -> None:
        """Nothing to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
