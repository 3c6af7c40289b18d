"""Calibration against scipy, counts by hand, and toys that are right or wrong by construction."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from stages.memory.calibration import agreement, reliability, survival


def random():
    return np.random.default_rng(0)


def test_survival_is_scipys_estimate_of_censored_data():
    rng = random()
    steps, ended = rng.integers(1, 40, 200), rng.random(200) < 0.6
    data = stats.CensoredData(uncensored=steps[ended], right=steps[~ended])
    lags = [1, 2, 5, 10, 20, 33]
    wanted = stats.ecdf(data).sf.evaluate(lags)
    np.testing.assert_allclose(survival(steps, ended, lags), wanted)


def test_survival_by_hand():
    steps, ended = np.array([1, 2, 2, 3, 5]), np.array([True, True, False, True, False])
    found = survival(steps, ended, [1, 2, 5])
    assert found == pytest.approx([4 / 5, 4 / 5 * 3 / 4, 4 / 5 * 3 / 4 * 1 / 2])
    assert survival(steps, ~ended & ended, [1, 9]) == [1.0, 1.0]


def test_bins_and_scores_by_hand():
    said = np.array([0.0005, 0.05, 0.05, 0.6, 0.8, 0.95])
    happened = np.array([False, False, True, True, False, True])
    found = reliability(logit(said), happened, weight=1.0)
    rows = [(b["from"], b["to"], b["steps"], b["predicted"], b["observed"]) for b in found["bins"]]
    wanted = [
        (0.0, 0.001, 1, 0.0005, 0.0),
        (0.01, 0.1, 2, 0.05, 0.5),
        (0.5, 0.9, 2, 0.7, 0.5),
        (0.9, 1.0, 1, 0.95, 1.0),
    ]
    np.testing.assert_allclose(rows, wanted)
    squares = [0.0005**2, 0.05**2, 0.95**2, 0.4**2, 0.8**2, 0.05**2]
    assert found["brier"] == pytest.approx(np.mean(squares))
    assert found["brier_rate"] == pytest.approx(0.25)
    assert found["error"] == pytest.approx((0.0005 + 2 * 0.45 + 2 * 0.2 + 0.05) / 6)
    assert (found["steps"], found["events"], found["observed"]) == (6, 3, 0.5)


def test_what_is_calibrated_has_no_error_and_what_is_not_has_one():
    rng = random()
    said = rng.normal(-3, 2, 200_000)
    happened = rng.random(len(said)) < expit(said)
    right = reliability(said, happened, weight=1.0)
    assert right["error"] < 0.003
    assert reliability(said + 1, happened, weight=1.0)["error"] > 0.05
    assert reliability(2 * said, happened, weight=1.0)["error"] > 0.01
    assert right["brier"] < right["brier_rate"]


def test_the_weight_of_training_is_taken_out():
    """The logit that has the least weighted cross-entropy, found on a grid, tells the share."""
    share, weight = 0.02, 10.0
    grid = np.linspace(-8, 4, 60_001)
    loss = weight * share * np.logaddexp(0, -grid) + (1 - share) * np.logaddexp(0, grid)
    best = grid[[loss.argmin()]]
    found = reliability(np.repeat(best, 100), np.arange(100) < 2, weight=weight)
    (only,) = found["bins"]
    assert only["unweighted"] == pytest.approx(share, rel=1e-3)
    assert only["predicted"] > 5 * share
    assert found["error_unweighted"] < 1e-4 < found["error"]


def test_probabilities_do_not_overflow():
    found = reliability(np.array([-1e4, 1e4]), np.array([False, True]), weight=1.0)
    assert [one["predicted"] for one in found["bins"]] == [0, 1]
    assert found["error"] == found["brier"] == 0


def test_agreement_is_scipys_regression():
    rng = random()
    foreseen = rng.normal(3, 2, 50)
    real = 0.5 * foreseen + rng.normal(1, 0.3, 50)
    found, line = agreement(foreseen, real), stats.linregress(foreseen, real)
    assert found["slope"] == pytest.approx(line.slope)
    assert found["correlation"] == pytest.approx(line.rvalue)
    assert found["error"] == pytest.approx(np.sqrt(np.mean((foreseen - real) ** 2)))
    assert (found["foreseen"], found["real"]) == pytest.approx((foreseen.mean(), real.mean()))


def test_agreement_of_what_never_varies_has_no_slope():
    same, varied = np.full(9, 7.3), np.arange(9.0)
    assert agreement(same, varied)["slope"] is None
    assert agreement(same, varied)["correlation"] is None
    assert agreement(varied, same)["slope"] == pytest.approx(0)
    assert agreement(varied, same)["correlation"] is None
