"""The driver loop, its recorder and its stop rule, in the real CarRacing."""

from dataclasses import replace

import numpy as np
import pytest
from drivers import BRAKE, PerSeed, Steady, wiggle

from stages.contracts import WorldSpec
from stages.errors import NumbersBad
from stages.worlds.driving import Recorder, StopRule, drive
from stages.worlds.making import make_world


def world_of(**spec):
    return make_world(WorldSpec(**{"engine": "gymnasium", "repeat": 4, **spec}))


def test_outcomes_and_records_are_what_a_loop_by_hand_sees():
    episodes, ticks = [], []
    outcomes = drive(
        world_of(max_frames=30),
        PerSeed(),
        [31, 32],
        observers=[Recorder(episodes.append)],
        tick=lambda: ticks.append(1),
    )
    assert len(ticks) == 8
    for seed, outcome, episode in zip([31, 32], outcomes, episodes, strict=True):
        world = world_of(max_frames=30)
        frames, rewards = [world.reset([seed])[0]], []
        while world.live[0]:
            step = world.step(wiggle(seed, len(rewards))[None])
            frames.append(step.observation[0])
            rewards.append(step.reward[0])
        assert (outcome.seed, episode.seed) == (seed, seed)
        assert outcome.num_steps == len(rewards) == 8
        assert outcome.num_frames == 30
        assert outcome.total_reward == pytest.approx(sum(rewards))
        assert (outcome.terminated, outcome.truncated, outcome.stopped) == (False, True, False)
        assert outcome.facts["num_tiles"] == step.facts["num_tiles"][0]
        np.testing.assert_array_equal(episode.observations, np.stack(frames))
        np.testing.assert_array_equal(episode.rewards, rewards)
        np.testing.assert_array_equal(episode.actions, [wiggle(seed, t) for t in range(8)])
        assert episode.actions.dtype == np.float32
        assert episode.truncations.tolist() == [False] * 7 + [True]
        assert not episode.terminations.any()
        assert set(episode.facts) == set(world.fact_names)
        assert (np.diff(episode.facts["num_tiles"]) >= 0).all()


def test_a_lane_without_reward_is_given_up_after_its_patience():
    episodes = []
    outcomes = drive(
        world_of(repeat=1, max_frames=40),
        Steady(BRAKE),
        [1],
        observers=[Recorder(episodes.append)],
        stop_rule=StopRule(patience_steps=5),
    )
    assert outcomes[0].num_steps == 6  # the first step pays for two tiles, then five pay nothing
    assert (outcomes[0].stopped, outcomes[0].truncated) == (True, False)
    assert len(episodes[0].observations) == 7


def test_a_lane_that_earns_is_not_given_up():
    class OneDrives(Steady):
        def act(self, observation, live):
            return np.stack([BRAKE, np.array([0.0, 0.6, 0.0], dtype=np.float32)])

    slow, quick = drive(
        world_of(max_frames=60), OneDrives(None), [1, 2], stop_rule=StopRule(patience_steps=6)
    )
    assert slow.stopped
    assert slow.num_steps == 7
    assert not quick.stopped
    assert quick.num_steps == 15


def test_max_steps_stops_every_lane_and_records_it():
    episodes = []
    outcomes = drive(
        world_of(), Steady(BRAKE), [1, 2], observers=[Recorder(episodes.append)], max_steps=3
    )
    assert [(o.num_steps, o.num_frames, o.stopped) for o in outcomes] == [(3, 12, True)] * 2
    assert [episode.seed for episode in episodes] == [1, 2]


def test_a_reward_that_is_no_number_names_its_episode():
    class Broken:
        def __init__(self, world):
            self.world = world

        def __getattr__(self, name):
            return getattr(self.world, name)

        def step(self, actions):
            step = self.world.step(actions)
            return replace(step, reward=np.where([False, True], np.nan, step.reward))

    with pytest.raises(NumbersBad, match=r"reward nan in step 1 of the episode of seed 22\. "):
        drive(Broken(world_of()), Steady(BRAKE), [11, 22])


def test_choices_are_recorded_as_integers():
    class Fire:
        def reset(self, seeds):
            self.num_lanes = len(seeds)

        def act(self, observation, live):
            return np.ones(self.num_lanes, dtype=np.int64)

    episodes = []
    world = make_world(WorldSpec(env="ALE/Breakout-v5", crop=(30, 200, 0, 160), max_frames=6))
    drive(world, Fire(), [3], observers=[Recorder(episodes.append)])
    assert episodes[0].actions.tolist() == [1] * 6
    assert episodes[0].actions.dtype == np.int64
    assert episodes[0].observations.shape == (7, 64, 64, 3)
