"""The world to play in, and as the agent sees it: frame, prepared frame, V's and M's picture."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.contracts import Policy, Step
from stages.control.pilot import Choices, Dreamer
from stages.memory.losses import end_probability
from stages.playing.scene import AGENT, KEYBOARD, RANDOM, Moment, Picture, Seeds, how_ended
from stages.vision.vae import decode_latents
from stages.worlds.following import Follower
from stages.worlds.oracle import OracleWorld

if TYPE_CHECKING:
    from stages.worlds.prepare import Prepared

RECONSTRUCTION, EXPECTED = "V's reconstruction", "M had foreseen"
LANE = np.zeros(1, dtype=np.intp)  # the only one


@dataclass(frozen=True)
class Foreseen:
    """What M says of the step that follows a state."""

    latent: torch.Tensor  # [1, Z], the mean of the likeliest component
    end_probability: float | None  # None: M has no head for it


def foresee(follower: Follower | None, end_weight: float) -> Foreseen | None:
    """What M, trained with that weight of ends, says after the last action; None without M."""
    told = None if follower is None else follower.foretold()
    if told is None:
        return None
    latent, logit = told
    ends = None if logit is None else float(end_probability(logit, end_weight)[0])
    return Foreseen(latent, ends)


class WorldScene:
    """The real world; with V and M beside it, what these make of what happens."""

    name = "world"
    told = ""
    num_episodes = 0

    def __init__(
        self,
        world: "Prepared",
        seeds: Seeds,
        *,
        follower: Follower | None,
        choices: Choices | None,
        chance: Policy,
        end_weight: float = 1.0,
    ) -> None:
        self._world, self._seeds = world, seeds
        self._end_weight = end_weight
        self._follower = follower
        seen = OracleWorld(world, follower) if follower is not None else None
        self._seen = seen
        self._agent = Dreamer(seen, choices) if seen is not None and choices is not None else None
        self._chance = chance
        self.action_spec = world.action_spec
        agent = (AGENT,) if self._agent else ()
        self.drivers = (KEYBOARD, *agent, RANDOM)

    def begin(self, number: int) -> Moment:
        """The start of an episode."""
        seed = self._seeds(number)
        world = self._seen or self._world
        world.reset([seed])
        for policy in (self._agent, self._chance):
            if policy is not None:
                policy.reset([seed])
        frame = self._prepared = self._world.observation[0]
        self._moment = Moment(self._pictures(None), frame, seed)
        return self._moment

    def choice(self, driver: str) -> NDArray[Any]:
        """What the agent, or chance, would do now."""
        policy = self._agent if driver == AGENT else self._chance
        assert policy is not None, "no agent"
        action: NDArray[Any] = policy.act(self._prepared[None], self._world.live)[0]
        return action

    def step(self, action: NDArray[Any]) -> Moment:
        """One action in the world."""
        before = self._moment
        if before.ended:
            return before
        step = (self._seen or self._world).step(np.asarray(action)[None])
        frame = self._prepared = self._world.observation[0]
        if self._follower is not None and not self._world.live[0]:
            self._follower.see(frame[None], LANE)  # nobody acts on it, and it is looked at
        foreseen = foresee(self._follower, self._end_weight)
        reward = float(step.reward[0])
        self._moment = Moment(
            pictures=self._pictures(foreseen),
            frame=frame,
            seed=before.seed,
            num_steps=before.num_steps + 1,
            action=np.asarray(action).copy(),
            reward=reward,
            total=(before.total or 0.0) + reward,
            end_probability=foreseen.end_probability if foreseen else None,
            ended=how_ended(step),
            outcome=_of_frames(step, frame),
        )
        return self._moment

    def back(self) -> Moment:
        """The same moment: the world does not run backwards."""
        return self._moment

    def warm(self, change: float) -> Moment:  # noqa: ARG002  a Scene's method
        """The same moment: the world has no temperature."""
        return self._moment

    def close(self) -> None:
        """Free the engine."""
        self._world.close()

    def _pictures(self, foreseen: Foreseen | None) -> tuple[Picture, ...]:
        raw, prepared = self._world.raw[0], self._prepared
        shown = [Picture("frame", raw), Picture("prepared frame", prepared)]
        follower = self._follower
        if follower is None:
            return tuple(shown)
        latents = [follower.latent] + ([foreseen.latent] if foreseen else [])
        drawn = decode_latents(follower.vision, torch.cat(latents))
        shown.append(Picture(RECONSTRUCTION, drawn[0]))
        if follower.memory is not None:
            blank = np.zeros_like(drawn[0])
            shown.append(Picture(EXPECTED, drawn[1] if foreseen else blank))
        return tuple(shown)


def _of_frames(step: Step, frame: NDArray[np.uint8]) -> Step:
    """The step as a recording holds it."""
    return replace(step, observation=frame[None])
