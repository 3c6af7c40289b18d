"""What a vision model must beat: errors of pictures that need no model.

All errors are summed squares of 0..1 values per frame, the unit of V's reconstruction error.
Episodes are streamed, one in memory at a time.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stages.contracts import Frames

WHITE = 255.0


def mean_image(episodes: Iterable[Frames]) -> NDArray[np.float64]:
    """The mean frame [H, W, C], in 0..1, of episodes [T, H, W, C]."""
    total: NDArray[np.int64] | None = None
    num_frames = 0
    for frames in episodes:
        part = frames.sum(axis=0, dtype=np.int64)
        total = part if total is None else total + part
        num_frames += len(frames)
    if total is None or num_frames == 0:
        raise AssertionError("no frames")
    return total / (num_frames * WHITE)


def mean_image_error(image: NDArray[np.float64], episodes: Iterable[Frames]) -> float:
    """Mean error per frame of answering every frame with the same `image` [H, W, C]."""
    squares, num_frames = 0.0, 0
    for frames in episodes:
        for frame in frames:
            squares += float(np.square(frame / WHITE - image).sum())
        num_frames += len(frames)
    if num_frames == 0:
        raise AssertionError("no frames")
    return squares / num_frames


def previous_frame_error(episodes: Iterable[Frames]) -> float:
    """Mean error per frame of answering with the frame before; never across two episodes."""
    squares, num_pairs = 0, 0
    for frames in episodes:
        for before, after in pairwise(frames):
            squares += int(np.square(after.astype(np.int64) - before).sum())
        num_pairs += max(len(frames) - 1, 0)
    if num_pairs == 0:
        raise AssertionError("no episode has two frames")
    return squares / (num_pairs * WHITE**2)
