"""Persistence and the mean at every lag against numpy over all pairs at once."""

import numpy as np
import pytest
from scipy import stats

from stages.memory.baselines import Transitions, fit_persistence
from stages.memory.lags import MIN_PAIRS, LagSums


def episodes():
    rng = np.random.default_rng(0)
    return [
        np.cumsum(rng.normal(0, [0.5, 2.0], (steps, 2)), 0).astype(np.float32) + 3
        for steps in (50, 9, 2, 120)
    ]


def fitted(lags, parts):
    sums = LagSums(lags, 2)
    for z in parts:
        sums.add(z)
    return sums.fitted()


def test_moments_are_those_of_all_latents_together():
    lags = fitted([1], episodes())
    together = np.concatenate(episodes())
    np.testing.assert_allclose(lags.mean, together.mean(0), rtol=1e-6)
    np.testing.assert_allclose(lags.variance, together.var(0), rtol=1e-5)
    wanted = -stats.norm(together.mean(0), together.std(0)).logpdf(together[:7])
    np.testing.assert_allclose(lags.mean_nll(together[:7].astype(float)), wanted, rtol=1e-4)


@pytest.mark.parametrize("lag", [1, 5, 40])
def test_the_change_over_a_lag_is_that_of_all_pairs(lag):
    parts = [z for z in episodes() if len(z) > lag]
    now, later = (
        np.concatenate(p) for p in zip(*((z[:-lag], z[lag:]) for z in parts), strict=True)
    )
    lags = fitted([1, lag], episodes())
    change = ((later - now).astype(float) ** 2).mean(0)
    np.testing.assert_allclose(lags.change[lag], change, rtol=1e-5)
    wanted = -stats.norm(now[:9], np.sqrt(change)).logpdf(later[:9])
    found = lags.held_nll(lag, now[:9].astype(float), later[:9].astype(float))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    if lag == 1:
        twin = fit_persistence(Transitions(now, later, now))
        np.testing.assert_allclose(lags.change[1], twin, rtol=1e-5)


def test_a_lag_that_is_hardly_known_has_no_likelihood():
    z = np.zeros((MIN_PAIRS + 9, 2))
    lags = fitted([10, 11], [z])
    assert 10 not in fitted([10], [z[:-1]]).change
    assert lags.held_nll(11, z[:1], z[:1]) is None


def test_constant_latents_stay_finite():
    lags = fitted([1], [np.ones((40, 2))])
    assert np.isfinite(lags.held_nll(1, np.ones((1, 2)), np.ones((1, 2)))).all()
    assert np.isfinite(lags.mean_nll(np.ones((1, 2)))).all()
