"""What V sees while an agent is scored, and how well it sees it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stages.contracts import Actions, Frames, Mask, Step
from stages.errors import NumbersBad

if TYPE_CHECKING:
    from stages.vision.vae import VAE

EVERY = 50  # actions between frames on which V's reconstruction error is measured


@dataclass
class Probe:
    """Collects some of the prepared frames that V sees; it watches a drive."""

    seeds: list[int] = field(default_factory=list)  # of the episodes that frames are from
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    _driven: Sequence[int] = ()
    _num_steps: int = 0

    def on_reset(self, observation: Frames, seeds: Sequence[int]) -> None:  # noqa: ARG002
        """No frame: the zoom of the first second is not what V is judged by."""
        self._driven = seeds

    def on_step(self, live: Mask, observation: Frames, *_: Actions | Step | Mask) -> None:
        """Keep one lane's frame every so often."""
        self._num_steps += 1
        if self._num_steps % EVERY == 0:
            lane = int(np.flatnonzero(live)[0])
            self.frames.append(observation[lane].copy())
            self.seeds.append(int(self._driven[lane]))

    def errors(self, model: "VAE") -> list[float]:
        """V's error on each of the frames; NumbersBad when one is not finite."""
        if not self.frames:
            return []
        from stages.vision.losses import frame_errors

        squares, _ = frame_errors(model, np.stack(self.frames))
        for seed, square in zip(self.seeds, squares, strict=True):
            if not np.isfinite(square):
                raise NumbersBad(
                    f"V's error is {square} for a frame of the episode of seed {seed}.",
                    why="Its weights are too large.",
                    fix="Train V again, with a smaller vision.learning_rate.",
                )
        return [float(square) for square in squares]
