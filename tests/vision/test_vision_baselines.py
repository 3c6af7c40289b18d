"""Baselines of V against loops over pixels."""

import numpy as np
import pytest

from stages.vision.baselines import mean_image, mean_image_error, previous_frame_error


@pytest.fixture
def episodes():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (length, 4, 5, 3), dtype=np.uint8) for length in (3, 1, 6)]


def test_mean_image_is_the_mean_of_all_frames(episodes):
    every = np.concatenate(episodes).astype(np.float64) / 255
    np.testing.assert_allclose(mean_image(iter(episodes)), every.mean(0), rtol=1e-12)


def test_mean_image_error_is_the_summed_variance(episodes):
    every = np.concatenate(episodes).astype(np.float64) / 255
    found = mean_image_error(mean_image(iter(episodes)), iter(episodes))
    assert found == pytest.approx(every.var(axis=0).sum(), rel=1e-10)


def test_previous_frame_error_stays_inside_episodes(episodes):
    errors = []
    for frames in episodes:
        for time in range(1, len(frames)):
            change = frames[time].astype(float) / 255 - frames[time - 1].astype(float) / 255
            errors.append((change**2).sum())
    assert len(errors) == 7  # 2 + 0 + 5
    assert previous_frame_error(iter(episodes)) == pytest.approx(np.mean(errors), rel=1e-10)


def test_black_to_white_does_not_wrap_around():
    frames = np.stack([np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)])
    assert previous_frame_error([frames]) == pytest.approx(12)
    assert previous_frame_error([frames[::-1]]) == pytest.approx(12)


def test_nothing_to_measure_is_said():
    with pytest.raises(AssertionError, match="two frames"):
        previous_frame_error([np.zeros((1, 2, 2, 3), np.uint8)])
    with pytest.raises(AssertionError, match="no frames"):
        mean_image([])
