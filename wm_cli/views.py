"""How progress looks: one live bar on a terminal, a line now and then without one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from stages.events import Advanced, Doing
from wm_cli.wording import duration, printable, size

LINE_SECONDS = 10.0  # between two lines where there is no terminal
TICK_SECONDS = 0.1  # between two updates of the bar


@dataclass(frozen=True)
class Moment:
    """How far a command is."""

    now: float  # seconds
    stage: str = ""  # empty: the command is no stage
    event: Advanced | None = None  # the newest
    pace: str = ""
    doing: Doing | None = None  # since that event
    seconds: float = 0.0  # since the newest event of either kind
    num_bytes: int | None = None  # of memory; None: not known
    is_news: bool = True  # there was an event; otherwise time has passed

    @property
    def parts(self) -> list[str]:
        """What there is to say besides the count and the pace."""
        latest = printable(self.event.latest) if self.event is not None else ""
        memory = size(self.num_bytes) if self.num_bytes else ""
        return [part for part in (latest, self.now_doing, memory) if part]

    @property
    def now_doing(self) -> str:
        """What is being done now, and for how long already when that takes a while."""
        long = self.seconds >= LINE_SECONDS
        if self.doing is None:
            ago = f"the last {duration(self.seconds)} ago" if self.pace else ""
            return (ago or f"{duration(self.seconds)} so far") if long else ""
        counted = f" {self.doing.done}/{self.doing.total}" if self.doing.total else ""
        so_far = f" for {duration(self.seconds)}" if long else ""
        return f"{printable(self.doing.what)}{counted}{so_far}"

    @property
    def is_last(self) -> bool:
        """Whether a piece of work is finished with this."""
        whole = self.event is not None and self.event.done >= self.event.total
        return self.is_news and whole and self.doing is None


class View(Protocol):
    """One way to show how far a piece of work is."""

    def begin(self, event: Advanced, now: float) -> None:
        """A new piece of work; `event` is its first."""
        ...

    def show(self, moment: Moment) -> None:
        """How far it is: after each event, and every second."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class Lines:
    """A line every ten seconds and one at the end of a piece of work, for pipes and log files."""

    def __init__(self, console: Console, command: str, now: float) -> None:
        self._console = console
        self._command = command
        self._next = now + LINE_SECONDS

    def begin(self, event: Advanced, now: float) -> None:  # noqa: ARG002 - a View's method
        """The first line comes ten seconds later."""
        self._next = now + LINE_SECONDS

    def show(self, moment: Moment) -> None:
        """Write a line when it is time."""
        if moment.now < self._next and not moment.is_last:
            return
        self._next = moment.now + LINE_SECONDS
        parts = moment.parts
        if moment.event is not None:
            count = f"{moment.event.done}/{moment.event.total} {moment.event.unit}"
            parts = [part for part in (count, moment.pace, *parts) if part]
        if parts:
            self._console.print(
                f"{moment.stage or self._command}: {', '.join(parts)}", soft_wrap=True
            )

    def close(self) -> None:
        """There is nothing to close."""


class Bar:
    """One bar that is drawn in place, and a line about it below; finished ones stay above."""

    def __init__(self, console: Console) -> None:
        self._progress = _WithStatus(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            console=console,
        )
        self._task: TaskID | None = None
        self._next = 0.0

    def begin(self, event: Advanced, now: float) -> None:
        """Another bar."""
        self._progress.start()
        self._task = self._progress.add_task(event.unit, total=event.total, pace="")
        self._next = now

    def show(self, moment: Moment) -> None:
        """Draw it as it is now."""
        if moment.now < self._next and not moment.is_last:
            return
        self._next = moment.now + TICK_SECONDS
        if moment.event is not None and self._task is not None:
            done, pace = moment.event.done, moment.pace
            self._progress.update(self._task, completed=done, pace=pace)
        elif moment.doing is not None:
            self._progress.start()
        self._progress.status = Text(
            ", ".join(moment.parts), style="dim", no_wrap=True, overflow="ellipsis"
        )

    def close(self) -> None:
        """Leave the bars as they are, without what was being done."""
        self._progress.status = None
        self._progress.stop()


class _WithStatus(Progress):
    """Bars with a line below."""

    status: Text | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.status:
            yield self.status
