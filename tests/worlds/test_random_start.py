"""Episodes that begin anywhere on the track: the seed's own track, another place on it."""

import numpy as np
import pytest

from stages.contracts import WorldSpec
from stages.errors import UsageError
from stages.worlds.making import check_random_start, make_world
from stages.worlds.opening import open_lane

SPEC = WorldSpec(env="CarRacing-v3")


def drawn(seed):
    """The game after a reset with a random start."""
    lane = open_lane("CarRacing-v3", culled=True, random_start=True)
    lane.env.reset(seed=seed)
    return lane.env.unwrapped


def tiles(track):
    return sorted(tuple(tile) for tile in track)


@pytest.mark.parametrize("seed", [0, 5])
def test_the_car_stands_elsewhere_on_the_track_of_the_seed(seed):
    lane = open_lane("CarRacing-v3")
    lane.env.reset(seed=seed)
    stock = lane.env.unwrapped
    game = drawn(seed)
    assert tiles(game.track) == tiles(stock.track)
    middles = np.array([tile[2:4] for tile in stock.track])
    away = np.linalg.norm(middles - np.array(game.car.hull.position), axis=1)
    assert away.min() < 5 and away.argmin() != 0
    assert any(wheel.tiles for wheel in game.car.wheels)


def test_a_seed_always_begins_at_the_same_place_and_seeds_differ():
    places = [tuple(drawn(seed).car.hull.position) for seed in (1, 1, 2, 3)]
    assert places[0] == places[1]
    assert len(set(places)) == 3


def test_a_reused_lane_begins_where_a_fresh_one_does():
    lane = open_lane("CarRacing-v3", culled=True, random_start=True)
    lane.env.reset(seed=9)
    lane.env.reset(seed=1)
    assert tuple(lane.env.unwrapped.car.hull.position) == tuple(drawn(1).car.hull.position)


def test_both_engines_of_gymnasium_show_the_same_drive():
    worlds = [
        make_world(SPEC, engine=engine, raw=True, random_start=True)
        for engine in ("gymnasium", "gymnasium-fast")
    ]
    assert np.array_equal(*(world.reset([4]) for world in worlds))
    rewards = []
    for _ in range(60):
        steps = [world.step(np.array([[0.1, 0.5, 0]], dtype=np.float32)) for world in worlds]
        assert np.array_equal(*(step.observation for step in steps))
        rewards.append([step.reward[0] for step in steps])
    assert np.array_equal(*np.array(rewards).T)
    assert np.max(rewards) > 1, "no tile was reached"


@pytest.mark.parametrize(
    ("env", "engine"), [("CarRacing-v3", "envpool"), ("ALE/Breakout-v5", "gymnasium")]
)
def test_it_is_refused_where_the_car_cannot_be_moved(env, engine):
    with pytest.raises(UsageError, match="random place"):
        check_random_start(env, engine)
