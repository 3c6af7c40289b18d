"""M of World Models: an LSTM whose output is a mixture density of the next latent.

Source: Ha & Schmidhuber 2018, appendix A.2. One bias per gate: 422,368 parameters for CarRacing
(Z 32, A 3, H 256), 1,678,785 for Doom (Z 64, A 1, H 512, restart flag, end head).
Axes: `B` lanes, `T` time, `Z` latent size, `A` action size, `H` LSTM units, `K` components, `G`
choices of a component, `S` what the heads see, `b` numbers of a block.
The names and shapes of the weights are a file format (docs/formats.md): do not rename attributes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.errors import UsageError
from stages.memory.blocks import check_blocks
from stages.memory.lstm import LSTM, State
from stages.memory.mixture import Prediction, sample
from stages.training.initial import initialise


@dataclass(frozen=True)
class MDNRNNShape:
    """What determines the tensors of M and how they are read."""

    latent_size: int = 32  # Z
    action_size: int = 3  # A
    hidden_size: int = 256  # H
    num_mixtures: int = 5  # K
    reward_head: bool = False
    end_head: bool = False
    restart_flag: bool = False  # one more input: 1 on the first step of an episode
    min_log_sigma: float = -7.0  # keeps the density of a constant dimension finite
    joint_mixture: bool = False  # one component is drawn for all of z, not one per dimension
    head_hidden: int = 0  # units between the LSTM and the heads; 0: none, as in the paper
    num_blocks: int = 0  # that z is drawn in, each knowing those before it; 0: at once
    block_hidden: int = 0  # units of each block

    def __post_init__(self) -> None:
        for name in ("latent_size", "action_size", "hidden_size", "num_mixtures"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"memory.{name} = {getattr(self, name)} is too small.", fix="Use at least 1."
                )
        units, joint = self.block_hidden, self.joint_mixture
        check_blocks(self.num_blocks, units, self.latent_size, joint=joint)

    @property
    def num_inputs(self) -> int:
        """Width of one step's input: z, a and perhaps the restart flag."""
        return self.latent_size + self.action_size + int(self.restart_flag)

    @property
    def num_seen(self) -> int:
        """Width of what the heads see, S: the hidden units, or h."""
        return self.head_hidden or self.hidden_size

    @property
    def num_outputs(self) -> int:
        """Width of the mixture's head: of each block logits, means [., K] and log sigmas."""
        return (self.num_choices + 2 * self.latent_size) * self.num_mixtures

    @property
    def num_choices(self) -> int:
        """How many components are drawn per step, G."""
        return self.num_parts if self.joint_mixture else self.latent_size

    @property
    def num_parts(self) -> int:
        """How many parts z is drawn in: its blocks, or 1."""
        return self.num_blocks or 1

    @property
    def block_size(self) -> int:
        """How many latent numbers are drawn at once, b."""
        return self.latent_size // self.num_parts


