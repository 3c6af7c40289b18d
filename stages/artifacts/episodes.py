"""Recorded episodes on disk: frames as the agent saw them, what it did, and what came of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

CHANNELS = 3  # of a frame
LAYOUT = Layout(
    format="wm-episodes",
    version=1,
    columns={
        "observations": Column(
            ("observation", "row", "column", "channel"), ("uint8",), packed=True, chunk_rows=16
        ),
        "actions": Column(("step", "action"), ("float32", "int64"), optional_axes=1),
        **STEP_COLUMNS,
        **EPISODE_COLUMNS,
    },
    groups={"facts": Column(("step",), ("bool", "int32", "int64", "float32", "float64"))},
    attributes=("engine", "env", "policy"),
)


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode of T steps."""

    seed: int
    observations: NDArray[np.uint8]  # [T + 1, H, W, C], the last one after the last action
    actions: NDArray[Any]  # float32 [T, A] of a box, int64 [T] of a choice
    rewards: NDArray[np.float64]  # [T]
    terminations: NDArray[np.bool_]  # [T]
    truncations: NDArray[np.bool_]  # [T]
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # each [T]

    @property
    def num_steps(self) -> int:
        """T, how many actions were taken."""
        return len(self.rewards)


class EpisodeShardWriter:
    """Builds a shard in memory; only its packed form grows with the episodes."""

    def __init__(self, *, engine: str, env: str, policy: str) -> None:
        attributes = {"engine": engine, "env": env, "policy": policy}
        self._writer = ImageWriter(LAYOUT, attributes=attributes)
        self._index = EpisodeIndex()
        self._fact_names: frozenset[str] | None = None

    def append(self, record: EpisodeRecord) -> None:
        """Add an episode; NumbersBad when a reward or an action is not finite."""
        self._check(record)
        refuse_non_finite("rewards", record.rewards, seed=record.seed)
        refuse_non_finite("actions", record.actions, seed=record.seed)
        for name in ("observations", "actions", *STEP_COLUMNS):
            self._writer.append(name, getattr(record, name))
        for name in sorted(record.facts):
            self._writer.append(f"facts/{name}", record.facts[name])
        self._index.add(seed=record.seed, num_steps=record.num_steps)

    def image(self) -> bytes:
        """Content of the shard's file. Nothing can be appended afterwards."""
        self._index.append_to(self._writer)
        return self._writer.image()

    def _check(self, record: EpisodeRecord) -> None:
        num_steps = record.num_steps
        assert num_steps > 0, f"episode {record.seed} has no steps"
        assert len(record.observations) == num_steps + 1, f"episode {record.seed}: T + 1 frames"
        steps = [record.actions, record.terminations, record.truncations, *record.facts.values()]
        assert all(len(rows) == num_steps for rows in steps), f"episode {record.seed}: T rows"
        names = frozenset(record.facts)
        assert self._fact_names in (None, names), f"episode {record.seed}: facts {sorted(names)}"
        self._fact_names = names


class EpisodeShard(Shard):
    """Reads a shard of recorded episodes."""

    layout = LAYOUT
    state_column = "observation"

    @property
    def engine(self) -> str:
        """The engine that drew these frames."""
        return self.attribute("engine")

    @property
    def env(self) -> str:
        """Id of the environment."""
        return self.attribute("env")

    @property
    def policy(self) -> str:
        """Who drove."""
        return self.attribute("policy")

    @property
    def fact_names(self) -> tuple[str, ...]:
        """Facts that were recorded at every step, sorted."""
        return tuple(sorted(self._opened().get("facts", ())))

    def frames(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Observation rows start to stop of the whole shard, uint8 [stop - start, H, W, C]."""
        return self.column("observations", start, stop)

    def episode(self, number: int) -> EpisodeRecord:
        """The episode with this number inside the shard."""
        steps = self._steps(number)
        return EpisodeRecord(
            seed=int(self.seeds[number]),
            observations=self._rows("observations", self._states(number)),
            actions=self._rows("actions", steps),
            **{name: self._rows(name, steps) for name in STEP_COLUMNS},
            facts={name: self._rows(f"facts/{name}", steps) for name in self.fact_names},
        )


def each_shard(folder: Path, names: Iterable[str]) -> Iterator[EpisodeShard]:
    """Each of these shards, open until the next is asked for: there may be thousands."""
    for name in names:
        with EpisodeShard(folder / name) as shard:
            yield shard


def rows_of(artifact: Artifact) -> Rows:
    """What a frame and an action of recorded episodes are, as their manifest says."""
    size = artifact.manifest.config["world"]["size"]
    actions = artifact.manifest.summary["actions"]
    action = (actions["size"],) if actions["kind"] == "box" else ()
    return {"observations": (size, size, CHANNELS), "actions": action}


class EpisodeSet(ShardSet[EpisodeShard]):
    """Recorded episodes of one or more artifacts."""

    @classmethod
    def of(cls, artifacts: Sequence[Artifact]) -> "EpisodeSet":
        """All episodes of these artifacts, after their files were checked."""
        return cls(
            [EpisodeShard(path, rows_of(one)) for one in artifacts for path in one.files(".h5")]
        )

    def episode(self, number: int) -> EpisodeRecord:
        """The episode with this number among all."""
        shard, inside = self.locate(number)
        return shard.episode(inside)
