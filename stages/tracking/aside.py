"""A tracker in a thread of its own: whatever it does, the stage neither waits nor fails."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable

from stages.events import Began, Ended, Telling
from stages.tracking.protocol import Tracker

ROOM = 10_000  # events that wait for a tracker; more are dropped
PATIENCE = 10.0  # seconds that one event may take, and at the end all that still wait together
HURRY = 2.0  # the same at the end of a command that was stopped
_PAUSE = 0.02
_LETTERS = 300  # of what a tracker raised


class Aside:
    """Hands events to a tracker; drops them where it fails or hangs, and says so once."""

    def __init__(self, name: str, make: Callable[[], Tracker]) -> None:
        """`make` is called in the thread: loading a tracker takes time, too."""
        self.name = name
        self._make = make
        self._events: queue.Queue[Telling | None] = queue.Queue(ROOM)
        self._busy_since: float | None = None
        self._failed = False
        self._said: set[str] = set()
        self._remarks: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"tracker {name}")
        self._thread.start()

    def hear(self, event: Telling) -> None:
        """Take an event; returns at once."""
        if self._failed or isinstance(event, Ended):  # films of a run may come after its end
            return
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self._say("full", f"{self.name} is too slow: some of what it should show is left out.")

    def remarks(self) -> list[str]:
        """What the user should know, each once."""
        if self._hangs(PATIENCE):
            text = f"{self.name} has been busy with one event for {PATIENCE:g} s."
            self._say("hangs", f"{text} The stage goes on without waiting for it.")
        return [self._remarks.get() for _ in range(self._remarks.qsize())]

    def close(self, *, hurry: bool = False) -> None:
        """Let the tracker finish, unless it failed, hangs or takes too long over what waits.

        `hurry`: the command was stopped, and nobody likes to wait.
        """
        patience = HURRY if hurry else PATIENCE
        deadline = time.monotonic() + patience
        is_told = False
        while self._thread.is_alive() and not self._failed:
            if time.monotonic() > deadline or self._hangs(patience):
                self._say("left", f"{self.name} did not finish: some of its newest may be missing.")
                return
            if not is_told:
                with contextlib.suppress(queue.Full):
                    self._events.put_nowait(None)
                    is_told = True
            self._thread.join(_PAUSE)

    def _hangs(self, patience: float) -> bool:
        since = self._busy_since
        return since is not None and time.monotonic() - since > patience

    def _work(self) -> None:
        tracker: Tracker | None = None
        is_open = False
        try:
            while True:
                event = self._events.get()
                self._busy_since = time.monotonic()
                if tracker is None:
                    tracker = self._make()
                if is_open and (event is None or isinstance(event, Began)):
                    is_open = False
                    tracker.finish()
                if event is None:
                    return
                if isinstance(event, Began):
                    tracker.start(event)
                    is_open = True
                elif is_open and not isinstance(event, Ended):
                    tracker.log(event)
                self._busy_since = None
        except BaseException as error:  # noqa: BLE001 - foreign code: nothing of it may end a stage
            self._failed = True
            told = f"{type(error).__name__}: {error}"[:_LETTERS]
            self._say("failed", f"{self.name} failed and is left out from now on: {told}")
        finally:
            self._busy_since = None

    def _say(self, about: str, text: str) -> None:
        if about not in self._said:
            self._said.add(about)
            self._remarks.put(text)
