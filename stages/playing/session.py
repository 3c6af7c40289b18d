"""A play from its first episode to its last: who drives, what is kept, what comes next.

It knows neither windows nor keys. Whoever shows it calls `do` for a command and `advance` when a
step is due, and says what time it is.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from numpy.typing import NDArray

from stages.artifacts.artifact import Artifact
from stages.playing.recording import Recording
from stages.playing.scene import AGENT, KEYBOARD, Moment, Scene
from stages.worlds.driving import Tape

REST_SECONDS = 1.5  # between the end of an episode and the next
TEMPERATURE_STEP = 0.05
SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the world's own
ASK, ALL = KEEPS = ("ask", "all")

Keyboard = Callable[[], NDArray[Any]]  # the action that the keys mean now
Open = Callable[[], Recording]


class Command(Enum):
    """What somebody may ask of a play besides an action."""

    PAUSE = auto()
    FORWARD = auto()  # a single step
    BACK = auto()
    AGAIN = auto()  # this episode from its start
    NEXT = auto()
    PREVIOUS = auto()
    DRIVER = auto()
    WARMER = auto()
    COLDER = auto()
    FASTER = auto()
    SLOWER = auto()
    YES = auto()
    NO = auto()
    QUIT = auto()


@dataclass(frozen=True)
class Terms:
    """How a play goes."""

    driver: str = KEYBOARD
    num_episodes: int = 0  # after which it ends; 0: never
    keep: str = ""  # ASK or ALL: what becomes of every episode; empty: nothing is kept
    rest: float = REST_SECONDS


@dataclass(frozen=True)
class Played:
    """One episode, for the report."""

    seed: int
    drivers: str
    num_steps: int
    total: float | None
    ended: str  # empty: it was left
    kept: bool


class Session:
    """One play; a context manager that lets go of the scene and commits what was kept."""

    def __init__(self, scene: Scene, terms: Terms, *, open_recording: Open) -> None:
        self.scene, self.terms = scene, terms
        self.driver = terms.driver
        self.paused = self.over = self.recording = False
        self.asking = False  # whether this episode shall be kept
        self.speed = 1.0
        self.number = 0  # of the episode
        self.played: list[Played] = []
        self.artifacts: list[Artifact] = []
        self.on_moment: list[Callable[[Moment], None]] = []  # who sees every step once
        self._open = open_recording
        self._recording: Recording | None = None
        self._stack = ExitStack()
        self._after: Command | None = None  # what the question stands in the way of
        self._next_at: float | None = None

    def __enter__(self) -> "Session":
        """Begin the first episode; with `keep`, something to keep them in."""
        self._stack.callback(self.scene.close)
        if self.terms.keep:
            self._start_keeping()
        self._begin(0)
        return self

    def __exit__(self, *error: object) -> None:
        """Keep what is being recorded, and free everything."""
        try:
            self._leave(kept=self._keeping)
        finally:
            self._stop_keeping()
            self._stack.close()

    @property
    def waits(self) -> bool:
        """Whether no step is due: it is paused, it asks, or the episode is over."""
        return self.paused or self.asking or self._next_at is not None

    @property
    def _keeping(self) -> bool:
        """Whether an episode is kept without a question; `,` beside `keep` films alone."""
        return self.terms.keep == ALL or (self.recording and not self.terms.keep)

    def advance(self, now: float, keyboard: Keyboard) -> None:
        """What is due at this time: a step, or the next episode."""
        if self._next_at is not None and not (self.paused or self.asking):
            if now >= self._next_at:
                self._go(Command.NEXT)
        elif not self.waits:
            self._step(now, keyboard)

    def do(self, command: Command, now: float, keyboard: Keyboard) -> None:
        """Obey; while a question stands only its answers and a second quit count."""
        if self.asking:
            self._answer(command)
        elif command is Command.PAUSE:
            self.paused = not self.paused
        elif command is Command.FORWARD:
            self.paused = True
            self._step(now, keyboard)
        elif command is Command.BACK:
            self.paused, self._next_at = True, None
            self._see(self.scene.back())
        elif command is Command.DRIVER and self.scene.drivers:
            names = self.scene.drivers
            self.driver = names[(names.index(self.driver) + 1) % len(names)]
        elif command in {Command.WARMER, Command.COLDER}:
            sign = 1 if command is Command.WARMER else -1
            self.moment = self.scene.warm(sign * TEMPERATURE_STEP)
        elif command in {Command.FASTER, Command.SLOWER}:
            place = SPEEDS.index(self.speed) + (1 if command is Command.FASTER else -1)
            self.speed = SPEEDS[min(max(place, 0), len(SPEEDS) - 1)]
        elif command in {Command.AGAIN, Command.NEXT, Command.PREVIOUS, Command.QUIT}:
            self._ask_or(command)

    def start_recording(self) -> None:
        """Keep this episode, from its start, and those that follow."""
        assert not self.recording, "it is being recorded"
        if not self.terms.keep:
            self._start_keeping()
        self.recording = True
        if self._row and self._keeping:  # it is over already
            self._keep()

    def stop_recording(self) -> Artifact | None:
        """Keep this episode as far as it went; the artifact, if there is anything in it."""
        assert self.recording, "nothing is being recorded"
        self.recording = False
        if self.terms.keep:  # the artifact is that of the whole play
            return None
        self._keep()
        return self._stop_keeping()

    def _begin(self, number: int) -> None:
        self.number, self._next_at, self._row = number, None, False
        moment = self.scene.begin(number)
        self._tape = Tape(moment.seed, [moment.frame.copy()])
        self._drivers: list[str] = []
        self._kept_in: Recording | None = None
        self._see(moment)

    def _see(self, moment: Moment) -> None:
        self.moment = moment
        for watcher in self.on_moment:
            watcher(moment)

    def _step(self, now: float, keyboard: Keyboard) -> None:
        if self.moment.ended or self._next_at is not None:
            return
        driver = self.driver
        action = keyboard() if driver == KEYBOARD else self.scene.choice(driver)
        moment = self.scene.step(action)
        if moment.outcome is not None:
            self._tape.append(0, action[None], moment.outcome)
            if driver not in self._drivers:
                self._drivers.append(driver)
        self._see(moment)
        if moment.ended:
            self._ended(now)

    def _ended(self, now: float) -> None:
        if self.terms.keep == ASK and self._tape.rows:
            self.asking, self._after = True, Command.NEXT
            return
        self._leave(kept=self._keeping)
        self._next_at = now + self.terms.rest

    def _ask_or(self, command: Command) -> None:
        """Ask about what was played so far, if that is to be asked; else go on."""
        if self.terms.keep == ASK and self._tape.rows and not self._row:
            self.asking, self._after = True, command
        else:
            self._leave(kept=self._keeping)
            self._go(command)

    def _answer(self, command: Command) -> None:
        if command in {Command.YES, Command.NO, Command.QUIT}:
            self.asking = False
            self._leave(kept=command is Command.YES)
            after = self._after or Command.NEXT
            self._go(Command.QUIT if command is Command.QUIT else after)

    def _go(self, command: Command) -> None:
        """The next episode, this one again, or the end."""
        done = 0 < self.terms.num_episodes <= len(self.played)
        if command is Command.QUIT or (command is Command.NEXT and done):
            self.over = True
        else:
            change = {Command.NEXT: 1, Command.PREVIOUS: -1}.get(command, 0)
            self._begin(max(0, self.number + change))

    def _leave(self, *, kept: bool) -> None:
        """Write down how this episode went, once; with `kept`, keep it."""
        moment = self.moment
        if self._row or not moment.num_steps:
            return
        self._row = True
        kept = (kept and self._keep()) or self._kept_in is not None
        drivers = "+".join(self._drivers)
        self.played.append(
            Played(moment.seed, drivers, moment.num_steps, moment.total, moment.ended, kept)
        )

    def _keep(self) -> bool:
        """Put the episode so far on disk; False when there is nothing of it."""
        if self._recording is None or not self._tape.rows:
            return False
        if self._kept_in is self._recording:
            return True
        self._kept_in = self._recording
        record = self._tape.record()
        self._recording.keep(record, drivers=tuple(self._drivers), by_agent=AGENT in self._drivers)
        return True

    def _start_keeping(self) -> None:
        if not self.scene.drivers:  # it is recorded already
            return
        self._recording = self._open().__enter__()

    def _stop_keeping(self) -> Artifact | None:
        recording, self._recording = self._recording, None
        if recording is None:
            return None
        recording.__exit__(None, None, None)
        if recording.artifact is not None:
            self.artifacts.append(recording.artifact)
        return recording.artifact
