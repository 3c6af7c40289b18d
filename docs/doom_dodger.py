"""How long players of Doom's TakeCover live that know where every fireball is.

The dodger tries 39 plans for the next 60 tics and takes the one that is hit least. Then a linear
controller and one with hidden units learn from it what to press, seeing when and where every
fireball arrives: what controllers of these shapes could do if V and M told them everything.

Usage: python docs/doom_dodger.py [GAMES [UNITS]]

With UNITS only the dodger plays, and sees no fireball that is farther away.
"""

import argparse
import math
import os
import sys
from collections.abc import Callable
from contextlib import chdir
from itertools import pairwise, product
from tempfile import TemporaryDirectory

import gymnasium
import numpy as np
import torch
from torch import nn

from stages.worlds.take_cover import LEFT, NOTHING, RIGHT

LIMIT, REPEAT, AHEAD = 2100, 4, 60  # tics
PUSH, FRICTION = 0.725, 0.90625  # of the player; left is +y
WALLS = 355.0, 645.0
NEAR, HIT, CLOSE = 24, 26, 34  # units
SWITCHES = (4, 8, 12, 16, 24, 32)
ARRIVALS = np.array([0, 6, 12, 18, 24, 32, 45, 60])  # tics
PLACES = np.linspace(-130, 130, 27)  # units beside the player
TEACHER_SEED, PUPIL_SEED = 91_000, 93_000
LESSONS = 4

# Of what a pupil sees and what the teacher counts: above 0 is left, below right.
Player = Callable[[np.ndarray, np.ndarray], float]


def plans() -> np.ndarray:
    """-1, 0 or 1 for each tic, [P, T]: one way for some tics, then another."""
    ways, tics = (-1, 0, 1), np.arange(AHEAD)
    turns = [pair for pair in product(ways, ways) if pair[0] != pair[1]]
    found = [np.full(AHEAD, way) for way in ways]
    found += [np.where(tics < switch, *turn) for turn in turns for switch in SWITCHES]
    return np.array(found)


PLANS = plans()


def paths(place: float, speed: float) -> np.ndarray:
    """Where the player would be after each tic, [P, T]."""
    y, v = np.full(len(PLANS), place), np.full(len(PLANS), speed)
    found = np.zeros(PLANS.shape)
    for tic in range(AHEAD):
        v = v + PUSH * PLANS[:, tic]
        free = y + v
        y = np.clip(free, *WALLS)
        v = np.where(free == y, v, 0) * FRICTION
        found[:, tic] = y
    return found


def seen(state: object, sight: float = math.inf) -> tuple[object, list[object]]:
    """The player, and the fireballs that fly towards it from no farther than this."""
    player = next(one for one in state.objects if one.name == "DoomPlayer")
    balls = [one for one in state.objects if one.name == "DoomImpBall" and one.velocity_x < -1]
    return player, [one for one in balls if abs(one.position_x - player.position_x) < sight]


def costs(state: object, sight: float) -> np.ndarray:
    """What the best plan that begins with right, nothing and left costs, in hits."""
    player, balls = seen(state, sight)
    ways, tics = paths(player.position_y, player.velocity_y), np.arange(1, AHEAD + 1)
    cost = 0.001 * np.maximum(0, np.abs(ways[:, -1] - np.mean(WALLS)) - 100)
    cost -= 0.0005 * np.abs(ways[:, :32] - player.position_y).mean(1)  # they aim at where it is
    for ball in balls:
        here = np.abs(ball.position_x + ball.velocity_x * tics - player.position_x) < NEAR
        beside = np.abs(ball.position_y + ball.velocity_y * tics - ways)
        cost += (here & (beside < HIT)).any(1) + 0.3 * (here & (beside < CLOSE)).any(1)
    return np.array([cost[PLANS[:, 0] == way].min() for way in (-1, 0, 1)])


def arrivals(state: object) -> np.ndarray:
    """When and where fireballs arrive, and the player's own place and speed."""
    player, balls = seen(state)
    grid = np.zeros((len(ARRIVALS) - 1, len(PLACES) - 1), dtype=np.float32)
    for ball in balls:
        tics = (ball.position_x - player.position_x) / -ball.velocity_x
        beside = ball.position_y + ball.velocity_y * tics - player.position_y
        when, where = np.searchsorted(ARRIVALS, tics, "right"), np.searchsorted(PLACES, beside)
        if 0 < when < len(ARRIVALS) and 0 < where < len(PLACES):
            grid[when - 1, where - 1] = 1
    own = [(player.position_y - np.mean(WALLS)) / 80, player.velocity_y / 5, 1]
    return np.concatenate([grid.ravel(), own]).astype(np.float32)


