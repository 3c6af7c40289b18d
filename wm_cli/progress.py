"""Progress events: on the screen, in the note that `wm status` reads, and to trackers."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.text import Text

from stages.events import Advanced, Began, Doing, Ended, Event, Noted, Scalar, Telling
from stages.execution.memory import Use, in_use
from wm_cli.signals import Stopper
from wm_cli.views import Bar, Lines, Moment, View
from wm_cli.wording import duration, printable, rate

BEAT_SECONDS = 1.0  # between two looks at the memory, which are shown and told to other processes
TOLD_LETTERS = 200  # of a text, to other processes


class Pace:
    """Rate and time left of one piece of work, from the first event of this run on."""

    def __init__(self, first: Advanced, now: float) -> None:
        self._first = first
        self._start = now

    def continues(self, event: Advanced) -> bool:
        """Whether this event belongs to the same piece of work."""
        same = (event.unit, event.total) == (self._first.unit, self._first.total)
        return same and event.done >= self._first.done

    def rate(self, event: Advanced, now: float) -> float | None:
        """Units per second; None before anything was done."""
        done, seconds = event.done - self._first.done, now - self._start
        return done / seconds if done > 0 and seconds > 0 else None

    def left(self, event: Advanced, now: float) -> float | None:
        """Seconds that the rest will take; None before anything was done."""
        per_second = self.rate(event, now)
        if per_second is None:
            return None
        if event.share is None or self._first.share is None or event.share <= self._first.share:
            return (event.total - event.done) / per_second
        return (1 - event.share) / (event.share - self._first.share) * (now - self._start)

    def describe(self, event: Advanced, now: float) -> str:
        """`3.2/s, 1 min 10 s left`; empty before anything was done."""
        per_second, left = self.rate(event, now), self.left(event, now)
        if per_second is None or left is None:
            return ""
        speed = rate(per_second)
        if event.done >= event.total:
            return f"{speed}, took {duration(now - self._start)}"
        return f"{speed}, {duration(left)} left"


class Listener(Protocol):
    """Who wants to know what a stage makes: a tracker."""

    def hear(self, event: Telling) -> None:
        """Take one event, at once and without fail."""
        ...

    def remarks(self) -> list[str]:
        """What the user should be warned of, each once."""
        ...

    def close(self, *, hurry: bool) -> None:
        """Nothing more comes."""
        ...


class ScreenMonitor:
    """Shows events on stderr and polls the signals; a context manager.

    Inside of it a thread looks at the memory every second, so that a long silence is shown too.
    """

    def __init__(
        self,
        command: str,
        *,
        console: Console,
        stopper: Stopper,
        clock: Callable[[], float] = time.monotonic,
        use: Callable[[], Use] = in_use,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._console = console
        self._stopper = stopper
        self._clock = clock
        self._use = use
        self._listeners = listeners
        self._pace: Pace | None = None
        self._event: Advanced | None = None
        self._event_at = 0.0
        self._doing: Doing | None = None
        self._newest = self._clock()  # time of the newest event
        self._used = Use(None, 0)
        self._began: Began | None = None
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True, name="progress")
        live = is_live(console)
        self._view: View = Bar(console) if live else Lines(console, command, self._newest)

    def __enter__(self) -> Self:
        self._beats.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._beats.join(timeout=BEAT_SECONDS)  # it may wait for a terminal that is held
        for listener in self._listeners:
            listener.close(hurry=error is not None)
        self._warn()
        self._view.close()

    def emit(self, event: Event) -> None:
        """Show one event."""
        with self._lock:
            if isinstance(event, Noted):
                self._note(event)
            elif isinstance(event, Advanced | Doing):
                self._advance(event, self._clock())
            else:
                self._pass_on(event)

    def poll(self) -> None:
        """Raise Interrupted or Terminated when a signal asked to stop."""
        self._stopper.check()

    def _note(self, event: Noted) -> None:
        style = "yellow" if event.warning else ""
        prefix = "warning: " if event.warning else ""
        self._console.print(Text(prefix + printable(event.text), style=style))

    def _advance(self, event: Advanced | Doing, now: float) -> None:
        if isinstance(event, Doing):
            same = self._doing is not None and self._doing.what == event.what
            self._newest = self._newest if same else now
            self._doing = event
        else:
            self._doing, self._newest = None, now
            self._event, self._event_at = event, now
            if self._pace is None or not self._pace.continues(event):
                self._pace = Pace(event, now)
                self._view.begin(event, now)
        self._view.show(self._moment(now))

    def _pass_on(self, event: Telling) -> None:
        if isinstance(event, Began | Ended):
            self._began = event if isinstance(event, Began) else None
            self._pace, self._event, self._doing = None, None, None
            if isinstance(event, Began):
                self._doing = Doing("getting ready")
            self._newest = self._clock()
            self._tell(self._newest)
        for listener in self._listeners:
            listener.hear(event)

    def _moment(self, now: float, *, is_news: bool = True) -> Moment:
        pace = ""
        if self._pace is not None and self._event is not None:
            pace = self._pace.describe(self._event, self._event_at)
        return Moment(
            now=now,
            stage=self._began.stage if self._began is not None else "",
            event=self._event,
            pace=pace,
            doing=self._doing,
            seconds=now - self._newest,
            num_bytes=self._used.num_bytes,
            is_news=is_news,
        )

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            used = self._use()
            with self._lock:
                self._used = used
                now = self._clock()
                if self._began is not None or self._doing is not None:
                    self._view.show(self._moment(now, is_news=False))
                self._tell(now)
                self._warn()

    def _warn(self) -> None:
        for listener in self._listeners:
            for text in listener.remarks():
                self._note(Noted(text, warning=True))

    def _tell(self, now: float) -> None:
        if self._began is not None:
            self._began.tell(self._told(self._began, now))

    def _told(self, began: Began, now: float) -> Mapping[str, Scalar]:
        """What other processes learn of this one (stages/inspection/running.py reads it)."""
        event, pace, doing = self._event, self._pace, self._doing
        told: dict[str, Scalar] = {
            "run": began.run,
            "memory_bytes": self._used.num_bytes,
            "workers": self._used.num_workers,
        }
        if doing is not None:
            told |= {"doing": doing.what[:TOLD_LETTERS]}
            told |= {"parts": doing.done, "of_parts": doing.total} if doing.total else {}
        if event is not None and pace is not None:
            left = pace.left(event, self._event_at)
            told |= {
                "done": event.done,
                "total": event.total,
                "unit": event.unit,
                "latest": event.latest[:TOLD_LETTERS],
                "per_second": pace.rate(event, self._event_at),
                "left_seconds": None if left is None else max(0.0, left - (now - self._event_at)),
            }
        return told


def is_live(console: Console) -> bool:
    """Whether lines on this console may be drawn over: a terminal that may be coloured."""
    return console.is_terminal and not console.is_dumb_terminal and not os.environ.get("NO_COLOR")
