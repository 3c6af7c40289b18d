"""A world of one number that costs nothing to play, and what tests need around it."""

from dataclasses import replace

import numpy as np

from stages.contracts import ActionSpec, Job, Step, WorldSpec
from stages.playing.recording import Recording, Site
from stages.playing.scene import Moment, Picture

SPEC = ActionSpec("box", 1, low=(-1.0,), high=(1.0,))
WORLD = WorldSpec(env="Toy-v0", engine="gymnasium", size=8)
JOB = Job("world-models", "toy", "debug", 5, WORLD)
SITE = Site("gymnasium", SPEC)
DRIVES = {"agent": 0.25, "random": -0.5}


class Counting:
    """Every step adds the action to a place; an episode of number n ends after 3 + n steps."""

    name = "world"
    told = ""
    action_spec = SPEC
    drivers = ("keyboard", "agent", "random")
    num_episodes = 0
    closed = False

    def begin(self, number):
        self.number, self.place, self.steps, self.total = number, 0.0, 0, 0.0
        self.moment = Moment((Picture("frame", self.frame()),), self.frame(), 100 + number)
        return self.moment

    def frame(self):
        return np.full((8, 8, 3), 100 + round(20 * self.place), dtype=np.uint8)

    def choice(self, driver):
        return np.array([DRIVES[driver]], dtype=np.float32)

    def step(self, action):
        self.place += float(action[0])
        self.steps += 1
        self.total += float(action[0])
        ended = self.steps == 3 + self.number
        no = np.zeros(1, dtype=bool)
        step = Step(self.frame()[None], np.array([float(action[0])]), ~no if ended else no, no,
                    np.ones(1, dtype=np.int64))  # fmt: skip
        self.moment = replace(
            self.moment,
            pictures=(Picture("frame", self.frame()),),
            frame=self.frame(),
            num_steps=self.steps,
            action=action,
            reward=float(action[0]),
            total=self.total,
            ended="ended" if ended else "",
            outcome=step,
        )
        return self.moment

    def back(self):
        return self.moment

    def warm(self, change):
        return self.moment

    def close(self):
        self.closed = True


def recorder(workspace):
    """How a session opens a recording in this workspace."""
    return lambda: Recording(workspace, JOB, SITE)


def right():
    """What the keyboard says: all the way."""
    return np.ones(1, dtype=np.float32)
