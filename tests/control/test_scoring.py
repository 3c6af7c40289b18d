"""Scores against the statistics module and scipy's bootstrap."""

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from stages.contracts import EpisodeOutcome
from stages.control.scoring import bootstrap_interval, summarise

RETURNS = [912.3, -31.5, 640.0, 905.1, 88.8, 400.25, 731.0, 899.999]


def outcome(total, **facts) -> EpisodeOutcome:
    return EpisodeOutcome(
        seed=0,
        total_reward=total,
        num_steps=10,
        num_frames=40,
        terminated=False,
        truncated=True,
        stopped=False,
        facts=facts,
    )


def test_mean_spread_and_error_are_those_of_a_sample():
    found = summarise([outcome(total) for total in RETURNS])
    spread = statistics.stdev(RETURNS)
    assert found["episodes"] == 8
    assert found["mean"] == pytest.approx(statistics.fmean(RETURNS))
    assert found["std"] == pytest.approx(spread)
    assert found["stderr"] == pytest.approx(spread / math.sqrt(8))
    assert found["median"] == pytest.approx(statistics.median(RETURNS))
    assert (found["min"], found["max"]) == (-31.5, 912.3)
    assert found["mean_frames"] == 40


@pytest.mark.parametrize("size", [6, 32, 100])
def test_the_interval_is_scipys_percentile_bootstrap(size):
    values = np.random.default_rng(size).gamma(2.0, 200.0, size)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=50_000, method="percentile", rng=np.random.default_rng(1)
    )
    low, high = bootstrap_interval(values.tolist())
    tolerance = 0.05 * expected.standard_error  # two Monte Carlo quantiles of thousands of draws
    assert low == pytest.approx(expected.confidence_interval.low, abs=2 * tolerance)
    assert high == pytest.approx(expected.confidence_interval.high, abs=2 * tolerance)
    narrow_low, narrow_high = bootstrap_interval(values.tolist(), confidence=0.5)
    assert low < narrow_low < values.mean() < narrow_high < high


def test_the_interval_of_the_same_returns_is_always_the_same():
    assert bootstrap_interval(RETURNS) == bootstrap_interval(RETURNS)
    assert bootstrap_interval([5.0] * 4) == (5.0, 5.0)


def test_one_episode_has_no_spread():
    found = summarise([outcome(3.0)])
    assert (found["mean"], found["std"], found["stderr"]) == (3.0, 0.0, 0.0)


def test_shares_of_a_world_with_laps():
    laps = [True, False, False, True, False, False, False, False]
    found = summarise(
        [
            outcome(total, lap_finished=lap, num_tiles=200.0 + k, track_tiles=300.0)
            for k, (total, lap) in enumerate(zip(RETURNS, laps, strict=True))
        ]
    )
    assert found["share_900"] == 2 / 8  # 899.999 is not enough
    assert found["share_laps_finished"] == 2 / 8
    assert found["mean_tiles_missed"] == pytest.approx(100 - 3.5)


def test_a_world_without_laps_has_no_shares():
    found = summarise([outcome(total) for total in RETURNS])
    assert not {"share_900", "share_laps_finished", "mean_tiles_missed"} & found.keys()
