"""Initial weights, drawn from a generator of their own."""

import torch
from torch import nn


def initialise(model: nn.Module, *, seed: int) -> None:
    """Glorot-uniform matrices and kernels, zero vectors; the global generator plays no part.

    The original's layers were TensorFlow's, whose default this is.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter, generator=generator)
        else:
            nn.init.zeros_(parameter)
