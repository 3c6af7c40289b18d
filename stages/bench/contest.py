"""A contest: the same work by us, by the bare machine and in the plain way, round by round.

Contestants take turns, so that whatever else the machine does meets all of them alike. A ratio is
the median of the ratios inside each round, never the ratio of two medians.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

Clock = Callable[[], float]  # seconds


@dataclass(frozen=True)
class Lap:
    """Units of work that were done, and the seconds that they took."""

    units: float
    seconds: float

    @property
    def rate(self) -> float:
        """Units per second."""
        assert self.seconds > 0, f"a lap of {self.seconds} s"
        return self.units / self.seconds


@dataclass(frozen=True)
class Contestant:
    """One way to do the work."""

    lap: Callable[[], Lap]
    warm_up: Callable[[], object] = lambda: None  # loads and allocates what laps then reuse


@dataclass(frozen=True)
class Contest:
    """One row of the table."""

    row: str
    unit: str  # of work, in the plural: "frames", "steps", "MB"
    used: str  # what each contestant was, for people
    ours: Contestant
    ceiling: Contestant
    plain: Contestant | None = None

    @property
    def contestants(self) -> tuple[Contestant, ...]:
        """In the order of their turns."""
        return tuple(one for one in (self.ours, self.ceiling, self.plain) if one is not None)


@dataclass(frozen=True)
class Round:
    """Rates of one round, in units per second."""

    ours: float
    ceiling: float
    plain: float | None


@dataclass(frozen=True)
class Ratio:
    """A ratio over the rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Standing:
    """What a contest came to."""

    contest: Contest
    rounds: tuple[Round, ...]

    @property
    def ours(self) -> float:
        """Median rate of our way."""
        return median(each.ours for each in self.rounds)

    @property
    def ceiling(self) -> float:
        """Median rate of the bare machine."""
        return median(each.ceiling for each in self.rounds)

    @property
    def plain(self) -> float | None:
        """Median rate of the plain way; None where there is none."""
        rates = [each.plain for each in self.rounds if each.plain is not None]
        return median(rates) if rates else None

    @property
    def share(self) -> Ratio:
        """Ours as a share of the ceiling."""
        return _ratio([each.ours / each.ceiling for each in self.rounds])

    @property
    def times(self) -> Ratio | None:
        """How many times the plain way ours is; None where there is no plain way."""
        ratios = [each.ours / each.plain for each in self.rounds if each.plain is not None]
        return _ratio(ratios) if ratios else None


def hold(contest: Contest, num_rounds: int) -> Iterator[Round]:
    """Warm everybody up, then let them take turns; a round is yielded when it is over."""
    assert num_rounds > 0, f"{num_rounds} rounds"
    for contestant in contest.contestants:
        contestant.warm_up()
    for _ in range(num_rounds):
        rates = [contestant.lap().rate for contestant in contest.contestants]
        yield Round(rates[0], rates[1], rates[2] if len(rates) > 2 else None)


def timed(work: Callable[[], float], *, clock: Clock = time.perf_counter) -> Lap:
    """The lap of a piece of work that returns the units it has done."""
    start = clock()
    units = work()
    return Lap(units, clock() - start)


def _ratio(ratios: list[float]) -> Ratio:
    return Ratio(median(ratios), min(ratios), max(ratios))
