"""The oracle of the quick drawing is Gymnasium's own, frame by frame, on whole drives."""

import numpy as np
import pytest

from stages.contracts import WorldSpec
from stages.worlds.making import make_world

NUM_FRAMES = 140  # the zoom of the first second, and then the drive


def _drive(seed):
    """Full gas with a random wheel leaves the road, where corners of the field come into view."""
    random = np.random.default_rng(seed)
    steer = 0.0
    for _ in range(NUM_FRAMES):
        steer = float(np.clip(steer + random.normal(scale=0.2), -1, 1))
        yield np.array([[steer, random.uniform(0.3, 1), 0]], dtype=np.float32)


@pytest.mark.parametrize("seed", [0, 7])
def test_draws_what_gymnasium_draws(seed):
    spec = WorldSpec(env="CarRacing-v3")
    plain = make_world(spec, engine="gymnasium", raw=True)
    culled = make_world(spec, engine="gymnasium-fast", raw=True)
    assert np.array_equal(plain.reset([seed]), culled.reset([seed]))
    for action in _drive(seed):
        expected, found = plain.step(action), culled.step(action)
        assert expected.observation.shape == (1, 96, 96, 3)
        assert np.array_equal(expected.observation, found.observation)
        assert expected.reward == found.reward


def test_draws_the_edge_of_the_field_as_gymnasium_does():
    spec = WorldSpec(env="CarRacing-v3")
    worlds = [make_world(spec, engine=name, raw=True) for name in ("gymnasium", "gymnasium-fast")]
    frames = [world.reset([3]) for world in worlds]
    black = 0
    for _ in range(330):  # straight on at full gas: off the road, then off the field
        steps = [world.step(np.array([[0, 1, 0]], dtype=np.float32)) for world in worlds]
        frames = [step.observation for step in steps]
        assert np.array_equal(*frames)
        black += int((frames[0][0, :84] == 0).all(-1).mean() > 0.2)
        if steps[0].terminated[0]:
            break
    assert black, "the drive never came near the edge, where the window shows black"
