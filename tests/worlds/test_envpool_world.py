"""EnvPoolWorld against EnvPool itself, one pool per episode, stepped by hand."""

import numpy as np
import pytest
from drivers import PerSeed, Straight, straight, wiggle

from stages.contracts import WorldSpec
from stages.worlds.driving import Recorder, drive
from stages.worlds.making import make_world

envpool = pytest.importorskip("envpool")
pytestmark = pytest.mark.filterwarnings("ignore:.*precision lowered by casting")


def world_of(*, threads=1, **spec):
    return make_world(WorldSpec(engine="envpool", **spec), threads=threads, raw=True)


def by_hand(seed, action_at, num_steps, **options):
    """Frames and rewards of one episode from a pool of its own, until its end."""
    pool = envpool.make_gymnasium("CarRacing-v3", num_envs=1, seed=[seed], num_threads=1, **options)
    frames, rewards = [pool.reset()[0][0]], []
    for step in range(num_steps):
        frame, reward, terminated, truncated, _ = pool.step(action_at(step)[None])
        frames.append(frame[0])
        rewards.append(float(reward[0]))
        if terminated[0] or truncated[0]:
            break
    return np.stack(frames), np.array(rewards)


def test_episodes_do_not_depend_on_lane_threads_or_dropped_neighbours():
    seeds = [5, 6, 7, 8, 9]
    expected = {seed: by_hand(seed, lambda step, s=seed: wiggle(s, step), 12) for seed in seeds}
    world = world_of(threads=2)
    for order in (seeds, seeds[::-1]):
        observation = world.reset(order)
        alive = list(range(5))
        for step in range(12):
            for lane in alive:
                frames, _ = expected[order[lane]]
                np.testing.assert_array_equal(observation[lane], frames[step])
            result = world.step(np.stack([wiggle(seed, step) for seed in order]))
            observation = result.observation
            for lane in alive:
                assert result.reward[lane] == expected[order[lane]][1][step]
            if step in {3, 7}:
                dropped = alive.pop(1)
                world.retire(np.arange(5) == dropped)
                assert not world.live[dropped]


def test_the_step_after_an_end_is_neither_taken_nor_recorded():
    world = world_of(max_frames=10, repeat=3)
    episodes = []
    drive(world, PerSeed(), [1, 2], observers=[Recorder(episodes.append)])
    pool = envpool.make_gymnasium(
        "CarRacing-v3", num_envs=1, seed=[1], num_threads=1, max_episode_steps=10
    )
    first = pool.reset()[0][0]
    for step in range(10):
        last, *_ = pool.step(wiggle(1, step // 3)[None])
    *_, info = pool.step(wiggle(1, 3)[None])
    assert info["elapsed_step"][0] == 0  # EnvPool began another episode on its own
    assert [len(episode.rewards) for episode in episodes] == [4, 4]
    np.testing.assert_array_equal(episodes[0].observations[0], first)
    np.testing.assert_array_equal(episodes[0].observations[-1], last[0])
    assert episodes[0].truncations.tolist() == [False, False, False, True]
    before = world.step(np.zeros((2, 3)))
    assert before.num_frames.tolist() == [0, 0]
    np.testing.assert_array_equal(before.observation[0], last[0])


def test_lanes_end_one_by_one_as_episodes_of_their_own():
    seeds = [0, 1, 2]
    outcomes = drive(world_of(repeat=7), Straight(), seeds)
    assert len({outcome.num_frames for outcome in outcomes}) > 1
    for outcome in outcomes:
        _, rewards = by_hand(outcome.seed, lambda step, s=outcome.seed: straight(s), 1000)
        assert outcome.num_frames == len(rewards)
        assert outcome.total_reward == pytest.approx(rewards.sum(), abs=1e-4)
        assert outcome.terminated
        assert outcome.facts["lap_finished"] == 0  # the field was left
        assert rewards[-1] == -100


def test_the_share_of_the_track_counts_whole_tiles():
    world = world_of(max_frames=60)
    seeds = [0, 1, 2]
    world.reset(seeds)
    rewards = []
    while world.live.any():
        result = world.step(np.stack([[0.0, 0.5, 0.0]] * 3))
        rewards.append(result.reward)
    for lane in range(3):
        gains = np.array(rewards)[:, lane] + 0.1
        num_tiles = round(1000 / min(gain for gain in gains if gain > 1))
        visited = result.facts["track_share"][lane] * num_tiles
        assert 200 < num_tiles < 400
        assert visited == pytest.approx(round(visited), abs=1e-3)
        assert visited >= 4


def test_the_first_reward_carries_the_two_tiles_visited_at_reset():
    world = world_of()
    world.reset([5])
    first = world.step(np.array([[0.0, 0.5, 0.0]])).reward[0] + 0.1
    for _ in range(15):
        gain = world.step(np.array([[0.0, 0.5, 0.0]])).reward[0] + 0.1
        if gain > 1:
            break
    assert first == pytest.approx(2 * gain, abs=1e-4)


def test_its_picture_is_not_gymnasiums():
    ours = world_of().reset([0])
    theirs = make_world(WorldSpec(engine="gymnasium"), raw=True).reset([0])
    assert ours.shape == theirs.shape
    assert (ours != theirs).mean() > 0.01


def test_the_same_seed_gives_the_same_track_again():
    world = world_of()
    first = world.reset([4, 4])
    np.testing.assert_array_equal(first[0], first[1])
    world.step(np.zeros((2, 3)))
    np.testing.assert_array_equal(world.reset([4, 5])[0], first[0])
    assert (world.reset([5])[0] != first[0]).any()
