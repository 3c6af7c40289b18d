"""The dream to play in: M's world, drawn by V."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.contracts import Policy
from stages.control.pilot import Choices, Dreamer
from stages.memory.losses import end_probability
from stages.playing.scene import AGENT, KEYBOARD, RANDOM, Moment, Picture, Seeds, how_ended
from stages.vision.vae import VAE, decode_latents
from stages.worlds.dream import DreamWorld

TITLE = "the dream, drawn by V"


class DreamScene:
    """A dream of one lane. Without a head for rewards M says nothing of them."""

    name = "dream"
    told = ""
    num_episodes = 0

    def __init__(
        self,
        dream: DreamWorld,
        seeds: Seeds,
        *,
        vision: VAE,
        choices: Choices | None,
        chance: Policy,
        temperature: float,
        rewarded: bool,
    ) -> None:
        self._dream, self._seeds = dream, seeds
        self._vision = vision
        self._agent = Dreamer(dream, choices) if choices is not None else None
        self._chance = chance
        self._temperature, self._rewarded = temperature, rewarded
        self.action_spec = dream.action_spec
        self.drivers = (KEYBOARD, *((AGENT,) if self._agent else ()), RANDOM)

    def begin(self, number: int) -> Moment:
        """The start of a dream."""
        seed = self._seeds(number)
        self._dream.reset([seed])
        for policy in (self._agent, self._chance):
            if policy is not None:
                policy.reset([seed])
        frame = self._drawn()
        earned = 0.0 if self._rewarded else None
        self._moment = Moment(
            pictures=(Picture(TITLE, frame),),
            frame=frame,
            seed=seed,
            reward=earned,
            total=earned,
            temperature=self._temperature,
        )
        return self._moment

    def choice(self, driver: str) -> NDArray[Any]:
        """What the agent, or chance, would do now."""
        policy = self._agent if driver == AGENT else self._chance
        assert policy is not None, "no agent"
        action: NDArray[Any] = policy.act(self._moment.frame[None], self._dream.live)[0]
        return action

    def step(self, action: NDArray[Any]) -> Moment:
        """One action in the dream."""
        before = self._moment
        if before.ended:
            return before
        step = self._dream.step(np.asarray(action)[None])
        frame = self._drawn()
        reward = float(step.reward[0])
        facts = {"temperature": np.array([self._temperature])}
        self._moment = Moment(
            pictures=(Picture(TITLE, frame),),
            frame=frame,
            seed=before.seed,
            num_steps=before.num_steps + 1,
            action=np.asarray(action).copy(),
            reward=reward if self._rewarded else None,
            total=(before.total or 0.0) + reward if self._rewarded else None,
            end_probability=self._end_probability(),
            temperature=self._temperature,
            ended=how_ended(step),
            outcome=replace(step, observation=frame[None], facts=facts),
        )
        return self._moment

    def _end_probability(self) -> float | None:
        logit = self._dream.end_logit
        if logit is None or not torch.isfinite(logit).all():  # a dream that diverged
            return None
        return float(end_probability(logit, self._dream.terms.end_weight)[0])

    def back(self) -> Moment:
        """The same moment: a dream does not run backwards."""
        return self._moment

    def warm(self, change: float) -> Moment:
        """The same moment; from now on it is dreamt warmer, or colder."""
        self._temperature = max(0.0, round(self._temperature + change, 6))
        self._dream.warm(self._temperature)
        self._moment = replace(self._moment, temperature=self._temperature)
        return self._moment

    def close(self) -> None:
        """Nothing is open."""

    def _drawn(self) -> NDArray[np.uint8]:
        """The frame [H, W, 3] of the present latent."""
        frame: NDArray[np.uint8] = decode_latents(self._vision, self._dream.latent)[0]
        return frame
