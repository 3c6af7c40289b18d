"""What a memory must beat: densities of the next latent that need no recurrence.

All levels are nats per latent dimension. Axes: `N` steps, `Z` latent size, `K` components.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LOG_2PI = float(np.log(2 * np.pi))
MIN_VARIANCE = 1e-6  # of a component, so that a constant dimension stays finite


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
    joint = _joint(mixture, np.asarray(z, dtype=np.float64))
    return float(-np.logaddexp.reduce(joint, axis=-1).mean())


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


def _joint(mixture: Mixture, z: Floats) -> Floats:
    """log(weight * density), [N, Z, K]."""
    return mixture.log_weight - gaussian_nll(z[:, :, None] - mixture.mean, mixture.variance)


def _improved(mixture: Mixture, z: Floats) -> Mixture:
    joint = _joint(mixture, z)
    share = np.exp(joint - np.logaddexp.reduce(joint, axis=-1, keepdims=True))  # [N, Z, K]
    weight = share.sum(0) + 1e-9  # [Z, K]; a component may lose every point
    mean = (share * z[:, :, None]).sum(0) / weight
    variance = (share * np.square(z[:, :, None] - mean)).sum(0) / weight
    return Mixture(np.log(weight / len(z)), mean, np.maximum(variance, MIN_VARIANCE))
