"""A small space to search C in: the principal components of what C sees.

Most of the inputs [z, h] of a trained V and M hardly move, and those that move do so together:
32 + 256 inputs of CarRacing vary in about 20 directions. A search over one weight per direction,
each direction scaled to unit variance, needs far fewer frames than one over every weight
(docs/experiments.md). C itself stays the paper's: `expand` turns a point of the small space into
all weights. Axes: `n` points, `D` inputs of C, `K` components, `P` parameters of C.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from stages.artifacts.latents import LatentRecord
from stages.control.controllers import ControllerShape
from stages.control.pilot import join_features
from stages.memory.mdn_rnn import MDNRNN
from stages.training.sequences import LatentSource

LANES = 64  # episodes that M reads side by side
SMALLEST = 1e-3  # of the largest deviation; flatter directions are left out

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Basis:
    """Directions among the inputs of C, each divided by the deviation of the data along it."""

    mean: Floats  # [D], subtracted from the inputs; zeros for a C without bias
    directions: Floats  # [K, D]

    def searched(self, shape: ControllerShape) -> int:
        """How many numbers the search moves: C's parameters if it had K inputs."""
        return replace(shape, num_inputs=len(self.directions)).num_parameters

    def expand(self, points: Floats, shape: ControllerShape) -> Floats:
        """All weights [n, P] of the controllers at these points [n, N] of the small space."""
        num_first = shape.hidden or shape.num_outputs
        split = num_first * len(self.directions)
        small = points[:, :split].reshape(len(points), num_first, len(self.directions))
        weight = small @ self.directions  # [n, first, D]
        rest = points[:, split:].copy()
        if shape.bias:
            rest[:, :num_first] -= weight @ self.mean
        return np.concatenate([weight.reshape(len(points), -1), rest], axis=1)


def fit_basis(inputs: NDArray[np.floating], num_components: int, *, centred: bool = True) -> Basis:
    """The basis of at most K components of inputs [n, D]; fewer where the data are flat."""
    data = np.asarray(inputs, dtype=np.float64)
    if num_components < 1 or len(data) < 2:
        raise AssertionError(f"{num_components} components of {len(data)} inputs")
    mean = data.mean(axis=0)
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(data - mean, rowvar=False)))
    order = np.argsort(-variances, kind="stable")[:num_components]
    deviations = np.sqrt(np.maximum(variances[order], 0))
    kept = deviations > SMALLEST * deviations[0]
    directions = axes[:, order[kept]].T / deviations[kept, None]
    # An eigenvector is known up to its sign: the largest entry is made positive.
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.sign(directions[np.arange(len(directions)), largest])[:, None]
    return Basis(mean if centred else np.zeros_like(mean), directions)


def inputs_of(
    source: LatentSource, memory: MDNRNN | None, features: str, *, limit: int
) -> NDArray[np.float32]:
    """What C would have seen in about `limit` recorded steps, [n, D], with z = mu.

    Computed on one math thread, as C will be driven: more would give other last bits.
    """
    lengths = source.lengths
    chosen = range(0, len(lengths), max(1, int(lengths.sum()) // limit))
    every = max(1, int(lengths[list(chosen)].sum()) // limit)  # steps of few long episodes
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            rows = [
                join_features(features, z, h, c)
                for start in range(0, len(chosen), LANES)
                for step, (z, h, c) in enumerate(
                    _unrolled([source.episode(n) for n in chosen[start : start + LANES]], memory)
                )
                if step % every == 0
            ]
            return torch.cat(rows).numpy()
    finally:
        torch.set_num_threads(num_threads)


def _unrolled(
    records: Sequence[LatentRecord], memory: MDNRNN | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """z, h and c before each action, of all lanes that have not ended, step after step."""
    records = sorted(records, key=lambda record: -record.num_steps)  # the live ones come first
    hidden = memory.shape.hidden_size if memory is not None else 0
    state = torch.zeros(len(records), hidden), torch.zeros(len(records), hidden)
    for step in range(records[0].num_steps):
        live = [record for record in records if record.num_steps > step]
        z = torch.from_numpy(np.stack([record.mu[step] for record in live]).astype(np.float32))
        state = state[0][: len(live)], state[1][: len(live)]
        yield z, *state
        if memory is not None:
            actions = torch.from_numpy(np.stack([record.actions[step] for record in live]))
            restart = torch.full((len(live),), step == 0) if memory.shape.restart_flag else None
            state = memory.advance(z, actions, state, restart)
