"""What the bare machine does at most: engine stepping, matrix products, an encoder, the disk.

Nothing of ours is imported or called here: a ceiling that our code could lower would be none.
Functions that take one tuple run in a worker; what they build is kept for the next call.
"""

import os
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from warnings import catch_warnings, filterwarnings

import numpy as np
import torch
from torch import nn

GAS = 0.3  # a car that drives, so that the picture changes
ENCODED = 256  # frames of the resident batch


def has_envpool() -> bool:
    """Whether the extra `fast` is installed."""
    return find_spec("envpool") is not None


class EnvPoolStepping:
    """EnvPool's CarRacing and nothing else: every lane one engine frame per step."""

    def __init__(self, env: str, *, num_lanes: int, num_threads: int, num_steps: int) -> None:
        self._env, self._num_steps = env, num_steps
        self._lanes, self._threads = num_lanes, min(num_threads, num_lanes)
        self._pool: Any = None

    def open(self) -> None:
        """Make the pool and take the first steps."""
        import envpool

        self._actions = np.tile(np.array([0.0, GAS, 0.0], dtype=np.float32), (self._lanes, 1))
        self._ids = np.arange(self._lanes, dtype=np.int32)
        with catch_warnings():
            filterwarnings("ignore", message=".*precision lowered by casting to float32.*")
            self._pool = envpool.make_gymnasium(
                self._env, num_envs=self._lanes, num_threads=self._threads, seed=1
            )
            self._pool.reset()
        for _ in range(5):
            self._pool.step(self._actions, self._ids)

    def run(self) -> float:
        """Engine frames of all lanes together."""
        for _ in range(self._num_steps):
            self._pool.step(self._actions, self._ids)
        return float(self._num_steps * self._lanes)

    def close(self) -> None:
        """Free the pool and its threads."""
        if self._pool is not None:
            self._pool.close()


@cache
def _environment(env: str) -> Any:
    import gymnasium

    made = gymnasium.make(env, disable_env_checker=True)
    made.reset(seed=1)
    return made


def step_gymnasium(work: tuple[str, int]) -> int:
    """So many frames of one environment of gymnasium, stepped bare; runs in a worker."""
    env, num_frames = work
    environment = _environment(env)
    action = np.array([0.0, GAS, 0.0])
    for _ in range(num_frames):
        _, _, terminated, truncated, _ = environment.step(action)
        if terminated or truncated:
            environment.reset()
    return num_frames


class MatrixProduct:
    """Square products [N, N] x [N, N] in one number format on one device."""

    def __init__(
        self, dtype: torch.dtype, device: torch.device, *, size: int, seconds: float
    ) -> None:
        self._flop = 2 * size**3
        self._seconds = seconds
        self._device = device
        self._left = torch.randn(size, size, device=device).to(dtype)
        self._right = torch.randn(size, size, device=device).to(dtype)
        self._product = torch.empty_like(self._left)

    def run(self) -> float:
        """Floating-point operations done within about the given seconds."""
        done, end = 0, time.perf_counter() + self._seconds
        while time.perf_counter() < end:
            torch.mm(self._left, self._right, out=self._product)
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            done += self._flop
        return float(done)


@cache
def _encoder(latent_size: int) -> nn.Module:
    """The layers of Ha & Schmidhuber 2018, appendix A.1, colours last in memory."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in ((3, 32), (32, 64), (64, 128), (128, 256)):
        layers += [nn.Conv2d(fan_in, fan_out, 4, stride=2), nn.ReLU()]
    layers += [nn.Flatten(), nn.Linear(1024, 2 * latent_size)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    return nn.Sequential(*layers).eval()


@cache
def _resident() -> torch.Tensor:
    frames = torch.rand(ENCODED, 3, 64, 64)
    return frames.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def encode_resident(work: tuple[int, int]) -> int:
    """Encode a batch that lies in memory, in float32, again and again; runs in a worker."""
    latent_size, num_batches = work
    encoder, frames = _encoder(latent_size), _resident()
    for _ in range(num_batches):
        encoder(frames)
    return num_batches * ENCODED


def write_raw(path: Path, content: bytes) -> float:
    """Write one file and wait until the device has it; the megabytes."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    return len(content) / 1e6
