"""M for dreams of many lanes: two matrix products per step, bfloat16 where asked, few passes.

The density and its draws are those of `mdn_rnn` and `mixture`, which are the reference; the
weights are copied once, in another order. On a processor lanes are taken in blocks whose gates
stay in a core's cache. Inference only.
Axes: `B` lanes, `b` lanes of a block, `Z` latent size, `A` action size, `H` LSTM units, `K`
components, `P` numbers of a part of z that is drawn at once (Z, or a block), `G` its choices of a
component: P, or 1 of a joint mixture, `S` what the head sees (H, or its hidden units), `I` inputs
of the LSTM's product: h, z, a, perhaps the restart flag, 1 for the bias, zeros.
"""

import copy
import math
import sys
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from stages.memory.fused_draw import can_compile, compiled_draw
from stages.memory.lstm import State
from stages.memory.mdn_rnn import MDNRNN
from stages.memory.mixture import MIN_TEMPERATURE, check_temperature

PAIR = 32  # the products' inner length is a multiple of it: what a matrix unit takes at once
FARTHEST = 1e6  # latents are about as large as 1
BLOCK = 512  # lanes at once, on a processor


class _Scratch(NamedTuple):
    """What a block of lanes is computed in."""

    inputs: Tensor  # [b, I]
    product: Tensor  # [b, 4H]
    gates: Tensor  # float32 [b, 4H]
    head: Tensor  # [(G + 2 * Z) * K, b]
    raw: Tensor  # float32 [(G + 2 * Z) * K, b]


class _Part(NamedTuple):
    """What draws a block of z, or all of it."""

    place: slice  # of z
    choices: slice  # of the uniform numbers
    rows: slice  # of the head
    after: Tensor | None  # its units' weights, [(G + 2 * P) * K, U]


