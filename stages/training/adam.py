"""Adam (Kingma & Ba 2015), as torch computes it, without torch's optimiser class.

Making one of that class loads torch's compiler: 1.4 s of every command that trains anything, and
nothing here is compiled.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim.adam import adam

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Moments(NamedTuple):
    """What Adam remembers of one parameter."""

    mean: Tensor  # of its gradients, of the parameter's shape
    square: Tensor  # the mean of their squares
    step: Tensor  # how many there were, []


class Adam:
    """Adam over some parameters, whose gradients are in `grad`.

    Args:
        parameters: what is trained.
        fused: one kernel for all that is done to a parameter.
    """

    def __init__(self, parameters: Iterable[Tensor], *, fused: bool = False) -> None:
        self._parameters, self._fused = list(parameters), fused
        self._moments = {one: self._at_first(one) for one in self._parameters}

    def moments(self, parameter: Tensor) -> Moments:
        """Zeros before the first step."""
        return self._moments[parameter]

    def restore(self, parameter: Tensor, mean: Tensor, square: Tensor, step: float) -> None:
        """Go on with moments of so many steps; mean and square are copied."""
        here = self._at_first(parameter)
        here.mean.copy_(mean)
        here.square.copy_(square)
        here.step.fill_(step)
        self._moments[parameter] = here

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step of every parameter that has a gradient, which is gone afterwards."""
        moved = [one for one in self._parameters if one.grad is not None]
        known = [self._moments[one] for one in moved]
        adam(
            moved,
            [one.grad for one in moved if one.grad is not None],
            [moments.mean for moments in known],
            [moments.square for moments in known],
            [],
            [moments.step for moments in known],
            fused=self._fused or None,
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
        for one in moved:
            one.grad = None

    def _at_first(self, parameter: Tensor) -> Moments:
        mean, square = (
            torch.zeros_like(parameter, memory_format=torch.preserve_format, requires_grad=False)
            for _ in range(2)
        )
        return Moments(
            mean, square, torch.zeros((), device=parameter.device if self._fused else None)
        )
