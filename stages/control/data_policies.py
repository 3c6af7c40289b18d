"""Policies that only gather data. Which one matters more than the networks do.

White noise brakes as much as it drives, so the car hardly moves; the others explore. Randomness
is one generator per episode, keyed by its seed: lanes, batches and workers change nothing.
Sources: ctallec/world-models (brownian), hardmaru/WorldModelsExperiments (hold, random-net),
AppliedDataSciencePartners/WorldModels (scripted).
"""

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.contracts import Actions, ActionSpec, Frames, Mask, Policy
from stages.errors import UsageError
from stages.training.seeding import generator
from stages.worlds.lanes import Indices

CAR_RACING = ActionSpec(kind="box", size=3, low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0))
DRIFT_PER_FRAME = 1 / 50  # variance of a Brownian step; CarRacing runs 50 frames a second
HOLD_FRAMES = (1, 10)  # an action is held for so many frames, both ends included
LONGEST_HOLD = 100  # frames, of hold-long
SCRIPT_FRAMES = 20  # length of one manoeuvre
SCRIPT = ("gas", "left", "right", "brake", "nothing")
SCRIPT_ODDS = (0.4, 0.2, 0.2, 0.1, 0.1)


DATA_POLICIES = ("brownian", "habits", "hold", "hold-long", "random-net", "scripted", "white")


def make_data_policy(
    name: str,
    action_spec: ActionSpec,
    observation_shape: tuple[int, int, int],
    *,
    repeat: int = 1,
) -> Policy:
    """The data policy of this name; UsageError when it makes no sense for these actions."""
    fitting = policies_for(action_spec)
    if name not in DATA_POLICIES:
        near = get_close_matches(name, fitting, n=1)
        raise UsageError(
            f"There is no data policy {name!r}.",
            fix=f"Did you mean {near[0]!r}?" if near else f"Choose one of {', '.join(fitting)}.",
        )
    if name not in fitting:
        raise UsageError(
            f"The data policy {name!r} does not fit this world's actions.",
            why=_REASONS[name],
            fix=f"Set rollout.policy to one of {', '.join(fitting)}.",
        )
    if name == "random-net":
        from stages.control.random_net import RandomNets

        squash = ("linear", "linear", "clip") if action_spec == CAR_RACING else ()
        return RandomNets(action_spec, observation_shape, squash=squash)
    return _POLICIES[name](name, action_spec, repeat=repeat)


def policies_for(action_spec: ActionSpec) -> tuple[str, ...]:
    """The data policies that make sense for these actions."""
    return tuple(
        name
        for name in DATA_POLICIES
        if (name != "brownian" or action_spec.kind == "box")
        and (name != "scripted" or action_spec == CAR_RACING)
    )


class LanePolicy:
    """One action per lane and step, each lane from a generator of its own."""

    def __init__(self, name: str, action_spec: ActionSpec, *, repeat: int) -> None:
        self._name = name
        self._repeat = repeat
        self.action_spec = action_spec
        self._random: list[np.random.Generator] = []
        self._num_steps = 0

    def reset(self, seeds: Sequence[int]) -> None:
        """Start one episode per seed."""
        self._random = [generator(seed, "data-policy", self._name) for seed in seeds]
        self._num_steps = 0
        self._start(len(seeds))

    def act(self, observation: Frames, live: Mask) -> Actions:
        """Actions for the live lanes, neutral ones elsewhere."""
        actions = self.action_spec.empty(len(live))
        for lane in np.flatnonzero(live):
            actions[lane] = self._choose(int(lane), observation[lane])
        self._num_steps += 1
        return actions

    def _start(self, num_lanes: int) -> None:
        """Forget the episodes before."""

    def _choose(self, lane: int, frame: NDArray[np.uint8]) -> Any:
        """The next action of one lane."""
        raise NotImplementedError


class White(LanePolicy):
    """A fresh uniform sample at every step: the baseline, poor data on CarRacing."""

    def _choose(self, lane: int, frame: NDArray[np.uint8]) -> Any:  # noqa: ARG002
        return sample(self.action_spec, self._random[lane])


class Brownian(LanePolicy):
    """A random walk from a uniform sample, clipped to the bounds."""

    def _start(self, num_lanes: int) -> None:
        self._last = self.action_spec.empty(num_lanes)

    def _choose(self, lane: int, frame: NDArray[np.uint8]) -> Any:  # noqa: ARG002
        random = self._random[lane]
        if self._num_steps == 0:
            self._last[lane] = sample(self.action_spec, random)
        else:
            scale = np.sqrt(DRIFT_PER_FRAME * self._repeat)
            walked = self._last[lane] + scale * random.standard_normal(self.action_spec.size)
            self._last[lane] = np.clip(walked, self.action_spec.low, self.action_spec.high)
        return self._last[lane]