class DreamingMemory:
    """A copy of M that advances lanes and draws what they see next."""

    def __init__(
        self, model: MDNRNN, *, dtype: torch.dtype = torch.float32, compiled: bool = False
    ) -> None:
        """`dtype` is the precision of the matrix products; gates, cells and draws are float32.

        `compiled` draws in one loop where there is a C++ compiler (`fused_draw`): for long dreams.
        """
        self.model = model
        self.shape = model.shape
        self.dtype = dtype
        self._cast = model if dtype == torch.float32 else copy.deepcopy(model).to(dtype)
        lstm = model.lstm
        self.device = lstm.bias.device
        with torch.no_grad():
            bias = (lstm.bias + lstm.offset)[:, None]
            weight = torch.cat(
                (lstm.weight_hh, lstm.weight_ih, bias), dim=1
            )  # [4H, H + inputs + 1]
            self._filled = weight.shape[1]
            weight = functional.pad(weight, (0, -self._filled % PAIR))
            self._weight = _sigmoids_first(weight).to(dtype).t()  # [I, 4H]
            self._head_weight = model.head.weight.to(dtype, copy=True)  # [(G + 2 * Z) * K, S]
            self._head_bias = model.head.bias[:, None].to(torch.float32, copy=True)
            self._parts = [self._part(block) for block in range(self.shape.num_parts)]
        on_processor = self.device.type == "cpu"
        compiled = compiled and on_processor and not self.shape.joint_mixture and can_compile()
        self._fused = compiled_draw() if compiled else None
        self._block = BLOCK if on_processor else sys.maxsize
        self._scratch: dict[int, _Scratch] = {}  # by lanes of a block

    def _part(self, block: int) -> _Part:
        rows, after = self.model.rows_of(block), self.model.after
        return _Part(
            place=self.model.dimensions_of(block),
            choices=self.model.choices_of(block),
            rows=rows,
            after=None if after is None else after.weight[rows].to(self.dtype, copy=True),
        )

    @torch.inference_mode()
    def advance(self, z: Tensor, a: Tensor, state: State, restart: Tensor | None = None) -> State:
        """One step: z [B, Z] and a [B, A] into float32 (h, c); `restart` bool [B] as in M."""
        if self.shape.restart_flag:
            assert restart is not None, "this memory has a restart flag: say which lanes restart"
        assert len(z) == len(a) == len(state[0]), f"{len(z)}, {len(a)}, {len(state[0])} lanes"
        h, c = torch.empty_like(state[0]), torch.empty_like(state[1])
        for block in _blocks(len(z), self._block):
            restarting = None if restart is None else restart[block]
            before = state[0][block], state[1][block]
            self._advance(z[block], a[block], before, restarting, (h[block], c[block]))
        return h, c

    def _advance(
        self, z: Tensor, a: Tensor, state: State, restart: Tensor | None, into: State
    ) -> None:
        """One step of a block of lanes, its (h, c) written `into` these."""
        h, c = state
        if restart is not None:
            h, c = (torch.where(restart[:, None], 0.0, part) for part in state)
        scratch = self._scratch_for(len(z))
        inputs, gates = scratch.inputs, scratch.gates
        parts = [h, z, a]
        if restart is not None and self.shape.restart_flag:
            parts.append(restart[:, None])
        start = 0
        for part in parts:
            inputs[:, start : start + part.shape[1]].copy_(part)
            start += part.shape[1]
        assert start == self._filled - 1, f"z {tuple(z.shape)} and a {tuple(a.shape)} do not fit"
        gates.copy_(torch.mm(inputs, self._weight, out=scratch.product))
        gates[:, : 3 * self.shape.hidden_size].sigmoid_()
        show, take, keep, new = gates.chunk(4, dim=1)
        c = torch.mul(keep, c, out=into[1]).addcmul_(take, new.tanh_())
        torch.tanh(c, out=into[0]).mul_(show)

    def _scratch_for(self, num_lanes: int) -> _Scratch:
        """New memory costs more than filling it; kept for one block size and its remainder."""
        if num_lanes not in self._scratch:
            if len(self._scratch) > 1:
                self._scratch.clear()
            self._scratch[num_lanes] = self._new_scratch(num_lanes)
        return self._scratch[num_lanes]

    def _new_scratch(self, num_lanes: int) -> _Scratch:
        width, num_gates = self._weight.shape
        inputs = self._weight.new_zeros(num_lanes, width)
        inputs[:, self._filled - 1] = 1
        product = self._weight.new_empty(num_lanes, num_gates)
        head = self._weight.new_empty(len(self._head_weight), num_lanes)
        return _Scratch(inputs, product, product.float(), head, head.float())

    @torch.inference_mode()
    def seen(self, h: Tensor, z: Tensor, a: Tensor) -> Tensor:
        """What the heads see, [B, S], as in M; of hidden units in the products' precision."""
        return self._cast.seen(h.to(self.dtype), z, a) if self.shape.head_hidden else h

    @torch.inference_mode()
    def draw(self, seen: Tensor, *, uniform: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """The next z [B, Z] by what the heads see [B, S], as `mixture.sample` draws it.

        `uniform` in [0, 1) and `noise` normal, [B, Z] each: give them by seed and step, and a
        lane's dream does not depend on its place.
        """
        check_temperature(temperature)
        drawn = torch.zeros_like(noise)
        for lanes in _blocks(len(seen), self._block):
            head = self._scratch_for(len(seen[lanes])).head
            torch.mm(self._head_weight, seen[lanes].to(self.dtype).t(), out=head)
            told = self._cast.told(seen[lanes].to(self.dtype))
            for block, part in enumerate(self._parts):
                if told is not None and part.after is not None:
                    units = self._cast.units(told, drawn[lanes], block)
                    head[part.rows].addmm_(part.after, units.t())
                number, normal = uniform[lanes, part.choices], noise[lanes, part.place]
                drawn[lanes, part.place] = self._draw(part, number, normal, temperature)
        return drawn

    def _draw(self, part: _Part, uniform: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """A part of z in a block of lanes, whose head is ready; a view with lanes last in memory.

        Every pass runs along the lanes, where a mixture's five components would not fill a vector
        register.
        """
        scratch = self._scratch_for(len(noise))
        if self._fused is not None and temperature >= MIN_TEMPERATURE:
            parts = (3, self.shape.latent_size, self.shape.num_mixtures, -1)
            head, bias = scratch.head.view(parts), self._head_bias.view(parts)
            low, tau = self.shape.min_log_sigma, torch.tensor(temperature)
            try:
                return self._fused(head, bias, uniform, noise, tau, low)
            except RuntimeError:  # it could not be compiled here
                self._fused = None
        rows = part.rows
        raw = scratch.raw[rows].copy_(scratch.head[rows]).add_(self._head_bias[rows])
        size, num_choices = noise.shape[1], uniform.shape[1]
        raw = raw.view(num_choices + 2 * size, -1, len(noise))  # [G + 2 P, K, b]
        logit, density = raw[:num_choices], raw[num_choices:].view(2, size, -1, len(noise))
        if temperature < MIN_TEMPERATURE:
            best = logit.argmax(1, keepdim=True).expand(size, -1, -1)
            likeliest: Tensor = density[0].gather(1, best).squeeze(1)
            return likeliest.t()
        share = logit.sub_(logit.amax(1, keepdim=True)).div_(temperature).exp_()
        place = share.sum(1).mul_(uniform.t())  # [G, b], lanes last in memory too
        passed = share[:, 0].clone()
        chosen, others = density[:, :, 0].contiguous(), density.unbind(2)  # [2, P, b] each
        for k in range(1, self.shape.num_mixtures):
            # At weights of 0 and 1 lerp is exact; torch.where takes six times as long.
            chosen.lerp_(others[k], (place >= passed).float())
            passed += share[:, k]
        mean_of_it, log_sigma = chosen
        sigma = log_sigma.clamp_(min=self.shape.min_log_sigma).exp_().mul_(math.sqrt(temperature))
        return torch.addcmul(mean_of_it, sigma, noise.t()).t()


def sound(z: Tensor, h: Tensor) -> Tensor:
    """Which dreams are not lost, bool [B]: z [B, Z] and h [B, H] are numbers, and z no huge ones.

    Nothing bounds a mixture's sigma from above: what M never saw may make it explode.
    """
    near = (z.abs() < FARTHEST).all(dim=1)
    return near & torch.isfinite(h).all(dim=1)


def _blocks(num_lanes: int, most: int) -> Iterator[slice]:
    """Blocks of nearly the same size: a small one would be rounded in another way."""
    num_blocks = -(-num_lanes // most)
    for number in range(num_blocks):
        yield slice(num_lanes * number // num_blocks, num_lanes * (number + 1) // num_blocks)


def _sigmoids_first(gates: Tensor) -> Tensor:
    """Rows in torch's order (input, forget, cell, output) to output, input, forget, cell."""
    take, keep, new, show = gates.chunk(4)
    return torch.cat((show, take, keep, new))