class MDNRNN(nn.Module):
    """M: `lstm`, `head` and, where the shape says so, `wide`, `reward_head` and `end_head`.

    Every block of z has units, by `blocks` of what the heads see and by `before` of the
    blocks before it, which add to the mixture's head by `after`.
    """

    known: Tensor  # bool [N U, Z], which numbers come before a unit's block

    def __init__(self, shape: MDNRNNShape, *, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.lstm = LSTM(shape.num_inputs, shape.hidden_size)
        width = shape.hidden_size + shape.latent_size + shape.action_size
        self.wide = nn.Linear(width, shape.head_hidden) if shape.head_hidden else None
        units = shape.num_blocks * shape.block_hidden
        self.head = nn.Linear(shape.num_seen, shape.num_outputs)
        self.blocks = nn.Linear(shape.num_seen, units) if units else None
        self.before = nn.Linear(shape.latent_size, units, bias=False) if units else None
        wanted = (shape.block_hidden, shape.num_outputs)
        self.after = nn.Linear(*wanted, bias=False) if units else None
        self.reward_head = nn.Linear(shape.num_seen, 1) if shape.reward_head else None
        self.end_head = nn.Linear(shape.num_seen, 1) if shape.end_head else None
        initialise(self, seed=seed)
        if self.before is not None:
            blocks = torch.arange(shape.num_blocks)
            unit, latent = (
                blocks.repeat_interleave(size) for size in (shape.block_hidden, shape.block_size)
            )
            self.register_buffer("known", latent < unit[:, None], persistent=False)
            with torch.no_grad():
                self.before.weight.mul_(latent < unit[:, None])  # the others are never read

    def initial_state(self, num_lanes: int) -> State:
        """State (h, c) of an episode that begins: zeros, [B, H] each."""
        zeros = self.lstm.bias.new_zeros(num_lanes, self.shape.hidden_size)
        return zeros, zeros.clone()

    def advance(self, z: Tensor, a: Tensor, state: State, restart: Tensor | None = None) -> State:
        """One step: z [B, Z] and a [B, A] into (h, c).

        `restart` bool [B] zeroes the state of those lanes before the step; it is required when
        the shape has a restart flag. A row does not depend on the other rows, bit for bit.
        """
        if restart is not None:
            state = _cleared(state, restart)
        return self.lstm.step(self._inputs(z, a, restart), state)

    def unroll(
        self,
        z: Tensor,
        a: Tensor,
        state: State | None = None,
        restart: Tensor | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, State]:
        """T steps: z [B, T, Z], a [B, T, A] to h [B, T, H] after each step, and the last state.

        No state means zeros. `restart` bool [B, T] as in `advance`. Fastest where restarts are
        rare after the first step: the sequence is cut wherever a lane restarts. `dtype` is the
        precision of the products, and of h; the state is float32.
        """
        inputs = self._inputs(z, a, restart).to(dtype)
        state = self.initial_state(len(z)) if state is None else state
        if restart is None:
            return self.lstm.sequence(inputs, state)
        pieces = []
        cuts = _cuts(restart)
        for start, stop in pairwise(cuts):
            state = _cleared(state, restart[:, start])
            piece, state = self.lstm.sequence(inputs[:, start:stop], state)
            pieces.append(piece)
        return torch.cat(pieces, dim=1), state

    def seen(self, h: Tensor, z: Tensor, a: Tensor) -> Tensor:
        """What the heads see [..., S] after a step from z [..., Z] and a [..., A] to h [..., H].

        It is h; with hidden units these, ReLUs of h, z and a, in the precision of h.
        """
        if self.wide is None:
            return h
        joined = torch.cat((h, z.to(h.dtype), a.to(h.dtype)), dim=-1)
        return functional.relu(_linear(joined, self.wide))

    def told(self, seen: Tensor) -> Tensor | None:
        """What all blocks' units get of what the heads see; None where z is drawn at once."""
        return None if self.blocks is None else _linear(seen, self.blocks)

    def units(self, told: Tensor, before: Tensor, block: int) -> Tensor:
        """The units [..., U] of a block of the next z, in the precision of `told`.

        `before` [..., Z] holds the blocks before this one in their places; nothing else of it is
        read.
        """
        assert self.before is not None, "z is drawn at once"
        columns = slice(block * self.shape.block_hidden, (block + 1) * self.shape.block_hidden)
        own = told[..., columns]
        if block:
            known = slice(0, block * self.shape.block_size)
            weight = self.before.weight[columns, known].to(own.dtype)
            own = own + functional.linear(before[..., known].to(own.dtype), weight)
        return functional.relu(own)

    def all_units(self, seen: Tensor, following: Tensor) -> Tensor | None:
        """The units [..., N U] of all N blocks, given the z [..., Z] that followed; or None."""
        told = self.told(seen)
        if told is None or self.before is None:
            return None
        weight = torch.where(self.known, self.before.weight, 0.0).to(told.dtype)
        return functional.relu(told + functional.linear(following.to(told.dtype), weight))

    def rows_of(self, block: int) -> slice:
        """The rows of `head` and `after` that belong to a block."""
        return self._part(self.shape.num_outputs, block)

    def choices_of(self, block: int) -> slice:
        """The places of a block among the choices of a component."""
        return self._part(self.shape.num_choices, block)

    def dimensions_of(self, block: int) -> slice:
        """The places of a block in z."""
        return self._part(self.shape.latent_size, block)

    def heads(self, seen: Tensor, following: Tensor | None = None) -> Prediction:
        """What is said of the step that follows by what the heads see [..., S]; float32 always.

        With blocks `following` is the z [..., Z] that followed: each is told given those before.
        """
        with torch.autocast(seen.device.type, enabled=False):
            seen = seen.float()
            blocks = self._mixtures(seen, following)
            parts = zip(*((weight, *density) for _, _, weight, *density in blocks), strict=True)
            log_weight, mean, log_sigma = (torch.cat(part, dim=-2) for part in parts)
            return Prediction(log_weight, mean, log_sigma, *self.other_heads(seen))

    def draw(
        self, seen: Tensor, *, uniform: Tensor, noise: Tensor, temperature: float = 1.0
    ) -> Tensor:
        """The next z [..., Z] by what the heads see, block by block as `mixture.sample` draws.

        `uniform` and `noise` are [..., Z]; each block uses the uniform number of its own place.
        """
        drawn = torch.zeros_like(noise)
        for choices, own, *told in self._mixtures(seen.float(), drawn):
            drawn[..., own] = sample(
                Prediction(*told),
                uniform=uniform[..., choices],
                noise=noise[..., own],
                temperature=temperature,
            )
        return drawn

    def means(self, seen: Tensor) -> Tensor:
        """The expected z [..., Z]; of blocks after the first given the means of those before."""
        found = seen.new_zeros((*seen.shape[:-1], self.shape.latent_size), dtype=torch.float32)
        for _, own, log_weight, mean, _ in self._mixtures(seen.float(), found):
            found[..., own] = (log_weight.exp() * mean).sum(-1)
        return found

    def other_heads(self, seen: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Reward and end logit [...] of [..., S], in float32; None where there is no head."""
        heads = (self.reward_head, self.end_head)
        reward, end = (None if head is None else head(seen.float()).squeeze(-1) for head in heads)
        return reward, end

    def _mixtures(
        self, seen: Tensor, before: Tensor | None
    ) -> Iterator[tuple[slice, slice, Tensor, Tensor, Tensor]]:
        """Of each block its choices, its dimensions, log weights, means and log sigmas.

        They are [..., G / num_parts, K] and [..., b, K], made when they are asked for: `before`
        may be filled meanwhile.
        """
        shape, told = self.shape, self.told(seen)
        whole = self.head(seen)
        sizes = [shape.num_choices // shape.num_parts, shape.block_size, shape.block_size]
        for block in range(shape.num_parts):
            rows = self.rows_of(block)
            raw = whole[..., rows]
            if told is not None and self.after is not None:
                assert before is not None, "say what was drawn before"
                raw = raw + functional.linear(
                    self.units(told, before, block), self.after.weight[rows]
                )
            parts = raw.reshape(*raw.shape[:-1], sum(sizes), shape.num_mixtures)
            logit, mean, log_sigma = torch.split(parts, sizes, dim=-2)
            bounded = log_sigma.clamp(min=shape.min_log_sigma)
            log_weight = functional.log_softmax(logit, dim=-1)
            yield self.choices_of(block), self.dimensions_of(block), log_weight, mean, bounded

    def _part(self, whole: int, block: int) -> slice:
        size = whole // self.shape.num_parts
        return slice(block * size, (block + 1) * size)

    def num_parameters(self) -> int:
        """How many numbers are trained, which is how many are saved."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _inputs(self, z: Tensor, a: Tensor, restart: Tensor | None) -> Tensor:
        parts = [z, a]
        if self.shape.restart_flag:
            if restart is None:
                raise AssertionError("this memory has a restart flag: say which lanes restart")
            parts.append(restart.to(z.dtype).unsqueeze(-1))
        inputs = torch.cat(parts, dim=-1)
        if inputs.shape[-1] != self.shape.num_inputs:
            raise AssertionError(
                f"z {tuple(z.shape)} and a {tuple(a.shape)} do not fit {self.shape}"
            )
        return inputs


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """The layer in the precision of x."""
    return functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


def _cleared(state: State, restart: Tensor) -> State:
    h, c = (torch.where(restart[:, None], torch.zeros_like(part), part) for part in state)
    return h, c


def _cuts(restart: Tensor) -> list[int]:
    """0, every later step at which some lane restarts, and T."""
    num_steps = restart.shape[1]
    later = [step for step in restart.any(0).nonzero().flatten().tolist() if step > 0]
    return [0, *later, num_steps]
