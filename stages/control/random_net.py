"""Fresh random networks V, M and C for every episode, as a data policy.

Source: hardmaru/WorldModelsExperiments: every weight is a standard Cauchy draw times u, with
u ~ U(0, 0.01) drawn once per episode. The layers are those of world models: four convolutions,
an LSTM and a linear controller. Nothing is trained, so plain NumPy does; one lane at a time, so
that an action does not depend on its neighbours. Z is the mean: V's noise is left out.
Axes: `H W C` of a picture, `F` filters, `Z` latents, `U` units of the LSTM, `A` actions.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stages.contracts import Actions, ActionSpec, Frames, Mask
from stages.control.controllers import to_actions
from stages.errors import UsageError
from stages.training.seeding import generator

Floats = NDArray[np.float32]
Layer = tuple[Floats, Floats]  # weight [inputs, outputs], bias [outputs]

FILTERS = (32, 64, 128, 256)
KERNEL, STRIDE = 4, 2
LATENT_SIZE = 32
HIDDEN_SIZE = 256
MAX_SCALE = 0.01
MAX_SIGNAL = 1e6  # Cauchy draws have no bound; float32 has


class RandomNets:
    """A policy whose every episode is driven by another random agent."""

    def __init__(
        self,
        action_spec: ActionSpec,
        frame_shape: tuple[int, int, int],
        *,
        squash: tuple[str, ...] = (),
    ) -> None:
        self.action_spec = action_spec
        self._frame_shape = frame_shape
        self._squash = squash
        self._networks: list[RandomNetwork] = []

    def reset(self, seeds: Sequence[int]) -> None:
        """Draw new networks, one agent per seed."""
        self._networks = [
            RandomNetwork(
                self._frame_shape,
                self.action_spec.size,
                generator(seed, "data-policy", "random-net"),
            )
            for seed in seeds
        ]

    def act(self, observation: Frames, live: Mask) -> Actions:
        """Actions for the live lanes, neutral ones elsewhere."""
        actions = self.action_spec.empty(len(live))
        for lane in np.flatnonzero(live):
            network = self._networks[lane]
            latent = network.encode(observation[lane])
            outputs = torch.from_numpy(network.control(latent)[None])
            actions[lane] = to_actions(outputs, self.action_spec, self._squash)[0]
            network.remember(latent, self.action_spec.vectors(actions[lane]))
        return actions


class RandomNetwork:
    """V, M and C of one episode."""

    def __init__(
        self, frame_shape: tuple[int, int, int], num_actions: int, random: np.random.Generator
    ) -> None:
        scale = random.uniform(0, MAX_SCALE)

        def layer(num_inputs: int, num_outputs: int) -> Layer:
            weight = scale * random.standard_cauchy((num_inputs, num_outputs))
            bias = scale * random.standard_cauchy(num_outputs)
            return weight.astype(np.float32), bias.astype(np.float32)

        widths = (frame_shape[2], *FILTERS)
        self._filters = [
            layer(KERNEL * KERNEL * channels, num_filters)
            for channels, num_filters in pairwise(widths)
        ]
        self._latent = layer(_num_features(frame_shape), LATENT_SIZE)
        self._gates = layer(LATENT_SIZE + num_actions + HIDDEN_SIZE, 4 * HIDDEN_SIZE)
        self._controller = layer(LATENT_SIZE + HIDDEN_SIZE, num_actions)
        self._hidden = np.zeros(HIDDEN_SIZE, dtype=np.float32)
        self._cell = np.zeros(HIDDEN_SIZE, dtype=np.float32)

    def encode(self, frame: NDArray[np.uint8]) -> Floats:
        """Z [32] of a frame [H, W, C]."""
        signal: Floats = frame.astype(np.float32) / np.float32(255)
        for weight, bias in self._filters:
            patches = sliding_window_view(signal, (KERNEL, KERNEL), axis=(0, 1))[::STRIDE, ::STRIDE]
            rows = patches.reshape(*patches.shape[:2], -1)  # [h, w, C * 4 * 4]
            signal = np.clip(rows @ weight + bias, 0, MAX_SIGNAL)  # relu
        return _affine(signal.ravel(), self._latent)

    def control(self, latent: Floats) -> Floats:
        """C's outputs [A] in -1..1: tanh(W [z, h] + b)."""
        outputs: Floats = np.tanh(_affine(np.concatenate([latent, self._hidden]), self._controller))
        return outputs

    def remember(self, latent: Floats, action: Floats) -> None:
        """Advance the LSTM by (z, a); the forget gate's bias is 1 higher, as in the original."""
        signal = _affine(np.concatenate([latent, action, self._hidden]), self._gates)
        keep, forget, new, out = np.split(signal, 4)
        self._cell = _sigmoid(forget + 1) * self._cell + _sigmoid(keep) * np.tanh(new)
        self._hidden = _sigmoid(out) * np.tanh(self._cell)


def _affine(signal: Floats, layer: Layer) -> Floats:
    weight, bias = layer
    bounded: Floats = np.clip(signal @ weight + bias, -MAX_SIGNAL, MAX_SIGNAL)
    return bounded


def _sigmoid(signal: Floats) -> Floats:
    logistic: Floats = np.tanh(signal * np.float32(0.5)) * np.float32(0.5)  # cannot overflow
    return logistic + np.float32(0.5)


def _num_features(frame_shape: tuple[int, int, int]) -> int:
    """Length of the flattened output of the convolutions."""
    height, width = frame_shape[:2]
    for _ in FILTERS:
        height, width = ((side - KERNEL) // STRIDE + 1 for side in (height, width))
    if min(height, width) < 1:
        raise UsageError(
            f"The data policy random-net cannot look at frames of {frame_shape[:2]} pixels.",
            why="Its convolutions need 46 x 46 at least.",
            fix="Set world.size to 64, or choose another rollout.policy.",
        )
    return height * width * FILTERS[-1]
