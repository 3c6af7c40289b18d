"""Notices early that M learns nothing: predictions no better than none, a state that never moves.

Every so many steps it asks M about a few sequences: about one step's work in a thousand steps.
Axes: `n` steps that count, `Z` latent size, `H` LSTM units, `K` components.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.events import OnceEach
from stages.memory.losses import Sequences
from stages.memory.mdn_rnn import MDNRNN
from stages.memory.mixture import LOG_SQRT_2PI, Prediction, log_likelihood

# At the shipped rate of 1e-3 M is better than a Gaussian before step 50, at 1e-4 before step 100.
FIRST_STEP = 200
EVERY = 50  # steps
FEW, SHORT = slice(8), slice(64)  # sequences, and steps of each, that are looked at
MIN_STEPS = 100  # of them that count; fewer say little about a variance
# A good M has 0 of 256 units below 0.05; the mixtures of its dimensions put 0.25 to 0.74 on their
# likeliest component, and none of its sigmas stands at the lower bound (presets quick and hour).
STILL = 0.01  # standard deviation of a unit that does not move
MOST = 0.5  # share of units, or of sigmas, that must not be so
ONE_COMPONENT = 0.99  # weight of the likeliest


class Watch:
    """Looks at M now and then while it is trained."""

    def __init__(self, warnings: OnceEach) -> None:
        self._warnings = warnings

    def look_at_targets(self, name: str, columns: Iterable[NDArray[Any]]) -> None:
        """Look at what a head is to predict: all recorded rewards, or all ends."""
        ranges = [(column.min(), column.max()) for column in columns]
        low, high = (np.array(ends) for ends in zip(*ranges, strict=True))
        if low.min() == high.max():
            self._warnings.say(
                name,
                f"Every one of the recorded {name} is {low[0]}: M's head for them "
                f"(memory.{name.removesuffix('s')}_head) has nothing to learn.",
            )

    def due(self, step: int) -> bool:
        """Whether to look before training step `step`."""
        return step >= FIRST_STEP and step % EVERY == 0

    @torch.no_grad()
    def look(self, model: MDNRNN, batch: Sequences, step: int) -> None:
        """Ask M about some of a batch, after `step` steps of training."""
        some = _some(batch)
        if int(some.mask.sum()) < MIN_STEPS:
            return
        z, a = some.z[:, :-1], some.actions
        h, _ = model.unroll(z, a, None, some.restart)
        prediction = model.heads(model.seen(h, z, a), some.z[:, 1:])
        following = some.z[:, 1:][some.mask].float()  # [n, Z]
        nll = float(-log_likelihood(prediction, some.z[:, 1:])[some.mask].mean())
        self._look_at_error(nll, gaussian_nll(following), step)
        self._look_at_state(h[some.mask].float(), step)
        self._look_at_mixture(prediction, some.mask, model, step)

    def _look_at_error(self, nll: float, baseline: float, step: int) -> None:
        if nll >= baseline:
            self._warnings.say(
                "error",
                f"After {step} steps M predicts the next latent no better than a Gaussian that "
                f"knows nothing of the past ({nll:.3f} nats per dimension, the Gaussian "
                f"{baseline:.3f}). Try a smaller memory.learning_rate, or look at V: its latents "
                "may hold nothing.",
            )

    def _look_at_state(self, h: Tensor, step: int) -> None:
        still = int((h.std(0) < STILL).sum())
        if still > MOST * h.shape[1]:
            self._warnings.say(
                "state",
                f"After {step} steps {still} of M's {h.shape[1]} units never move: it remembers "
                "next to nothing. Try a smaller memory.learning_rate.",
            )

    def _look_at_mixture(
        self, prediction: Prediction, mask: Tensor, model: MDNRNN, step: int
    ) -> None:
        weight = float(prediction.log_weight[mask].exp().amax(-1).mean())
        num_mixtures = model.shape.num_mixtures
        if num_mixtures > 1 and weight > ONE_COMPONENT:
            self._warnings.say(
                "mixture",
                f"After {step} steps M uses 1 of its {num_mixtures} Gaussians: it cannot say that "
                "one of several things will happen. Try a smaller memory.learning_rate.",
            )
        bound = model.shape.min_log_sigma
        share = float((prediction.log_sigma[mask] <= bound).float().mean())
        if share > MOST:
            self._warnings.say(
                "sigma",
                f"After {step} steps {share:.0%} of M's sigmas stand at their lower bound "
                f"(memory.min_log_sigma = {bound:g}): the latents hardly vary. Look at V and at "
                "the recordings.",
            )


def gaussian_nll(z: Tensor) -> float:
    """Nats per dimension of z [n, Z] under the Gaussian with its own mean and variance."""
    log_deviation = 0.5 * z.var(0, unbiased=False).clamp(min=1e-12).log()
    return float((LOG_SQRT_2PI + log_deviation + 0.5).mean())


def _some(batch: Sequences) -> Sequences:
    """The beginnings of the first few sequences."""
    restart = batch.restart
    return replace(
        batch,
        z=batch.z[FEW, : SHORT.stop + 1],
        actions=batch.actions[FEW, SHORT],
        mask=batch.mask[FEW, SHORT],
        restart=None if restart is None else restart[FEW, SHORT],
    )
