"""What work looks like when it is cut into tasks, and what every executor promises.

A task is a pure function of its payload. It may run more than once, on any worker, in any order:
its result must not depend on that. Large data go to disk as whole files; a row comes back.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from stages.errors import ExitCode, StageError
from stages.events import Monitor


@dataclass(frozen=True)
class Task:
    """One unit of work: `function(payload)`, named by `key` in messages and results."""

    key: str | int
    function: Callable[[Any], Any]  # at module level of an importable module
    payload: Any  # plain and picklable
    about: str = ""  # what it works on, for messages: its seeds, a file

    def __str__(self) -> str:
        return f"{self.key} ({self.about})" if self.about else str(self.key)


@dataclass(frozen=True)
class Done:
    """The result of one task."""

    key: str | int
    value: Any


class TaskFailed(StageError):
    """A task raised an exception that is not meant for users: a defect, repeated on every try."""


class TaskAbandoned(TaskFailed):
    """The workers of one task died or hung so often that it was given up."""

    exit_code: ClassVar[ExitCode] = ExitCode.ENVIRONMENT


class Executor(Protocol):
    """Runs tasks and yields their results as they complete; use it as a context manager."""

    num_workers: int
    num_lost: int  # workers that died or hung and were replaced so far

    def run(
        self, tasks: Iterable[Task], *, monitor: Monitor, deadline: float | None = None
    ) -> Iterator[Done]:
        """Yield one Done per task, in order of completion. May be called again and again.

        Args:
            tasks: taken one by one, as workers become free.
            monitor: polled at least four times a second; told of every lost worker.
            deadline: seconds without a sign of life (worker.sign_of_life) after which the worker
                of a task counts as hung and is replaced; None: never.

        Raises:
            StageError: the task's own, at once, after every result that was there is yielded.
            TaskFailed: the task raised something else; names the task, the line and its log.
            TaskAbandoned: its worker died or hung on every try; names the task and its log.
        """
        ...

    def close(self) -> None:
        """End the workers; leaves no process behind."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
