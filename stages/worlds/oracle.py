"""The oracle: the real world behind the contract of the dream, as its upper bound and as a test.

An agent that sees latents sees here what V makes of real frames, and M follows what really happens.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from stages.contracts import Actions, FrameWorld, Mask, Step
from stages.memory.lstm import State
from stages.worlds.following import Follower


class OracleWorld:
    """A real world seen in latents: z [B, Z], and M's (h, c) before the next action."""

    def __init__(self, world: FrameWorld, follower: Follower) -> None:
        self._world, self._follower = world, follower
        self.action_spec = world.action_spec
        self.fact_names = world.fact_names
        self.live: Mask = world.live

    @property
    def latent(self) -> torch.Tensor:
        """Latents z of the newest frames."""
        return self._follower.latent

    @property
    def state(self) -> State | None:
        """What M remembers; None without M."""
        return self._follower.state

    def reset(self, seeds: Sequence[int]) -> NDArray[np.float32]:
        """Start one episode per seed."""
        frames = self._world.reset(seeds)
        self.live = self._world.live
        self._follower.reset(seeds)
        return self._seen(frames)

    def step(self, actions: Actions) -> Step:
        """Step, and look at the frames of the lanes that go on."""
        moved = np.flatnonzero(self.live)
        self._follower.did(self.action_spec.vectors(actions[moved]), moved)
        step = self._world.step(actions)
        self.live = self._world.live
        return replace(step, observation=self._seen(step.observation))

    def retire(self, lanes: Mask) -> None:
        """Stop stepping these lanes."""
        self._world.retire(lanes)
        self.live = self._world.live

    def close(self) -> None:
        """Free the engine."""
        self._world.close()
        self.live = self._world.live

    def _seen(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        lanes = np.flatnonzero(self.live)
        if len(lanes):
            self._follower.see(frames[lanes], lanes)
        return self._follower.latent.numpy()
