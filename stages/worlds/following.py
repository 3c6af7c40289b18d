"""What V and M make of the episodes of some lanes, step by step: what an agent sees of them."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from stages.contracts import Frames, World
from stages.memory.lstm import State
from stages.memory.mdn_rnn import MDNRNN
from stages.training.seeding import generator
from stages.vision.vae import VAE, encode_frames

LanesOf = NDArray[np.intp]  # numbers of lanes, ascending


class Follower:
    """V and M that follow the episodes of some lanes: what C sees of them.

    Order of events: `see` the frames, let somebody choose, then say what they `did`.
    """

    def __init__(self, vision: VAE, memory: MDNRNN | None, *, latent: str) -> None:
        self.vision, self.memory = vision, memory
        self.latent = torch.zeros(0, vision.latent_size)  # z [B, Z] of the frames seen last
        self.state: State | None = None  # M's (h, c) [B, H] before the next action; None without M
        self._latent = latent
        self._done: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None  # h, of z and a

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin one episode per seed."""
        self.latent = torch.zeros(len(seeds), self.vision.latent_size)
        self.state = None if self.memory is None else self.memory.initial_state(len(seeds))
        self._first_step, self._done = True, None
        self._noise = [generator(seed, "latent-noise") for seed in seeds]

    @torch.inference_mode()
    def see(self, frames: Frames, lanes: LanesOf) -> torch.Tensor:
        """Latents [n, Z] of frames [n, H, W, C], those of these lanes [n]."""
        latent = self._drawn(frames, lanes)
        self.latent = self.latent.index_copy(0, torch.from_numpy(lanes), latent)
        return latent

    @torch.inference_mode()
    def did(self, vectors: NDArray[np.float32], lanes: LanesOf) -> None:
        """These lanes [n] took these actions [n, A] on seeing their latents."""
        if self.memory is not None and self.state is not None:
            rows = torch.from_numpy(lanes)
            h, c = (part[rows] for part in self.state)
            z, a = self.latent[rows], torch.from_numpy(vectors)
            restart = torch.full((len(lanes),), self._first_step)
            flag = restart if self.memory.shape.restart_flag else None
            h, c = self.memory.advance(z, a, (h, c), flag)
            self._done = h, z, a
            whole_h, whole_c = self.state
            self.state = whole_h.index_copy(0, rows, h), whole_c.index_copy(0, rows, c)
        self._first_step = False

    @torch.inference_mode()
    def foretold(self) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """What M says of what follows in the lanes that acted last; None without M.

        The means [n, Z] of the likeliest components, and the end logits [n] if M has a head.
        """
        if self.memory is None or self._done is None:
            return None
        seen = self.memory.seen(*self._done)
        still = torch.zeros_like(self._done[1])
        latent = self.memory.draw(seen, uniform=still, noise=still, temperature=0.0)
        return latent, self.memory.other_heads(seen)[1]

    def _drawn(self, frames: Frames, lanes: LanesOf) -> torch.Tensor:
        mean, log_variance = encode_frames(self.vision, frames)
        if self._latent == "mean":
            return mean
        size = mean.shape[1]
        noise = np.stack([self._noise[lane].standard_normal(size, np.float32) for lane in lanes])
        return mean + torch.exp(log_variance / 2) * torch.from_numpy(noise)


class LatentWorld(World, Protocol):
    """A World that is seen in latents, whose memory an agent may look into."""

    @property
    def latent(self) -> torch.Tensor:
        """Latents z [B, Z] of what is seen now."""
        ...

    @property
    def state(self) -> State | None:
        """M's (h, c) [B, H] each before the next action; None without M."""
        ...


def rows_of(state: State | None, lanes: LanesOf) -> State | None:
    """The states of these lanes alone."""
    if state is None:
        return None
    rows = torch.from_numpy(lanes).to(state[0].device)
    return state[0][rows], state[1][rows]
