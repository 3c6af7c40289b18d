"""V of World Models: a variational autoencoder of 64x64 frames.

Source: Ha & Schmidhuber 2018, appendix A.1. 4,348,547 parameters at Z = 32, 4,446,915 at Z = 64.
Axes: `B` batch, `H W C` rows, columns and channels of a frame, `Z` latent size.
The names and shapes of the weights are a file format (docs/formats.md): do not rename attributes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.contracts import Frames
from stages.errors import UsageError
from stages.training.batches import to_float
from stages.training.initial import initialise
from stages.training.latents import draw
from stages.vision.layers import (
    convolve,
    convolve_small,
    deconvolve,
    deconvolve_small,
    dense_image,
)

FRAME_SIZE = 64  # the kernels fit no other size
FRAME_SHAPE = (FRAME_SIZE, FRAME_SIZE, 3)  # H, W, C
MIN_ROWS = 16  # from this batch size on, a row does not depend on the other rows, bit for bit
FLAT = 1024  # 256 channels of 2x2, in the order channel, row, column


def check_frame_shape(shape: tuple[int, ...]) -> None:
    """Refuse frames that are not 64x64 RGB; `shape` is (H, W, C)."""
    if tuple(shape) != FRAME_SHAPE:
        raise UsageError(
            f"The vision model cannot read frames of {'x'.join(map(str, shape))}.",
            why="Its layers fit 64x64x3 only (rows, columns, channels).",
            fix="Set world.size=64 and record the rollouts again.",
        )


@dataclass(frozen=True)
class Reconstruction:
    """What V makes of a batch of frames."""

    frames: Tensor  # [B, C, H, W] in 0..1
    mu: Tensor  # [B, Z]
    logvar: Tensor  # [B, Z]


class Encoder(nn.Module):
    """Four strided convolutions, then two dense layers: frames to (mu, logvar)."""

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 4, stride=2)
        self.conv2 = nn.Conv2d(32, 64, 4, stride=2)
        self.conv3 = nn.Conv2d(64, 128, 4, stride=2)
        self.conv4 = nn.Conv2d(128, 256, 4, stride=2)
        self.mu = nn.Linear(FLAT, latent_size)
        self.logvar = nn.Linear(FLAT, latent_size)

    def train_forward(self, frames: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """`forward` with cheaper gradients; convolutions of this precision, the rest float32."""
        signal = frames.to(dtype, memory_format=torch.channels_last)  # [B, 3, 64, 64]
        for layer in (self.conv1, self.conv2, self.conv3):
            signal = functional.relu(convolve(signal, *_parameters(layer)), inplace=True)
        signal = functional.relu(convolve_small(signal, *_parameters(self.conv4)))
        flat = signal.flatten(1).float()  # [B, 1024]
        return self.mu(flat), self.logvar(flat)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [B, 3, 64, 64] in 0..1 to mu and logvar, [B, Z] each."""
        # Colours last in memory, as frames are recorded: a tenth faster on the CPU.
        signal = frames.contiguous(memory_format=torch.channels_last)  # [B, 3, 64, 64]
        signal = functional.relu(self.conv1(signal))  # [B, 32, 31, 31]
        signal = functional.relu(self.conv2(signal))  # [B, 64, 14, 14]
        signal = functional.relu(self.conv3(signal))  # [B, 128, 6, 6]
        signal = functional.relu(self.conv4(signal))  # [B, 256, 2, 2]
        flat = signal.flatten(1)  # [B, 1024]
        return self.mu(flat), self.logvar(flat)


