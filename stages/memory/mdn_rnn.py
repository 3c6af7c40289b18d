"""M of World Models: an LSTM whose output is a mixture density of the next latent.

Source: Ha & Schmidhuber 2018, appendix A.2. One bias per gate: 422,368 parameters for CarRacing
(Z 32, A 3, H 256), 1,678,785 for Doom (Z 64, A 1, H 512, restart flag, end head).
Axes: `B` lanes, `T` time, `Z` latent size, `A` action size, `H` LSTM units, `K` components.
The names and shapes of the weights are a file format (docs/formats.md): do not rename attributes.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.errors import UsageError
from stages.memory.lstm import LSTM, State
from stages.memory.mixture import Prediction
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

    def __post_init__(self) -> None:
        for name in ("latent_size", "action_size", "hidden_size", "num_mixtures"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"memory.{name} = {getattr(self, name)} is too small.", fix="Use at least 1."
                )

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
        """Width of the mixture's head: logits [G, K], means [Z, K], log sigmas [Z, K]."""
        return (self.num_choices + 2 * self.latent_size) * self.num_mixtures

    @property
    def num_choices(self) -> int:
        """How many components are drawn per step, G."""
        return 1 if self.joint_mixture else self.latent_size


class MDNRNN(nn.Module):
    """M: `lstm`, `head` and, where the shape says so, `wide`, `reward_head` and `end_head`."""

    def __init__(self, shape: MDNRNNShape, *, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.lstm = LSTM(shape.num_inputs, shape.hidden_size)
        width = shape.hidden_size + shape.latent_size + shape.action_size
        self.wide = nn.Linear(width, shape.head_hidden) if shape.head_hidden else None
        self.head = nn.Linear(shape.num_seen, shape.num_outputs)
        self.reward_head = nn.Linear(shape.num_seen, 1) if shape.reward_head else None
        self.end_head = nn.Linear(shape.num_seen, 1) if shape.end_head else None
        initialise(self, seed=seed)

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
        weight, bias = self.wide.weight.to(h.dtype), self.wide.bias.to(h.dtype)
        joined = torch.cat((h, z.to(h.dtype), a.to(h.dtype)), dim=-1)
        return functional.relu(functional.linear(joined, weight, bias))

    def heads(self, seen: Tensor) -> Prediction:
        """What is said of the step that follows by what the heads see [..., S]; float32 always."""
        with torch.autocast(seen.device.type, enabled=False):
            seen = seen.float()
            shape = self.shape
            raw = self.head(seen).unflatten(-1, (-1, shape.num_mixtures))  # [..., G + 2 Z, K]
            sizes = (shape.num_choices, shape.latent_size, shape.latent_size)
            logit, mean, log_sigma = raw.split(sizes, dim=-2)
            reward, end_logit = self.other_heads(seen)
            return Prediction(
                log_weight=functional.log_softmax(logit, dim=-1),
                mean=mean,
                log_sigma=log_sigma.clamp(min=shape.min_log_sigma),
                reward=reward,
                end_logit=end_logit,
            )

    def other_heads(self, seen: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Reward and end logit [...] of [..., S], in float32; None where there is no head."""
        heads = (self.reward_head, self.end_head)
        reward, end = (None if head is None else head(seen.float()).squeeze(-1) for head in heads)
        return reward, end

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


def _cleared(state: State, restart: Tensor) -> State:
    h, c = (torch.where(restart[:, None], torch.zeros_like(part), part) for part in state)
    return h, c


def _cuts(restart: Tensor) -> list[int]:
    """0, every later step at which some lane restarts, and T."""
    num_steps = restart.shape[1]
    later = [step for step in restart.any(0).nonzero().flatten().tolist() if step > 0]
    return [0, *later, num_steps]
