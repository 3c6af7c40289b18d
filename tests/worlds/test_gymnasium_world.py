"""GymnasiumWorld against Gymnasium itself, stepped by hand."""

import subprocess
import sys

import numpy as np
import pytest
from drivers import BRAKE, straight, wiggle

from stages.contracts import WorldSpec
from stages.errors import EnvironmentLacks, NumbersBad, UsageError
from stages.worlds.making import make_world


def car_racing(**spec):
    return make_world(WorldSpec(engine="gymnasium", **spec), raw=True)


def reference(env="CarRacing-v3", **options):
    """A fresh environment made by Gymnasium alone (after a world, which imports Box2D safely)."""
    car_racing().close()
    import gymnasium

    return gymnasium.make(env, disable_env_checker=True, **options)


def replay(seed, num_steps):
    env = reference()
    frames, rewards = [env.reset(seed=seed)[0]], []
    for step in range(num_steps):
        frame, reward, *_ = env.step(wiggle(seed, step))
        frames.append(frame)
        rewards.append(reward)
    return frames, rewards, env.unwrapped


def test_a_reused_environment_equals_a_fresh_one_whatever_the_lane():
    world = car_racing()
    world.reset([3, 4])
    for step in range(30):  # leave contacts and bodies of another episode behind
        world.step(np.stack([wiggle(3, step), wiggle(4, step)]))
    for seeds in ([11, 12], [12, 11]):
        observation = world.reset(seeds)
        expected = [replay(seed, 25) for seed in seeds]
        for lane in range(2):
            np.testing.assert_array_equal(observation[lane], expected[lane][0][0])
        for step in range(25):
            result = world.step(np.stack([wiggle(seed, step) for seed in seeds]))
            for lane, (frames, rewards, _) in enumerate(expected):
                np.testing.assert_array_equal(result.observation[lane], frames[step + 1])
                assert result.reward[lane] == rewards[step]


def test_the_first_reward_carries_the_two_tiles_visited_at_reset():
    world = car_racing()
    seeds = [0, 1, 2]
    world.reset(seeds)
    result = world.step(np.stack([BRAKE] * 3))
    num_tiles = [319, 275, 335]  # N of seeds 0 to 2, as measured elsewhere
    np.testing.assert_allclose(result.reward, [2000 / n - 0.1 for n in num_tiles], atol=1e-9)
    np.testing.assert_array_equal(result.facts["num_tiles"], [2, 2, 2])
    np.testing.assert_array_equal(result.facts["track_tiles"], num_tiles)


def test_the_return_is_tiles_visited_minus_a_tenth_per_frame():
    world = make_world(WorldSpec(repeat=5), engine="gymnasium", raw=True)
    world.reset([7])
    total, num_frames = 0.0, 0
    while num_frames < 140:  # shortly before this drive leaves the field
        result = world.step(np.array([[0.02, 0.6, 0.0]]))
        total, num_frames = total + result.reward[0], num_frames + result.num_frames[0]
    visited, num_tiles = result.facts["num_tiles"][0], result.facts["track_tiles"][0]
    assert visited > 5
    assert world.live.all()
    assert total == pytest.approx(1000 * visited / num_tiles - 0.1 * 140)
    assert result.facts["track_share"][0] == visited / num_tiles


def test_off_road_means_that_no_wheel_touches_a_tile():
    world = make_world(WorldSpec(repeat=10), engine="gymnasium", raw=True)
    world.reset([0])
    assert not world.step(BRAKE[None]).facts["off_road"][0]
    seen = [bool(world.step(straight(0)[None]).facts["off_road"][0]) for _ in range(12)]
    assert seen[-1]  # straight on leaves the first bend


def test_leaving_the_field_ends_the_episode_with_minus_100_and_nothing_after():
    world = make_world(WorldSpec(repeat=20), engine="gymnasium", raw=True)
    world.reset([0, 1])
    world.retire(np.array([False, True]))
    results = []
    while world.live.any():
        results.append(world.step(np.stack([straight(0)] * 2)))
    end = results[-1]
    assert end.terminated[0]
    assert not end.truncated[0]
    assert not end.facts["lap_finished"][0]
    assert end.reward[0] == pytest.approx(-100 - 0.1 * (end.num_frames[0] - 1))
    after = world.step(np.stack([straight(0)] * 2))
    assert after.terminated[0]
    assert after.reward.tolist() == [0, 0]
    assert after.num_frames.tolist() == [0, 0]
    np.testing.assert_array_equal(after.observation, end.observation)


def test_retired_lanes_cost_no_engine_frames(monkeypatch):
    world = car_racing()
    world.reset([1, 2, 3])
    from gymnasium.envs.box2d.car_racing import CarRacing

    real, stepped = CarRacing.step, []
    monkeypatch.setattr(CarRacing, "step", lambda s, a: stepped.append(s) or real(s, a))
    world.step(np.stack([BRAKE] * 3))
    assert len(stepped) == 3
    world.retire(np.array([True, False, True]))
    assert world.live.tolist() == [False, True, False]
    result = world.step(np.stack([BRAKE] * 3))
    assert len(stepped) == 4
    assert result.num_frames.tolist() == [0, 1, 0]
    assert not (result.terminated | result.truncated).any()


