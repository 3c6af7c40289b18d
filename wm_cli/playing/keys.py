"""What keys mean: commands, and actions while they are held down."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.contracts import ActionSpec
from stages.playing.session import Command
from stages.worlds.making import CAR_RACING, DOOM, is_of

RECORD = ","  # a film, and what the session keeps
HIDE = "h"  # the list of keys
COMMANDS = {
    "p": Command.PAUSE,
    ".": Command.FORWARD,
    "r": Command.AGAIN,
    "n": Command.NEXT,
    "b": Command.PREVIOUS,
    "tab": Command.DRIVER,
    "+": Command.WARMER,
    "=": Command.WARMER,  # + without shift
    "-": Command.COLDER,
    "f": Command.FASTER,
    "s": Command.SLOWER,
    "q": Command.QUIT,
    "escape": Command.QUIT,
}
ANSWERS = {
    "y": Command.YES,
    "n": Command.NO,
    "return": Command.YES,
    "q": Command.QUIT,
    "escape": Command.QUIT,
}
OF_RECORDINGS = {"right": Command.FORWARD, "left": Command.BACK, "space": Command.PAUSE}
REPEATING = {Command.FORWARD, Command.BACK, Command.WARMER, Command.COLDER}
DIRECTIONS = ("left", "right", "up", "down")
BRAKE = 0.8  # more locks the wheels of CarRacing


@dataclass(frozen=True)
class Press:
    """A key that went down, or that repeats because it is held."""

    name: str  # "left", "space", "tab", "escape", "return", or the character
    repeats: bool = False


@dataclass(frozen=True)
class Keys:
    """What happened on the keyboard since somebody looked last."""

    pressed: tuple[Press, ...] = ()
    held: frozenset[str] = frozenset()
    closed: bool = False  # the window, or the terminal, is gone


def command_for(press: Press, *, recorded: bool, asking: bool) -> Command | None:
    """What a key asks for besides an action; None when nothing."""
    table = ANSWERS if asking else {**COMMANDS, **(OF_RECORDINGS if recorded else {})}
    command = table.get(press.name)
    return None if press.repeats and command not in REPEATING else command


class Steering:
    """The action of the keys that are held, for one kind of world."""

    def __init__(self, env: str, spec: ActionSpec, names: tuple[str, ...] = ()) -> None:
        """`names`: what the choices mean, where the world says so ("NOOP", "UPFIRE" ...)."""
        self._env, self._spec = env, spec
        self._choices: Mapping[str, int] = {name: number for number, name in enumerate(names)}

    def action(self, held: frozenset[str]) -> NDArray[Any]:
        """Float32 [A] of a box, int64 [] of a choice."""
        if self._spec.kind == "choice":
            return np.asarray(self._choice(held), dtype=np.int64)
        return self._box(held)

    def help(self) -> tuple[tuple[str, str], ...]:
        """Keys and what they do, for the list on screen."""
        if is_of(self._env, CAR_RACING):
            return (("left right", "steer"), ("up", "gas"), ("down", f"brake ({BRAKE})"))
        if is_of(self._env, DOOM):
            return (("left right", "move"),)
        if self._spec.kind == "box":
            numbers = (("left right", "first number"), ("up down", "second number"))
            return numbers[: self._spec.size]
        told = (f"0-{min(self._spec.size, 10) - 1}", "choose")
        known = [name for name in DIRECTIONS if self._means(name.upper())]
        steer = ((" ".join(known), "as the game has it"),) if known else ()
        fire = (("space", "fire"),) if "FIRE" in self._choices else ()
        return (told, *steer, *fire)

    def _means(self, name: str) -> bool:
        return any(name in choice for choice in self._choices)

    def _box(self, held: frozenset[str]) -> NDArray[np.float32]:
        spec = self._spec
        low, high = np.array(spec.low, np.float32), np.array(spec.high, np.float32)
        action = np.clip(np.zeros(spec.size, np.float32), low, high)
        across = ("right" in held) - ("left" in held)
        along = ("up" in held) - ("down" in held)
        if across:
            action[0] = high[0] if across > 0 else low[0]
        if is_of(self._env, CAR_RACING) and spec.size == 3:
            action[1] = float("up" in held)
            action[2] = BRAKE * ("down" in held)
        elif along and spec.size > 1:
            action[1] = high[1] if along > 0 else low[1]
        return action

    def _choice(self, held: frozenset[str]) -> int:
        for number in range(min(self._spec.size, 10)):
            if str(number) in held:
                return number
        along = "UP" * ("up" in held) + "DOWN" * ("down" in held)
        across = "RIGHT" * ("right" in held) + "LEFT" * ("left" in held)
        fire = "FIRE" * ("space" in held)
        moves = [move for move in (along + across, across, along) if move]
        # The whole first, then what of it the game knows: Breakout has no UP, and no RIGHTFIRE.
        for name in (*(move + fire for move in moves), *moves, fire):
            if name in self._choices:
                return self._choices[name]
        return self._choices.get("NOOP", 0)
