"""The agent of World Models: V encodes, C acts, M remembers.

Order of events (Ha & Schmidhuber 2018, section 2.4): encode o_t to z_t; act from (z_t, h_t),
where h_t has seen z and a up to t-1; then advance M with (z_t, a_t). h_0 = c_0 = 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stages.contracts import Actions, ActionSpec, Frames, Mask
from stages.control.controllers import Controllers, ControllerShape, to_actions
from stages.errors import NumbersBad, UsageError
from stages.memory.mdn_rnn import MDNRNN
from stages.training.seeding import generator
from stages.vision.vae import VAE, encode_frames

FEATURES = ("z", "zh", "zch")


@dataclass(frozen=True)
class PilotShape:
    """What C sees and how its outputs become actions."""

    features: str = "zh"  # z | zh | zch
    hidden: int = 0  # hidden units of C; 0: linear
    bias: bool = True
    latent: str = "mean"  # mean: z = mu; sample: z drawn from (mu, logvar)
    squash: tuple[str, ...] = ()  # per action dimension: linear | clip; empty: linear

    def controller(self, latent_size: int, memory_size: int, num_outputs: int) -> ControllerShape:
        """The shape of C for Z latents and an LSTM of `memory_size` units."""
        if self.features not in FEATURES:
            raise UsageError(
                f"control.features = '{self.features}' is unknown.",
                fix=f"Choose one of {', '.join(FEATURES)}.",
            )
        num_inputs = latent_size + (len(self.features) - 1) * memory_size
        return ControllerShape(num_inputs, num_outputs, hidden=self.hidden, bias=self.bias)


class Pilot:
    """A policy over lanes: one V and one M for all, a controller of its own for every lane."""

    def __init__(
        self,
        vision: VAE,
        memory: MDNRNN | None,
        controllers: Controllers,
        *,
        shape: PilotShape,
        action_spec: ActionSpec,
    ) -> None:
        if memory is None and shape.features != "z":
            raise AssertionError("features beyond z need a memory")
        self.vision = vision
        self.memory = memory if shape.features != "z" else None
        self.controllers = controllers
        self.shape = shape
        self.action_spec = action_spec

    def reset(self, seeds: Sequence[int]) -> None:
        """Start len(seeds) episodes; lane i has controller i, or all lanes the only one."""
        num_lanes, num_controllers = len(seeds), len(self.controllers.weights["layer0.weight"])
        if num_controllers not in {1, num_lanes}:
            raise AssertionError(f"{num_controllers} controllers for {num_lanes} lanes")
        self._owner = (
            torch.arange(num_lanes) if num_controllers > 1 else torch.zeros(num_lanes).long()
        )
        self._state = None if self.memory is None else self.memory.initial_state(num_lanes)
        self._first_step = True
        self._noise = [generator(seed, "latent-noise") for seed in seeds]

    @torch.inference_mode()
    def act(self, observation: Frames, live: Mask) -> Actions:
        """Encode, act and remember for the live lanes; other rows are the neutral action."""
        actions = self.action_spec.empty(len(live))
        lanes = np.flatnonzero(live)
        rows = torch.from_numpy(lanes)
        latent = self._latent(observation[lanes], lanes)  # [n, Z]
        state = None if self._state is None else tuple(part[rows] for part in self._state)
        features = self._features(latent, state)
        outputs = self.controllers(features, self._owner[rows])
        if not (torch.isfinite(features).all() and torch.isfinite(outputs).all()):
            raise _not_finite(lanes, latent, features, outputs)
        actions[lanes] = to_actions(outputs, self.action_spec, self.shape.squash)
        if self.memory is not None and state is not None and self._state is not None:
            vectors = torch.from_numpy(self.action_spec.vectors(actions[lanes]))
            restart = torch.full((len(lanes),), self._first_step)
            advanced = self.memory.advance(
                latent,
                vectors,
                (state[0], state[1]),
                restart if self.memory.shape.restart_flag else None,
            )
            for whole, part in zip(self._state, advanced, strict=True):
                whole[rows] = part
        self._first_step = False
        return actions

    def _latent(self, frames: Frames, lanes: np.ndarray) -> torch.Tensor:
        mean, log_variance = encode_frames(self.vision, frames)
        if self.shape.latent == "mean":
            return mean
        size = mean.shape[1]
        noise = np.stack([self._noise[lane].standard_normal(size, np.float32) for lane in lanes])
        return mean + torch.exp(log_variance / 2) * torch.from_numpy(noise)

    def _features(
        self, latent: torch.Tensor, state: tuple[torch.Tensor, ...] | None
    ) -> torch.Tensor:
        if state is None:
            return latent
        return join_features(self.shape.features, latent, *state)


def _not_finite(
    lanes: np.ndarray, latent: torch.Tensor, features: torch.Tensor, outputs: torch.Tensor
) -> NumbersBad:
    """What is wrong with rows [n, ...] of these lanes: the first in the order of events."""
    retrain = "Train it again with a smaller {}.learning_rate."
    for who, fix, values in (
        ("V's latent", retrain.format("vision"), latent),
        ("M's state", retrain.format("memory"), features),
        ("C's answer", "Search again with a smaller control.sigma.", outputs),
    ):
        bad = ~torch.isfinite(values).all(dim=1)
        if bad.any():
            lane = int(lanes[int(bad.int().argmax())])
            return NumbersBad(
                f"{who} is NaN or infinite.",
                why="Its weights are too large, or what it is given is.",
                fix=fix,
                lane=lane,
            )
    raise AssertionError("everything is finite")


def join_features(
    features: str, latent: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor
) -> torch.Tensor:
    """What C sees [n, D], of z [n, Z] and M's state before the action, [n, H] each."""
    parts = {"z": (latent,), "zh": (latent, hidden), "zch": (latent, cell, hidden)}
    return torch.cat(parts[features], dim=1)
