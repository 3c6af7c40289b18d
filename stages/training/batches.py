"""Batches of frames: which frames a training step sees, and the only step from uint8 to float.

A batch is a function of (seed, step) alone, so that a resumed run needs only its step.
Axes as in contracts.py.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from stages.contracts import Frames
from stages.errors import UsageError
from stages.training.seeding import generator

BLOCK = 16  # rows of a chunk of the `observations` column: the least that can be unpacked
POOL = 4096  # frames that are shuffled together in memory: 50 MB at 64 x 64 x 3

Rows = NDArray[np.int64]


class FrameShard(Protocol):
    """What batches need of one file of episodes (artifacts.episodes.EpisodeShard)."""

    @property
    def observation_offsets(self) -> Rows:
        """First row of each episode, and one past the last, [E + 1]."""
        ...

    def frames(self, start: int, stop: int) -> Frames:
        """Rows start to stop, uint8 [stop - start, H, W, C]."""
        ...


class FrameSource(Protocol):
    """What batches need of recorded episodes (artifacts.episodes.EpisodeSet)."""

    @property
    def num_episodes(self) -> int:
        """E over all files."""
        ...

    def locate(self, episode: int, /) -> tuple[FrameShard, int]:
        """The file that holds an episode, and its number there."""
        ...


def to_float(frames: Frames, device: torch.device) -> torch.Tensor:
    """uint8 [B, H, W, C] in 0..255 to float32 [B, C, H, W] in [0, 1], channels last in memory."""
    assert frames.dtype == np.uint8, f"frames are {frames.dtype}"
    assert frames.ndim == 4, f"frames have shape {frames.shape}"
    moved = torch.from_numpy(np.ascontiguousarray(frames)).to(device)
    return moved.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def split_episodes(episode_seeds: Sequence[int], *, fraction: float) -> tuple[list[int], list[int]]:
    """Numbers of the training and of the held-out episodes, sorted; at least one of each.

    The side of an episode follows from its seed, its track, alone: what was held out once stays
    held out when more is recorded, when another policy drives there, and when training goes on.
    `fraction` of all tracks are held out; of few tracks it may be another share.
    """
    tracks = np.unique(np.asarray(episode_seeds, dtype=np.int64))
    if len(tracks) < 2:
        raise UsageError(
            f"Training needs episodes of at least 2 seeds, one held out; there is {len(tracks)}.",
            fix="Record more: wm rollout --episodes 8",
        )
    places = np.array([generator(int(track), "held-out").random() for track in tracks])
    order = np.argsort(places)
    num_held_out = min(max(int((places < fraction).sum()), 1), len(tracks) - 1)
    held = np.isin(np.asarray(episode_seeds), tracks[order[:num_held_out]])
    return np.flatnonzero(~held).tolist(), np.flatnonzero(held).tolist()


def in_order_frames(
    source: FrameSource, episodes: Sequence[int], *, batch_size: int
) -> Iterator[Frames]:
    """Every frame of these episodes once, in order; all batches but the last are full."""
    waiting: list[Frames] = []
    num_waiting = 0
    for episode in episodes:
        shard, first, stop = _rows(source, episode)
        while first < stop:
            upto = min(stop, first + batch_size - num_waiting)
            waiting.append(shard.frames(first, upto))
            num_waiting += upto - first
            first = upto
            if num_waiting == batch_size:
                yield np.concatenate(waiting)
                waiting, num_waiting = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _rows(source: FrameSource, episode: int) -> tuple[FrameShard, int, int]:
    """The file of an episode, and its first row and one past its last row there."""
    shard, inside = source.locate(episode)
    offsets = shard.observation_offsets
    return shard, int(offsets[inside]), int(offsets[inside + 1])


class FrameBatches:
    """Shuffled frames of some episodes, every one exactly once per epoch, in bounded memory.

    An epoch is a permutation of blocks of at most 16 rows (whole chunks on disk), cut into pools
    of `pool` frames that are shuffled once more. Epochs follow one another without a gap: a
    batch may hold the end of one and the start of the next.
    """

    def __init__(
        self,
        source: FrameSource,
        episodes: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        pool: int = POOL,
    ) -> None:
        assert len(episodes) > 0, "batches of no episodes"
        self.batch_size = batch_size
        self._source = source
        self._seed = seed
        self._pool_size = pool
        self._blocks = _cut_blocks(source, episodes)
        self.num_frames = int(self._blocks[:, 2].sum())
        self._epoch: tuple[int, Rows, Rows] | None = None  # number, blocks in order, their starts
        self._pool: tuple[tuple[int, int], Frames] | None = None  # (epoch, number), shuffled

    def batch(self, step: int) -> Frames:
        """The batch of training step `step` (from 0), uint8 [B, H, W, C]."""
        place = step * self.batch_size
        parts: list[Frames] = []
        missing = self.batch_size
        while missing:
            epoch, inside = divmod(place, self.num_frames)
            number, start = divmod(inside, self._pool_size)
            part = self._shuffled_pool(epoch, number)[start : start + missing]
            parts.append(part)
            place += len(part)
            missing -= len(part)
        return np.concatenate(parts)

    def _shuffled_pool(self, epoch: int, number: int) -> Frames:
        if self._pool is None or self._pool[0] != (epoch, number):
            self._pool = None  # free the old pool before the new one is read
            frames = self._read_pool(epoch, number)
            order = generator(self._seed, "pool", epoch, number).permutation(len(frames))
            self._pool = ((epoch, number), frames[order])
        return self._pool[1]

    def _read_pool(self, epoch: int, number: int) -> Frames:
        """Frames number * pool to (number + 1) * pool of an epoch, in the order of its blocks."""
        blocks, starts = self._order(epoch)
        begin = number * self._pool_size
        end = min(begin + self._pool_size, self.num_frames)
        first = int(np.searchsorted(starts, begin, side="right")) - 1
        last = int(np.searchsorted(starts, end, side="left"))
        places = starts[first:last]
        content: Frames | None = None
        for index in np.lexsort((blocks[first:last, 1], blocks[first:last, 0])):  # file by file
            episode, row, size = (int(value) for value in blocks[first + index])
            skip = max(0, begin - int(places[index]))
            keep = min(size, end - int(places[index]))
            shard, _ = self._source.locate(episode)
            found = shard.frames(row + skip, row + keep)
            if content is None:
                content = np.empty((end - begin, *found.shape[1:]), dtype=np.uint8)
            at = int(places[index]) + skip - begin
            content[at : at + len(found)] = found
        assert content is not None, f"pool {number} of {self.num_frames} frames is empty"
        return content

    def _order(self, epoch: int) -> tuple[Rows, Rows]:
        """Blocks of an epoch in their order [N, 3], and the frames before each [N]."""
        if self._epoch is None or self._epoch[0] != epoch:
            order = generator(self._seed, "blocks", epoch).permutation(len(self._blocks))
            blocks = self._blocks[order]
            self._epoch = (epoch, blocks, np.cumsum(blocks[:, 2]) - blocks[:, 2])
        return self._epoch[1], self._epoch[2]


def _cut_blocks(source: FrameSource, episodes: Sequence[int]) -> Rows:
    """[N, 3]: episode, first row in its file, rows; cut where chunks of the file end."""
    parts = []
    for episode in sorted(episodes):
        _, first, stop = _rows(source, episode)
        cuts = np.arange(first // BLOCK + 1, (stop - 1) // BLOCK + 1) * BLOCK
        edges = np.concatenate([[first], cuts, [stop]])
        parts.append(np.stack([np.full(len(edges) - 1, episode), edges[:-1], np.diff(edges)], 1))
    return np.concatenate(parts).astype(np.int64)
