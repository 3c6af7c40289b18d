"""What shards of episodes and shards of latents share: rows of many episodes, one after the other.

An episode of T steps has T + 1 rows in the columns of its states (observations, latents) and T in
those of its steps (actions, rewards); two offset columns say where each begins.
"""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.hdf5 import Column, ImageWriter, Layout, open_file, reading
from stages.errors import ArtifactDamaged, NumbersBad

if TYPE_CHECKING:
    import h5py

Offsets = NDArray[np.int64]  # [E + 1]
Rows = Mapping[str, tuple[int, ...]]  # column -> shape of one of its rows

STEP_COLUMNS = {
    "rewards": Column(("step",), ("float64",)),
    "terminations": Column(("step",), ("bool",)),
    "truncations": Column(("step",), ("bool",)),
}
EPISODE_COLUMNS = {
    "observation_offsets": Column(("episode",), ("int64",)),
    "step_offsets": Column(("episode",), ("int64",)),
    "seeds": Column(("episode",), ("int64",)),
}
MAX_OPEN = 16  # files that a set keeps open
MAX_READ = 4 * 2**30  # bytes that are read at once: an episode of 300,000 frames


def shard_name(number: int) -> str:
    """Name of the n-th shard of an artifact."""
    return f"shard-{number:05d}.h5"


class EpisodeIndex:
    """Collects what the episode columns of a shard under construction will hold."""

    def __init__(self) -> None:
        self.observation_offsets = [0]
        self.step_offsets = [0]
        self.seeds: list[int] = []

    def add(self, *, seed: int, num_steps: int) -> None:
        """Note that an episode of `num_steps` actions was appended."""
        self.observation_offsets.append(self.observation_offsets[-1] + num_steps + 1)
        self.step_offsets.append(self.step_offsets[-1] + num_steps)
        self.seeds.append(seed)

    def append_to(self, writer: ImageWriter) -> None:
        """Write the episode columns."""
        for name in EPISODE_COLUMNS:
            writer.append(name, np.array(getattr(self, name), dtype=np.int64))


def refuse_non_finite(name: str, values: NDArray[Any], *, seed: int) -> None:
    """Stop before NaN or infinity reaches the disk."""
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise NumbersBad(
            f"{name} of the episode with seed {seed} has {values[row]} in row {row}.",
            why="Only finite numbers are recorded.",
        )


