"""What several runs say together: mean, interquartile mean, and how sure one can be of either.

Source: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice":
the interquartile mean, and intervals from resampled runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.training.seeding import generator

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95
MOST_PLACES = 500  # of a mean curve; a chart is some 400 pixels wide
CUT = 0.25  # of the values, at either side

Values = NDArray[np.float64]
Statistic = Callable[[Sequence[Values]], float]


@dataclass(frozen=True)
class Estimate:
    """A number and its interval."""

    value: float
    low: float
    high: float


def mean_of_runs(runs: Sequence[Values]) -> float:
    """The mean of the means of runs: every run counts alike, however many episodes it has."""
    return float(np.mean([run.mean() for run in runs]))


def interquartile_mean(runs: Sequence[Values]) -> float:
    """The mean of the middle half of all episodes of all runs."""
    values = np.sort(np.concatenate(runs))
    cut = int(CUT * len(values))
    return float(values[cut : len(values) - cut].mean())


def estimated(runs: Sequence[Values], statistic: Statistic) -> Estimate:
    """A statistic of R runs with the percentile bootstrap interval for runs like these.

    Runs are drawn with replacement, and of every drawn run its episodes: runs are the clusters.
    Episodes of one run share its luck, so that drawing episodes alone would promise too much. One
    run says nothing of others: then the interval is that of its episodes.
    """
    random = generator(0, "report", "bootstrap")
    found = np.empty(NUM_RESAMPLES)
    for number in range(NUM_RESAMPLES):
        drawn = random.integers(len(runs), size=len(runs))
        found[number] = statistic(
            [runs[run][random.integers(len(runs[run]), size=len(runs[run]))] for run in drawn]
        )
    low, high = np.quantile(found, _tails())
    return Estimate(statistic(runs), float(low), float(high))


def interval_of_curves(curves: Values) -> tuple[Values, Values]:
    """Bootstrap interval [X] of the mean over runs of curves [R, X], at every place by itself.

    What it holds grows with R + X, not with their product: how often each run was drawn.
    """
    random = generator(0, "report", "curves")
    num_runs = len(curves)
    drawn = random.integers(num_runs, size=(NUM_RESAMPLES, num_runs))
    drawn += num_runs * np.arange(NUM_RESAMPLES)[:, None]
    times = np.bincount(drawn.ravel(), minlength=NUM_RESAMPLES * num_runs)
    means = times.reshape(NUM_RESAMPLES, num_runs) @ curves / num_runs
    low, high = np.quantile(means, _tails(), axis=0)
    return low, high


def on_one_axis(curves: Sequence[tuple[Values, Values]]) -> tuple[Values, Values]:
    """Curves of (x, y) at the same places: x [X] where all of them have begun and none has ended.

    Between their own places curves are straight. The places are those of all of them, evenly
    thinned where there are more than `MOST_PLACES`; the first and the last stay.
    """
    start = max(float(x[0]) for x, _ in curves)
    stop = min(float(x[-1]) for x, _ in curves)
    every = np.unique(np.concatenate([x for x, _ in curves]))
    places = every[(every >= start) & (every <= stop)]
    if len(places) > MOST_PLACES:
        places = places[np.linspace(0, len(places) - 1, MOST_PLACES).round().astype(int)]
    return places, np.stack([np.interp(places, x, y) for x, y in curves])


def _tails() -> list[float]:
    tail = (1 - CONFIDENCE) / 2
    return [tail, 1 - tail]
