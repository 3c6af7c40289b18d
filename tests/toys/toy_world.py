"""A tiny environment with CarRacing's actions, which can be told to go wrong: an edge to test at.

`TOY_FAULT` is a JSON object. With "step" (an engine frame, from 1) and perhaps "seed" it says where
something goes wrong, and what: {"reward": NaN} or {"frame": "nan" | "floats" | "small"}. Without
"step": {"always": "still" | "poor"} for a picture that never changes or a reward that is always 0.
"""

import json
import os

import gymnasium
import numpy as np

NAME = "Toy-v0"
SIZE = 96
SQUARE = 16  # pixels


class ToyWorld(gymnasium.Env):
    """A square on noise: steering moves it sideways, gas downwards; moving right is rewarded."""

    observation_space = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    action_space = gymnasium.spaces.Box(
        np.array([-1, 0, 0], np.float32), np.array([1, 1, 1], np.float32)
    )

    def __init__(self, observation_space=None):
        self.fault = json.loads(os.environ.get("TOY_FAULT", "{}"))
        if observation_space is not None:
            self.observation_space = observation_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.num_frames = seed, 0
        self.ground = self.np_random.integers(0, 100, (SIZE, SIZE, 3), dtype=np.uint8)
        self.place = self.np_random.uniform(10, 60, size=2)
        return self.picture(), {}

    def step(self, action):
        self.num_frames += 1
        before = self.place[1]
        move = np.array([action[1] - action[2], action[0]])
        self.place = np.clip(self.place + move, 0, SIZE - SQUARE)
        reward = float(self.place[1] - before)
        if self.fault.get("always") == "poor":
            reward = 0.0
        if self.goes_wrong() and "reward" in self.fault:
            reward = self.fault["reward"]
        return self.picture(), reward, False, False, {}

    def goes_wrong(self):
        hit = self.fault.get("step") == self.num_frames
        return hit and self.fault.get("seed", self.seed) == self.seed

    def picture(self):
        frame = self.ground.copy()
        if self.fault.get("always") != "still":
            row, column = self.place.astype(int)
            frame[row : row + SQUARE, column : column + SQUARE] = 255
        kind = self.fault.get("frame") if self.goes_wrong() else None
        if kind == "small":
            return frame[:-1]
        if kind in {"floats", "nan"}:
            floats = frame / np.float32(255)
            floats[3, 4, 1] = np.nan if kind == "nan" else 0.5
            return floats
        return frame


def register():
    """Make the environment known to Gymnasium, here or in a process of `wm` (sitecustomize.py)."""
    if NAME not in gymnasium.registry:
        gymnasium.register(NAME, entry_point=ToyWorld, max_episode_steps=200)
        floats = gymnasium.spaces.Box(0, np.inf, (SIZE, SIZE, 3), np.float32)
        gymnasium.register(
            "ToyFloats-v0", entry_point=ToyWorld, kwargs={"observation_space": floats}
        )
