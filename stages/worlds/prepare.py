"""From the engine's frame to the frame that V sees: crop, then shrink with anti-aliasing."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stages.contracts import WHOLE_FRAME, Actions, Frames, FrameWorld, Mask, Step
from stages.errors import UsageError

Crop = tuple[int, int, int, int]  # rows from, to, columns from, to


COLOURS = 3  # of every frame behind this door


def is_picture(shape: Sequence[int]) -> bool:
    """Whether a frame of this shape is [H, W], or [H, W, C] with 1, 3 or 4 colours."""
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, COLOURS, 4))


def colour(frame: Frames) -> Frames:
    """A frame [H, W], or [..., H, W, C] of 1, 3 or 4 colours, with 3; alpha is dropped."""
    if frame.ndim == 2:
        frame = frame[..., None]
    if frame.shape[-1] == 1:
        return np.repeat(frame, COLOURS, axis=-1)
    return frame if frame.shape[-1] == COLOURS else frame[..., :COLOURS]


def prepare(frames: Frames, crop: Crop, size: int) -> Frames:
    """Crop frames uint8 [B, H, W, C] and resize them to uint8 [B, size, size, C].

    The filter is a triangle as wide as the shrinking factor (bilinear with anti-aliasing, as
    Pillow's), in whole grey levels; a frame's result does not depend on its neighbours in B.
    """
    top, bottom, left, right = crop
    cropped = frames if crop == WHOLE_FRAME else frames[:, top:bottom, left:right]
    if cropped.shape[1:3] == (size, size):
        return np.ascontiguousarray(cropped)
    import torch

    planes = torch.from_numpy(np.require(cropped, requirements=("C", "W"))).permute(0, 3, 1, 2)
    shrunk = torch.nn.functional.interpolate(
        planes, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    prepared: Frames = shrunk.permute(0, 2, 3, 1).contiguous().numpy()
    return prepared


class Prepared:
    """A world whose observations are prepared frames; `raw` keeps the engine's last ones."""

    def __init__(self, world: FrameWorld, *, crop: Crop, size: int) -> None:
        check_crop(crop, world.observation_shape)
        self._world = world
        self._crop = crop
        self._size = size
        self.action_spec = world.action_spec
        self.observation_shape = (size, size, world.observation_shape[2])
        self.fact_names = world.fact_names
        self.live: Mask = world.live
        self.raw: Frames = np.zeros((0, *world.observation_shape), dtype=np.uint8)
        self._observation: Frames = np.zeros((0, *self.observation_shape), dtype=np.uint8)

    @property
    def observation(self) -> Frames:
        """The newest prepared frames."""
        return self._observation

    def reset(self, seeds: Sequence[int]) -> Frames:
        """Start one episode per seed."""
        self.raw = self._world.reset(seeds)
        self.live = self._world.live
        self._observation = prepare(self.raw, self._crop, self._size)
        return self._observation

    def step(self, actions: Actions) -> Step:
        """Step, and prepare the frames of the lanes that moved."""
        moved = self.live
        step = self._world.step(actions)
        self.raw = step.observation
        self.live = self._world.live
        self._observation = self._prepare(moved)
        return replace(step, observation=self._observation)

    def retire(self, lanes: Mask) -> None:
        """Stop stepping these lanes."""
        self._world.retire(lanes)
        self.live = self._world.live

    def close(self) -> None:
        """Free the engine."""
        self._world.close()
        self.live = self._world.live

    def _prepare(self, moved: Mask) -> Frames:
        if moved.all():
            return prepare(self.raw, self._crop, self._size)
        observation = self._observation.copy()
        if moved.any():
            observation[moved] = prepare(self.raw[moved], self._crop, self._size)
        return observation


def check_crop(crop: Crop, frame: tuple[int, int, int]) -> None:
    """Refuse a crop that leaves the frame."""
    if crop == WHOLE_FRAME:
        return
    top, bottom, left, right = crop
    height, width, _ = frame
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise UsageError(
            f"world.crop = {list(crop)} does not fit frames of {height} x {width}.",
            why="It means: rows from, rows to, columns from, columns to.",
            fix=f"The whole frame is --set world.crop=[0,{height},0,{width}], or [0,0,0,0].",
        )
