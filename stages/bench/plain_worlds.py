"""Worlds and agents the plain way: one process per environment, one frame at a time.

How earlier implementations record and drive: gymnasium's own loop, every frame drawn, networks on
a batch of one in float32, frames kept in memory until the end. Nothing of ours is imported.
Every function runs in a worker and keeps what it builds for the next call.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Crop = tuple[int, int, int, int]  # rows from, to, columns from, to


@dataclass(frozen=True)
class PlainEpisode:
    """One episode of one process."""

    env: str
    repeat: int  # engine frames per action
    crop: Crop
    size: int  # frames are resized to size x size
    num_actions: int
    seed: int


@dataclass(frozen=True)
class PlainAgent:
    """Sizes of V, M and C."""

    latent_size: int = 32
    action_size: int = 3
    hidden_size: int = 256
    num_mixtures: int = 5


@cache
def _environment(env: str) -> Any:
    import gymnasium

    return gymnasium.make(env, disable_env_checker=True)


def record_plainly(work: tuple[PlainEpisode, str]) -> int:
    """Record a random walk and save it with numpy; the engine frames."""
    episode, path = work
    random = np.random.default_rng(episode.seed)
    environment = _environment(episode.env)
    observation, _ = environment.reset(seed=episode.seed)
    low, high = environment.action_space.low, environment.action_space.high
    action = random.uniform(low, high)
    frames, actions, rewards, num_frames = [_resized(observation, episode)], [], [], 0
    for _ in range(episode.num_actions):
        walked = action + 0.3 * random.standard_normal(action.shape)
        action = np.clip(walked, low, high).astype(np.float32)
        observation, reward, count, ended = _repeated(environment, action, episode.repeat)
        frames.append(_resized(observation, episode))
        actions.append(action)
        rewards.append(reward)
        num_frames += count
        if ended:
            break
    np.savez_compressed(Path(path), obs=np.stack(frames), action=actions, reward=rewards)
    return num_frames


def _repeated(env: Any, action: Any, repeat: int) -> tuple[Any, float, int, bool]:
    """Hold an action: last observation, summed reward, frames, whether the episode ended."""
    total = 0.0
    for count in range(1, repeat + 1):
        observation, reward, terminated, truncated, _ = env.step(action)
        total += float(reward)
        if terminated or truncated:
            return observation, total, count, True
    return observation, total, repeat, False


def _resized(frame: NDArray[np.uint8], episode: PlainEpisode) -> NDArray[np.uint8]:
    """One frame, cropped and shrunk, uint8 [size, size, 3]."""
    top, bottom, left, right = episode.crop
    planes = torch.from_numpy(frame[top:bottom, left:right].copy()).permute(2, 0, 1)[None]
    shrunk = torch.nn.functional.interpolate(
        planes, size=(episode.size, episode.size), mode="bilinear", antialias=True
    )
    small: NDArray[np.uint8] = shrunk[0].permute(1, 2, 0).contiguous().numpy()
    return small


class _Agent(nn.Module):
    """V's encoder, M and C with fresh weights, for a batch of one."""

    def __init__(self, shape: PlainAgent) -> None:
        super().__init__()
        self.shape = shape
        self.random = torch.Generator().manual_seed(1)
        convolutions: list[nn.Module] = []
        for fan_in, fan_out in ((3, 32), (32, 64), (64, 128), (128, 256)):
            convolutions += [nn.Conv2d(fan_in, fan_out, 4, stride=2), nn.ReLU()]
        self.vision = nn.Sequential(*convolutions, nn.Flatten())
        self.mu = nn.Linear(1024, shape.latent_size)
        self.memory = nn.LSTM(shape.latent_size + shape.action_size, shape.hidden_size)
        self.head = nn.Linear(shape.hidden_size, 3 * shape.latent_size * shape.num_mixtures)
        self.control = nn.Linear(shape.latent_size + shape.hidden_size, shape.action_size)

    def act(self, z: Tensor, state: tuple[Tensor, Tensor]) -> Tensor:
        """Action [1, A] from z [1, Z] and the LSTM's state [1, 1, H] each."""
        action: Tensor = torch.tanh(self.control(torch.cat((z, state[0][0]), dim=1)))
        return action

    def remember(
        self, z: Tensor, action: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The state after one step."""
        _, (hidden, cell) = self.memory(torch.cat((z, action), dim=1)[None], state)
        return hidden, cell

    def foresee(self, state: tuple[Tensor, Tensor]) -> Tensor:
        """Next z [1, Z], drawn from the mixture."""
        raw = self.head(state[0][0]).view(3, self.shape.latent_size, self.shape.num_mixtures)
        chosen = torch.multinomial(torch.softmax(raw[0], dim=-1), 1, generator=self.random)
        mean, log_sigma = raw[1].gather(1, chosen), raw[2].gather(1, chosen)
        noise = torch.randn(mean.shape, generator=self.random)
        drawn: Tensor = mean + log_sigma.exp() * noise  # [Z, 1]
        return drawn.T

    def blank(self) -> tuple[Tensor, Tensor]:
        """The state at the start of an episode."""
        zeros = torch.zeros(1, 1, self.shape.hidden_size)
        return zeros, zeros.clone()


@cache
def _agent(shape: PlainAgent) -> _Agent:
    return _Agent(shape).eval()


@torch.inference_mode()
def drive_plainly(work: tuple[PlainEpisode, PlainAgent]) -> int:
    """Drive one episode with V, M and C on a batch of one; the engine frames."""
    episode, shape = work
    agent, environment = _agent(shape), _environment(episode.env)
    observation, _ = environment.reset(seed=episode.seed)
    state, num_frames = agent.blank(), 0
    for _ in range(episode.num_actions):
        pixels = torch.from_numpy(_resized(observation, episode)).permute(2, 0, 1)[None]
        z = agent.mu(agent.vision(pixels.float() / 255))
        action = agent.act(z, state)
        state = agent.remember(z, action, state)
        steer, gas, brake = action[0].tolist()
        pedals = np.array([steer, (gas + 1) / 2, min(max(brake, 0.0), 1.0)], dtype=np.float32)
        observation, _, count, ended = _repeated(environment, pedals, episode.repeat)
        num_frames += count
        if ended:
            break
    return num_frames


@torch.inference_mode()
def dream_plainly(work: tuple[PlainAgent, int]) -> int:
    """Dream so many steps on a batch of one; the steps."""
    shape, num_steps = work
    agent = _agent(shape)
    for _ in _dreamt(agent, num_steps):
        pass
    return num_steps


def _dreamt(agent: _Agent, num_steps: int) -> Iterator[Tensor]:
    z, state = torch.zeros(1, agent.shape.latent_size), agent.blank()
    for _ in range(num_steps):
        action = agent.act(z, state)
        state = agent.remember(z, action, state)
        z = agent.foresee(state)
        yield z
