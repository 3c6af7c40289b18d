"""Batches of sequences against a plain loop over the records."""

from collections import Counter

import numpy as np
import pytest
from training_samples import latent_records, latent_set

from stages.training.sequences import SequenceBatches, in_order_sequences

LENGTHS = [5, 12, 1, 30, 8, 3, 17]
TRAIN = [0, 2, 3, 4, 6]


@pytest.fixture
def records():
    return latent_records(LENGTHS)


@pytest.fixture
def source(tmp_path, records):
    found = latent_set(tmp_path, records, per_shard=3)
    yield found
    found.close()


def places_of(batch, records):
    """(episode, first step) of every row, found by its first latent."""
    known = {
        record.mu[start].astype(np.float32).tobytes(): (episode, start)
        for episode, record in enumerate(records)
        for start in range(record.num_steps)
    }
    return [known[latents[0].tobytes()] for latents in batch.mu]


def check(batch, records, *, window):
    """Every cell of a batch, one by one; the (episode, first step) of its rows."""
    places = places_of(batch, records)
    num_steps = window or max(records[episode].num_steps for episode, _ in places)
    assert batch.mask.shape == (len(places), num_steps)
    assert batch.mu.shape == batch.logvar.shape == (len(places), num_steps + 1, 4)
    for row, (episode, start) in enumerate(places):
        record = records[episode]
        assert batch.first[row] == (start == 0)
        for t in range(num_steps):
            at = start + t
            real = at < record.num_steps
            assert batch.mask[row, t] == real
            assert batch.ends[row, t] == (real and record.terminations[at])
            assert batch.rewards[row, t] == (np.float32(record.rewards[at]) if real else 0)
            assert np.array_equal(batch.actions[row, t], record.actions[at] if real else [0, 0])
        for t in range(num_steps + 1):
            real = start + t <= record.num_steps
            assert np.array_equal(batch.mu[row, t], record.mu[start + t] if real else [0] * 4)
            expected = record.logvar[start + t] if real else [0] * 4
            assert np.array_equal(batch.logvar[row, t], expected)
    return places


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_whole_episodes_equal_the_records_and_come_once_per_epoch(source, records, batch_size):
    batches = SequenceBatches(source, TRAIN, batch_size=batch_size, window=0, seed=0)
    places = []
    for step in range(15):
        places += check(batches.batch(step), records, window=0)
    assert all(start == 0 for _, start in places)
    assert len(places) >= 10
    for epoch in range(len(places) // len(TRAIN)):
        part = places[epoch * len(TRAIN) : (epoch + 1) * len(TRAIN)]
        assert sorted(episode for episode, _ in part) == TRAIN


class Lengths:
    """Episodes of these lengths, nothing but zeros."""

    def __init__(self, lengths):
        self.lengths = np.array(lengths)

    def episode(self, number):
        (record,) = latent_records([int(self.lengths[number])])
        return record


def test_batches_of_whole_episodes_have_as_many_steps_and_little_padding():
    source = Lengths(np.random.default_rng(0).geometric(1 / 80, size=300))
    batches = SequenceBatches(source, range(300), batch_size=10, window=0, seed=0)
    masks = [batches.batch(step).mask for step in range(60)]  # two epochs
    steps = np.array([mask.sum() for mask in masks])
    longest = source.lengths.max()
    assert (abs(steps - 10 * source.lengths.mean()) <= longest).all()
    assert steps[:30].sum() == source.lengths.sum() == steps[30:].sum()
    assert steps.sum() / sum(mask.size for mask in masks) > 0.8  # 0.35 in random order
    first, second = ([mask.shape for mask in part] for part in (masks[:30], masks[30:]))
    assert first != second, "every epoch has batches of its own"
    assert first != sorted(first, key=lambda shape: shape[1]), "and no order of lengths"


def test_windows_equal_the_records(source, records):
    batches = SequenceBatches(source, TRAIN, batch_size=6, window=7, seed=0)
    for step in range(30):
        for episode, start in check(batches.batch(step), records, window=7):
            assert episode in TRAIN
            assert 0 <= start <= max(0, LENGTHS[episode] - 7)


def test_windows_begin_everywhere_and_as_often_as_episodes_are_long(source, records):
    batches = SequenceBatches(source, TRAIN, batch_size=500, window=7, seed=3)
    found = Counter()
    for step in range(50):
        found.update(places_of(batches.batch(step), records))
    assert set(found) == {(e, s) for e in TRAIN for s in range(max(0, LENGTHS[e] - 7) + 1)}
    total = sum(LENGTHS[e] for e in TRAIN)
    for episode in TRAIN:
        share = sum(n for (e, _), n in found.items() if e == episode) / found.total()
        expected = LENGTHS[episode] / total
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / found.total())


@pytest.mark.parametrize("pool", [1, 20, 10_000])
@pytest.mark.parametrize("window", [0, 7])
def test_a_batch_depends_on_seed_and_step_alone(source, window, pool):
    def fresh(seed):
        return SequenceBatches(source, TRAIN, batch_size=2, window=window, seed=seed, pool=pool)

    used = fresh(1)
    for step in (3, 0, 9, 3, 1, 40, 2):
        assert np.array_equal(used.batch(step).mu, fresh(1).batch(step).mu)
    some = [[fresh(seed).batch(step).mu.tobytes() for step in range(8)] for seed in (1, 2)]
    assert some[0] != some[1]


def test_windows_from_small_pools_are_as_fair_as_from_one(source, records):
    batches = SequenceBatches(source, TRAIN, batch_size=1, window=7, seed=3, pool=20)
    found = Counter(
        place for step in range(6000) for place in places_of(batches.batch(step), records)
    )
    assert set(found) == {(e, s) for e in TRAIN for s in range(max(0, LENGTHS[e] - 7) + 1)}
    total = sum(LENGTHS[e] for e in TRAIN)
    for episode in TRAIN:
        share = sum(n for (e, _), n in found.items() if e == episode) / found.total()
        assert abs(share - LENGTHS[episode] / total) < 0.03


def test_no_more_than_a_pool_of_episodes_is_kept(source):
    batches = SequenceBatches(source, TRAIN, batch_size=4, window=7, seed=3, pool=20)
    reader = batches._reader
    kept = []
    for step in range(60):
        batches.batch(step)
        kept.append(frozenset(reader._kept))
        assert sum(LENGTHS[episode] for episode in reader._kept) <= 20 + max(LENGTHS)
    assert len(set(kept)) > 5, "the pool never changed"


def test_a_time_limit_is_no_end(source, records):
    (batch,) = in_order_sequences(source, [1, 2], batch_size=2)
    assert records[1].terminations[-1]
    assert records[2].truncations[-1]
    assert batch.ends.sum(axis=1).tolist() == [1, 0]


def test_in_order_sequences_are_every_episode_once(source, records):
    found = list(in_order_sequences(source, [6, 1, 2, 5, 3], batch_size=2))
    places = [place for batch in found for place in check(batch, records, window=0)]
    assert places == [(6, 0), (1, 0), (2, 0), (5, 0), (3, 0)]


def test_noise_is_standard_normal_anew_for_every_step(source):
    batch = SequenceBatches(source, TRAIN, batch_size=64, window=12, seed=0).batch(0)
    noise = batch.noise(seed=1, step=0)
    assert noise.shape == batch.mu.shape
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
    assert abs(noise.var() - 1) < 5 * np.sqrt(2 / noise.size)
    assert np.array_equal(noise, batch.noise(seed=1, step=0))
    assert not np.array_equal(noise, batch.noise(seed=1, step=1))
