"""The density that M predicts: a mixture of K Gaussians per latent dimension, or one of all.

Source: Ha & Schmidhuber 2018, section 2.3 and appendix A.2, where every dimension draws its own
component; Bishop 1994 for the density, where one component is drawn for all of z (a joint mixture)
or for each of several blocks of it.
Axes: `Z` latent size, `K` components, `G` choices of a component per step: Z, or those of a joint
mixture, one per block; `...` any leading axes. Everything is float32.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.errors import UsageError

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)  # 0.9189 nats
MIN_TEMPERATURE = 1e-6  # below it the weights are those of the likeliest component anyway


@dataclass(frozen=True)
class Prediction:
    """What M says of the next step."""

    log_weight: Tensor  # [..., G, K], log-probabilities of the components
    mean: Tensor  # [..., Z, K]
    log_sigma: Tensor  # [..., Z, K]
    reward: Tensor | None = None  # [...]
    end_logit: Tensor | None = None  # [...]

    @property
    def ended(self) -> Tensor:
        """Whether the episode ends, bool [...]: a hard cut, untouched by temperature."""
        if self.end_logit is None:
            raise AssertionError("this memory has no end head")
        return self.end_logit > 0


def log_likelihood(prediction: Prediction, z: Tensor) -> Tensor:
    """Likelihood log p(z_i) in nats of every dimension by itself, [..., Z]; float32."""
    with torch.autocast(z.device.type, enabled=False):
        log_density = _log_density(prediction, z)
        log_weight = prediction.log_weight.float()
        shared = z.shape[-1] // log_weight.shape[-2]  # by how many dimensions
        return torch.logsumexp(log_weight.repeat_interleave(shared, dim=-2) + log_density, dim=-1)


def mean_nll(prediction: Prediction, z: Tensor) -> Tensor:
    """Nats per dimension, [...]: -log p(z) / Z, in float32."""
    with torch.autocast(z.device.type, enabled=False):
        log_weight, log_density = prediction.log_weight.float(), _log_density(prediction, z)
        if log_weight.shape[-2] < z.shape[-1]:  # dimensions of a block have the same component
            log_density = log_density.view(*log_weight.shape[:-1], -1, log_weight.shape[-1]).sum(-2)
        return -torch.logsumexp(log_weight + log_density, dim=-1).sum(-1) / z.shape[-1]


def _log_density(prediction: Prediction, z: Tensor) -> Tensor:
    """Log density of every z_i under each of its components, float32 [..., Z, K]."""
    log_sigma = prediction.log_sigma.float()
    deviation = (z.float().unsqueeze(-1) - prediction.mean.float()) * torch.exp(-log_sigma)
    return -0.5 * deviation.square() - log_sigma - LOG_SQRT_2PI


def check_temperature(temperature: float) -> None:
    """Refuse what is not a finite number from 0 up."""
    if not temperature >= 0 or math.isinf(temperature):
        raise UsageError(f"temperature = {temperature} is not a number from 0 up.")


def sample(
    prediction: Prediction, *, uniform: Tensor, noise: Tensor, temperature: float = 1.0
) -> Tensor:
    """One z [..., Z] at this temperature; `uniform` in [0, 1) and `noise` normal, [..., Z] each.

    Every dimension draws its own component from softmax(log w / tau), those of a joint mixture
    the same one by the first of the uniform numbers; then z = mean + sigma * sqrt(tau) * noise:
    the variance, not sigma, is proportional to tau. At 0 it is the mean of the likeliest component.
    """
    check_temperature(temperature)
    log_weight = prediction.log_weight
    chosen = _component(log_weight, uniform[..., : log_weight.shape[-2]], temperature)
    chosen = chosen.expand(*prediction.mean.shape[:-1], 1)  # [..., Z, 1]
    mean = prediction.mean.gather(-1, chosen).squeeze(-1)
    sigma = prediction.log_sigma.gather(-1, chosen).squeeze(-1).exp()
    return mean + sigma * math.sqrt(temperature) * noise


def _component(log_weight: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Index [..., G, 1] of the component in whose share of [0, 1) the uniform number falls."""
    if temperature < MIN_TEMPERATURE:
        return log_weight.argmax(-1, keepdim=True)
    edges = torch.softmax(log_weight / temperature, dim=-1).cumsum(-1)[..., :-1]  # [..., G, K-1]
    return (uniform.unsqueeze(-1) >= edges).sum(-1, keepdim=True)
