"""The loss of M, and its errors on held-out episodes.

Source: Ha & Schmidhuber 2018 and its code; the end head's weight of 10 is Doom's.
Axes: `B` sequences, `T` steps, `Z` latent size, `A` action size.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from stages.memory.lstm import State
from stages.memory.mdn_rnn import MDNRNN
from stages.memory.mixture import Prediction, mean_nll
from stages.memory.mixture_nll import mixture_nll
from stages.training.latents import draw


@dataclass(frozen=True)
class Sequences:
    """A batch of stretches of episodes, padded at the end where the mask is False."""

    z: Tensor  # [B, T+1, Z], drawn from (mu, logvar)
    actions: Tensor  # [B, T, A]
    mask: Tensor  # bool [B, T], steps that count
    rewards: Tensor | None = None  # [B, T], needed by a reward head
    ends: Tensor | None = None  # [B, T], 1 where the step ended its episode; for an end head
    restart: Tensor | None = None  # bool [B, T], first steps of episodes; for a restart flag


class LatentBatch(Protocol):
    """What is drawn from: training.sequences.SequenceBatch, arrays of numpy."""

    @property
    def mu(self) -> NDArray[np.float32]:
        """[B, T+1, Z]."""
        ...

    @property
    def logvar(self) -> NDArray[np.float32]:
        """[B, T+1, Z]."""
        ...

    @property
    def actions(self) -> NDArray[np.float32]:
        """[B, T, A]."""
        ...

    @property
    def rewards(self) -> NDArray[np.float32]:
        """[B, T]."""
        ...

    @property
    def ends(self) -> NDArray[np.bool_]:
        """[B, T]."""
        ...

    @property
    def mask(self) -> NDArray[np.bool_]:
        """[B, T]."""
        ...

    @property
    def first(self) -> NDArray[np.bool_]:
        """[B], whether the sequence begins with its episode."""
        ...


def draw_sequences(
    batch: LatentBatch, noise: NDArray[np.float32], *, device: torch.device
) -> Sequences:
    """Latents drawn anew with `noise` [B, T+1, Z], and all else, on the device."""

    def moved(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(device)

    restart = np.zeros_like(batch.mask)
    restart[:, 0] = batch.first
    return Sequences(
        z=draw(moved(batch.mu), moved(batch.logvar), moved(noise)),
        actions=moved(batch.actions),
        mask=moved(batch.mask),
        rewards=moved(batch.rewards),
        ends=moved(batch.ends),
        restart=moved(restart),
    )


def predict(
    model: MDNRNN, batch: Sequences, state: State | None = None
) -> tuple[Prediction, State]:
    """M's prediction after each of the T steps, and the state after the last."""
    z, a = batch.z[:, :-1], batch.actions
    h, state = model.unroll(z, a, state, batch.restart)
    return model.heads(model.seen(h, z, a), batch.z[:, 1:]), state


def training_loss(
    model: MDNRNN,
    batch: Sequences,
    *,
    dtype: torch.dtype = torch.float32,
    end_weight: float = 10.0,
) -> dict[str, Tensor]:
    """`memory_loss` of what M predicts, at less cost; matrix products are of this precision."""
    z, a = batch.z[:, :-1], batch.actions
    h, _ = model.unroll(z, a, None, batch.restart, dtype=dtype)
    seen = model.seen(h, z, a)
    parts = {"nll": _nll(model, seen, batch)}
    reward, end_logit = model.other_heads(seen)
    others = _other_errors(reward, end_logit, batch, end_weight)
    parts |= {name: _masked_mean(error, batch.mask) for name, error in others.items()}
    return {"loss": torch.stack(list(parts.values())).sum(), **parts}


