"""An environment that gives nonsense in the middle of an episode: it never passes in silence."""

import json

import numpy as np
import pytest
from drivers import Steady
from toys import toy_world

from stages.contracts import WorldSpec
from stages.errors import NumbersBad, UsageError
from stages.worlds.driving import drive
from stages.worlds.making import make_world

toy_world.register()
SEEDS = [11, 12, 13]
RIGHT = np.array([1.0, 0.0, 0.0], dtype=np.float32)
GOOD = r"instead of uint8 \[96, 96, 3\]"


@pytest.fixture
def mad(monkeypatch):
    """A toy world whose episode of seed 12 goes wrong as told."""

    def make(**fault):
        monkeypatch.setenv("TOY_FAULT", json.dumps({"seed": 12, **fault}))
        return make_world(WorldSpec(env="Toy-v0", repeat=4))

    return make


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("floats", rf"a frame of float32 \[96, 96, 3\] {GOOD} in step 3 of the episode of seed 12"),
        (
            "nan",
            rf"float32 \[96, 96, 3\] {GOOD} that holds nan in step 3 of the episode of seed 12",
        ),
        ("small", rf"a frame of uint8 \[95, 96, 3\] {GOOD} in step 3 of the episode of seed 12"),
    ],
)
@pytest.mark.parametrize("frame", [9, 12])  # the first and the last that step 3 holds
def test_a_frame_of_another_kind_stops_the_drive(kind, said, frame, mad):
    with pytest.raises(NumbersBad, match=said):
        drive(mad(frame=kind, step=frame), Steady(RIGHT), SEEDS, max_steps=5)


def test_a_frame_of_another_kind_beside_a_finished_lane_is_not_cast_to_black(mad):
    world = mad(frame="nan", step=5)
    world.reset(SEEDS)
    world.step(np.stack([RIGHT] * 3))
    world.retire(np.array([True, False, False]))
    with pytest.raises(NumbersBad, match="holds nan"):
        world.step(np.stack([RIGHT] * 3))


def test_a_first_frame_of_another_kind_stops_before_the_first_step(mad):
    with pytest.raises(NumbersBad, match=f"{GOOD} in the first frame of the episode of seed 12"):
        drive(mad(frame="floats", step=0), Steady(RIGHT), SEEDS, max_steps=5)


@pytest.mark.parametrize("reward", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_no_number_names_step_episode_and_driver(reward, mad):
    drivers = ["candidate 1", "candidate 2", "candidate 3"]
    with pytest.raises(NumbersBad) as caught:
        drive(mad(reward=reward, step=6), Steady(RIGHT), SEEDS, max_steps=5, drivers=drivers)
    place = "in step 2 of the episode of seed 12, driven by candidate 2."
    assert caught.value.what == f"The world gave the reward {reward} {place}"


def test_rewards_whose_sum_is_no_number_stop_it_too(mad):
    world = mad(reward=1.7e308, step=2)
    spent = drive(world, Steady(RIGHT), SEEDS, max_steps=3)
    assert spent[1].total_reward == 1.7e308

    class Twice:
        """The same world, which pays once more at every step."""

        def __getattr__(self, name):
            return getattr(world, name)

        def step(self, actions):
            step = world.step(actions)
            step.reward[1] = 1.7e308
            return step

    with pytest.raises(NumbersBad, match=r"reward 1.7e\+308 in step 2 of the episode of seed 12"):
        drive(Twice(), Steady(RIGHT), SEEDS, max_steps=3)


def test_a_sound_world_goes_on_to_the_end(mad):
    outcomes = drive(mad(), Steady(RIGHT), SEEDS)
    assert [outcome.num_frames for outcome in outcomes] == [200] * 3


def test_an_action_that_is_no_number_names_its_episode(mad):
    class Lost(Steady):
        def act(self, observation, live):
            actions = super().act(observation, live)
            actions[1, 0] = np.nan
            return actions

    with pytest.raises(NumbersBad, match=r"lane 1 is .* in step 1 of the episode of seed 12"):
        drive(mad(), Lost(RIGHT), SEEDS)


def test_a_world_whose_observations_are_floats_is_refused():
    with pytest.raises(UsageError, match="float32"):
        make_world(WorldSpec(env="ToyFloats-v0"))
