"""What a memory must beat: densities of the next latent that need no recurrence.

All levels are nats per latent dimension. Axes: `N` steps, `Z` latent size, `K` components.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LOG_2PI = float(np.log(2 * np.pi))
MIN_VARIANCE = 1e-6  # of a component, so that a constant dimension stays finite
BLOCK = 1024  # rows that are worked on at once: their [N, Z, K] fit a processor's cache


@dataclass(frozen=True)
class Transitions:
    """Latents before and after a step, drawn from their posteriors; any steps of any episodes."""

    now: NDArray[np.floating]  # [N, Z]
    following: NDArray[np.floating]  # [N, Z]
    logvar: NDArray[np.floating]  # [N, Z], of the posterior that `following` was drawn from


def reference_levels(
    fitted_on: Transitions, held_out: Transitions, *, num_mixtures: int = 5
) -> dict[str, float]:
    """NLL of every baseline on `held_out`, and the entropy below which no model can get."""
    following = np.asarray(held_out.following, dtype=np.float64)
    mixture = fit_mixture(fitted_on.following, num_mixtures=num_mixtures)
    return {
        "unit_gaussian": unit_gaussian_nll(following),
        "unconditional_mixture": mixture_nll(mixture, following),
        "persistence": persistence_nll(fit_persistence(fitted_on), held_out),
        "entropy_floor": entropy_floor(held_out.logvar),
    }


def gaussian_nll(deviation: Floats, variance: Floats) -> Floats:
    """-log N(deviation; 0, variance), elementwise."""
    nll: Floats = 0.5 * (np.square(deviation) / variance + np.log(variance) + LOG_2PI)
    return nll


def unit_gaussian_nll(z: NDArray[np.floating]) -> float:
    """NLL of z [N, Z] under N(0, 1), the prior of V: 1.4189 on data drawn from it."""
    latents: Floats = np.asarray(z, dtype=np.float64)
    return float(gaussian_nll(latents, np.ones_like(latents)).mean())


def fit_persistence(transitions: Transitions) -> Floats:
    """Variance [Z] of the step from one latent to the next."""
    change = np.subtract(transitions.following, transitions.now, dtype=np.float64)
    variance: Floats = np.maximum(np.square(change).mean(0), MIN_VARIANCE)
    return variance


def persistence_nll(variance: Floats, transitions: Transitions) -> float:
    """NLL of "the next latent is this one", with a fitted variance [Z]."""
    change = np.subtract(transitions.following, transitions.now, dtype=np.float64)
    return float(gaussian_nll(change, variance).mean())


def entropy_floor(logvar: NDArray[np.floating]) -> float:
    """Mean entropy of posteriors with this logvar [N, Z]: the target itself is drawn from them."""
    return 0.5 * (1 + LOG_2PI + float(np.mean(logvar, dtype=np.float64)))


@dataclass(frozen=True)
class Mixture:
    """One mixture per latent dimension, the same at every step."""

    log_weight: Floats  # [Z, K]
    mean: Floats  # [Z, K]
    variance: Floats  # [Z, K]


def mixture_nll(mixture: Mixture, z: NDArray[np.floating]) -> float:
    """NLL of z [N, Z]."""
    likelihoods = [_shares(mixture, rows)[1].sum() for rows in _blocks(z)]
    return float(-np.sum(likelihoods) / z.size)


def fit_mixture(z: NDArray[np.floating], *, num_mixtures: int = 5, num_rounds: int = 60) -> Mixture:
    """Expectation maximisation over z [N, Z], from the quantiles of every dimension."""
    latents: Floats = np.asarray(z, dtype=np.float64)
    quantiles = (np.arange(num_mixtures) + 0.5) / num_mixtures
    mean = np.quantile(latents, quantiles, axis=0).T  # [Z, K]
    variance = np.maximum(np.broadcast_to(latents.var(0)[:, None], mean.shape), MIN_VARIANCE)
    mixture = Mixture(np.full(mean.shape, -np.log(num_mixtures)), mean, variance)
    for _ in range(num_rounds):
        mixture = _improved(mixture, latents)
    return mixture


def _blocks(z: NDArray[np.floating]) -> Iterator[Floats]:
    for start in range(0, len(z), BLOCK):
        yield np.asarray(z[start : start + BLOCK], dtype=np.float64)


def _shares(mixture: Mixture, z: Floats) -> tuple[Floats, Floats, Floats]:
    """Each component's share in a point [N, Z, K], log p(z) [N, Z], and z - mean [N, Z, K]."""
    deviation = z[:, :, None] - mixture.mean
    joint = mixture.log_weight - gaussian_nll(deviation, mixture.variance)
    largest = joint.max(axis=-1, keepdims=True)
    share = np.exp(joint - largest)
    total = share.sum(axis=-1, keepdims=True)
    return share / total, (largest + np.log(total))[..., 0], deviation


def _improved(mixture: Mixture, z: Floats) -> Mixture:
    """One round: sums over blocks of points, of deviations from the mean before it."""
    weight = np.full(mixture.mean.shape, 1e-9)  # [Z, K]; a component may lose every point
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for rows in _blocks(z):
        share, _, deviation = _shares(mixture, rows)
        weight += share.sum(0)
        moved = share * deviation
        first += moved.sum(0)
        second += (moved * deviation).sum(0)
    shift = first / weight
    variance = np.maximum(second / weight - np.square(shift), MIN_VARIANCE)
    return Mixture(np.log(weight / len(z)), mixture.mean + shift, variance)