def _nll(model: MDNRNN, seen: Tensor, batch: Sequences) -> Tensor:
    """Mean nats per dimension over the steps that count."""
    share = batch.mask / batch.mask.sum().clamp(min=1)  # [B, T]
    following = torch.where(batch.mask[..., None], batch.z[:, 1:], 0.0)
    units, after = model.all_units(seen, following), model.after
    blocks = None
    if units is not None and after is not None:
        blocks = units.flatten(0, 1), after.weight
    return mixture_nll(
        seen.flatten(0, 1),
        model.head.weight,
        model.head.bias,
        following.flatten(0, 1),
        share.flatten(),
        min_log_sigma=model.shape.min_log_sigma,
        num_mixtures=model.shape.num_mixtures,
        blocks=blocks,
    )


def memory_loss(
    prediction: Prediction, batch: Sequences, *, end_weight: float = 10.0
) -> dict[str, Tensor]:
    """Scalars `loss`, `nll` (nats per dimension) and, by head, `reward` and `end`; float32.

    loss = nll + reward + end; means over the steps that count.
    """
    with torch.autocast(batch.z.device.type, enabled=False):
        steps = step_errors(prediction, batch, end_weight=end_weight)
        parts = {name: _masked_mean(error, batch.mask) for name, error in steps.items()}
    return {"loss": torch.stack(list(parts.values())).sum(), **parts}


def step_errors(
    prediction: Prediction, batch: Sequences, *, end_weight: float = 10.0
) -> dict[str, Tensor]:
    """The errors of every step, [B, T] each, before masking.

    `nll` is -log p(z[t+1]) per latent dimension, `reward` the squared error, `end` the binary
    cross-entropy in which steps that end weigh `end_weight` times.
    """
    others = _other_errors(prediction.reward, prediction.end_logit, batch, end_weight)
    return {"nll": mean_nll(prediction, batch.z[:, 1:]), **others}


def _other_errors(
    reward: Tensor | None, end_logit: Tensor | None, batch: Sequences, end_weight: float
) -> dict[str, Tensor]:
    """`step_errors` of the heads that there are besides the mixture's."""
    errors = {}
    if reward is not None:
        errors["reward"] = (reward - _given(batch.rewards, "rewards")).square()
    if end_logit is not None:
        ends = _given(batch.ends, "ends")
        entropy = functional.binary_cross_entropy_with_logits(end_logit, ends, reduction="none")
        errors["end"] = (1 + (end_weight - 1) * ends) * entropy
    return errors


def end_probability(logit: Tensor, end_weight: float) -> Tensor:
    """How likely the episode ends, [...], by the logit of a head that was trained with a weight.

    Weighted w times, a step that ends as often as p says looks as if it did so with odds
    w p / (1 - p) (Elkan 2001, theorem 2): the weight moves the logit by log w, which is taken off.
    """
    return torch.sigmoid(logit - math.log(end_weight))


@torch.inference_mode()
def held_out_errors(
    model: MDNRNN, batches: Iterable[Sequences], *, end_weight: float = 10.0
) -> dict[str, float]:
    """Means over all steps that count, by name as in `step_errors`; every step weighs the same."""
    sums: dict[str, float] = {}
    num_steps = 0
    for batch in batches:
        for name, total in _sums(model, batch, end_weight=end_weight).items():
            sums[name] = sums.get(name, 0.0) + total
        num_steps += int(batch.mask.sum())
    if num_steps == 0:
        raise AssertionError("no held-out steps")
    return {name: total / num_steps for name, total in sums.items()}


def _sums(model: MDNRNN, batch: Sequences, *, end_weight: float) -> dict[str, float]:
    """Errors of a batch added up; a prediction is gone before the next one is made."""
    prediction, _ = predict(model, batch)
    errors = step_errors(prediction, batch, end_weight=end_weight)
    return {name: float(error[batch.mask].double().sum()) for name, error in errors.items()}


def _masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    # where, not a product: what stands in the padding must not matter, not even as NaN.
    return torch.where(mask, error, torch.zeros_like(error)).sum() / mask.sum().clamp(min=1)


def _given(target: Tensor | None, name: str) -> Tensor:
    if target is None:
        raise AssertionError(f"the memory has a head for them, but the batch holds no {name}")
    return target.float()
