"""The mixture's negative log-likelihood with its head, for training: gradients in closed form.

With logits l, means m and log sigmas s of K components, d = (z - m) / sigma, weights w = softmax(l)
and responsibilities r = softmax(l - d^2 / 2 - s) (Bishop 1994, equations 24-30):

    d nll / d l = w - r,    d nll / d m = -r d / sigma,    d nll / d s = r (1 - d^2).

Rows are taken in pieces that stay in a core's cache, and the gradient takes the place of the
head's outputs. In a joint mixture the d^2 / 2 + s of all dimensions are added up in r. Axes: `N`
rows, `n` of a piece, `H` units, `Z` latent size, `K` components, `G` Z, or 1 of a joint mixture.
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
) -> Tensor:
    """Sum over rows of share times nats per latent dimension, float32.

    Args:
        h: what the head sees, [N, H]; matrix products are of its precision.
        weight: of the head, float32 [(G + 2 Z) K, H]: logits, means, log sigmas.
        bias: of the head, [(G + 2 Z) K].
        z: the latents that came, [N, Z].
        share: what a row counts, [N]; one without a share may hold anything.
        min_log_sigma: lower bound of s, beyond which it has no gradient.
        num_mixtures: K.
    """
    nll: Tensor = _MixtureNLL.apply(h, weight, bias, z, share, min_log_sigma, num_mixtures)  # type: ignore[no-untyped-call]
    return nll


class _MixtureNLL(Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor,
        bias: Tensor,
        z: Tensor,
        share: Tensor,
        min_log_sigma: float,
        num_mixtures: int,
    ) -> Tensor:
        latent_size = z.shape[1]
        cast_weight = weight.to(h.dtype)
        z = z.t().contiguous()  # [Z, N]
        z = torch.where(share > 0, z, torch.zeros_like(z))
        share = share / latent_size
        total = weight.new_zeros(())
        raw = torch.addmm(bias.to(h.dtype)[:, None], cast_weight, h.t())  # [(G + 2 Z) K, N]
        for start in range(0, len(h), ROWS):
            piece = slice(start, start + ROWS)
            parts = raw[:, piece].to(weight.dtype, copy=True)
            total += _with_gradient(
                parts.view(-1, num_mixtures, parts.shape[1]), z[:, piece], share[piece],
                min_log_sigma,
            )  # fmt: skip
            raw[:, piece] = parts
        ctx.save_for_backward(h, cast_weight, raw)
        ctx.dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        h, weight, gradient = ctx.saved_tensors
        (scale,) = upstream
        to_h = gradient.t() @ (weight * scale).to(h.dtype)
        to_weight = (gradient @ h).to(ctx.dtype) * scale
        return to_h, to_weight, gradient.sum(1).to(ctx.dtype) * scale, *[None] * 4


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
