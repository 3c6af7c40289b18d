"""Laps so small that a whole benchmark takes seconds."""

import pytest

from stages.bench.worksite import Sizes

TINY = Sizes(
    compiled=False,
    rounds=2,
    recording_lanes=2,
    episode_actions=5,
    control_lanes=5,
    control_actions=3,
    raw_lanes=4,
    raw_steps=3,
    vision_steps=1,
    encoding_batches=1,
    memory_steps=1,
    matrix_size=32,
    matrix_seconds=0.01,
    dream_lanes=(3, 20),
    dream_lane_steps=60,
    plain_dream_steps=3,
    disk_bytes=1000,
    learning_steps=(3, 3),
)


@pytest.fixture
def tiny() -> Sizes:
    return TINY


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    """Where temporary folders are made during the test."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place
