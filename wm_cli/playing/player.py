"""The one loop that plays, whoever looks: a window, a terminal, or nobody."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.artifact import Artifact
from stages.errors import StageError
from stages.playing.scene import Moment
from stages.playing.session import Session
from wm_cli.playing.film import Reel
from wm_cli.playing.keys import HIDE, RECORD, Keys, Press, Steering, command_for
from wm_cli.playing.texts import Shown, facts, headline, keys, message

Films = Callable[[Artifact | None], Path]  # what a film was recorded with -> where it goes

LOOK_SECONDS = 1 / 60  # between two looks at the keyboard
IDLE_SECONDS = 0.1  # between two pictures of the same moment
SAID_SECONDS = 6.0  # that a message stays
LATE_SECONDS = 0.25  # behind its time a play lets go of, instead of hurrying after it


class Clock(Protocol):
    """What time it is, and waiting."""

    def now(self) -> float:
        """Seconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class RealClock:
    """The clock of the machine."""

    def now(self) -> float:
        """Seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class Front(Protocol):
    """Who looks, and where keys come from."""

    def keys(self) -> Keys:
        """What happened since the last look."""
        ...

    def toggle_keys(self) -> None:
        """Show or hide the list of keys."""
        ...

    def show(self, shown: Shown) -> None:
        """Draw this moment."""
        ...


class Player:
    """Plays a session in front of somebody, at its true speed."""

    def __init__(
        self,
        session: Session,
        front: Front,
        *,
        env: str,
        steering: Steering | None,
        steps_per_second: float,
        films: Films | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`films` says where the next film of `,` goes; None: films cannot be made here."""
        self.session, self._front = session, front
        self._env, self._steering, self._films = env, steering, films
        self._rate = steps_per_second
        self._clock = clock or RealClock()
        self._held: frozenset[str] = frozenset()
        self._tapped: frozenset[str] = frozenset()  # since the last step
        self._said, self._said_until = "", 0.0
        self._shown: Moment | None = None
        self._show_again = 0.0
        self.reel = Reel(self.describe, frames_per_second=steps_per_second)
        self.films: list[Path] = []
        session.on_moment.append(self._seen)

    def run(self, poll: Callable[[], None]) -> None:
        """Play to the end; `poll` raises when a signal came."""
        session, clock = self.session, self._clock
        due = clock.now() + 1 / self._rate
        try:
            while not session.over:
                poll()
                self._obey(self._front.keys())
                now = clock.now()
                if now >= due and not session.over:
                    session.advance(now, self._action)
                    due = max(due + 1 / (self._rate * session.speed), now - LATE_SECONDS)
                self._show(now)
                clock.sleep(min(max(due - clock.now(), 0.0), LOOK_SECONDS))
        finally:
            if session.recording:
                self._stop_recording()

    def describe(self) -> Shown:
        """What is shown now."""
        said = self._said if self._clock.now() < self._said_until else ""
        session = self.session
        return Shown(
            moment=session.moment,
            headline=headline(self._env, session),
            facts=facts(session.moment),
            message=message(session, said),
            keys=keys(session, self._steering),
            recording=session.recording,
        )

    def say(self, text: str) -> None:
        """Show a message for a while."""
        self._said, self._said_until = text, self._clock.now() + SAID_SECONDS

    def _show(self, now: float) -> None:
        """Draw what is new at once, and the same moment now and then: its texts change too."""
        moment = self.session.moment
        if moment is not self._shown or now >= self._show_again:
            self._shown, self._show_again = moment, now + IDLE_SECONDS
            self._front.show(self.describe())

    def _seen(self, moment: Moment) -> None:
        self._tapped = frozenset()
        self.reel.see(moment)

    def _action(self) -> NDArray[Any]:
        """What the keys mean now."""
        steering = self._steering
        if steering is None:  # a recording goes on by itself
            return np.zeros(0, np.float32)
        return steering.action(self._held | self._tapped)

    def _obey(self, keys: Keys) -> None:
        self._held = keys.held
        self._tapped |= {press.name for press in keys.pressed}
        for press in keys.pressed:
            self._press(press)
        if keys.closed:
            self.session.over = True

    def _press(self, press: Press) -> None:
        session = self.session
        if press.name == HIDE and not press.repeats:
            self._front.toggle_keys()
        elif press.name == RECORD and not session.asking:
            if not press.repeats:
                self._toggle_recording()
        else:
            asking, recorded = session.asking, self._steering is None
            command = command_for(press, recorded=recorded, asking=asking)
            if command is not None:
                session.do(command, self._clock.now(), self._action)

    def _toggle_recording(self) -> None:
        if self.session.recording:
            self._stop_recording()
            return
        try:
            self.session.start_recording()
        except StageError as error:  # another play records, or the folder cannot be written
            self.say(f"Not recording: {error.what} {error.why}".strip())
            return
        if self._films is not None:
            self.reel.start()
        else:
            self.say("Recording episodes; for a film too: pip install 'wm-pixels[video]'")

    def _stop_recording(self) -> None:
        artifact = self.session.stop_recording()
        made = [artifact.id] if artifact is not None else []
        if self.reel.runs and self._films is not None:
            self.films.append(self.reel.finish(self._films(artifact)))
            made.append(str(self.films[-1]))
        self.say(f"Recorded {' and '.join(made)}." if made else "Nothing was recorded.")
