"""Recorded episodes as V sees them: mean and log variance of every frame's latent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.artifact import Artifact
from stages.artifacts.hdf5 import Column, ImageWriter, Layout
from stages.artifacts.shards import (
    EPISODE_COLUMNS,
    STEP_COLUMNS,
    EpisodeIndex,
    Rows,
    Shard,
    ShardSet,
    refuse_non_finite,
)

_STATE = Column(("observation", "latent"), ("float16",), packed=True, chunk_rows=256)
LAYOUT = Layout(
    format="wm-latents",
    version=1,
    columns={
        "mu": _STATE,
        "logvar": _STATE,
        "actions": Column(("step", "action"), ("float32",)),
        **STEP_COLUMNS,
        **EPISODE_COLUMNS,
    },
)


@dataclass(frozen=True)
class LatentRecord:
    """One episode of T steps. z is drawn from N(mu, exp(logvar)) when a batch is built."""

    seed: int
    mu: NDArray[np.float16]  # [T + 1, Z]
    logvar: NDArray[np.float16]  # [T + 1, Z]
    actions: NDArray[np.float32]  # [T, A] as the memory sees them: a choice is one-hot
    rewards: NDArray[np.float64]  # [T]
    terminations: NDArray[np.bool_]  # [T]
    truncations: NDArray[np.bool_]  # [T]

    @property
    def num_steps(self) -> int:
        """T, how many actions were taken."""
        return len(self.rewards)


def latents_image(records: Iterable[LatentRecord]) -> bytes:
    """Content of a shard's file; NumbersBad when a value is not finite."""
    writer = ImageWriter(LAYOUT, attributes={})
    index = EpisodeIndex()
    for record in records:
        _append(writer, record)
        index.add(seed=record.seed, num_steps=record.num_steps)
    index.append_to(writer)
    return writer.image()


def _append(writer: ImageWriter, record: LatentRecord) -> None:
    num_steps = record.num_steps
    assert num_steps > 0, f"episode {record.seed} has no steps"
    assert len(record.mu) == len(record.logvar) == num_steps + 1, f"episode {record.seed}: T + 1"
    assert len(record.actions) == num_steps, f"episode {record.seed}: T actions"
    for name in ("mu", "logvar", "actions", "rewards"):
        refuse_non_finite(name, getattr(record, name), seed=record.seed)
    for name in ("mu", "logvar", "actions", *STEP_COLUMNS):
        writer.append(name, getattr(record, name))


class LatentShard(Shard):
    """Reads a shard of latents."""

    layout = LAYOUT
    state_column = "observation"

    def episode(self, number: int) -> LatentRecord:
        """The episode with this number inside the shard."""
        states, steps = self._states(number), self._steps(number)
        return LatentRecord(
            seed=int(self.seeds[number]),
            mu=self._rows("mu", states),
            logvar=self._rows("logvar", states),
            actions=self._rows("actions", steps),
            **{name: self._rows(name, steps) for name in STEP_COLUMNS},
        )


def rows_of(artifact: Artifact) -> Rows:
    """What a latent and an action of encoded episodes are, as their manifest says."""
    summary = artifact.manifest.summary
    latent = (summary["latent_size"],)
    return {"mu": latent, "logvar": latent, "actions": (summary["actions"]["size"],)}


class LatentSet(ShardSet[LatentShard]):
    """Latents of one or more artifacts."""

    @classmethod
    def of(cls, artifacts: Sequence[Artifact]) -> "LatentSet":
        """All episodes of these artifacts, after their files were checked."""
        return cls(
            [LatentShard(path, rows_of(one)) for one in artifacts for path in one.files(".h5")]
        )

    def episode(self, number: int) -> LatentRecord:
        """The episode with this number among all."""
        shard, inside = self.locate(number)
        return shard.episode(inside)
