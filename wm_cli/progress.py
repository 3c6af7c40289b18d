"""Progress events on a screen: one live bar on a terminal, a line now and then without one."""

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from stages.events import Advanced, Event, Noted
from wm_cli.signals import Stopper
from wm_cli.wording import duration, printable

LINE_SECONDS = 10.0  # between two lines where there is no terminal
TICK_SECONDS = 0.1  # between two updates of the bar


class Pace:
    """Rate and time left of one piece of work, from the first event of this run on."""

    def __init__(self, first: Advanced, now: float) -> None:
        self._first = first
        self._start = now

    def continues(self, event: Advanced) -> bool:
        """Whether this event belongs to the same piece of work."""
        same = (event.unit, event.total) == (self._first.unit, self._first.total)
        return same and event.done >= self._first.done

    def describe(self, event: Advanced, now: float) -> str:
        """`3.2/s, 1 min 10 s left`; empty before anything was done."""
        done, seconds = event.done - self._first.done, now - self._start
        if done <= 0 or seconds <= 0:
            return ""
        rate = done / seconds
        speed = f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s"
        speed = speed if rate >= 1 else f"{duration(1 / rate)} each"
        if event.done >= event.total:
            return f"{speed}, took {duration(seconds)}"
        return f"{speed}, {duration(self._left(event, rate, seconds))} left"

    def _left(self, event: Advanced, rate: float, seconds: float) -> float:
        if event.share is None or self._first.share is None or event.share <= self._first.share:
            return (event.total - event.done) / rate
        return (1 - event.share) / (event.share - self._first.share) * seconds


class View(Protocol):
    """One way to show how far a piece of work is."""

    def begin(self, event: Advanced, now: float) -> None:
        """A new piece of work; `event` is its first."""
        ...

    def show(self, event: Advanced, pace: str, now: float) -> None:
        """Its newest event."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class ScreenMonitor:
    """Shows events on stderr and polls the signals; a context manager."""

    def __init__(
        self,
        command: str,
        *,
        console: Console,
        stopper: Stopper,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._stopper = stopper
        self._clock = clock
        self._pace: Pace | None = None
        self._view: View = _Bar(console) if is_live(console) else _Lines(console, command)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._view.close()

    def emit(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Noted):
            style = "yellow" if event.warning else ""
            prefix = "warning: " if event.warning else ""
            self._console.print(Text(prefix + printable(event.text), style=style))
            return
        now = self._clock()
        if self._pace is None or not self._pace.continues(event):
            self._pace = Pace(event, now)
            self._view.begin(event, now)
        self._view.show(event, self._pace.describe(event, now), now)

    def poll(self) -> None:
        """Raise Interrupted or Terminated when a signal asked to stop."""
        self._stopper.check()


def is_live(console: Console) -> bool:
    """Whether lines on this console may be drawn over: a terminal that may be coloured."""
    return console.is_terminal and not console.is_dumb_terminal and not os.environ.get("NO_COLOR")


class _Lines:
    """A line every ten seconds and one at the end, for pipes and log files."""

    def __init__(self, console: Console, command: str) -> None:
        self._console = console
        self._command = command
        self._next = 0.0

    def begin(self, event: Advanced, now: float) -> None:  # noqa: ARG002 - a View's method
        self._next = now + LINE_SECONDS

    def show(self, event: Advanced, pace: str, now: float) -> None:
        if now < self._next and event.done < event.total:
            return
        self._next = now + LINE_SECONDS
        parts = (f"{event.done}/{event.total} {event.unit}", pace, printable(event.latest))
        line = ", ".join(part for part in parts if part)
        self._console.print(f"{self._command}: {line}", soft_wrap=True)

    def close(self) -> None:
        pass


class _Bar:
    """One bar that is drawn in place; finished ones stay above it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TextColumn("{task.fields[latest]}", style="dim"),
            console=console,
        )
        self._task: TaskID | None = None
        self._next = 0.0

    def begin(self, event: Advanced, now: float) -> None:
        self._progress.start()
        self._task = self._progress.add_task(event.unit, total=event.total, pace="", latest="")
        self._next = now

    def show(self, event: Advanced, pace: str, now: float) -> None:
        if self._task is None or (now < self._next and event.done < event.total):
            return
        self._next = now + TICK_SECONDS
        latest = printable(event.latest)
        self._progress.update(self._task, completed=event.done, pace=pace, latest=latest)

    def close(self) -> None:
        self._progress.stop()
