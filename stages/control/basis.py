"""A small space to search C in: the principal components of what C sees.

Most of the inputs [z, h] of a trained V and M hardly move, and those that move do so together:
32 + 256 inputs of CarRacing vary in about 20 directions. A search over one weight per direction,
each direction scaled to unit variance, needs far fewer frames than one over every weight
(docs/experiments.md). C itself stays the paper's: `expand` turns a point of the small space into
all weights. Axes: `n` points or inputs, `D` inputs of C, `K` components, `P` parameters of C.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stages.control.controllers import ControllerShape

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