class Hold(LanePolicy):
    """A uniform sample, held for 1 to 10 frames (in whole steps)."""

    def _start(self, num_lanes: int) -> None:
        self._last = self.action_spec.empty(num_lanes)
        self._until = np.zeros(num_lanes, dtype=np.int64)

    def _choose(self, lane: int, frame: NDArray[np.uint8]) -> Any:  # noqa: ARG002
        if self._num_steps >= self._until[lane]:
            self._begin(lane)
        return self._last[lane]

    def _begin(self, lane: int) -> None:
        """Hold another action from this step on."""
        num_frames, self._last[lane] = self._next(lane)
        self._until[lane] = self._num_steps - (-num_frames // self._repeat)

    def _next(self, lane: int) -> tuple[int, Any]:
        """Number of frames, and the action that is held for them."""
        random = self._random[lane]
        return self._num_frames(random), sample(self.action_spec, random)

    def _num_frames(self, random: np.random.Generator) -> int:
        return int(random.integers(*HOLD_FRAMES, endpoint=True))


class HoldLong(Hold):
    """A uniform sample, held for 1 to 100 frames, 1 to 10 as often as 10 to 100.

    So that a memory also knows what comes of going on: a controller that M's dream lures into a
    corner stays there for a second and longer.
    """

    def _num_frames(self, random: np.random.Generator) -> int:
        return int(np.exp(random.uniform(0, np.log(LONGEST_HOLD + 1))))


class Habit(NamedTuple):
    """What an episode often does."""

    num_frames: int
    action: Any
    strength: float  # how often, from 0 to 1


class Habits(HoldLong):
    """Long holds, but every episode has an action and a length of its own that it keeps coming to.

    How often is its own, too: from never to always. So that a memory also knows what comes of
    doing one thing all the time, which is what a search tries first.
    """

    def _start(self, num_lanes: int) -> None:
        super()._start(num_lanes)
        self._habits = [
            Habit(self._num_frames(random), sample(self.action_spec, random), random.random())
            for random in self._random
        ]

    def _next(self, lane: int) -> tuple[int, Any]:
        num_frames, action = super()._next(lane)
        habit = self._habits[lane]
        keeps_length, keeps_action = self._random[lane].random(2) < habit.strength
        return (
            habit.num_frames if keeps_length else num_frames,
            habit.action if keeps_action else action,
        )


class Strays(HoldLong):
    """Random actions in place of some of an agent's, held as those of `hold-long` are.

    So that a memory learns what other actions would have led to where an agent goes, and does not
    take what it always does there for what happens there. A share `epsilon` of the steps of a long
    episode strays. Source: Dabney, Ostrovski & Barreto 2021, temporally-extended epsilon-greedy.
    """

    def __init__(self, action_spec: ActionSpec, *, epsilon: float, repeat: int) -> None:
        super().__init__("strays", action_spec, repeat=repeat)
        length = sum(
            math.log((frames + 1) / frames) / math.log(LONGEST_HOLD + 1) * -(-frames // repeat)
            for frames in range(1, LONGEST_HOLD + 1)
        )  # steps of a stray, on the mean
        self._chance = epsilon / (epsilon + length * (1 - epsilon))  # in a step of the agent's

    def over(self, actions: Actions, lanes: Indices) -> Actions:
        """What the lanes [n] do of which the agent wants to do `actions` [n, ...]."""
        done = actions.copy()
        for place, lane in enumerate(lanes):
            if self._num_steps >= self._until[lane] and self._random[lane].random() < self._chance:
                self._begin(lane)
            if self._num_steps < self._until[lane]:
                done[place] = self._last[lane]
        self._num_steps += 1
        return done


class Scripted(LanePolicy):
    """Manoeuvres of 20 frames of random strength; the first is full gas, slightly to the left."""

    def _start(self, num_lanes: int) -> None:
        self._last = np.tile(np.array([-0.1, 1.0, 0.0], dtype=np.float32), (num_lanes, 1))

    def _choose(self, lane: int, frame: NDArray[np.uint8]) -> Any:  # noqa: ARG002
        begun = self._num_steps * self._repeat // SCRIPT_FRAMES
        before = (self._num_steps - 1) * self._repeat // SCRIPT_FRAMES
        if self._num_steps > 0 and begun != before:
            self._last[lane] = self._manoeuvre(self._random[lane])
        return self._last[lane]

    def _manoeuvre(self, random: np.random.Generator) -> list[float]:
        strength = float(random.random())
        steer, gas, brake = {
            "gas": (0.0, strength, 0.0),
            "left": (-strength, 0.0, 0.0),
            "right": (strength, 0.0, 0.0),
            "brake": (0.0, 0.0, strength),
            "nothing": (0.0, 0.0, 0.0),
        }[str(random.choice(SCRIPT, p=SCRIPT_ODDS))]
        return [steer, gas, brake]


def sample(spec: ActionSpec, random: np.random.Generator) -> Any:
    """A uniform action: float32 [A] of a box, an int of a choice."""
    if spec.kind == "choice":
        return int(random.integers(spec.size))
    return random.uniform(spec.low, spec.high).astype(np.float32)


_POLICIES = {
    "brownian": Brownian,
    "habits": Habits,
    "hold": Hold,
    "hold-long": HoldLong,
    "scripted": Scripted,
    "white": White,
}
_REASONS = {
    "brownian": "A random walk needs numbers to walk in, and here an action is a choice.",
    "scripted": "Its manoeuvres are steering, gas and brake of CarRacing.",
}
