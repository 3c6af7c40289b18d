"""Several searches that begin: each is the search of its seed, and the best scored one goes on."""

import numpy as np
import pytest

from stages.control.restarts import Restarts
from stages.control.search import Search, SearchShape, digest_of

SEEDS = (3, 4, 5)
TRIAL = 4


def shape(seed):
    return SearchShape(num_parameters=6, population=8, sigma=0.5, seed=seed)


def cost(asked):
    return ((asked - 0.7) ** 2).sum(axis=1)


def alone(seed, generations):
    """An ordinary search of this seed."""
    search = Search(shape(seed))
    for _ in range(generations):
        search.tell(-cost(search.ask()))
    return search


def turn(restarts, log, scores):
    """One generation, and the score that is due after it."""
    asked = restarts.ask()
    restarts.tell(-cost(asked))
    log.append(((-cost(asked)).tolist(), digest_of(asked)))
    if restarts.awaits_score:
        restarts.judge(scores[len(restarts.scores)])


@pytest.mark.parametrize("scores", [(1.0, 3.0, 2.0), (5.0, 3.0, 2.0), (1.0, 2.0, 9.0)])
def test_the_best_of_them_goes_on_as_if_it_had_been_alone(scores):
    restarts, log = Restarts([shape(seed) for seed in SEEDS], trial=TRIAL), []
    while restarts.generation < len(SEEDS) * TRIAL + 5:
        turn(restarts, log, scores)
    best = alone(SEEDS[int(np.argmax(scores))], TRIAL + 5)
    assert restarts.within == TRIAL + 5
    assert np.array_equal(restarts.mean, best.mean)
    assert restarts.sigma == best.sigma
    assert restarts.total(TRIAL + 5) == restarts.generation


def test_each_trial_is_the_search_of_its_seed():
    restarts, log, means = Restarts([shape(seed) for seed in SEEDS], trial=TRIAL), [], []
    for seed in SEEDS:
        for _ in range(TRIAL):
            assert not restarts.awaits_score
            restarts.tell(-cost(restarts.ask()))
        assert np.array_equal(restarts.mean, alone(seed, TRIAL).mean)
        assert restarts.awaits_score
        means.append(restarts.mean)
        restarts.judge(0.0)
    assert np.array_equal(restarts.mean, means[0]), "of equal ones the first goes on"
    assert log == []


@pytest.mark.parametrize("stopped_after", [1, 4, 6, 12, 15])
def test_a_replay_ends_where_the_run_was(stopped_after):
    scores = (1.0, 3.0, 2.0)
    whole, log = Restarts([shape(seed) for seed in SEEDS], trial=TRIAL), []
    for _ in range(stopped_after):
        turn(whole, log, scores)
    again = Restarts([shape(seed) for seed in SEEDS], trial=TRIAL)
    for fitness, digest in log:
        again.replay(fitness, digest)
        if again.awaits_score:
            again.judge(scores[len(again.scores)])
    assert again.generation == whole.generation == stopped_after
    assert np.array_equal(again.ask(), whole.ask())


def test_a_score_in_the_middle_of_a_trial_changes_nothing():
    restarts = Restarts([shape(seed) for seed in SEEDS], trial=TRIAL)
    restarts.tell(-cost(restarts.ask()))
    restarts.judge(100.0)
    assert restarts.scores == [] and restarts.within == 1


def test_a_single_search_is_never_judged():
    restarts, log = Restarts([shape(3)], trial=2), []
    for _ in range(6):
        turn(restarts, log, ())
    assert np.array_equal(restarts.mean, alone(3, 6).mean)


def test_the_share_of_the_work_follows_its_efforts():
    restarts, efforts = Restarts([shape(seed) for seed in SEEDS], trial=2), [1.0, 1.0, 4.0, 4.0]
    shares = []
    while restarts.within < 4 or restarts.awaits_score:
        turn(restarts, [], (1.0, 3.0, 2.0))
        shares.append(restarts.share(efforts) * 14)  # three trials of 2, and 8 that follow
    assert shares == pytest.approx([1, 2, 3, 4, 5, 6, 10, 14])


def test_a_search_starts_where_it_is_told_to():
    start = np.arange(6.0)
    near = Restarts([shape(seed) for seed in SEEDS], trial=TRIAL, start=start)
    for _ in SEEDS:
        assert np.array_equal(near.mean, start)
        assert np.abs(near.ask() - start).max() < 5 * 0.5
        for _ in range(TRIAL):
            near.tell(-cost(near.ask()))
        near.judge(0.0)
    assert np.array_equal(Search(shape(3)).mean, np.zeros(6))
