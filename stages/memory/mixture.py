"""The mixture density that M predicts: one mixture of K Gaussians per latent dimension.

Source: Ha & Schmidhuber 2018, section 2.3 and appendix A.2; Bishop 1994 for the density.
Axes: `Z` latent size, `K` components, `...` any leading axes. Everything is float32.
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

    log_weight: Tensor  # [..., Z, K], log-probabilities of the components
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
    """Likelihood log p(z_i) in nats for every dimension, [..., Z], by log-sum-exp in float32."""
    with torch.autocast(z.device.type, enabled=False):
        log_weight, log_sigma = prediction.log_weight.float(), prediction.log_sigma.float()
        deviation = (z.float().unsqueeze(-1) - prediction.mean.float()) * torch.exp(-log_sigma)
        log_density = -0.5 * deviation.square() - log_sigma - LOG_SQRT_2PI
        return torch.logsumexp(log_weight + log_density, dim=-1)


def check_temperature(temperature: float) -> None:
    """Refuse what is not a finite number from 0 up."""
    if not temperature >= 0 or math.isinf(temperature):
        raise UsageError(f"temperature = {temperature} is not a number from 0 up.")


def sample(
    prediction: Prediction, *, uniform: Tensor, noise: Tensor, temperature: float = 1.0
) -> Tensor:
    """One z [..., Z] at this temperature; `uniform` in [0, 1) and `noise` normal, [..., Z] each.

    Every dimension draws its own component from softmax(log w / tau), then z = mean +
    sigma * sqrt(tau) * noise: the variance, not sigma, is proportional to tau. At 0 it is the
    mean of the likeliest component.
    """
    check_temperature(temperature)
    chosen = _component(prediction.log_weight, uniform, temperature)  # [..., Z, 1]
    mean = prediction.mean.gather(-1, chosen).squeeze(-1)
    sigma = prediction.log_sigma.gather(-1, chosen).squeeze(-1).exp()
    return mean + sigma * math.sqrt(temperature) * noise


def _component(log_weight: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Index [..., Z, 1] of the component in whose share of [0, 1) the uniform number falls."""
    if temperature < MIN_TEMPERATURE:
        return log_weight.argmax(-1, keepdim=True)
    edges = torch.softmax(log_weight / temperature, dim=-1).cumsum(-1)[..., :-1]  # [..., Z, K-1]
    return (uniform.unsqueeze(-1) >= edges).sum(-1, keepdim=True)
