"""Frame preparation against a slow triangle filter written from its definition."""

import numpy as np
import pytest
from drivers import wiggle

from stages.contracts import WorldSpec
from stages.errors import UsageError
from stages.worlds.making import make_world
from stages.worlds.prepare import prepare

CROP = (0, 84, 0, 96)


def shrink_line(line, size):
    """Anti-aliased bilinear: each output pixel averages under a triangle of width 2 * scale."""
    scale = len(line) / size
    result = []
    for place in range(size):
        centre = (place + 0.5) * scale
        weighted, weights = 0.0, 0.0
        for index, value in enumerate(line):
            weight = max(0.0, 1 - abs((index + 0.5 - centre) / scale))
            weighted = weighted + weight * value
            weights += weight
        result.append(weighted / weights)
    return np.array(result)


def shrink(frame, size):
    rows = shrink_line(frame.astype(np.float64), size)  # over rows, all columns at once
    return shrink_line(rows.swapaxes(0, 1), size).swapaxes(0, 1)


def frames():
    world = make_world(WorldSpec(repeat=8), engine="gymnasium", raw=True)
    world.reset([1, 2])
    for step in range(6):
        result = world.step(np.stack([wiggle(1, step), wiggle(2, step)]))
    noise = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    return np.concatenate([result.observation, noise])


def test_prepare_is_a_crop_and_an_antialiased_shrink():
    raw = frames()
    prepared = prepare(raw, CROP, 64)
    assert prepared.shape == (4, 64, 64, 3)
    assert prepared.dtype == np.uint8
    for frame, small in zip(raw, prepared, strict=True):
        assert np.abs(shrink(frame[:84], 64) - small).max() <= 1.5


def test_a_frame_does_not_depend_on_its_neighbours():
    raw = frames()
    together = prepare(raw, CROP, 64)
    for index in range(len(raw)):
        np.testing.assert_array_equal(prepare(raw[index : index + 1], CROP, 64)[0], together[index])
    np.testing.assert_array_equal(prepare(raw[::-2], CROP, 64), together[::-2])


def test_frames_of_the_right_size_are_left_alone():
    raw = frames()
    np.testing.assert_array_equal(prepare(raw, (0, 96, 0, 96), 96), raw)


@pytest.mark.parametrize("engine", ["gymnasium", "envpool"])
def test_the_score_in_rows_84_to_95_never_reaches_v(engine):
    if engine == "envpool":
        pytest.importorskip("envpool")
    world = make_world(WorldSpec(repeat=2), engine=engine)
    observation = world.reset([3])
    assert world.observation_shape == observation.shape[1:] == (64, 64, 3)
    for step in range(4):
        observation = world.step(wiggle(3, step)[None]).observation
        painted = world.raw.copy()
        assert painted.shape == (1, 96, 96, 3)
        painted[:, 84:] = 255 - painted[:, 84:]
        np.testing.assert_array_equal(prepare(painted, CROP, 64), observation)


def test_lanes_that_ended_keep_their_last_prepared_frame():
    world = make_world(WorldSpec(), engine="gymnasium")
    world.reset([3, 4])
    first = world.step(np.zeros((2, 3))).observation
    world.retire(np.array([True, False]))
    second = world.step(np.array([[0, 0, 0], [1, 1, 0]], dtype=np.float32)).observation
    np.testing.assert_array_equal(second[0], first[0])
    assert (second[1] != first[1]).any()


def test_a_crop_outside_the_frame_is_refused():
    with pytest.raises(UsageError, match=r"96 x 96") as caught:
        make_world(WorldSpec(crop=(0, 84, 0, 160)), engine="gymnasium")
    assert "[0,96,0,96]" in caught.value.fix
