"""What a stage tells while it works, and what it hands back when it is done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Scalar = str | int | float | bool | None


def number_text(value: float) -> str:
    """A finite number for people: `1,234,567`, `-25.17`, `0.0042`, `0.1`."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class Advanced:
    """`done` of `total` units of work are finished; `latest` is the newest loss or score."""

    done: int
    total: int
    unit: str  # "episodes", "steps", "generations", ...
    latest: str = ""
    share: float | None = None  # of the work that is done, where its units are not alike


@dataclass(frozen=True)
class Doing:
    """What is being done now, until the next Advanced or Doing: work that the bar does not count.

    Where it has parts that can be counted, `done` of `total` of them are finished.
    """

    what: str  # "reading 200 episodes"
    done: int = 0
    total: int = 0  # 0: nothing to count


@dataclass(frozen=True)
class Noted:
    """A sentence that the user should see while the stage runs."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Began:
    """A stage works on an artifact from now on. What comes until the next one belongs to it."""

    stage: str  # "train-vision"
    run: str  # its name among the workspace's: stage, start of the fingerprint, which of these
    tracking: Path  # where trackers that write files have a folder each
    config: Mapping[str, Any]  # resolved
    tell: Callable[[Mapping[str, "Scalar"]], None]  # lets other processes see how far it is


@dataclass(frozen=True)
class Ended:
    """The artifact is there; what still comes shows what is in it."""


@dataclass(frozen=True)
class Measured:
    """A line of metrics.jsonl; a run that goes on tells those that it had written again."""

    step: int
    values: Mapping[str, float]  # by name, "vision/loss"


@dataclass(frozen=True)
class Pictured:
    """A picture that the stage made: the content of a PNG file."""

    name: str  # "vision/reconstructions"
    step: int
    png: bytes = field(repr=False)


@dataclass(frozen=True)
class Filmed:
    """A film that the stage made: the path of an mp4 file."""

    name: str  # "evaluate/seed-7"
    step: int
    path: Path


Telling = Began | Ended | Measured | Pictured | Filmed  # for those who look on, not for the screen
Event = Advanced | Doing | Noted | Telling


class Monitor(Protocol):
    """Receives events and says, at safe points, whether the stage must stop."""

    def emit(self, event: Event) -> None:
        """Show or log one event."""
        ...

    def poll(self) -> None:
        """Raise Interrupted or Terminated when a signal asked the stage to stop."""
        ...


class Silent:
    """A monitor that shows nothing and never stops anything."""

    def emit(self, event: Event) -> None:
        """Drop the event."""

    def poll(self) -> None:
        """Never stop."""


class OnceEach:
    """Warnings of one stage: what is looked at again and again is told of once."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._said: set[str] = set()

    def say(self, about: str, text: str) -> None:
        """Show this warning, unless there was one about the same thing."""
        if about not in self._said:
            self._said.add(about)
            self._monitor.emit(Noted(text, warning=True))


@dataclass(frozen=True)
class Table:
    """Rows to show; every row has as many cells as there are columns."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Scalar, ...]]


@dataclass(frozen=True)
class Report:
    """What a command did: one artifact or a table, and the sentences beside it."""

    command: str
    artifact: str | None = None  # id such as "vision/0001"
    path: str | None = None
    up_to_date: bool = False
    summary: Mapping[str, Scalar] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    exit_code: int = 0  # not 0 when the command worked but found something wrong (verify)
