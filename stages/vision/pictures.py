"""Pictures that show what V sees, as arrays uint8 [rows, columns, 3]."""

import numpy as np
import torch
from numpy.typing import NDArray

from stages.contracts import Frames
from stages.vision.vae import VAE, decode_latents, encode_frames

Picture = NDArray[np.uint8]


def grid(rows: list[Frames]) -> Picture:
    """Frames [N, H, W, C] per row as one picture [len(rows) * H, N * W, C]."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def reconstruction_picture(model: VAE, frames: Frames) -> Picture:
    """Originals [N, H, W, C] above their reconstructions from z = mu: [2 H, N W, C]."""
    mu, _ = encode_frames(model, frames)
    return grid([frames, decode_latents(model, mu)])


def traversal_picture(
    model: VAE, frame: Frames, *, num_dimensions: int = 8, num_steps: int = 7, reach: float = 3.0
) -> Picture:
    """One row per latent dimension, moved from -reach to +reach; `frame` is [1, H, W, C].

    The dimensions shown are those whose posterior is narrowest for this frame: they say most.
    """
    mu, logvar = encode_frames(model, frame)
    shown = torch.argsort(logvar[0], stable=True)[:num_dimensions].tolist()
    rows = []
    for dimension in shown:
        latents = mu.repeat(num_steps, 1)  # [num_steps, Z]
        latents[:, dimension] = torch.linspace(-reach, reach, num_steps)
        rows.append(decode_latents(model, latents))
    return grid(rows)