def dodger(_: np.ndarray, told: np.ndarray) -> float:
    """The way of the best plan."""
    return float(np.argmin(told) - 1)


def games(
    env: gymnasium.Env,
    first: int,
    number: int,
    player: Player,
    notes: list[tuple],
    *,
    slips: float = 0.0,
    sight: float = math.inf,
) -> np.ndarray:
    """Tics of games [number]; `notes` gets what a pupil sees and the teacher's costs.

    With probability `slips` a step begins some in which the teacher plays.
    """
    random, lived = np.random.default_rng(first), []
    for seed in range(first, first + number):
        env.reset(seed=seed)
        tics, ended, helped = 0, False, 0
        while not ended and tics < LIMIT:
            state = env.unwrapped.game.get_state()
            note = arrivals(state), costs(state, sight)
            notes.append(note)
            if not helped and random.random() < slips:
                helped = int(random.integers(2, 12))
            way = (dodger if helped else player)(*note)
            helped = max(0, helped - 1)
            for _ in range(min(REPEAT, LIMIT - tics)):
                _, _, ended, _, _ = env.step((NOTHING, LEFT, RIGHT)[int(np.sign(way))])
                tics += 1
                if ended:
                    break
        lived.append(tics)
    return np.array(lived)


def pupil(notes: list[tuple], hidden: int) -> Player:
    """A network that was taught left or right, each step weighed by what is at stake."""
    inputs, told = (torch.tensor(np.array(part)).float() for part in zip(*notes, strict=True))
    left, stake = (told[:, 2] < told[:, 0]).float(), (told[:, 2] - told[:, 0]).abs() + 0.002
    torch.manual_seed(0)
    sizes = [inputs.shape[1], *((hidden, hidden) if hidden else ())]
    wide = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())]
    net = nn.Sequential(*wide, nn.Linear(sizes[-1], 1))
    learner = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    falling = torch.optim.lr_scheduler.LinearLR(learner, 1, 0.01, 1500)
    for _ in range(1500):
        rows = torch.randint(0, len(inputs), (1024,))
        loss = nn.functional.binary_cross_entropy_with_logits(
            net(inputs[rows])[:, 0], left[rows], weight=stake[rows] / stake.mean()
        )
        learner.zero_grad()
        loss.backward()
        learner.step()
        falling.step()
    return torch.no_grad()(lambda saw, _: float(net(torch.tensor(saw))[0]))


def say(who: str, tics: np.ndarray) -> None:
    """A line of the mean with its standard error."""
    error = tics.std(ddof=1) / np.sqrt(len(tics))
    sys.stdout.write(f"{who}: {tics.mean():.0f} ± {error:.0f} tics ({len(tics)})\n")
    sys.stdout.flush()


def main(number: int, sight: float) -> None:
    """Let the teacher play, then each pupil learn from what it meets itself, lesson by lesson."""
    env = gymnasium.make("VizdoomTakeCover-v1", frame_skip=1)
    env.unwrapped.game.set_objects_info_enabled(True)
    taught: list[tuple] = []
    say("the dodger", games(env, TEACHER_SEED, number, dodger, taught, sight=sight))
    for hidden in (0, 256) if math.isinf(sight) else ():
        notes = list(taught)
        for lesson in range(LESSONS):
            player, slips = pupil(notes, hidden), 0.02 if lesson < LESSONS - 1 else 0
            tics = games(env, PUPIL_SEED + 1000 * lesson, number, player, notes, slips=slips)
        say(f"its pupil, {hidden} hidden units", tics)
    env.close()


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("games", nargs="?", type=int, default=48, metavar="GAMES")
    words.add_argument("units", nargs="?", type=float, default=math.inf, metavar="UNITS")
    asked = words.parse_args()
    if asked.games < 2 or not asked.units > 0:
        words.error("A standard error needs two games, and a player to see something.")
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    with TemporaryDirectory() as folder, chdir(folder):  # the engine leaves files where it runs
        main(asked.games, asked.units)
