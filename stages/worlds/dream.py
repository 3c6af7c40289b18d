"""The dream: M as a world. What a lane sees is a latent; frames are drawn by whoever looks.

Source: Ha & Schmidhuber 2018, section 4: the next latent is drawn from M's mixture at a
temperature, and the episode ends where M says so. Noise is a function of (seed, step): lanes do
not know their place.
Axes: `B` lanes, `n` of them live, `Z` latent size, `H` units of M, `E` recorded episodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.contracts import Actions, ActionSpec, Mask, Step
from stages.errors import NumbersBad
from stages.memory.dreaming import DreamingMemory
from stages.memory.lstm import State
from stages.memory.noise import normals, uniforms
from stages.worlds.lanes import check_actions, check_seeds

FIRST, WEIGHTS, NOISE, END, DROP_Z, DROP_H = range(6)  # streams of random numbers
HARD, SAMPLED = "hard", "sampled"


@dataclass(frozen=True)
class Starts:
    """How recorded episodes begin, and what each of their steps earned."""

    mu: NDArray[np.float32]  # [E, Z] of first frames
    logvar: NDArray[np.float32]  # [E, Z]
    reward: float | None  # that every recorded step earned; None: they differ


@dataclass(frozen=True)
class DreamTerms:
    """On what terms a dream goes on."""

    temperature: float = 1.0
    max_steps: int = 1000  # after which an episode is cut
    end: str = HARD  # where the end's logit is positive | SAMPLED: as often as M says
    dropout: float = 0.0  # share of z and h that an episode does without
    repeat: int = 1  # frames that a step stands for


class DreamWorld:
    """B dreams of one memory. Lanes that have ended cost nothing.

    `latent` and `state` are what an agent sees: z [B, Z], and M's (h, c) before the next action.
    """

    fact_names: tuple[str, ...] = ()

    def __init__(
        self, memory: DreamingMemory, starts: Starts, action_spec: ActionSpec, terms: DreamTerms
    ) -> None:
        assert memory.model.reward_head is not None or starts.reward is not None, "no reward"
        self.action_spec = action_spec
        self.live: Mask = np.zeros(0, dtype=np.bool_)
        self.latent = torch.zeros(0, memory.shape.latent_size)
        self.state: State = memory.model.initial_state(0)
        self._memory, self._terms = memory, terms
        self._mu, self._logvar = torch.from_numpy(starts.mu), torch.from_numpy(starts.logvar)
        self._reward = starts.reward
        self._seeds = torch.zeros(0, dtype=torch.int64)
        self._num_steps = 0
        self._ended = self._cut = self.live

    def reset(self, seeds: Sequence[int]) -> NDArray[np.float32]:
        """Begin one dream per seed as some recorded episode began; z [B, Z]."""
        self._seeds = torch.tensor(check_seeds(seeds))
        num_lanes, size = len(self._seeds), self._mu.shape[1]
        chosen = (uniforms(self._seeds, 0, 1, stream=FIRST)[:, 0] * len(self._mu)).long()
        spread = torch.exp(self._logvar[chosen] / 2)
        self.latent = self._mu[chosen] + spread * normals(self._seeds, 0, size, stream=NOISE)
        self.state = self._memory.model.initial_state(num_lanes)
        self._kept = self._masks()
        self._num_steps = 0
        self.live = np.ones(num_lanes, dtype=np.bool_)
        self._ended, self._cut = ~self.live, ~self.live
        return self.latent.numpy()

    def step(self, actions: Actions) -> Step:
        """One step of M in every live lane."""
        checked = check_actions(actions, self.action_spec, self.live)
        live = np.flatnonzero(self.live)
        self._num_steps += 1
        reward = np.zeros(len(self.live))
        num_frames = np.where(self.live, self._terms.repeat, 0)
        if len(live):
            earned, ended = self._advance(torch.from_numpy(live), checked[live])
            reward[live] = earned
            self._ended, self._cut = self._ended.copy(), self._cut.copy()
            self._ended[live] = ended
            self._cut[live] = ~ended & (self._num_steps >= self._terms.max_steps)
            self.live = self.live & ~(self._ended | self._cut)
        return Step(
            observation=self.latent.numpy(),
            reward=reward,
            terminated=self._ended,
            truncated=self._cut,
            num_frames=num_frames,
            facts=self._facts(),
        )

    def warm(self, temperature: float) -> None:
        """Dream on at this temperature."""
        self._terms = replace(self._terms, temperature=temperature)

    def retire(self, lanes: Mask) -> None:
        """Stop dreaming in these lanes."""
        self.live = self.live & ~lanes

    def close(self) -> None:
        """Nothing is open."""
        self.live = np.zeros(0, dtype=np.bool_)

    def _facts(self) -> Mapping[str, NDArray[np.float64]]:
        return {}

    @torch.inference_mode()
    def _advance(self, rows: Tensor, actions: Actions) -> tuple[NDArray[np.float64], Mask]:
        """Reward [n] and end [n] of the live rows, whose latent and state move on."""
        memory, terms = self._memory, self._terms
        z, h, c, seeds = (
            part[rows] for part in (self.latent, self.state[0], self.state[1], self._seeds)
        )
        kept_z, kept_h = (kept[rows] if len(kept) else 1.0 for kept in self._kept)
        restart = torch.full((len(rows),), self._num_steps == 1)
        vectors = torch.from_numpy(self.action_spec.vectors(actions))
        flag = restart if memory.shape.restart_flag else None
        h, c = memory.advance(z * kept_z, vectors, (h * kept_h, c), flag)
        size = z.shape[1]
        z = memory.draw(
            h,
            uniform=uniforms(seeds, self._num_steps, size, stream=WEIGHTS),
            noise=normals(seeds, self._num_steps, size, stream=NOISE),
            temperature=terms.temperature,
        )
        reward, logit = memory.model.other_heads(h)
        ended = self._ends(logit, seeds)
        wholes = (self.latent, *self.state)
        self.latent, *moved = (
            whole.index_copy(0, rows, part) for whole, part in zip(wholes, (z, h, c), strict=True)
        )
        self.state = (moved[0], moved[1])
        if not (torch.isfinite(z).all() and torch.isfinite(h).all()):
            raise self._not_finite(rows, z, h)
        earned = torch.full((len(rows),), self._reward or 0.0) if reward is None else reward
        return earned.double().numpy(), ended.numpy()

    def _ends(self, logit: Tensor | None, seeds: Tensor) -> Tensor:
        """Whether M ends the episode, bool [n]; without a head for that it never does."""
        if logit is None:
            return torch.zeros(len(seeds), dtype=torch.bool)
        if self._terms.end == HARD:
            return logit > 0
        return uniforms(seeds, self._num_steps, 1, stream=END)[:, 0] < torch.sigmoid(logit)

    def _masks(self) -> tuple[Tensor, Tensor]:
        """What z and h are multiplied with for a whole episode, [B, Z] and [B, H]; or nothing.

        Source: zacwellmer/DropoutsDreamLand: masks are drawn once per episode; actions stay.
        """
        share = self._terms.dropout
        if not share:
            return torch.zeros(0), torch.zeros(0)
        sizes = (DROP_Z, self._mu.shape[1]), (DROP_H, self._memory.shape.hidden_size)
        drawn = (uniforms(self._seeds, 0, size, stream=stream) for stream, size in sizes)
        z, h = ((uniform >= share).float() / (1 - share) for uniform in drawn)
        return z, h

    def _not_finite(self, rows: Tensor, z: Tensor, h: Tensor) -> NumbersBad:
        bad = ~(torch.isfinite(z).all(dim=1) & torch.isfinite(h).all(dim=1))
        return NumbersBad(
            "The dream is NaN or infinite.",
            why="M's weights are too large.",
            fix="Train it again with a smaller memory.learning_rate.",
            lane=int(rows[int(bad.int().argmax())]),
        )
