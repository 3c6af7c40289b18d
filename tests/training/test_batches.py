"""Batches of frames against a plain count of frames."""

from collections import Counter

import numpy as np
import pytest
import torch
from training_samples import episode_set, frame, name_of

from stages.errors import UsageError
from stages.training.batches import FrameBatches, in_order_frames, split_episodes, to_float

LENGTHS = [1, 40, 7, 99, 15, 16, 31, 3, 64, 250, 5]
TRAIN = [0, 1, 3, 4, 6, 7, 9, 10]


def frames_of(episodes):
    return Counter((episode, row) for episode in episodes for row in range(LENGTHS[episode] + 1))


@pytest.fixture
def source(tmp_path):
    found = episode_set(tmp_path, LENGTHS, per_shard=3)
    yield found
    found.close()


def test_to_float_is_frames_over_255_with_channels_first():
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
    found = to_float(frames, torch.device("cpu"))
    assert found.dtype == torch.float32
    assert found.shape == (3, 3, 5, 4)
    for b, h, w, c in np.ndindex(frames.shape):
        assert found[b, c, h, w].item() == np.float32(frames[b, h, w, c]) / np.float32(255)


@pytest.mark.parametrize("pool", [1, 10, 64, 100_000])
@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_every_training_frame_exactly_once_per_epoch(source, pool, batch_size):
    batches = FrameBatches(source, TRAIN, batch_size=batch_size, seed=1, pool=pool)
    expected = frames_of(TRAIN)
    assert batches.num_frames == expected.total()
    num_batches = -(-3 * batches.num_frames // batch_size)
    stream = [name_of(f) for step in range(num_batches) for f in batches.batch(step)]
    for epoch in range(3):
        part = stream[epoch * batches.num_frames : (epoch + 1) * batches.num_frames]
        assert Counter(part) == expected


def test_whole_frames_arrive(source):
    for content in FrameBatches(source, TRAIN, batch_size=64, seed=1).batch(0):
        assert np.array_equal(content, frame(*name_of(content)))


def test_a_batch_does_not_depend_on_what_was_asked_before(source):
    steps = [0, 40, 3, 3, 17, 2, 39, 0]
    used = FrameBatches(source, TRAIN, batch_size=32, seed=5, pool=100)
    for step in steps:
        fresh = FrameBatches(source, list(reversed(TRAIN)), batch_size=32, seed=5, pool=100)
        assert np.array_equal(used.batch(step), fresh.batch(step))


def test_epochs_and_seeds_differ_and_neighbours_are_apart(source):
    def epoch(seed, number):
        batches = FrameBatches(source, TRAIN, batch_size=1, seed=seed)
        span = range(number * batches.num_frames, (number + 1) * batches.num_frames)
        return [name_of(batches.batch(step)[0]) for step in span]

    orders = [epoch(0, 0), epoch(0, 1), epoch(1, 0)]
    for one in range(3):
        for other in range(one):
            assert orders[one] != orders[other]
    pairs = zip(orders[0], orders[0][1:], strict=False)
    neighbours = sum(a[0] == b[0] and abs(a[1] - b[1]) == 1 for a, b in pairs)
    assert neighbours < 0.05 * len(orders[0])


def test_a_batch_may_be_larger_than_the_data(source):
    batches = FrameBatches(source, [0, 7], batch_size=25, seed=0)  # 2 + 4 frames
    counts = Counter(name_of(content) for content in batches.batch(0))
    assert set(counts) == set(frames_of([0, 7]))
    assert set(counts.values()) <= {4, 5}


def test_in_order_frames(source):
    found = list(in_order_frames(source, [4, 0, 9], batch_size=20))
    names = [name_of(content) for batch in found for content in batch]
    assert names == [(e, row) for e in (4, 0, 9) for row in range(LENGTHS[e] + 1)]
    assert {len(batch) for batch in found[:-1]} == {20}
    assert 0 < len(found[-1]) <= 20


@pytest.mark.parametrize("num, fraction", [(2, 0.0), (2, 0.9), (100, 0.1), (7, 0.5)])
def test_split_is_a_partition_with_both_sides(num, fraction):
    seeds = [1000 - 3 * number for number in range(num)]
    train, held_out = split_episodes(seeds, fraction=fraction)
    assert sorted(train + held_out) == list(range(num))
    assert train and held_out


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_of_many_tracks_the_share_is_held_out_and_neighbours_are_independent(fraction):
    _, held_out = split_episodes(range(20_000), fraction=fraction)
    assert len(held_out) / 20_000 == pytest.approx(fraction, abs=0.02)
    both = len(set(held_out) & {number + 1 for number in held_out})
    assert both / 20_000 == pytest.approx(fraction**2, abs=0.02)


def test_what_was_held_out_stays_held_out_whatever_else_is_read():
    first, later = list(range(100, 300)), list(range(150, 700))
    held = [{seeds[n] for n in split_episodes(seeds, fraction=0.2)[1]} for seeds in (first, later)]
    assert held[0] & set(later) == held[1] & set(first)


def test_episodes_of_one_track_stay_on_one_side():
    seeds = [5, 6, 7, 8, 9, 5, 6, 7, 8, 9, 5]
    train, held_out = split_episodes(seeds, fraction=0.4)
    assert held_out
    assert not {seeds[number] for number in train} & {seeds[number] for number in held_out}


def test_split_needs_two_tracks():
    for seeds in ([], [3], [3, 3]):
        with pytest.raises(UsageError, match="at least 2"):
            split_episodes(seeds, fraction=0.1)
