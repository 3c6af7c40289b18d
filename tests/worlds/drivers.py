"""Policies and raw loops that the tests of this room share."""

import numpy as np

from stages.worlds.making import headless

headless()


class Steady:
    """The same action for every lane, for ever."""

    def __init__(self, action):
        self.action = action

    def reset(self, seeds):
        self.num_lanes = len(seeds)

    def act(self, observation, live):
        return np.stack([np.asarray(self.action) for _ in range(self.num_lanes)])


class PerSeed:
    """Wiggling drives that differ from seed to seed and from step to step."""

    def reset(self, seeds):
        self.seeds, self.num_steps = list(seeds), 0

    def act(self, observation, live):
        self.num_steps += 1
        return np.stack([wiggle(seed, self.num_steps - 1) for seed in self.seeds])


def wiggle(seed, step):
    """Action number `step` of the drive of `seed`."""
    steer = 0.5 * np.sin(0.3 * step + seed)
    return np.array([steer, 0.4 + 0.1 * (seed % 3), 0.0], dtype=np.float32)


class Straight:
    """Straight on until the field ends, even seeds faster than odd ones."""

    def reset(self, seeds):
        self.seeds = list(seeds)

    def act(self, observation, live):
        return np.stack([straight(seed) for seed in self.seeds])


def straight(seed):
    """Gently enough that the wheels grip: about 285 or 354 frames to the end of the field."""
    return np.array([0.0, 0.2 if seed % 2 else 0.4, 0.0], dtype=np.float32)


BRAKE = np.array([0.0, 0.0, 0.8], dtype=np.float32)
