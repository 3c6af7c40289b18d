"""The mixture's negative log-likelihood with its head, for training: gradients in closed form.

With logits l, means m and log sigmas s of K components, d = (z - m) / sigma, weights w = softmax(l)
and responsibilities r = softmax(l - d^2 / 2 - s) (Bishop 1994, equations 24-30):

    d nll / d l = w - r,    d nll / d m = -r d / sigma,    d nll / d s = r (1 - d^2).

Rows are taken in pieces that stay in a core's cache, and the gradient takes the place of the
head's outputs. In a joint mixture the d^2 / 2 + s of all dimensions are added up in r, and with
blocks of z those of each block. Axes: `N` rows, `n` of a piece, `H` units, `Z` latent size, `K`
components, `G` Z, or the blocks of a joint mixture (one or more), `R` units of a block.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from stages.memory.mixture import LOG_SQRT_2PI

ROWS = 512  # at once


def mixture_nll(
    h: Tensor,
    weight: Tensor,
    bias: Tensor,
    z: Tensor,
    share: Tensor,
    *,
    min_log_sigma: float,
    num_mixtures: int,
    blocks: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Sum over rows of share times nats per latent dimension, float32.

    Args:
        h: what the head sees, [N, H]; matrix products are of its precision.
        weight: of the head, float32 [(G + 2 Z) K, H]: logits, means, log sigmas (of each block).
        bias: of the head, [(G + 2 Z) K].
        z: the latents that came, [N, Z].
        share: what a row counts, [N]; one without a share may hold anything.
        min_log_sigma: lower bound of s, beyond which it has no gradient.
        num_mixtures: K.
        blocks: the units of the blocks of z, [N, G R], of the precision of h, and what they add
            to the head by, float32 [(G + 2 Z) K, R]; None if z is drawn at once.
    """
    units, after = blocks or (h.new_zeros(len(h), 0), weight.new_zeros(len(weight), 0))
    given = (h, weight, bias, units, after, (z, share), (min_log_sigma, num_mixtures))
    nll: Tensor = _MixtureNLL.apply(*given)  # type: ignore[no-untyped-call]
    return nll


class _MixtureNLL(Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor,
        bias: Tensor,
        units: Tensor,
        after: Tensor,
        target: tuple[Tensor, Tensor],
        bounds: tuple[float, int],
    ) -> Tensor:
        (z, share), (min_log_sigma, num_mixtures) = target, bounds
        latent_size = z.shape[1]
        cast_weight, cast_after = weight.to(h.dtype), after.to(h.dtype)
        z = z.t().contiguous()  # [Z, N]
        z = torch.where(share > 0, z, torch.zeros_like(z))
        share = share / latent_size
        total = weight.new_zeros(())
        raw = torch.addmm(bias.to(h.dtype)[:, None], cast_weight, h.t())  # [(G + 2 Z) K, N]
        num_blocks = _num_blocks(units, after)
        for rows, mine, added in zip(*_blocks(num_blocks, raw, units, cast_after), strict=True):
            rows.addmm_(added, mine.t())
        for start in range(0, len(h), ROWS):
            piece = slice(start, start + ROWS)
            parts = raw[:, piece].to(weight.dtype, copy=True)
            for own, latents in zip(
                parts.chunk(num_blocks), z[:, piece].chunk(num_blocks), strict=True
            ):
                shaped = own.view(-1, num_mixtures, own.shape[1])
                total += _with_gradient(shaped, latents, share[piece], min_log_sigma)
            raw[:, piece] = parts
        ctx.save_for_backward(h, cast_weight, units, cast_after, raw)
        ctx.dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        h, weight, units, after, gradient = ctx.saved_tensors
        (scale,) = upstream
        to_h = gradient.t() @ (weight * scale).to(h.dtype)
        to_weight = (gradient @ h).to(ctx.dtype) * scale
        to_bias = gradient.sum(1).to(ctx.dtype) * scale
        scaled = (after * scale).to(h.dtype)
        parts = _blocks(_num_blocks(units, after), gradient, units, scaled)
        blocks = list(zip(*parts, strict=True))
        to_units = torch.cat([rows.t() @ added for rows, _, added in blocks], dim=1)
        to_after = torch.cat([rows @ mine for rows, mine, _ in blocks]).to(ctx.dtype) * scale
        return to_h, to_weight, to_bias, to_units, to_after, None, None


def _num_blocks(units: Tensor, after: Tensor) -> int:
    return units.shape[1] // after.shape[1] if after.shape[1] else 1


def _blocks(
    number: int, raw: Tensor, units: Tensor, after: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Of every block its rows of the head's outputs, its units and what these add by."""
    return raw.chunk(number), units.chunk(number, dim=1), after.chunk(number)


def _with_gradient(parts: Tensor, z: Tensor, share: Tensor, min_log_sigma: float) -> Tensor:
    """The sum of share * nll; `parts` [G + 2 Z, K, n] are replaced by its gradient.

    z is [Z, n], share [n].
    """
    latent_size = len(z)
    num_choices = len(parts) - 2 * latent_size  # G
    logit, mean, log_sigma = torch.split(parts, [num_choices, latent_size, latent_size])
    bounded = log_sigma < min_log_sigma
    log_sigma.clamp_(min=min_log_sigma)
    precision = torch.exp(-log_sigma)
    deviation = torch.sub(z[:, None], mean).mul_(precision)
    square = deviation.square()
    if num_choices == latent_size:
        joint = torch.sub(logit, log_sigma).sub_(square, alpha=0.5)
    else:
        joint = logit - log_sigma.add(square, alpha=0.5).sum(0, keepdim=True)
    top, above = logit.amax(1, keepdim=True), joint.amax(1, keepdim=True)  # [G, 1, n]
    weight, responsibility = logit.sub_(top).exp_(), joint.sub_(above).exp_()
    sum_weight, sum_joint = weight.sum(1, keepdim=True), responsibility.sum(1, keepdim=True)
    constant = LOG_SQRT_2PI * latent_size / num_choices
    nll = top + sum_weight.log() - above - sum_joint.log() + constant
    total = torch.where(share > 0, nll.sum((0, 1)) * share, 0.0).sum()
    responsibility.mul_(share / sum_joint)
    weight.mul_(share / sum_weight).sub_(responsibility)  # in the place of the logits
    torch.mul(responsibility, deviation, out=mean).mul_(precision).neg_()
    torch.sub(responsibility, square.mul_(responsibility), out=log_sigma)
    log_sigma.masked_fill_(bounded, 0.0)
    return total
