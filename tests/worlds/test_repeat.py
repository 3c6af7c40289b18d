"""Action repeat against a loop over single frames."""

import numpy as np
import pytest
from drivers import wiggle

from stages.contracts import WorldSpec
from stages.worlds.making import make_world

ENGINES = ["gymnasium", "envpool"]


@pytest.mark.parametrize("engine", ENGINES)
def test_repeat_equals_a_loop_over_frames(engine):
    if engine == "envpool":
        pytest.importorskip("envpool")
    slow = make_world(WorldSpec(max_frames=22), engine=engine, raw=True)
    fast = make_world(WorldSpec(max_frames=22, repeat=4), engine=engine, raw=True)
    seeds = [21, 22]
    np.testing.assert_array_equal(fast.reset(seeds), slow.reset(seeds))
    lengths = []
    for step in range(6):
        actions = np.stack([wiggle(seed, step) for seed in seeds])
        result = fast.step(actions)
        total = np.zeros(2)
        for _ in range(result.num_frames[0]):
            single = slow.step(actions)
            total += single.reward
        np.testing.assert_array_equal(result.observation, single.observation)
        np.testing.assert_allclose(result.reward, total, rtol=0, atol=1e-12)
        for name in fast.fact_names:
            np.testing.assert_array_equal(result.facts[name], single.facts[name])
        lengths.append(result.num_frames.tolist())
    assert lengths == [[4, 4]] * 5 + [[2, 2]]  # the last one stops at the end
    assert result.truncated.all()
    assert not fast.live.any()


def test_frames_that_nobody_sees_are_not_drawn(monkeypatch):
    world = make_world(WorldSpec(repeat=4), engine="gymnasium", raw=True)
    world.reset([1])
    from gymnasium.envs.box2d.car_racing import CarRacing

    real, drawn = CarRacing._render, []
    monkeypatch.setattr(CarRacing, "_render", lambda s, mode: drawn.append(mode) or real(s, mode))
    for _ in range(3):
        world.step(np.zeros((1, 3)))
    assert drawn == ["state_pixels"] * 3
