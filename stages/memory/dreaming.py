"""M for dreams of many lanes: two matrix products per step, bfloat16 where asked, few passes.

The density and its draws are those of `mdn_rnn` and `mixture`, which are the reference; the
weights are copied once, in another order. Inference only.
Axes: `B` lanes, `Z` latent size, `A` action size, `H` LSTM units, `K` components.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from stages.memory.lstm import State
from stages.memory.mdn_rnn import MDNRNN
from stages.memory.mixture import MIN_TEMPERATURE, check_temperature

PAIR = 32  # the products' inner length is a multiple of it: what a matrix unit takes at once


class DreamingMemory:
    """A copy of M that advances lanes and draws what they see next."""

    def __init__(self, model: MDNRNN, *, dtype: torch.dtype = torch.float32) -> None:
        """`dtype` is the precision of the matrix products; gates, cells and draws are float32."""
        self.model = model
        self.shape = model.shape
        self.dtype = dtype
        lstm = model.lstm
        with torch.no_grad():
            weight = torch.cat((lstm.weight_hh, lstm.weight_ih), dim=1)  # [4H, H + inputs]
            self._padding = -weight.shape[1] % PAIR
            weight = functional.pad(weight, (0, self._padding))
            self._weight = _sigmoids_first(weight).to(dtype).t()
            self._bias = _sigmoids_first(lstm.bias + lstm.offset).to(dtype)
            self._gates = lstm.bias.new_empty(0, len(self._bias))
            self._head_weight = model.head.weight.to(dtype, copy=True)  # [3 * Z * K, H]
            self._head_bias = model.head.bias.to(dtype, copy=True)[:, None]

    @torch.inference_mode()
    def advance(self, z: Tensor, a: Tensor, state: State, restart: Tensor | None = None) -> State:
        """One step: z [B, Z] and a [B, A] into float32 (h, c); `restart` bool [B] as in M."""
        h, c = state
        if restart is not None:
            h, c = (torch.where(restart[:, None], 0.0, part) for part in state)
        parts = [h, z, a]
        if self.shape.restart_flag:
            assert restart is not None, "this memory has a restart flag: say which lanes restart"
            parts.append(restart[:, None])
        if self._padding:
            parts.append(h.new_zeros(len(h), self._padding))
        inputs = torch.cat([part.to(self.dtype) for part in parts], dim=1)
        if len(h) != len(self._gates):  # kept: new memory costs more than what is written into it
            self._gates = h.new_empty(len(h), len(self._bias))
        gates = self._gates.copy_(torch.addmm(self._bias, inputs, self._weight))  # [B, 4H]
        gates[:, : 3 * self.shape.hidden_size].sigmoid_()
        show, take, keep, new = gates.chunk(4, dim=1)
        c = (keep * c).addcmul_(take, new.tanh_())
        return torch.tanh(c).mul_(show), c

    @torch.inference_mode()
    def draw(self, h: Tensor, *, uniform: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """The next z [B, Z] after h [B, H], as `mixture.sample` draws it.

        `uniform` in [0, 1) and `noise` normal, [B, Z] each: give them by seed and step, and a
        lane's dream does not depend on its place.
        """
        check_temperature(temperature)
        product = torch.addmm(self._head_bias, self._head_weight, h.to(self.dtype).t())
        raw = product.float().view(3, self.shape.latent_size, -1, len(h))  # [3, Z, K, B]
        # Lanes last: every pass runs along them, where a mixture's five components would not fill
        # a vector register.
        logit, mean, _ = raw
        if temperature < MIN_TEMPERATURE:
            likeliest: Tensor = mean.gather(1, logit.argmax(1, keepdim=True)).squeeze(1)
            return likeliest.t().contiguous()
        share = logit.sub_(logit.amax(1, keepdim=True)).div_(temperature).exp_()
        place = share.sum(1).mul_(uniform.t())  # [Z, B], lanes last in memory too
        passed = share[:, 0].clone()
        chosen, others = raw[1:, :, 0].contiguous(), raw[1:].unbind(2)  # [2, Z, B] each
        for k in range(1, self.shape.num_mixtures):
            # At weights of 0 and 1 lerp is exact; torch.where takes six times as long.
            chosen.lerp_(others[k], (place >= passed).float())
            passed += share[:, k]
        mean_of_it, log_sigma = chosen
        sigma = log_sigma.clamp_(min=self.shape.min_log_sigma).exp_().mul_(math.sqrt(temperature))
        return torch.addcmul(mean_of_it, sigma, noise.t()).t().contiguous()


def _sigmoids_first(gates: Tensor) -> Tensor:
    """Rows in torch's order (input, forget, cell, output) to output, input, forget, cell."""
    take, keep, new, show = gates.chunk(4)
    return torch.cat((show, take, keep, new))