class Decoder(nn.Module):
    """One linear layer without activation, then four strided deconvolutions."""

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(latent_size, FLAT)
        self.deconv1 = nn.ConvTranspose2d(FLAT, 128, 5, stride=2)
        self.deconv2 = nn.ConvTranspose2d(128, 64, 5, stride=2)
        self.deconv3 = nn.ConvTranspose2d(64, 32, 6, stride=2)
        self.deconv4 = nn.ConvTranspose2d(32, 3, 6, stride=2)

    def train_forward(self, latents: Tensor, dtype: torch.dtype) -> Tensor:
        """`forward` with cheaper gradients; convolutions of this precision, the rest float32."""
        flat = self.dense(latents).to(dtype)  # [B, 1024]
        signal = functional.relu(dense_image(flat, *_parameters(self.deconv1)))
        signal = functional.relu(deconvolve_small(signal, *_parameters(self.deconv2)), inplace=True)
        signal = functional.relu(deconvolve(signal, *_parameters(self.deconv3)), inplace=True)
        return torch.sigmoid(deconvolve(signal, *_parameters(self.deconv4)).float())

    def forward(self, latents: Tensor) -> Tensor:
        """Latents [B, Z] to frames [B, 3, 64, 64] in 0..1, float32 also under autocast."""
        signal = functional.relu(self._first(self.dense(latents)))  # [B, 128, 5, 5]
        signal = functional.relu(self.deconv2(signal))  # [B, 64, 13, 13]
        signal = functional.relu(self.deconv3(signal))  # [B, 32, 30, 30]
        return torch.sigmoid(self.deconv4(signal).float())  # [B, 3, 64, 64]

    def _first(self, flat: Tensor) -> Tensor:
        # deconv1 sees a 1x1 image, where it is one matrix product: a third off a training step.
        weight = self.deconv1.weight  # [1024, 128, 5, 5]
        product = (flat @ weight.flatten(1)).view(-1, *weight.shape[1:])  # [B, 128, 5, 5]
        return product + self.deconv1.get_parameter("bias")[:, None, None]


class VAE(nn.Module):
    """V: `encoder` and `decoder`, initialised from `seed` alone."""

    def __init__(self, latent_size: int = 32, *, seed: int = 0) -> None:
        if latent_size < 1:
            raise UsageError(
                f"vision.latent_size = {latent_size} is too small.", fix="Use at least 1."
            )
        super().__init__()
        self.latent_size = latent_size
        self.encoder = Encoder(latent_size)
        self.decoder = Decoder(latent_size)
        initialise(self, seed=seed)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [B, 3, 64, 64] in 0..1 to mu and logvar, [B, Z] each."""
        check_frame_shape((*frames.shape[2:], frames.shape[1]))
        mu, logvar = self.encoder(frames)
        return mu, logvar

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, Z] to frames [B, 3, 64, 64] in 0..1."""
        frames: Tensor = self.decoder(latents)
        return frames

    def forward(
        self, frames: Tensor, noise: Tensor, *, dtype: torch.dtype = torch.float32
    ) -> Reconstruction:
        """Encode, draw z with standard normal `noise` [B, Z], decode: for training.

        Convolutions are of precision `dtype`, all else, the weights included, is float32.
        """
        check_frame_shape((*frames.shape[2:], frames.shape[1]))
        mu, logvar = self.encoder.train_forward(frames, dtype)
        made = self.decoder.train_forward(draw(mu, logvar, noise), dtype)
        return Reconstruction(made, mu, logvar)

    def num_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters())


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return layer.get_parameter("weight"), layer.get_parameter("bias")


@torch.inference_mode()
def encode_frames(model: VAE, frames: Frames) -> tuple[Tensor, Tensor]:
    """Posterior (mu, logvar) of recorded frames uint8 [B, 64, 64, 3]: float32 [B, Z], on the CPU.

    Batches below 16 are padded, so that a lane's latent is the same whatever the other lanes are.
    """
    check_frame_shape(frames.shape[1:])
    num_rows = len(frames)
    batch = to_float(frames, next(model.parameters()).device)
    if num_rows < MIN_ROWS:
        batch = torch.cat((batch, batch.new_zeros(MIN_ROWS - num_rows, *batch.shape[1:])))
    mu, logvar = model.encode(batch)
    return mu[:num_rows].float().cpu(), logvar[:num_rows].float().cpu()


@torch.inference_mode()
def decode_latents(model: VAE, latents: Tensor) -> Frames:
    """Frames uint8 [B, 64, 64, 3] of latents [B, Z]."""
    frames = model.decode(latents.to(next(model.parameters()).device))  # [B, 3, 64, 64]
    pixels: Frames = (frames * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels
