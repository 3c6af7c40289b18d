"""Batches of latent sequences for the memory: whole episodes, or windows at random places.

A batch is a function of (seed, step) alone, so that a resumed run needs only its step.
Axes as in contracts.py; an episode or window of T steps has T + 1 latents.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.latents import LatentRecord
from stages.training.seeding import generator

NEAR = 16  # batches whose episodes are sorted by length together
POOL = 2**17  # steps of the episodes that windows are drawn from at a time: 20 MB at Z = 32

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Window = tuple[int, int, int]  # episode, first step, steps


class LatentSource(Protocol):
    """What batches need of encoded episodes (artifacts.latents.LatentSet)."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of each episode, [E]."""
        ...

    def episode(self, number: int, /) -> LatentRecord:
        """One episode."""
        ...


@dataclass(frozen=True)
class SequenceBatch:
    """B sequences padded with zeros to the same T."""

    mu: Floats  # [B, T + 1, Z]
    logvar: Floats  # [B, T + 1, Z]
    actions: Floats  # [B, T, A]
    rewards: Floats  # [B, T]
    ends: Bools  # [B, T] the episode terminated with this step; a time limit is no end
    mask: Bools  # [B, T] steps that exist
    first: Bools  # [B] the sequence begins with its episode's first frame

    def rows(self, rows: slice) -> "SequenceBatch":
        """Some of the sequences."""
        parts = {field.name: getattr(self, field.name)[rows] for field in fields(self)}
        return SequenceBatch(**parts)

    def noise(self, *, seed: int, step: int) -> Floats:
        """Standard normal numbers [B, T + 1, Z] to draw this step's z with (latents.draw)."""
        random = generator(seed, "latents", step)
        return random.standard_normal(self.mu.shape, dtype=np.float32)


class SequenceBatches:
    """Sequences of some episodes.

    With `window` 0 they are whole episodes, every one once per epoch. Batches hold about as many
    steps, those of `batch_size` episodes of usual length, and episodes that last about as long
    share one: little of a padded batch is empty. Else they are `window` steps long and begin
    anywhere in an episode that is long enough; an episode is chosen as often as its number of
    steps says, and a short one is padded. Memory is bounded: windows come from pools of about
    `pool` steps, and no more whole episodes are kept. A pool serves as many batches as it has
    steps for, and the pools of an epoch hold every episode once.
    """

    def __init__(
        self,
        source: LatentSource,
        episodes: Sequence[int],
        *,
        batch_size: int,
        window: int,
        seed: int,
        pool: int = POOL,
    ) -> None:
        assert len(episodes) > 0, "batches of no episodes"
        self.batch_size = batch_size
        self.window = window
        self._seed = seed
        self._episodes = np.array(sorted(episodes), dtype=np.int64)
        self._lengths = np.asarray(source.lengths, dtype=np.int64)[self._episodes]
        self._reader = _Reader(source)
        self.num_steps = int(self._lengths.sum())  # of all episodes together
        self._pool_size = pool
        self._epoch: tuple[int, int, list[_Pool]] | None = None  # number, first step, pools
        if self.num_steps <= pool:
            self._reader.keep(self._episodes.tolist())

    def batch(self, step: int) -> SequenceBatch:
        """The batch of training step `step` (from 0)."""
        windows = self._random_windows(step) if self.window else self._whole_episodes(step)
        return self._reader.gather(windows, num_steps=self.window or max(w[2] for w in windows))

    def _whole_episodes(self, step: int) -> list[Window]:
        chosen = self._pool(step)
        columns = (self._episodes[chosen].tolist(), self._lengths[chosen].tolist())
        return [(episode, 0, length) for episode, length in zip(*columns, strict=True)]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return generator(self._seed, "episodes", epoch).permutation(len(self._episodes))

    def _random_windows(self, step: int) -> list[Window]:
        chosen_from = self._pool(step)
        self._reader.keep(self._episodes[chosen_from].tolist())
        stops = np.cumsum(self._lengths[chosen_from])
        random = generator(self._seed, "windows", step)
        ticket = random.integers(0, stops[-1], size=self.batch_size)
        chosen = chosen_from[np.searchsorted(stops, ticket, side="right")]
        lengths = np.minimum(self._lengths[chosen], self.window)
        starts = random.integers(0, self._lengths[chosen] - lengths + 1)
        columns = (self._episodes[chosen].tolist(), starts.tolist(), lengths.tolist())
        return list(zip(*columns, strict=True))

    def _pool(self, step: int) -> NDArray[np.int64]:
        """Places, among the episodes, of those that the sequences of this step come from."""
        if self.window and self.num_steps <= self._pool_size:
            return np.arange(len(self._episodes))
        if self._epoch is None or step < self._epoch[1]:
            self._epoch = (0, 0, self._cut(0))
        number, first, pools = self._epoch
        while step >= first + sum(pool.num_batches for pool in pools):
            first += sum(pool.num_batches for pool in pools)
            number += 1
            pools = self._cut(number)
        self._epoch = (number, first, pools)
        ends = first + np.cumsum([pool.num_batches for pool in pools])
        return pools[int(np.searchsorted(ends, step, side="right"))].places

    def _cut(self, epoch: int) -> "list[_Pool]":
        return self._windowed(epoch) if self.window else self._whole(epoch)

    def _whole(self, epoch: int) -> "list[_Pool]":
        """The batches of an epoch, a pool for each."""
        order = self._order(epoch)
        num_batches = max(1, round(len(order) / self.batch_size))
        near = np.array_split(order, -(-num_batches // NEAR))
        near = [some[np.argsort(self._lengths[some], kind="stable")] for some in near]
        near[1::2] = [some[::-1] for some in near[1::2]]  # no batch from a long end to a short one
        order = np.concatenate(near)
        numbers = (np.cumsum(self._lengths[order]) - 1) * num_batches // self.num_steps
        parts = np.split(order, np.flatnonzero(np.diff(numbers)) + 1)
        shuffled = generator(self._seed, "batches", epoch).permutation(len(parts))
        return [_Pool(parts[number], 1) for number in shuffled]

    def _windowed(self, epoch: int) -> "list[_Pool]":
        """The pools of an epoch: its episodes in their order, cut where `pool` steps are full."""
        order = self._order(epoch)
        numbers = (np.cumsum(self._lengths[order]) - 1) // self._pool_size
        cuts = np.flatnonzero(np.diff(numbers)) + 1
        parts = np.split(order, cuts)
        steps = np.cumsum([int(self._lengths[part].sum()) for part in parts])
        # Rounded together, so that no pool is favoured: a small one may serve no batch at all.
        ends = np.round(steps / (self.batch_size * self.window)).astype(np.int64)
        ends[-1] = max(ends[-1], 1)
        return [
            _Pool(np.sort(part), int(count))
            for part, count in zip(parts, np.diff(ends, prepend=0), strict=True)
        ]


@dataclass(frozen=True)
class _Pool:
    """Episodes of which some batches are made."""

    places: NDArray[np.int64]
    num_batches: int


def in_order_sequences(
    source: LatentSource, episodes: Sequence[int], *, batch_size: int
) -> Iterator[SequenceBatch]:
    """Every one of these episodes once and whole, in order; the last batch may be smaller."""
    reader = _Reader(source)
    lengths = source.lengths
    for start in range(0, len(episodes), batch_size):
        chosen = episodes[start : start + batch_size]
        windows = [(episode, 0, int(lengths[episode])) for episode in chosen]
        yield reader.gather(windows, num_steps=max(window[2] for window in windows))


class _Reader:
    """Reads windows of episodes and keeps the episodes that it is told to keep, once read."""

    def __init__(self, source: LatentSource) -> None:
        self._source = source
        self._wanted: frozenset[int] = frozenset()
        self._kept: dict[int, LatentRecord] = {}

    def keep(self, episodes: Sequence[int]) -> None:
        """Keep these episodes in memory from their first use on, and forget all others."""
        if len(episodes) != len(self._wanted) or not self._wanted.issuperset(episodes):
            self._wanted = frozenset(episodes)
            self._kept = {n: record for n, record in self._kept.items() if n in self._wanted}

    def gather(self, windows: Sequence[Window], *, num_steps: int) -> SequenceBatch:
        """The windows as one batch, padded with zeros to `num_steps`."""
        sample = self._episode(windows[0][0])
        shape = (len(windows), num_steps)
        latents = (len(windows), num_steps + 1, sample.mu.shape[1])
        batch = SequenceBatch(
            mu=np.zeros(latents, dtype=np.float32),
            logvar=np.zeros(latents, dtype=np.float32),
            actions=np.zeros((*shape, sample.actions.shape[1]), dtype=np.float32),
            rewards=np.zeros(shape, dtype=np.float32),
            ends=np.zeros(shape, dtype=np.bool_),
            mask=np.zeros(shape, dtype=np.bool_),
            first=np.array([start == 0 for _, start, _ in windows]),
        )
        for row, (episode, start, count) in enumerate(windows):
            _fill(batch, row, self._episode(episode), start, count)
        return batch

    def _episode(self, number: int) -> LatentRecord:
        if number in self._kept:
            return self._kept[number]
        record = self._source.episode(number)
        if number in self._wanted:
            self._kept[number] = record
        return record


def _fill(batch: SequenceBatch, row: int, record: LatentRecord, start: int, count: int) -> None:
    """Write steps start to start + count of an episode into one row of the batch."""
    stop = start + count
    batch.mu[row, : count + 1] = record.mu[start : stop + 1]
    batch.logvar[row, : count + 1] = record.logvar[start : stop + 1]
    batch.actions[row, :count] = record.actions[start:stop]
    batch.rewards[row, :count] = record.rewards[start:stop]
    batch.ends[row, :count] = record.terminations[start:stop]
    batch.mask[row, :count] = True
