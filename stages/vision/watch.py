"""Notices early that V learns nothing: latents that never vary, pictures no better than one.

What it looks at was computed anyway; every so many steps it costs about one step in a thousand.
Axes: `B` batch, `H W C` rows, columns and channels of a frame, `Z` latent size.
"""

import numpy as np
from torch import Tensor

from stages.contracts import Frames
from stages.events import OnceEach

# At the shipped rates V draws no better than the mean image, from latents that hardly vary, for 100
# steps (1e-3) to 250 (1e-4, CarRacing). At 1e-2 it never gets further: its latents are constant.
FIRST_STEP = 500
EVERY = 50  # steps
MIN_ROWS = 16  # of a batch; fewer say little about a variance
# A dimension is alive when its mean varies by more than this from frame to frame (Burda, Grosse &
# Salakhutdinov 2016, section 5.2). A good V of 32 has 13 to 24 of them, and needs 7 to 9.
ALIVE_VARIANCE = 0.01
ONE_IN = 8  # dimensions that should be alive at least


class Watch:
    """Collects what the parts of a training step show, and looks at it when they are done."""

    def __init__(self, warnings: OnceEach) -> None:
        self._warnings = warnings
        self._step = 0
        self._frames: Frames | None = None  # of the step that is looked at
        self._seen: list[tuple[Tensor, Tensor]] = []

    def begin(self, step: int, frames: Frames) -> None:
        """Step number `step` (from 0) computes its parts from here on; frames [B, H, W, C]."""
        self._step = step + 1
        due = self._step >= FIRST_STEP and self._step % EVERY == 0
        self._frames = frames if due and len(frames) >= MIN_ROWS else None

    def see(self, mu: Tensor, reconstruction: Tensor) -> None:
        """What a part found: mu [b, Z] of its rows, and their mean squared error as a scalar."""
        if self._frames is not None:
            self._seen.append((mu.detach(), reconstruction.detach()))

    def conclude(self) -> None:
        """Look at the step, once all of its parts have been seen."""
        frames, seen = self._frames, self._seen
        self._frames, self._seen = None, []
        if frames is None or not seen:
            return
        mu = np.concatenate([part.float().cpu().numpy() for part, _ in seen])  # [B, Z]
        error = sum(float(error) * len(part) for part, error in seen) / len(mu)
        self._look_at_latents(mu)
        self._look_at_pictures(error, mean_image_error(frames))

    def _look_at_latents(self, mu: "np.ndarray") -> None:
        latent_size = mu.shape[1]
        alive = int((mu.var(axis=0) > ALIVE_VARIANCE).sum())
        if alive * ONE_IN >= latent_size:
            return
        found = (
            f"Only {alive} of V's {latent_size} latent dimensions vary"
            if alive
            else f"None of V's {latent_size} latent dimensions varies"
        )
        self._warnings.say(
            "latents",
            f"{found} from frame to frame after {self._step} steps (posterior collapse): M and C "
            "would see next to nothing. Try a smaller vision.learning_rate, a larger "
            "vision.kl_floor, or other recordings.",
        )

    def _look_at_pictures(self, error: float, baseline: float) -> None:
        if error >= baseline:
            self._warnings.say(
                "pictures",
                f"After {self._step} steps V's pictures are no better than one mean image (error "
                f"{error:.1f}, the mean image's {baseline:.1f}). Try another "
                "vision.learning_rate if that goes on.",
            )


def mean_image_error(frames: Frames) -> float:
    """Summed squares per frame of answering frames like these [B, H, W, C] with their mean."""
    flat = frames.reshape(len(frames), -1).astype(np.float32) / 255
    return float(flat.var(axis=0, ddof=1).sum())
