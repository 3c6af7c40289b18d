"""Places where dreams start, the lags that are looked at, and M led through the real past."""

import numpy as np
import pytest
import torch

from stages.memory.losses import Sequences
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape
from stages.memory.starts import Episodes, Place, choose_places, gather_starts, lags_of

SHAPE = MDNRNNShape(3, 2, 8, num_mixtures=2, reward_head=True, end_head=True, restart_flag=True)


def random(seed=0):
    return np.random.default_rng(seed)


def recorded(lengths, *, seed=0, shape=SHAPE):
    """Episodes of these lengths as one padded batch; every other one ends, the rest are cut."""
    rng, longest = random(seed), max(lengths)
    size = (len(lengths), longest)
    mask = np.arange(longest) < np.array(lengths)[:, None]
    ends = np.zeros(size, np.float32)
    ends[range(0, len(lengths), 2), np.array(lengths[::2]) - 1] = 1
    first = np.zeros(size, bool)
    first[:, 0] = True
    mu = rng.standard_normal((size[0], longest + 1, shape.latent_size)).astype(np.float32)
    noise = rng.standard_normal(mu.shape).astype(np.float32)
    drawn = Sequences(
        z=torch.from_numpy(mu + 0.1 * noise),
        actions=torch.from_numpy(
            rng.standard_normal((*size, shape.action_size)).astype(np.float32)
        ),
        mask=torch.from_numpy(mask),
        rewards=torch.from_numpy(rng.standard_normal(size).astype(np.float32)),
        ends=torch.from_numpy(ends),
        restart=torch.from_numpy(first),
    )
    return Episodes(drawn, mu, np.full_like(mu, 2 * np.log(0.1)))


def rows_of(batch, rows):
    parts = {name: value[rows] for name, value in vars(batch.drawn).items()}
    return Episodes(Sequences(**parts), batch.mu[rows], batch.logvar[rows])


def test_half_of_the_starts_are_first_frames_and_the_others_lie_anywhere():
    lengths = [30] * 40
    places = choose_places(lengths, random())
    assert len(set(places)) == len(places) == 64
    assert sum(place.step == 0 for place in places) == 32
    assert all(0 <= place.step < 30 for place in places)
    later = [place.step for seed in range(200) for place in choose_places(lengths, random(seed))]
    counts = np.bincount([step for step in later if step], minlength=30)[1:]
    assert np.abs(counts / counts.mean() - 1).max() < 0.25  # none is preferred


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [5], [2, 1, 4]])
def test_few_steps_are_all_taken(lengths):
    places = choose_places(lengths, random())
    assert places == [Place(e, s) for e, length in enumerate(lengths) for s in range(length)]


def test_long_episodes_hold_more_of_the_starts():
    places = choose_places([10, 1000], random())
    assert sum(place.episode == 1 for place in places) > 55


@pytest.mark.parametrize(
    ("left", "lags"),
    [
        ([1] * 64, [1]),
        ([40], [1, 2, 5, 10, 20, 40]),
        ([12] * 8 + [5] * 50, [1, 2, 5, 10]),
        ([13] * 8, [1, 2, 5, 10, 13]),
        ([1000] * 7 + [250] * 57, [1, 2, 5, 10, 20, 50, 100, 200, 250]),
        ([9000] * 64, [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]),
    ],
)
def test_lags_end_where_too_few_recordings_go_on(left, lags):
    assert lags_of(left) == lags


def test_m_at_a_start_has_seen_what_a_loop_over_its_steps_has_seen():
    model, lengths = MDNRNN(SHAPE, seed=1), [9, 4, 12, 7, 3]
    batch = recorded(lengths)
    places, lags = choose_places(lengths, random(), num_starts=20), [1, 2, 5]
    batches = [rows_of(batch, slice(0, 2)), rows_of(batch, slice(2, 5))]
    starts, known = gather_starts(model, batches, places, lags)
    assert len(starts.left) == len(places)
    drawn, logits = batch.drawn, []
    with torch.no_grad():
        for row, length in enumerate(lengths):
            state = model.initial_state(1)
            for step in range(length):
                for number in [n for n, place in enumerate(places) if place == (row, step)]:
                    torch.testing.assert_close(starts.state[0][number], state[0][0])
                    torch.testing.assert_close(starts.state[1][number], state[1][0])
                    assert bool(starts.first[number]) == (step == 0)
                now = drawn.z[row, step][None], drawn.actions[row, step][None]
                state = model.advance(*now, state, torch.tensor([step == 0]))
                logits.append(float(model.other_heads(state[0])[1]))
    np.testing.assert_allclose(known.logit, logits, atol=1e-5)
    assert known.ended.sum() == 3
    assert len(known.ended) == sum(lengths)


def test_what_comes_after_a_start_is_what_was_recorded():
    model, lengths = MDNRNN(SHAPE, seed=1), [9, 4, 12]
    batch = recorded(lengths)
    lags, places = [1, 2, 5], [Place(0, 0), Place(0, 7), Place(1, 1), Place(2, 3)]
    starts, _ = gather_starts(model, [batch], places, lags)
    assert starts.left.tolist() == [9, 2, 3, 9]
    assert starts.ended.tolist() == [True, True, False, True]
    for number, (row, step) in enumerate(places):
        np.testing.assert_array_equal(starts.now[number], batch.drawn.z[row, step])
        np.testing.assert_array_equal(starts.now_mu[number], batch.mu[row, step])
        for place, lag in enumerate(lags):
            rewards = batch.drawn.rewards[row, step : min(step + lag, lengths[row])]
            assert starts.earned[number, place] == pytest.approx(float(rewards.sum()), abs=1e-5)
            if step + lag <= lengths[row]:
                there = (row, step + lag)
                np.testing.assert_array_equal(starts.later[number, place], batch.drawn.z[there])
                np.testing.assert_array_equal(starts.later_mu[number, place], batch.mu[there])


def test_behind_the_end_of_an_episode_come_the_actions_of_the_next_ones():
    batch = recorded([3, 2, 4])
    starts, _ = gather_starts(MDNRNN(SHAPE), [batch], [Place(1, 1), Place(2, 0)], [9])
    of = [batch.drawn.actions[row, :length] for row, length in enumerate([3, 2, 4])]
    torch.testing.assert_close(starts.actions[0], torch.cat((of[1][1:], of[2], of[0], of[1]))[:9])
    torch.testing.assert_close(starts.actions[1], torch.cat((of[2], of[0], of[1])))
