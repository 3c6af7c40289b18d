"""What stands above and below the pictures: a headline, numbers, a message, the keys."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.playing.scene import KEYBOARD, TERMINATED, Moment, Scene
from stages.playing.session import Session
from wm_cli.playing.keys import Steering

SEPARATOR = "  ·  "
Row = tuple[str, str]  # a label and its value, or keys and what they do


@dataclass(frozen=True)
class Shown:
    """Everything that a window, a terminal or a film shows at one moment."""

    moment: Moment
    headline: str
    facts: tuple[Row, ...]
    message: str  # what asks for attention; empty: nothing
    keys: tuple[Row, ...]
    recording: bool = False


def facts(moment: Moment) -> tuple[Row, ...]:
    """The header's numbers; always as many for one scene, so that nothing jumps."""
    rows = [
        ("step", f"{moment.num_steps:,}"),
        ("action", action_text(moment.action)),
        ("reward", number(moment.reward)),
        ("return", number(moment.total)),
        ("end probability", share(moment.end_probability)),
    ]
    if moment.temperature is not None:
        rows.append(("temperature", f"{moment.temperature:.2f}"))
    return (*rows, ("seed", str(moment.seed)))


def action_text(action: NDArray[Any] | None) -> str:
    """`+0.50 0.00 0.80`, or the number of a choice."""
    if action is None:
        return "-"
    if np.ndim(action) == 0:
        return str(int(action))
    return " ".join(f"{value:+.2f}" for value in action)


def number(value: float | None) -> str:
    """A reward or a return; a dash where nobody knows it."""
    return "-" if value is None else f"{value:.2f}"


def share(value: float | None) -> str:
    """A probability in percent; a dash where nobody says."""
    return "-" if value is None else f"{100 * value:.1f} %"


def headline(env: str, session: Session) -> str:
    """What is played, and by whom."""
    scene = session.scene
    if not scene.drivers:
        told = f"episode {session.number % scene.num_episodes + 1} of {scene.num_episodes}"
        parts = [scene.name, told, scene.told]
    else:
        who = "you drive" if session.driver == KEYBOARD else f"{session.driver} drives"
        parts = [env, scene.name, f"episode {session.number + 1}", who]
    if session.speed != 1:
        parts.append(f"speed x{session.speed:g}")
    return SEPARATOR.join(part for part in parts if part)


def message(session: Session, said: str) -> str:
    """What asks for attention: a question, a pause, how the episode ended, or what was `said`."""
    moment = session.moment
    if session.asking:
        return f"Keep this episode ({moment.num_steps:,} steps, {_return(moment)})?  y / n"
    if moment.ended:
        how = "ended" if moment.ended == TERMINATED else "was cut by its limit"
        return f"The episode {how} after {moment.num_steps:,} steps, {_return(moment)}. {said}"
    return SEPARATOR.join(filter(None, (said, "paused" if session.paused else "")))


def _return(moment: Moment) -> str:
    return f"return {number(moment.total)}" if moment.total is not None else "return unknown"


def keys(session: Session, steering: Steering | None) -> tuple[Row, ...]:
    """The keys that do something here."""
    scene: Scene = session.scene
    if steering is None:
        first: tuple[Row, ...] = (("left right", "back, forward"), ("space p", "pause"))
        return (*first, ("n b", "next, previous"), ("r", "from its start"), *_common(film=True))
    rows = [*steering.help(), ("p", "pause"), (".", "single step")]
    rows += [("r", "again"), ("n b", "next, previous")]
    if len(scene.drivers) > 1:
        rows.append(("tab", f"who drives: {', '.join(scene.drivers)}"))
    if session.moment.temperature is not None:
        rows.append(("+ -", "temperature"))
    return (*rows, *_common(film=bool(session.terms.keep)))


def key_text(row: Row) -> str:
    """A key and what it does, in one cell of the list."""
    return f"[{row[0]}] {row[1]}"


def _common(*, film: bool) -> tuple[Row, ...]:
    what = "record a film" if film else "record film and episodes"
    return ((",", what), ("s f", "slower, faster"), ("h", "hide keys"), ("q", "leave"))
