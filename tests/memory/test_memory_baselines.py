"""Reference levels of M against closed forms and scipy."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from stages.memory import baselines
from stages.memory.baselines import (
    Transitions,
    entropy_floor,
    fit_mixture,
    fit_persistence,
    mixture_nll,
    persistence_nll,
    reference_levels,
    unit_gaussian_nll,
)

UNIT = 0.5 * math.log(2 * math.pi * math.e)  # 1.4189


def test_unit_gaussian_on_its_own_data():
    z = np.random.default_rng(0).standard_normal((100_000, 4))
    assert unit_gaussian_nll(z) == pytest.approx(1.4189, abs=0.005)
    assert unit_gaussian_nll(z[:50]) == pytest.approx(-stats.norm.logpdf(z[:50]).mean())


def test_entropy_floor_is_the_mean_entropy_of_the_posteriors():
    logvar = np.random.default_rng(0).normal(-2, 1, (100, 3))
    expected = stats.norm(0, np.exp(logvar / 2)).entropy().mean()
    assert entropy_floor(logvar) == pytest.approx(expected)
    assert entropy_floor(np.zeros((2, 3), np.float16)) == pytest.approx(UNIT)


def test_persistence_of_a_random_walk_costs_the_entropy_of_its_step():
    rng = np.random.default_rng(0)
    now = rng.normal(0, 5, (50_000, 2))
    sigma = np.array([0.1, 2.0])
    walk = Transitions(now, now + sigma * rng.standard_normal(now.shape), np.zeros_like(now))
    variance = fit_persistence(walk)
    np.testing.assert_allclose(np.sqrt(variance), sigma, rtol=0.02)
    expected = UNIT + np.log(sigma).mean()
    assert persistence_nll(variance, walk) == pytest.approx(expected, abs=0.02)


def test_one_component_is_the_fitted_gaussian():
    z = np.random.default_rng(0).normal(3, 0.2, (500, 2))
    found = mixture_nll(fit_mixture(z, num_mixtures=1), z)
    expected = -np.mean([stats.norm(*stats.norm.fit(column)).logpdf(column) for column in z.T])
    assert found == pytest.approx(expected, rel=1e-6)


def test_mixture_finds_the_modes_of_every_dimension():
    rng = np.random.default_rng(0)
    z = np.stack([rng.choice([-1, 1], 20_000), rng.choice([0, 8], 20_000, p=[0.9, 0.1])], 1)
    z = z + 0.05 * rng.standard_normal(z.shape)
    mixture = fit_mixture(z, num_mixtures=2)
    np.testing.assert_allclose(np.sort(mixture.mean, 1), [[-1, 1], [0, 8]], atol=0.02)
    np.testing.assert_allclose(np.exp(mixture.log_weight[1]).max(), 0.9, atol=0.01)
    choice = np.mean([math.log(2), -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))])
    assert mixture_nll(mixture, z) == pytest.approx(UNIT + math.log(0.05) + choice, abs=0.02)


def test_more_rounds_never_fit_worse():
    z = np.random.default_rng(0).gamma(1.0, 1.0, (2_000, 2))
    levels = [mixture_nll(fit_mixture(z, num_rounds=rounds), z) for rounds in (0, 1, 5, 25, 60)]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(levels))
    assert levels[-1] < -stats.norm(z.mean(0), z.std(0)).logpdf(z).mean()


def test_constant_dimensions_stay_finite():
    z = np.zeros((50, 2))
    assert math.isfinite(mixture_nll(fit_mixture(z), z))
    still = Transitions(z, z, z)
    assert math.isfinite(persistence_nll(fit_persistence(still), still))


def test_reference_levels_are_told_on_the_held_out_steps():
    rng = np.random.default_rng(0)

    def steps(offset):
        now = rng.normal(offset, 1, (5_000, 2))
        return Transitions(now, now + 0.1 * rng.standard_normal(now.shape), np.full_like(now, -4.0))

    levels = reference_levels(steps(0), steps(0))
    assert levels["unit_gaussian"] == pytest.approx(UNIT, abs=0.05)
    assert levels["unconditional_mixture"] == pytest.approx(UNIT, abs=0.05)
    assert levels["persistence"] == pytest.approx(UNIT + math.log(0.1), abs=0.03)
    assert levels["entropy_floor"] == pytest.approx(UNIT - 2.0)
    elsewhere = reference_levels(steps(0), steps(3))
    assert elsewhere["unconditional_mixture"] > levels["unconditional_mixture"] + 1


def test_the_blocks_in_which_it_is_fitted_do_not_matter(monkeypatch):
    """Beside the textbook's round over all points at once (Bishop 2006, section 9.2.2)."""
    rng = np.random.default_rng(3)
    z = np.stack([rng.normal(rng.choice([-2, 1], 500), 0.5), rng.exponential(2, 500)], 1)
    monkeypatch.setattr(baselines, "BLOCK", 77)
    found = fit_mixture(z, num_mixtures=3, num_rounds=1)
    for dimension, column in enumerate(z.T):
        mean = np.quantile(column, [1 / 6, 3 / 6, 5 / 6])
        density = stats.norm(mean, column.std()).pdf(column[:, None])  # [500, 3], equal weights
        share = density / density.sum(1, keepdims=True)
        new = (share * column[:, None]).sum(0) / share.sum(0)
        spread = (share * (column[:, None] - new) ** 2).sum(0) / share.sum(0)
        np.testing.assert_allclose(np.exp(found.log_weight[dimension]), share.mean(0))
        np.testing.assert_allclose(found.mean[dimension], new)
        np.testing.assert_allclose(found.variance[dimension], spread)
    likelihood = [
        np.log((np.exp(w) * stats.norm(m, np.sqrt(v)).pdf(column[:, None])).sum(1)).mean()
        for w, m, v, column in zip(found.log_weight, found.mean, found.variance, z.T, strict=True)
    ]
    assert mixture_nll(found, z) == pytest.approx(-np.mean(likelihood))
