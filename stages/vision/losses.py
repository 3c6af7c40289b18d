"""The loss of V, and its errors on frames that it has not been trained on.

Source: Ha & Schmidhuber 2018 and its code: squared error summed over the 12,288 values of a
frame, plus a KL term with a floor. Units: nats for KL, summed squares of 0..1 values otherwise.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from stages.contracts import Frames
from stages.training.batches import to_float
from stages.vision import layers
from stages.vision.vae import FRAME_SHAPE, VAE, Reconstruction

NUM_VALUES = math.prod(FRAME_SHAPE)  # 12,288
AROUND = 9  # pixels, the side of the square that a pixel is compared with


@dataclass(frozen=True)
class HeldOut:
    """Mean errors per frame over held-out frames, decoded from z = mu."""

    reconstruction: float  # summed squares
    kl: float  # nats, without the floor
    num_frames: int


def squared_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Summed squares per frame, float32 [B], of images [B, C, H, W]."""
    return (found.float() - wanted.float()).square().flatten(1).sum(1)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL of N(mu, exp(logvar)) from N(0, 1) in nats, float32 [B], of mu and logvar [B, Z]."""
    mu, logvar = mu.float(), logvar.float()
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1)


def prominence(frames: Tensor, detail: float) -> Tensor:
    """What pixels of frames [B, C, H, W] in 0..1 count, [B, 1, H, W]: 1 + detail * contrast.

    A pixel's contrast is its squared distance, over the colours, from the mean of the square of
    pixels around it; beyond the border the border goes on.
    """
    reach = AROUND // 2
    padded = functional.pad(frames, (reach,) * 4, mode="replicate")
    away = frames - functional.avg_pool2d(padded, AROUND, stride=1)
    return 1 + detail * away.square().sum(1, keepdim=True)


def vae_loss(
    made: Reconstruction, frames: Tensor, *, kl_floor: float = 0.5, detail: float = 0.0
) -> dict[str, Tensor]:
    """Scalars `loss`, `reconstruction`, `kl` and `kl_floored`, float32 whatever the autocast.

    `kl_floor` is in nats per latent dimension. The floor holds for every sample by itself, so a
    sample below it sends no KL gradient, whatever the rest of the batch does. `detail` weighs
    pixels by their `prominence` in the loss; the reconstruction that is told is not weighed.
    """
    with torch.autocast(frames.device.type, enabled=False):
        reconstruction = error = layers.squared_error(made.frames, frames).mean()
        if detail:
            scale = prominence(frames, detail).sqrt()
            error = layers.squared_error(made.frames * scale, frames * scale).mean()
            reconstruction = reconstruction.detach()
        kl = kl_divergence(made.mu, made.logvar)  # [B]
        floored = kl.clamp(min=kl_floor * made.mu.shape[1]).mean()
        return {
            "loss": error + floored,
            "reconstruction": reconstruction,
            "kl": kl.mean(),
            "kl_floored": floored,
        }


@torch.inference_mode()
def frame_errors(model: VAE, frames: Frames) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Summed squares at z = mu, and KL in nats, [B] each, of recorded frames [B, H, W, C]."""
    batch = to_float(frames, next(model.parameters()).device)
    mu, logvar = model.encode(batch)
    error = squared_error(model.decode(mu), batch)
    return error.double().cpu().numpy(), kl_divergence(mu, logvar).double().cpu().numpy()


def held_out_errors(model: VAE, batches: Iterable[Frames]) -> HeldOut:
    """The mean of `frame_errors` over batches of any size."""
    squares, nats, num_frames = 0.0, 0.0, 0
    for frames in batches:
        error, kl = frame_errors(model, frames)
        squares, nats = squares + float(error.sum()), nats + float(kl.sum())
        num_frames += len(frames)
    if num_frames == 0:
        raise AssertionError("no held-out frames")
    return HeldOut(squares / num_frames, nats / num_frames, num_frames)


def decibels(squares: float) -> float:
    """Peak signal-to-noise ratio in dB of a summed squared error per frame."""
    return math.inf if squares <= 0 else 10 * math.log10(NUM_VALUES / squares)
