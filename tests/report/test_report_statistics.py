"""Statistics of several runs, against scipy and against plain loops."""

import random
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from stages.report.statistics import (
    MOST_PLACES,
    estimated,
    interquartile_mean,
    interval_of_curves,
    mean_of_runs,
    on_one_axis,
)


@pytest.mark.parametrize("sizes", [(1,), (3,), (5, 9), (100, 100, 100), (7, 7, 7, 7)])
def test_the_interquartile_mean_is_scipys_trimmed_mean(sizes):
    draws = np.random.default_rng(sum(sizes))
    runs = [draws.standard_cauchy(size) for size in sizes]
    expected = stats.trim_mean(np.concatenate(runs), 0.25)
    assert interquartile_mean(runs) == pytest.approx(expected, rel=1e-12)


def test_an_outlier_moves_the_mean_and_not_the_interquartile_mean():
    runs = [np.arange(10.0), np.append(np.arange(9.0), 1e6)]
    assert mean_of_runs(runs) > 1e4
    assert interquartile_mean(runs) < 10


def test_every_run_counts_alike_however_long():
    assert mean_of_runs([np.array([0.0]), np.full(99, 10.0)]) == 5.0


def test_of_one_run_the_interval_is_that_of_its_episodes():
    values = np.random.default_rng(1).gamma(2.0, 100.0, size=80)
    found = estimated([values], mean_of_runs)
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(0)
    ).confidence_interval
    width = expected.high - expected.low
    assert found.value == values.mean()
    assert found.low == pytest.approx(expected.low, abs=0.08 * width)
    assert found.high == pytest.approx(expected.high, abs=0.08 * width)


def test_of_several_runs_it_is_a_plain_loop_over_runs_and_episodes():
    draws = np.random.default_rng(2)
    runs = [draws.normal(level, 1.0, size=12) for level in (0.0, 5.0, 9.0, 14.0)]
    dice = random.Random(0)
    means = []
    for _ in range(8000):
        total = 0.0
        for _ in runs:
            run = runs[dice.randrange(len(runs))]
            total += sum(run[dice.randrange(len(run))] for _ in run) / len(run)
        means.append(total / len(runs))
    means.sort()
    low, high = means[200], means[7800]
    found = estimated(runs, mean_of_runs)
    assert found.low == pytest.approx(low, abs=0.06 * (high - low))
    assert found.high == pytest.approx(high, abs=0.06 * (high - low))
    episodes_alone = stats.bootstrap((np.concatenate(runs),), np.mean, method="percentile")
    assert found.high - found.low > 1.5 * np.ptp(episodes_alone.confidence_interval), (
        "episodes of one run share its luck"
    )
    assert estimated(runs, mean_of_runs) == found, "the same numbers every time"


def test_curves_meet_on_the_places_of_all_where_all_of_them_are():
    first = np.array([0.0, 10.0, 20.0]), np.array([0.0, 1.0, 2.0])
    second = np.array([5.0, 15.0, 40.0]), np.array([10.0, 20.0, 30.0])
    places, values = on_one_axis([first, second])
    assert places.tolist() == [5, 10, 15, 20]
    assert values[0].tolist() == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert values[1].tolist() == pytest.approx([10, 15, 20, 22])
    apart, _ = on_one_axis([first, (np.array([30.0, 40.0]), np.zeros(2))])
    assert len(apart) == 0


def test_the_interval_of_curves_is_that_of_each_place():
    curves = np.random.default_rng(3).normal(size=(6, 4))
    low, high = interval_of_curves(curves)
    for place in range(4):
        one = estimated([np.array([value]) for value in curves[:, place]], mean_of_runs)
        width = one.high - one.low
        assert low[place] == pytest.approx(one.low, abs=0.1 * width)
        assert high[place] == pytest.approx(one.high, abs=0.1 * width)


def test_long_curves_of_many_runs_cost_little_and_keep_their_ends():
    """Of every resample the mean alone is held: not 2,000 x 20 runs x places of numbers."""
    draws = np.random.default_rng(4)
    runs = [(np.sort(draws.uniform(1, 9, size=1000)), draws.normal(size=1000)) for _ in range(20)]
    tracemalloc.start()
    try:
        places, values = on_one_axis(runs)
        low, high = interval_of_curves(values)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(places) == MOST_PLACES and (np.diff(places) > 0).all()
    assert places[0] == max(x[0] for x, _ in runs) and places[-1] == min(x[-1] for x, _ in runs)
    assert (low < values.mean(axis=0)).all() and (values.mean(axis=0) < high).all()
    assert most < 50e6
