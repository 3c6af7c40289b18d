"""The agent of World Models: V encodes, C acts, M remembers.

Order of events (Ha & Schmidhuber 2018, section 2.4): encode o_t to z_t; act from (z_t, h_t),
where h_t has seen z and a up to t-1; then advance M with (z_t, a_t). h_0 = c_0 = 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stages.contracts import Actions, ActionSpec, Frames, Mask, Seen
from stages.control.controllers import Controllers, ControllerShape, to_actions
from stages.control.data_policies import Strays
from stages.errors import NumbersBad, UsageError
from stages.memory.lstm import State
from stages.worlds.following import Follower, LanesOf, LatentWorld, rows_of

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


class Choices:
    """C's answers to what lanes see: a controller of its own for every lane, or one for all."""

    def __init__(
        self, controllers: Controllers, shape: PilotShape, action_spec: ActionSpec
    ) -> None:
        self.controllers, self.shape, self.action_spec = controllers, shape, action_spec

    def reset(self, num_lanes: int) -> None:
        """Lane i has controller i, or all lanes the only one."""
        weight = self.controllers.weights["layer0.weight"]
        num_controllers = len(weight)
        if num_controllers not in {1, num_lanes}:
            raise AssertionError(f"{num_controllers} controllers for {num_lanes} lanes")
        owner = np.arange(num_lanes) if num_controllers > 1 else np.zeros(num_lanes, dtype=np.int64)
        self._owner = torch.from_numpy(owner).to(weight.device)

    @torch.inference_mode()
    def of(self, latent: torch.Tensor, state: State | None, lanes: LanesOf) -> Actions:
        """Actions of these lanes [n], which see z [n, Z], and of M (h, c) [n, H] each."""
        features = latent
        if state is not None:
            features = join_features(self.shape.features, latent, *state)
        rows = torch.from_numpy(lanes).to(self._owner.device)
        outputs = self.controllers(features, self._owner[rows])
        if not (torch.isfinite(features).all() and torch.isfinite(outputs).all()):
            raise _not_finite(lanes, latent, features, outputs)
        return to_actions(outputs, self.action_spec, self.shape.squash)


class Pilot:
    """A policy over lanes: one V and one M for all, a controller of its own for every lane.

    `strays` may do something else; M learns what was done.
    """

    def __init__(self, follower: Follower, choices: Choices, strays: Strays | None = None) -> None:
        self.follower, self.choices, self._strays = follower, choices, strays
        self.action_spec = choices.action_spec

    def reset(self, seeds: Sequence[int]) -> None:
        """Start len(seeds) episodes; lane i has controller i, or all lanes the only one."""
        self.choices.reset(len(seeds))
        self.follower.reset(seeds)
        if self._strays is not None:
            self._strays.reset(seeds)

    def act(self, observation: Frames, live: Mask) -> Actions:
        """Encode, act and remember for the live lanes; other rows are the neutral action."""
        actions = self.action_spec.empty(len(live))
        lanes = np.flatnonzero(live)
        latent = self.follower.see(observation[lanes], lanes)
        chosen = self.choices.of(latent, rows_of(self.follower.state, lanes), lanes)
        actions[lanes] = chosen if self._strays is None else self._strays.over(chosen, lanes)
        self.follower.did(self.action_spec.vectors(actions[lanes]), lanes)
        return actions


class Dreamer:
    """A policy without V and M of its own: C sees the latents of its world and the state of M."""

    def __init__(self, world: LatentWorld, choices: Choices) -> None:
        self._world, self._choices = world, choices

    def reset(self, seeds: Sequence[int]) -> None:
        """Start len(seeds) episodes; lane i has controller i, or all lanes the only one."""
        self._choices.reset(len(seeds))

    def act(self, observation: Seen, live: Mask) -> Actions:  # noqa: ARG002  the world holds it
        """Actions of the live lanes; other rows are the neutral action."""
        actions = self._choices.action_spec.empty(len(live))
        lanes = np.flatnonzero(live)
        latent = self._world.latent
        latent = latent[torch.from_numpy(lanes).to(latent.device)]
        actions[lanes] = self._choices.of(latent, rows_of(self._world.state, lanes), lanes)
        return actions


def _not_finite(
    lanes: LanesOf, latent: torch.Tensor, features: torch.Tensor, outputs: torch.Tensor
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
