"""Keys and what they mean, in worlds of every kind and in a terminal that tells no key's end."""

import numpy as np
import pytest

from stages.contracts import ActionSpec
from stages.playing.session import Command
from wm_cli.playing.keys import Press, Steering, command_for
from wm_cli.playing.terminal import Terminal, key_names

CAR = ActionSpec("box", 3, low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0))
ONE = ActionSpec("box", 1, low=(-1.0,), high=(1.0,))
BREAKOUT = ("NOOP", "FIRE", "RIGHT", "LEFT")
PONG = (*BREAKOUT, "RIGHTFIRE", "LEFTFIRE")


@pytest.mark.parametrize(
    ("held", "action"),
    [
        ("", (0, 0, 0)),
        ("left", (-1, 0, 0)),
        ("right up", (1, 1, 0)),
        ("left right down", (0, 0, 0.8)),
        ("up down", (0, 1, 0.8)),
    ],
)
def test_a_car_steers_by_arrows(held, action):
    found = Steering("CarRacing-v3", CAR).action(frozenset(held.split()))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, action)


def test_doom_moves_by_one_number():
    steering = Steering("VizdoomTakeCover-v1", ONE)
    for held, number in (("left", -1), ("right", 1), ("", 0), ("up", 0)):
        assert steering.action(frozenset(held.split())).tolist() == [number]


@pytest.mark.parametrize(
    ("names", "held", "choice"),
    [
        (BREAKOUT, "", "NOOP"),
        (BREAKOUT, "left", "LEFT"),
        (BREAKOUT, "space", "FIRE"),
        (BREAKOUT, "right space", "RIGHT"),
        (PONG, "right space", "RIGHTFIRE"),
        (BREAKOUT, "up", "NOOP"),
        (BREAKOUT, "3 space", "LEFT"),
    ],
)
def test_choices_by_number_or_by_meaning(names, held, choice):
    steering = Steering("ALE/X-v5", ActionSpec("choice", len(names)), names)
    assert int(steering.action(frozenset(held.split()))) == names.index(choice)


def test_choices_without_names_have_numbers():
    steering = Steering("Unnamed-v0", ActionSpec("choice", 3))
    assert [int(steering.action(frozenset(key))) for key in ("0", "1", "2", "7", "")] == [
        0, 1, 2, 0, 0,
    ]  # fmt: skip
    assert steering.help() == (("0-2", "choose"),)


def test_a_key_that_repeats_moves_on_and_toggles_nothing():
    def command(name, **about):
        return command_for(Press(name, **about), recorded=True, asking=False)

    assert command("left") is command("left", repeats=True) is Command.BACK
    assert command("p") is Command.PAUSE
    assert command("p", repeats=True) is None
    assert command_for(Press("left"), recorded=False, asking=False) is None, "it steers"


def test_a_question_is_answered_by_yes_and_no_alone():
    answers = {name: command_for(Press(name), recorded=False, asking=True) for name in "ynrp,"}
    assert answers == {"y": Command.YES, "n": Command.NO, "r": None, "p": None, ",": None}


def test_what_a_terminal_sends():
    sent = "\x1b[A\x1bOD a,\t\r\x1b[3~\x1b[1;5C+\x1b"
    names = ["up", "left", "space", "a", ",", "tab", "return", "right", "+", "escape"]
    assert list(key_names(sent)) == names


class Now:
    time = 0.0

    def __call__(self):
        return self.time


@pytest.fixture
def terminal():
    now = Now()
    return Terminal(clock=now), now


def test_a_key_of_a_terminal_is_held_while_it_repeats(terminal):
    keys, now = terminal
    assert keys.pressed("\x1b[A").held == {"up"}
    now.time = 0.5  # the keyboard begins to repeat
    assert keys.pressed("\x1b[A").held == {"up"}
    now.time = 0.75
    assert keys.pressed("").held == {"up"}
    now.time = 0.85
    assert keys.pressed("").held == frozenset()


def test_the_gas_stays_while_another_key_repeats(terminal):
    """Terminals repeat the newest key alone."""
    keys, now = terminal
    keys.pressed("\x1b[A")
    for tick in range(1, 20):
        now.time = tick / 10
        assert keys.pressed("\x1b[D").held == {"up", "left"}
    assert keys.pressed("\x1b[C").held == {"up", "right"}, "the other way at once"
    now.time += 0.7
    assert keys.pressed("").held == frozenset()


def test_presses_of_a_terminal_that_follow_at_once_are_repeats(terminal):
    keys, now = terminal
    assert [press.repeats for press in keys.pressed("p").pressed] == [False]
    now.time = 0.05
    assert [press.repeats for press in keys.pressed("p").pressed] == [True]
    now.time = 1.0
    assert [press.repeats for press in keys.pressed("p").pressed] == [False]
