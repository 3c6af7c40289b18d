"""C: small controllers whose weights are one flat vector, applied to many lanes at once.

Source: Ha & Schmidhuber 2018, appendix A.4: a = tanh(W [z, h] + b).
Axes: `B` lanes, `P` parameters, `D` inputs, `A` outputs, `U` hidden units.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from stages.contracts import Actions, ActionSpec
from stages.errors import UsageError

SQUASHES = ("linear", "clip")


@dataclass(frozen=True)
class ControllerShape:
    """A linear map, or one hidden layer of tanh units."""

    num_inputs: int  # D
    num_outputs: int  # A
    hidden: int = 0  # U; 0: linear
    bias: bool = True

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights, in the order of the flat vector."""
        widths = [self.num_inputs, *([self.hidden] if self.hidden else []), self.num_outputs]
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
            shapes[f"layer{layer}.weight"] = (fan_out, fan_in)
            if self.bias:
                shapes[f"layer{layer}.bias"] = (fan_out,)
        return shapes

    @property
    def num_parameters(self) -> int:
        """P: 867 for [z, h] of 32 + 256 and three outputs."""
        return sum(int(np.prod(shape)) for shape in self.tensors.values())


class Controllers:
    """B controllers of one shape, each with weights of its own."""

    def __init__(
        self, shape: ControllerShape, parameters: NDArray[np.floating], *, device: str = "cpu"
    ) -> None:
        if parameters.ndim != 2 or parameters.shape[1] != shape.num_parameters:
            raise AssertionError(f"expected [B, {shape.num_parameters}], got {parameters.shape}")
        self.shape = shape
        split = split_parameters(shape, parameters)
        self.weights = {name: weight.to(device) for name, weight in split.items()}

    def __call__(self, inputs: torch.Tensor, lanes: torch.Tensor) -> torch.Tensor:
        """Outputs [n, A] in -1..1 for inputs [n, D]; `lanes` [n] says whose weights to use."""
        signal = inputs
        for layer in range(2 if self.shape.hidden else 1):
            weight = self.weights[f"layer{layer}.weight"][lanes]  # [n, out, in]
            signal = (weight * signal[:, None, :]).sum(-1)
            if self.shape.bias:
                signal = signal + self.weights[f"layer{layer}.bias"][lanes]
            signal = torch.tanh(signal)
        return signal

    def in_blocks(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs [B, n, A] for n inputs of every controller, [B, n, D]: for thousands of lanes.

        Without a copy of the weights per lane, but a row's last bits depend on n.
        """
        signal = inputs
        for layer in range(2 if self.shape.hidden else 1):
            weight = self.weights[f"layer{layer}.weight"].transpose(1, 2)  # [B, in, out]
            bias = self.weights.get(f"layer{layer}.bias")
            product = (
                signal @ weight if bias is None else torch.baddbmm(bias[:, None], signal, weight)
            )
            signal = torch.tanh(product)
        return signal


def split_parameters(
    shape: ControllerShape, parameters: NDArray[np.floating]
) -> dict[str, torch.Tensor]:
    """Cut flat vectors [B, P] into named float32 weights [B, ...]."""
    weights: dict[str, torch.Tensor] = {}
    start = 0
    for name, dims in shape.tensors.items():
        stop = start + int(np.prod(dims))
        piece = parameters[:, start:stop].reshape(len(parameters), *dims)
        weights[name] = torch.from_numpy(np.ascontiguousarray(piece, dtype=np.float32))
        start = stop
    return weights


def join_parameters(
    shape: ControllerShape, weights: dict[str, NDArray[np.floating]]
) -> NDArray[np.float32]:
    """The flat vector [P] of named weights; the inverse of split_parameters for one lane."""
    pieces = [np.asarray(weights[name], dtype=np.float32).ravel() for name in shape.tensors]
    return np.concatenate(pieces)


def to_actions(outputs: torch.Tensor, spec: ActionSpec, squash: tuple[str, ...]) -> Actions:
    """Outputs [n, A] in -1..1 as actions the world accepts.

    A choice takes the largest output. A box is either stretched linearly over its bounds
    (CarRacing's gas: (a + 1) / 2) or clipped to them (its brake), per dimension.
    """
    if spec.kind == "choice":
        return outputs.argmax(-1).cpu().numpy()
    low = np.asarray(spec.low, dtype=np.float32)
    high = np.asarray(spec.high, dtype=np.float32)
    raw = outputs.cpu().numpy()
    stretched = np.clip(low + (raw + 1) / 2 * (high - low), low, high)  # rounded, it overshoots
    linear = np.array([kind == "linear" for kind in squashes(spec, squash)])
    return np.where(linear, stretched, np.clip(raw, low, high)).astype(np.float32)


def squashes(spec: ActionSpec, squash: tuple[str, ...]) -> tuple[str, ...]:
    """One squash per action dimension; an empty setting means linear everywhere."""
    if spec.kind == "choice":
        return ()
    kinds = squash or ("linear",) * spec.size
    unknown = [kind for kind in kinds if kind not in SQUASHES]
    if unknown or len(kinds) != spec.size:
        raise UsageError(
            f"control.squash = {list(squash)} does not fit an action of {spec.size} numbers.",
            why=f"It needs {spec.size} words out of {', '.join(SQUASHES)}.",
            fix="Mend the recipe; `--set control.squash=[]` is linear everywhere.",
        )
    return kinds