@pytest.mark.parametrize("engine", ["gymnasium", "envpool"])
def test_an_earlier_step_stays_what_it_was(engine):
    if engine == "envpool":
        pytest.importorskip("envpool")
    world = make_world(WorldSpec(), engine=engine, raw=True)
    world.reset([1, 2])
    world.retire(np.array([True, False]))
    drive = np.stack([BRAKE, straight(2)])
    earlier = world.step(drive)
    kept = earlier.observation.copy(), earlier.reward.copy(), dict(earlier.facts)
    for _ in range(20):
        later = world.step(drive)
    assert (later.observation[1] != kept[0][1]).any()
    np.testing.assert_array_equal(earlier.observation, kept[0])
    np.testing.assert_array_equal(earlier.reward, kept[1])
    assert earlier.facts["track_share"][1] < later.facts["track_share"][1]


def test_tile_0_is_visited_at_reset_so_the_lap_percentage_is_inert():
    env = reference()
    env.reset(seed=5)
    assert env.unwrapped.road[0].road_visited


def test_a_list_of_actions_is_as_good_as_an_array():
    world = car_racing()
    world.reset([5])
    from_list = world.step([[0.1, 0.5, 0.0]])
    world.reset([5])
    from_array = world.step(np.array([[0.1, 0.5, 0.0]], dtype=np.float32))
    np.testing.assert_array_equal(from_list.observation, from_array.observation)
    assert from_list.reward == from_array.reward


def test_actions_that_an_engine_would_swallow_are_refused():
    world = car_racing()
    world.reset([5, 6])
    with pytest.raises(AssertionError, match=r"\(2, 3\)"):
        world.step(np.zeros((1, 3)))
    with pytest.raises(AssertionError, match="outside"):
        world.step(np.array([[0, 0, 0], [0, -0.5, 0]]))
    with pytest.raises(NumbersBad, match="lane 1"):
        world.step(np.array([[0, 0, 0], [np.nan, 0, 0]]))
    world.retire(np.array([False, True]))
    world.step(np.array([[0, 0, 0], [np.nan, 9, 9]]))  # a dead lane's row is ignored


def test_a_time_limit_in_frames_truncates():
    world = car_racing(max_frames=3)
    world.reset([1])
    flags = [world.step(BRAKE[None]).truncated[0] for _ in range(3)]
    assert flags == [False, False, True]
    assert not world.live.any()


def test_atari_is_a_choice_without_facts_and_starts_each_seed_afresh():
    world = make_world(WorldSpec(env="ALE/Breakout-v5", crop=(0, 210, 0, 160)), raw=True)
    assert (world.action_spec.kind, world.action_spec.size) == ("choice", 4)
    assert world.fact_names == ()
    assert world.observation_shape == (210, 160, 3)
    actions = [1, 2, 2, 3, 0, 2, 3, 3] * 4
    world.reset([8, 9])
    for action in actions:
        world.step(np.array([action, action]))
    observation = world.reset([9, 8])
    env = reference("ALE/Breakout-v5")
    np.testing.assert_array_equal(observation[0], env.reset(seed=9)[0])
    for action in actions:
        frame, reward, *_ = env.step(action)
        result = world.step(np.array([action, 0]))
        np.testing.assert_array_equal(result.observation[0], frame)
        assert result.reward[0] == reward


@pytest.mark.parametrize(
    ("env", "meant"),
    [
        ("CarRacng-v3", "CarRacing-v3"),
        ("CarRacing-v2", "CarRacing-v3"),
        ("ALE/Brekout-v5", "ALE/Breakout-v5"),
    ],
)
def test_an_unknown_id_is_answered_with_the_nearest(env, meant):
    with pytest.raises(UsageError) as caught:
        make_world(WorldSpec(env=env))
    assert meant in caught.value.fix


def test_a_world_without_pictures_is_refused():
    with pytest.raises(UsageError, match="pixels"):
        make_world(WorldSpec(env="CartPole-v1"))


def test_an_id_cannot_make_gymnasium_import_a_module():
    with pytest.raises(UsageError, match="import"):
        make_world(WorldSpec(env="antigravity:Fly-v0"))


def test_a_missing_package_is_named():
    with pytest.raises(EnvironmentLacks, match="MuJoCo"):
        make_world(WorldSpec(env="Reacher-v5"))


def test_box2d_loads_although_warnings_are_errors():
    """Its SWIG module brings the process down when its DeprecationWarning raises."""
    code = (
        "from stages.contracts import WorldSpec\n"
        "from stages.worlds.making import make_world\n"
        "make_world(WorldSpec(engine='gymnasium'), raw=True).close()\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
