"""Scores of an agent: what a list of episode returns says, and how sure one can be of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.artifacts.plain import (
    COUNT,
    FLAG,
    NUMBER,
    exactly,
    keyed,
    listed,
    one_of,
    parse_record,
)
from stages.contracts import EpisodeOutcome
from stages.training.seeding import generator

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
SOLVED = 900.0  # CarRacing's reward threshold


_OUTCOME = exactly(
    {
        **dict.fromkeys(("seed", "num_steps", "num_frames"), COUNT),
        "total_reward": NUMBER,
        **dict.fromkeys(("terminated", "truncated", "stopped"), FLAG),
        "facts": keyed(NUMBER),
    }
)
_RESULT = {  # what a task of an evaluation leaves behind
    "who": one_of("agent", "random"),
    "outcomes": listed(_OUTCOME, least=1),
    "errors": listed(NUMBER),
}


def parse_result(content: bytes, *, source: str) -> dict[str, Any]:
    """The outcomes of one task and V's errors, as its file holds them; else ArtifactDamaged."""
    return parse_record(content, source=source, rules=_RESULT)


def bootstrap_interval(
    returns: Sequence[float], *, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron & Tibshirani 1993, chapter 13)."""
    values = np.asarray(returns, dtype=np.float64)
    draws = generator(0, "bootstrap").integers(len(values), size=(NUM_RESAMPLES, len(values)))
    means = values[draws].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def summarise(outcomes: Sequence[EpisodeOutcome]) -> dict[str, float | int]:
    """Mean, spread and interval of the returns, and the shares that people ask for."""
    returns = np.array([outcome.total_reward for outcome in outcomes], dtype=np.float64)
    spread = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
    low, high = bootstrap_interval(returns.tolist())
    summary: dict[str, float | int] = {
        "episodes": len(returns),
        "mean": float(returns.mean()),
        "std": spread,
        "stderr": spread / len(returns) ** 0.5,
        "ci95_low": low,
        "ci95_high": high,
        "median": float(np.median(returns)),
        "min": float(returns.min()),
        "max": float(returns.max()),
        "mean_frames": float(np.mean([outcome.num_frames for outcome in outcomes])),
    }
    return summary | _laps(outcomes, returns)


def _laps(outcomes: Sequence[EpisodeOutcome], returns: np.ndarray) -> dict[str, float]:
    """What only a world with laps knows."""
    if any("lap_finished" not in outcome.facts for outcome in outcomes):
        return {}
    laps = [outcome.facts["lap_finished"] for outcome in outcomes]
    extra = {
        "share_900": float((returns >= SOLVED).mean()),
        "share_laps_finished": float(np.mean(laps)),
    }
    if all({"num_tiles", "track_tiles"} <= outcome.facts.keys() for outcome in outcomes):
        missed = [o.facts["track_tiles"] - o.facts["num_tiles"] for o in outcomes]
        extra["mean_tiles_missed"] = float(np.mean(missed))
    return extra


class ScoreLines:
    """Lines of metrics, from the results of an evaluation's tasks in their order."""

    def __init__(self) -> None:
        self._returns: dict[str, list[float]] = {}

    def line(self, result: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
        """The line of the next task: its step is the number of episodes so far."""
        who, outcomes = result["who"], result["outcomes"]
        returns = [float(outcome["total_reward"]) for outcome in outcomes]
        so_far = self._returns.setdefault(who, [])
        so_far += returns
        values = {
            "return/mean": float(np.mean(returns)),
            "return/mean_so_far": float(np.mean(so_far)),
            "length/mean": float(np.mean([outcome["num_steps"] for outcome in outcomes])),
        }
        step = sum(len(each) for each in self._returns.values())
        return step, {f"evaluate/{who}/{name}": value for name, value in values.items()}

    @property
    def latest(self) -> str:
        """Mean returns so far, in words."""
        means = (f"{who} {np.mean(each):.4g}" for who, each in self._returns.items())
        return ", ".join(means)
