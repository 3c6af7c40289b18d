"""A latent is a Gaussian until it is drawn."""

import torch
from torch import Tensor


def draw(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """Draw z = mu + exp(logvar / 2) * noise, float32; all [..., Z], `noise` standard normal."""
    return mu.float() + torch.exp(logvar.float() / 2) * noise