class Shard:
    """One file of episodes, opened on first use. Can be pickled: a worker opens its own.

    Give it a path that `Artifact.file` has checked, or a file that this run has written.
    """

    layout: ClassVar[Layout]
    state_column: ClassVar[str]  # a column with T + 1 rows per episode

    def __init__(self, path: Path, promised: Rows | None = None) -> None:
        """`promised`: what a row of some columns is, as the artifact's manifest says."""
        self.path = path
        self._promised: Rows = promised or {}
        self._file: h5py.File | None = None
        self._index: dict[str, Offsets] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open file."""
        return {**self.__dict__, "_file": None}

    def __enter__(self) -> Self:
        """Close the file at the end of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def num_episodes(self) -> int:
        """E, how many episodes the file holds."""
        return len(self.seeds)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Actions of each episode, int64 [E]."""
        return np.diff(self.step_offsets)

    @property
    def seeds(self) -> NDArray[np.int64]:
        """Seed of each episode, int64 [E]."""
        return self._indexed("seeds")

    @property
    def observation_offsets(self) -> Offsets:
        """First row of each episode among the states, and one past the last, int64 [E + 1]."""
        return self._indexed("observation_offsets")

    @property
    def step_offsets(self) -> Offsets:
        """First row of each episode among the steps, and one past the last, int64 [E + 1]."""
        return self._indexed("step_offsets")

    def column(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows start to stop of a data set such as "rewards" or "facts/off_road"."""
        with reading(self.path):
            data = self._opened()[name]
            rows = len(range(*slice(start, stop).indices(len(data))))
            if rows * prod(data.shape[1:]) * data.dtype.itemsize > MAX_READ:
                raise ArtifactDamaged(f"{self.path} holds an episode that is too large to read.")
            return np.asarray(data[start:stop])

    def attribute(self, name: str) -> str:
        """A text at the root of the file."""
        return str(self._opened().attrs[name])

    def _states(self, episode: int) -> slice:
        return slice(*self.observation_offsets[episode : episode + 2])

    def _steps(self, episode: int) -> slice:
        return slice(*self.step_offsets[episode : episode + 2])

    def _rows(self, name: str, rows: slice) -> NDArray[Any]:
        return self.column(name, rows.start, rows.stop)

    def _indexed(self, name: str) -> Offsets:
        if not self._index:
            self._opened()
        return self._index[name]

    def _opened(self) -> "h5py.File":
        if self._file is None:
            self._file = open_file(self.path, self.layout, known=bool(self._index))
            if not self._index:
                self._read_index()
        return self._file

    def _read_index(self) -> None:
        self._index = {name: self.column(name) for name in EPISODE_COLUMNS}
        fault = self._fault()
        if fault:
            self.close()
            raise ArtifactDamaged(f"{self.path} contradicts itself.", why=fault)

    def _fault(self) -> str:
        """What is wrong with the offsets; empty when nothing is."""
        states, steps = self.observation_offsets, self.step_offsets
        num_episodes = len(self.seeds)
        if len(states) != num_episodes + 1 or len(steps) != num_episodes + 1:
            return f"It has {num_episodes} seeds, {len(states)} and {len(steps)} offsets."
        if states[0] != 0 or steps[0] != 0 or (np.diff(steps) < 1).any():
            return "Its offsets do not start at 0 and grow."
        if (np.diff(states) != np.diff(steps) + 1).any():
            return "An episode of T actions must have T + 1 states."
        if (self.seeds < 0).any():
            return "It has seeds below 0."
        return self._row_fault(int(states[-1]), int(steps[-1]))

    def _row_fault(self, num_states: int, num_steps: int) -> str:
        file = self._opened()
        names = [name for name in self.layout.columns if name not in EPISODE_COLUMNS]
        names += [f"{group}/{name}" for group in self.layout.groups for name in file.get(group, ())]
        for name in names:
            of_states = self.layout.column(name).axes[0] == self.state_column
            expected = num_states if of_states else num_steps
            if len(file[name]) != expected:
                return f"{name} has {len(file[name])} rows, and its offsets say {expected}."
            row = file[name].shape[1:]
            if row != self._promised.get(name, row):
                return f"Rows of {name} are {row}, and its manifest says {self._promised[name]}."
        return ""


AnyShard = TypeVar("AnyShard", bound=Shard)


class ShardSet(Generic[AnyShard]):
    """The episodes of many shards, counted through; a few files are open at a time."""

    def __init__(self, shards: Sequence[AnyShard]) -> None:
        assert shards, "a set of no shards"
        self.shards = tuple(shards)
        self._recent: list[AnyShard] = []
        self._lengths = np.concatenate([self._used(shard).lengths for shard in self.shards])
        self._seeds = np.concatenate([shard.seeds for shard in self.shards])
        counts = [len(shard.seeds) for shard in self.shards]
        self._starts = np.cumsum([0, *counts])  # [shards + 1]

    @property
    def num_episodes(self) -> int:
        """E over all shards."""
        return len(self._lengths)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Actions of each episode, int64 [E]."""
        return self._lengths

    @property
    def seeds(self) -> NDArray[np.int64]:
        """Seed of each episode, int64 [E]; the same one twice when shards repeat."""
        return self._seeds

    def locate(self, episode: int) -> tuple[AnyShard, int]:
        """The shard that holds an episode, and its number there."""
        if not 0 <= episode < self.num_episodes:
            raise IndexError(f"episode {episode} of {self.num_episodes}")
        place = int(np.searchsorted(self._starts, episode, side="right")) - 1
        return self._used(self.shards[place]), episode - int(self._starts[place])

    def close(self) -> None:
        """Close all files."""
        for shard in self.shards:
            shard.close()
        self._recent = []

    def _used(self, shard: AnyShard) -> AnyShard:
        if shard in self._recent:
            self._recent.remove(shard)
        self._recent.append(shard)
        if len(self._recent) > MAX_OPEN:
            self._recent.pop(0).close()
        return shard
