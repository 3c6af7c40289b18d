"""What a stage tells while it works, and what it hands back when it is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

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
class Noted:
    """A sentence that the user should see while the stage runs."""

    text: str
    warning: bool = False


Event = Advanced | Noted


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
