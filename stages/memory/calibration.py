"""Whether probabilities and returns that M foresees come true.

Plain statistics of what was predicted and of what happened. Axes: `N` steps, `S` starts, `b` bins.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from stages.memory.losses import end_probability

Floats = NDArray[np.float64]
EDGES = (
    0.0,
    0.001,
    0.01,
    0.1,
    0.5,
    0.9,
    1.0,
)  # of the bins; ends are rare, and 0.5 is the hard cut


def reliability(logit: Floats, happened: NDArray[np.bool_], *, weight: float) -> dict[str, object]:
    """How often what has a probability happens; logit [N] as M gives it, `happened` [N].

    `bins` are of M's probability: `steps` in it, its mean `predicted` there, the mean `unweighted`
    probability, and the share `observed`. Empty bins are left out. `brier` is the mean squared
    difference from what happened (Brier 1950), beside that of the constant share `brier_rate`;
    `error` the mean over steps of |predicted - observed| by bin (Naeini et al. 2015).
    """
    told = torch.from_numpy(np.asarray(logit, dtype=np.float64))
    said, fair = (end_probability(told, taken_off).numpy() for taken_off in (1.0, weight))
    bins = []
    for low, high in pairwise(EDGES):
        inside = (said >= low) & ((said < high) | (high == EDGES[-1]))
        if inside.any():
            bins.append(
                {
                    "from": low,
                    "to": high,
                    "steps": int(inside.sum()),
                    "predicted": float(said[inside].mean()),
                    "unweighted": float(fair[inside].mean()),
                    "observed": float(happened[inside].mean()),
                }
            )
    rate = float(happened.mean())
    return {
        "steps": len(logit),
        "events": int(happened.sum()),
        "observed": rate,
        "predicted": float(said.mean()),
        "unweighted": float(fair.mean()),
        "brier": float(np.square(said - happened).mean()),
        "brier_unweighted": float(np.square(fair - happened).mean()),
        "brier_rate": rate * (1 - rate),
        "error": _by_bin(bins, "predicted", len(logit)),
        "error_unweighted": _by_bin(bins, "unweighted", len(logit)),
        "bins": bins,
    }


def _by_bin(bins: Sequence[dict[str, float]], name: str, num_steps: int) -> float:
    return sum(one["steps"] * abs(one[name] - one["observed"]) for one in bins) / num_steps


def survival(
    steps: NDArray[np.int64], ended: NDArray[np.bool_], lags: Sequence[int]
) -> list[float]:
    """Share of episodes that go on after each of these lags (ascending), by Kaplan and Meier 1958.

    `steps` [S] is how long each was followed and `ended` [S] whether it ended then; one that did
    not was cut, and says nothing of what came after.
    """
    shares, share, reached = [], 1.0, 0
    for lag in lags:
        for step in range(reached + 1, lag + 1):
            at_risk = int((steps >= step).sum())
            if at_risk:
                share *= 1 - int((ended & (steps == step)).sum()) / at_risk
        shares.append(share)
        reached = lag
    return shares


def agreement(foreseen: Floats, real: Floats) -> dict[str, float | None]:
    """Numbers [S] that were foreseen beside those that came: means, error, correlation, slope.

    `slope` is that of the line from foreseen to real by least squares: 1 where what is foreseen is
    right on average, below 1 where M exaggerates differences. None where nothing varies.
    """
    varied = float(foreseen.var())
    both = float(np.mean((foreseen - foreseen.mean()) * (real - real.mean())))
    deviations = float(foreseen.std() * real.std())
    tiny = 1e-12
    return {
        "real": float(real.mean()),
        "foreseen": float(foreseen.mean()),
        "error": float(np.sqrt(np.square(foreseen - real).mean())),
        "correlation": both / deviations if deviations > tiny else None,
        "slope": both / varied if varied > tiny else None,
    }
