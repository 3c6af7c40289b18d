"""Where dreams begin inside of recorded episodes: any frame, with what M remembers before it."""

import numpy as np
import pytest
from oracles import world_models_numpy as oracle
from training_samples import latent_records, latent_set

from stages.control.leading import LANES, places_in
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape

Z, A, H = 4, 2, 5


@pytest.fixture
def memory():
    return MDNRNN(MDNRNNShape(latent_size=Z, action_size=A, hidden_size=H), seed=2)


def rows(record, weights):
    """[mu, logvar, h, c, first] before every action of an episode, by the numpy LSTM."""
    found, state = [], oracle.initial_state(1, H)
    for step, action in enumerate(record.actions):
        h, c = state
        z = record.mu[step].astype(np.float64)
        found.append(np.concatenate([z, record.logvar[step], h[0], c[0], [step == 0]]))
        state = oracle.lstm_step(weights, np.concatenate([z, action])[None], state)
    return np.array(found)


def found_in(source, memory, **options):
    places = places_in(source, memory, **{"reward": 1.5, "count": 1000, "seed": 0, **options})
    assert places.reward == 1.5
    inside = places.inside
    columns = (places.mu, places.logvar, inside.h, inside.c, inside.first[:, None])
    return np.concatenate(columns, axis=1)


def recorded(folder, lengths):
    return latent_set(folder, latent_records(lengths, latent=Z, action=A), per_shard=5)


def in_order(values):
    return values[np.lexsort(values[:, :Z].T)]


def test_every_frame_before_an_action_with_what_m_remembers_there(memory, tmp_path):
    source = recorded(tmp_path, [3, 7, 1, *[2] * LANES])  # more than are read side by side
    weights = {name: value.detach().numpy() for name, value in memory.state_dict().items()}
    episodes = [source.episode(number) for number in range(len(source.lengths))]
    expected = np.concatenate([rows(record, weights) for record in episodes])
    found = found_in(source, memory)
    assert found.shape == expected.shape
    np.testing.assert_allclose(in_order(found), in_order(expected), atol=1e-5)


def test_some_frames_are_different_ones_and_each_is_as_likely(memory, tmp_path):
    source = recorded(tmp_path, [30, 10])
    counts = {0: 0, 1: 0}
    for seed in range(40):
        found = found_in(source, memory, count=12, seed=seed)
        assert len(np.unique(found, axis=0)) == 12
        for number in counts:
            frames = source.episode(number).mu[:-1, 0].astype(np.float32)
            counts[number] += int(np.isin(found[:, 0], frames).sum())
    assert sum(counts.values()) == 480
    # 360 of them are of the longer episode on the mean, with a deviation of 8
    assert abs(counts[0] - 360) < 32


def test_the_seed_decides(memory, tmp_path):
    source = recorded(tmp_path, [30, 10])
    first = found_in(source, memory, count=12, seed=4)
    np.testing.assert_array_equal(first, found_in(source, memory, count=12, seed=4))
    assert not np.array_equal(first, found_in(source, memory, count=12, seed=5))
