"""The dream: M as a world. What a lane sees is a latent; frames are drawn by whoever looks.

Source: Ha & Schmidhuber 2018, section 4: the next latent is drawn from M's mixture at a
temperature, and the episode ends where M says so. Noise is a function of (seed, step): lanes do
not know their place.
Axes: `B` lanes, `n` of them live, `Z` latent size, `H` units of M, `E` recorded episodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.contracts import Actions, ActionSpec, Mask, Step
from stages.errors import NumbersBad
from stages.memory.dreaming import DreamingMemory, sound
from stages.memory.losses import end_probability
from stages.memory.lstm import State
from stages.memory.noise import normals, uniforms
from stages.worlds.lanes import check_actions, check_seeds

FIRST, WEIGHTS, NOISE, END, DROP_Z, DROP_H, ACT = range(7)  # streams of random numbers
HARD, SAMPLED, EXPECTED = "hard", "sampled", "expected"
UNLIKELY = 0.01  # chance of having come so far, below which an expected dream ends
DIVERGED = "diverged"  # fact: the dream was lost in huge numbers, which ended it


@dataclass(frozen=True)
class Starts:
    """Where dreams begin in recorded episodes, and what each of their steps earned."""

    mu: NDArray[np.float32]  # [E, Z] of the frame there
    logvar: NDArray[np.float32]  # [E, Z]
    reward: float | None  # that every recorded step earned; None: they differ
    inside: "Inside | None" = None  # where not all of them are first frames


class Inside(NamedTuple):
    """What M remembers of the episodes before E starts."""

    h: NDArray[np.float32]  # [E, H]
    c: NDArray[np.float32]  # [E, H]
    first: Mask  # [E], first frames, before which there is nothing


@dataclass(frozen=True)
class DreamTerms:
    """On what terms a dream goes on."""

    temperature: float = 1.0
    max_steps: int = 1000  # after which an episode is cut
    end: str = HARD  # where the end's logit is positive | SAMPLED: as often as M says | EXPECTED:
    # nowhere, but a step's reward counts by the chance of coming so far: less noise, same mean
    end_weight: float = 1.0  # that M was trained with
    dropout: float = 0.0  # share of z and h that an episode does without
    repeat: int = 1  # frames that a step stands for


class DreamWorld:
    """B dreams of one memory. Lanes that have ended cost nothing.

    `latent` and `state` are what an agent sees: z [B, Z], and M's (h, c) before the next action, on
    the memory's device; `chance` [B] is that of having come so far, where ends are expected ones,
    and 1 otherwise. Where a mixture grows without bounds a dream ends, and its step earns
    nothing; `diverged` tells it. In the first step that is an error: then M itself is broken.
    `end_logit` is what M's end head said of the lanes that were live, or None without one.
    """

    fact_names: tuple[str, ...] = (DIVERGED,)

    def __init__(
        self, memory: DreamingMemory, starts: Starts, action_spec: ActionSpec, terms: DreamTerms
    ) -> None:
        assert memory.model.reward_head is not None or starts.reward is not None, "no reward"
        self.action_spec = action_spec
        self.live: Mask = np.zeros(0, dtype=np.bool_)
        self._device = memory.device
        self.latent = torch.zeros(0, memory.shape.latent_size, device=self._device)
        self.state: State = memory.model.initial_state(0)
        self._memory, self.terms = memory, terms
        self._mu, self._logvar = (
            torch.from_numpy(part).to(self._device) for part in (starts.mu, starts.logvar)
        )
        self._reward, inside = starts.reward, starts.inside
        self._inside = [torch.from_numpy(part).to(self._device) for part in inside or ()]
        self.chance = torch.ones(0, device=self._device)
        self.end_logit: Tensor | None = None
        self._seeds = torch.zeros(0, dtype=torch.int64)
        self._num_steps = 0
        self._ended = self._cut = self._diverged = self.live

    def reset(self, seeds: Sequence[int]) -> NDArray[np.float32]:
        """Begin one dream per seed at some recorded frame; z [B, Z]."""
        self._seeds = torch.tensor(check_seeds(seeds), device=self._device)
        num_lanes, size = len(self._seeds), self._mu.shape[1]
        chosen = (uniforms(self._seeds, 0, 1, stream=FIRST)[:, 0] * len(self._mu)).long()
        spread = torch.exp(self._logvar[chosen] / 2)
        self.latent = self._mu[chosen] + spread * normals(self._seeds, 0, size, stream=NOISE)
        self.state = self._memory.model.initial_state(num_lanes)
        self._first = torch.ones(num_lanes, dtype=torch.bool, device=self._device)
        if self._inside:
            h, c, self._first = (part[chosen] for part in self._inside)
            self.state = h, c
        self._kept = self._masks()
        self._num_steps = 0
        self.live = np.ones(num_lanes, dtype=np.bool_)
        self._ended = self._cut = self._diverged = ~self.live
        self.chance = torch.ones(num_lanes, device=self._device)
        return self.latent.cpu().numpy()

    def step(self, actions: Actions) -> Step:
        """One step of M in every live lane."""
        checked = check_actions(actions, self.action_spec, self.live)
        live = np.flatnonzero(self.live)
        self._num_steps += 1
        reward = np.zeros(len(self.live))
        num_frames = np.where(self.live, self.terms.repeat, 0)
        if len(live):
            earned, ended, diverged = self._advance(
                torch.from_numpy(live).to(self._device), checked[live]
            )
            reward[live] = np.where(diverged, 0.0, earned)
            cut = ~(ended | diverged) & (self._num_steps >= self.terms.max_steps)
            self._ended = _with(self._ended, live, ended | diverged)
            self._diverged = _with(self._diverged, live, diverged)
            self._cut = _with(self._cut, live, cut)
            self.live = self.live & ~(self._ended | self._cut)
        return Step(
            observation=self.latent.cpu().numpy(),
            reward=reward,
            terminated=self._ended,
            truncated=self._cut,
            num_frames=num_frames,
            facts={DIVERGED: self._diverged.astype(np.float64)},
        )

    def warm(self, temperature: float) -> None:
        """Dream on at this temperature."""
        self.terms = replace(self.terms, temperature=temperature)

    def retire(self, lanes: Mask) -> None:
        """Stop dreaming in these lanes."""
        self.live = self.live & ~lanes

    def close(self) -> None:
        """Nothing is open."""
        self.live = np.zeros(0, dtype=np.bool_)

    @torch.inference_mode()
    def _advance(self, rows: Tensor, actions: Actions) -> tuple[NDArray[np.float64], Mask, Mask]:
        """Reward, end, and whether it diverged, [n], of the live rows, whose dream moves on.

        A lane that diverges stays as it was.
        """
        memory, terms = self._memory, self.terms
        before = self.latent[rows], self.state[0][rows], self.state[1][rows]
        z, h, c = before
        seeds = self._seeds[rows]
        kept_z, kept_h = (kept[rows] if len(kept) else 1.0 for kept in self._kept)
        restart = self._first[rows] & (self._num_steps == 1)
        vectors = torch.from_numpy(self.action_spec.vectors(actions)).to(self._device)
        flag = restart if memory.shape.restart_flag else None
        z, size = z * kept_z, z.shape[1]
        h, c = memory.advance(z, vectors, (h * kept_h, c), flag)
        seen = memory.seen(h, z, vectors)
        z = memory.draw(
            seen,
            uniform=uniforms(seeds, self._num_steps, size, stream=WEIGHTS),
            noise=normals(seeds, self._num_steps, size, stream=NOISE),
            temperature=terms.temperature,
        )
        reward, self.end_logit = memory.model.other_heads(seen)
        counts = self.chance[rows]  # of coming to this step
        ended = self._ends(self.end_logit, rows)
        whole = sound(z, h)
        if self._num_steps == 1 and not whole.all():
            raise self._not_finite(rows, whole)
        wholes, after = (self.latent, *self.state), (z, h, c)
        self.latent, *moved = (
            all_of.index_copy(0, rows, torch.where(whole[:, None], new, old))
            for all_of, new, old in zip(wholes, after, before, strict=True)
        )
        self.state = (moved[0], moved[1])
        if reward is None:
            reward = torch.full((len(rows),), self._reward or 0.0, device=self._device)
        earned = (reward * counts).cpu().double().numpy()  # not every device has float64
        return earned, ended.cpu().numpy(), ~whole.cpu().numpy()

    def _ends(self, logit: Tensor | None, rows: Tensor) -> Tensor:
        """Whether M ends the episode, bool [n]; without a head for that it never does."""
        if logit is None:
            return torch.zeros(len(rows), dtype=torch.bool, device=self._device)
        if self.terms.end == HARD:
            return logit > 0
        likely = end_probability(logit, self.terms.end_weight)
        if self.terms.end == EXPECTED:
            self.chance[rows] *= 1 - likely
            return self.chance[rows] < UNLIKELY
        drawn = uniforms(self._seeds[rows], self._num_steps, 1, stream=END)
        return drawn[:, 0] < likely

    def _masks(self) -> tuple[Tensor, Tensor]:
        """What z and h are multiplied with for a whole episode, [B, Z] and [B, H]; or nothing.

        Source: zacwellmer/DropoutsDreamLand: masks are drawn once per episode; actions stay.
        """
        share = self.terms.dropout
        if not share:
            return torch.zeros(0), torch.zeros(0)
        sizes = (DROP_Z, self._mu.shape[1]), (DROP_H, self._memory.shape.hidden_size)
        drawn = (uniforms(self._seeds, 0, size, stream=stream) for stream, size in sizes)
        z, h = ((uniform >= share).float() / (1 - share) for uniform in drawn)
        return z, h

    def _not_finite(self, rows: Tensor, whole: Tensor) -> NumbersBad:
        return NumbersBad(
            "The dream is NaN or huge.",
            why="M's weights are too large.",
            fix="Train it again with a smaller memory.learning_rate.",
            lane=int(rows[int(whole.int().argmin())]),
        )


def _with(mask: Mask, lanes: NDArray[np.intp], values: Mask) -> Mask:
    """A copy of the mask [B] with other values at these lanes."""
    changed = mask.copy()
    changed[lanes] = values
    return changed
