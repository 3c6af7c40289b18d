"""What dreams of k steps are compared with: the start held, and the data without their order.

Both are Gaussians per latent dimension, fitted on training episodes; persistence has a variance of
its own for every lag.
Axes: `T` steps of an episode, `Z` latent size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.memory.baselines import MIN_VARIANCE, Floats, gaussian_nll

MIN_PAIRS = 30  # of latents a lag apart; a variance from fewer says nothing


@dataclass(frozen=True)
class Lags:
    """Moments of the training data."""

    mean: Floats  # [Z]
    variance: Floats  # [Z], about the mean
    change: dict[int, Floats]  # lag -> mean square [Z] of z[t + lag] - z[t]; only well-known ones

    def held_nll(self, lag: int, now: Floats, later: Floats) -> Floats | None:
        """-log N(later; now, change) elementwise; None for a lag that training hardly has."""
        if lag not in self.change:
            return None
        return gaussian_nll(later - now, self.change[lag])

    def mean_nll(self, z: Floats) -> Floats:
        """-log N(z; mean, variance) elementwise."""
        return gaussian_nll(z - self.mean, self.variance)


class LagSums:
    """Gathers `Lags` from one episode after the other."""

    def __init__(self, lags: Sequence[int], latent_size: int) -> None:
        self._count = 0
        self._sum, self._square = np.zeros(latent_size), np.zeros(latent_size)
        self._pairs = dict.fromkeys(lags, 0)
        self._change = {lag: np.zeros(latent_size) for lag in lags}

    def add(self, z: NDArray[np.floating]) -> None:
        """Take in the latents z [T + 1, Z] of an episode."""
        latents: Floats = np.asarray(z, dtype=np.float64)
        self._count += len(latents)
        self._sum += latents.sum(0)
        self._square += np.square(latents).sum(0)
        for lag in self._pairs:
            if lag < len(latents):
                self._pairs[lag] += len(latents) - lag
                self._change[lag] += np.square(latents[lag:] - latents[:-lag]).sum(0)

    def fitted(self) -> Lags:
        """The moments of all that was added."""
        assert self._count, "moments of no latents"
        mean = self._sum / self._count
        variance = np.maximum(self._square / self._count - np.square(mean), MIN_VARIANCE)
        change = {
            lag: np.maximum(self._change[lag] / pairs, MIN_VARIANCE)
            for lag, pairs in self._pairs.items()
            if pairs >= MIN_PAIRS
        }
        return Lags(mean, variance, change)
