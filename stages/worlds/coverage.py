"""What recorded episodes cover: a worthless data policy shows before a day of training."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.events import Scalar


class Recorded(Protocol):
    """The columns of a shard that coverage reads; frames are never touched."""

    @property
    def step_offsets(self) -> NDArray[np.int64]:
        """First row of each episode among the steps, and one past the last."""
        ...

    @property
    def fact_names(self) -> tuple[str, ...]:
        """Facts that were recorded."""
        ...

    def column(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows of a per-step column; facts are named `facts/...`."""
        ...


@dataclass(frozen=True)
class Tally:
    """What the episodes of one shard came to, in the order of the shard."""

    returns: tuple[float, ...]
    num_steps: int

    @classmethod
    def of(cls, shard: Recorded) -> "Tally":
        """Read only the rewards of a shard."""
        bounds = zip(shard.step_offsets, shard.step_offsets[1:], strict=False)
        returns = (float(shard.column("rewards", start, stop).sum()) for start, stop in bounds)
        return cls(tuple(returns), int(shard.step_offsets[-1]))


class Tallies:
    """Lines of metrics about episodes, from shards in their order."""

    def __init__(self, section: str) -> None:
        self._section = section
        self._returns: list[float] = []
        self._num_steps = 0

    def line(self, tally: Tally) -> tuple[int, dict[str, float]]:
        """The line of the next shard: its step is the number of episodes so far."""
        self._returns += tally.returns
        self._num_steps += tally.num_steps
        values = {
            "steps": self._num_steps,
            "return/mean": float(np.mean(tally.returns)),
            "return/mean_so_far": self.mean,
            "length/mean": tally.num_steps / len(tally.returns),
        }
        return len(self._returns), {f"{self._section}/{k}": v for k, v in values.items()}

    @property
    def mean(self) -> float:
        """Mean return of all episodes so far."""
        return float(np.mean(self._returns))

    @property
    def latest(self) -> str:
        """What progress shows; empty before the first line."""
        return f"mean return {self.mean:.4g}" if self._returns else ""


def cover(shards: Iterable[Recorded]) -> dict[str, Scalar]:
    """Episodes, steps and returns; where it is known, shares of the track and off the road."""
    returns: list[float] = []
    lengths: list[int] = []
    shares: list[float] = []
    off_road: list[NDArray[Any]] = []
    for shard in shards:
        for start, stop in zip(shard.step_offsets, shard.step_offsets[1:], strict=False):
            returns.append(float(shard.column("rewards", start, stop).sum()))
            lengths.append(int(stop - start))
            if "track_share" in shard.fact_names:
                shares.append(float(shard.column("facts/track_share", stop - 1, stop)[0]))
        if "off_road" in shard.fact_names:
            off_road.append(shard.column("facts/off_road", 0, int(shard.step_offsets[-1])))
    covered: dict[str, Scalar] = {
        "episodes": len(returns),
        "steps": sum(lengths),
        "mean_steps": float(np.mean(lengths)),
        "mean_return": float(np.mean(returns)),
        "max_return": float(np.max(returns)),
    }
    if shares:
        covered["share_of_track"] = float(np.mean(shares))
    if off_road:
        covered["share_off_road"] = float(np.concatenate(off_road).mean())
    return covered
