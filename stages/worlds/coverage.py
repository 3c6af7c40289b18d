"""What recorded episodes cover: a worthless data policy shows before a day of training."""

from collections.abc import Iterable
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
