"""Training of V and M the straightforward way: torch's own layers in float32, run eagerly.

What `wm bench` compares with. It imports nothing of ours, so that no trick of ours speeds it up;
only the memory of its process is kept when freed, as ours is (training.device), which helps both.
Weights go in and come out under the names of docs/formats.md. Axes as in contracts.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Weights = Mapping[str, Tensor]
LOG_SQRT_2PI = 0.9189385332046727
FORGET_OFFSET = 1.0  # constant of the forget gate, as in Ha & Schmidhuber's code


@dataclass(frozen=True)
class PlainTraining:
    """A model in training."""

    model: nn.Module
    step: Callable[..., float]  # one step of Adam on a batch; the loss before it
    weights: Callable[[], dict[str, Tensor]]  # under the names of docs/formats.md


class PlainVAE(nn.Module):
    """V of Ha & Schmidhuber 2018, appendix A.1."""

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict(
            {
                "conv1": nn.Conv2d(3, 32, 4, stride=2),
                "conv2": nn.Conv2d(32, 64, 4, stride=2),
                "conv3": nn.Conv2d(64, 128, 4, stride=2),
                "conv4": nn.Conv2d(128, 256, 4, stride=2),
                "mu": nn.Linear(1024, latent_size),
                "logvar": nn.Linear(1024, latent_size),
            }
        )
        self.decoder = nn.ModuleDict(
            {
                "dense": nn.Linear(latent_size, 1024),
                "deconv1": nn.ConvTranspose2d(1024, 128, 5, stride=2),
                "deconv2": nn.ConvTranspose2d(128, 64, 5, stride=2),
                "deconv3": nn.ConvTranspose2d(64, 32, 6, stride=2),
                "deconv4": nn.ConvTranspose2d(32, 3, 6, stride=2),
            }
        )

    def forward(self, frames: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, mu and logvar of frames [B, 3, 64, 64], z drawn with `noise` [B, Z]."""
        signal = frames
        for name in ("conv1", "conv2", "conv3", "conv4"):
            signal = functional.relu(self.encoder[name](signal))
        flat = signal.flatten(1)
        mu, logvar = self.encoder["mu"](flat), self.encoder["logvar"](flat)
        signal = self.decoder["dense"](mu + torch.exp(logvar / 2) * noise)[:, :, None, None]
        for name in ("deconv1", "deconv2", "deconv3"):
            signal = functional.relu(self.decoder[name](signal))
        return torch.sigmoid(self.decoder["deconv4"](signal)), mu, logvar


def plain_vision_step(
    *,
    latent_size: int,
    learning_rate: float,
    kl_floor: float,
    device: torch.device,
    weights: Weights | None = None,
) -> PlainTraining:
    """V with Adam; `step(frames, noise)` takes uint8 [B, H, W, C] and normal noise [B, Z]."""
    model = PlainVAE(latent_size).to(device)
    if weights is not None:
        model.load_state_dict(weights)
    adam = torch.optim.Adam(model.parameters(), lr=learning_rate)

    def step(frames: NDArray[np.uint8], noise: Tensor) -> float:
        batch = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).contiguous().float() / 255
        made, mu, logvar = model(batch, noise)
        squares = (made - batch).square().flatten(1).sum(1).mean()
        nats = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1)
        loss = squares + nats.clamp(min=kl_floor * latent_size).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        return float(loss.detach())

    return PlainTraining(model, step, model.state_dict)


@dataclass(frozen=True)
class MemorySizes:
    """What determines the tensors of M and its density."""

    latent_size: int = 32  # Z
    action_size: int = 3  # A
    hidden_size: int = 256  # H
    num_mixtures: int = 5  # K
    min_log_sigma: float = -7.0


class PlainMDNRNN(nn.Module):
    """M of Ha & Schmidhuber 2018, appendix A.2: torch's LSTM and one linear layer."""

    def __init__(self, sizes: MemorySizes) -> None:
        super().__init__()
        self.sizes = sizes
        num_inputs, hidden_size = sizes.latent_size + sizes.action_size, sizes.hidden_size
        self.lstm = nn.LSTM(num_inputs, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, 3 * sizes.latent_size * sizes.num_mixtures)
        # torch has two biases per gate; the second one is the forget gate's constant here.
        offset = torch.zeros(4 * hidden_size)
        offset[hidden_size : 2 * hidden_size] = FORGET_OFFSET
        constant = self.lstm.get_parameter("bias_hh_l0")
        constant.data.copy_(offset)
        constant.requires_grad = False

    def forward(self, z: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, means and log sigmas [B, T, Z, K] after z [B, T, Z] and actions [B, T, A]."""
        hidden, _ = self.lstm(torch.cat((z, actions), dim=-1))
        raw = self.head(hidden).unflatten(-1, (3, self.sizes.latent_size, self.sizes.num_mixtures))
        return raw[..., 0, :, :], raw[..., 1, :, :], raw[..., 2, :, :]


_MEMORY_NAMES = {  # docs/formats.md -> torch
    "lstm.weight_ih": "lstm.weight_ih_l0",
    "lstm.weight_hh": "lstm.weight_hh_l0",
    "lstm.bias": "lstm.bias_ih_l0",
    "head.weight": "head.weight",
    "head.bias": "head.bias",
}


def plain_memory_step(
    sizes: MemorySizes,
    *,
    learning_rate: float,
    clip: float,
    device: torch.device,
    weights: Weights | None = None,
) -> PlainTraining:
    """M with Adam; `step(z, actions, mask)` takes float32 [B, T+1, Z], [B, T, A], bool [B, T]."""
    model = PlainMDNRNN(sizes).to(device)
    if weights is not None:
        renamed = {_MEMORY_NAMES[name]: value for name, value in weights.items()}
        model.load_state_dict(renamed, strict=False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = torch.optim.Adam(trained, lr=learning_rate)

    def step(z: Tensor, actions: Tensor, mask: Tensor) -> float:
        logit, mean, log_sigma = model(z[:, :-1], actions)
        log_sigma = log_sigma.clamp(min=sizes.min_log_sigma)
        deviation = (z[:, 1:, :, None] - mean) / log_sigma.exp()
        density = -0.5 * deviation.square() - log_sigma - LOG_SQRT_2PI
        nats = -torch.logsumexp(functional.log_softmax(logit, dim=-1) + density, dim=-1).mean(-1)
        loss = nats[mask].mean()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if clip:
            nn.utils.clip_grad_value_(trained, clip)
        adam.step()
        return float(loss.detach())

    def saved() -> dict[str, Any]:
        state = model.state_dict()
        return {name: state[torch_name] for name, torch_name in _MEMORY_NAMES.items()}

    return PlainTraining(model, step, saved)
