"""Rounds, medians and ratios, with a clock that a person can follow."""

import pytest

from stages.bench.contest import Contest, Contestant, Lap, Standing, hold, timed


class FakeClock:
    """Moves only when work says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def working(self, units, seconds):
        def work():
            self.now += seconds
            return units

        return work


def contestant(clock, units, seconds, seen=None, name=""):
    """A contestant whose n-th lap takes the n-th of these seconds."""
    left = list(seconds)

    def lap():
        if seen is not None:
            seen.append(name)
        return timed(clock.working(units, left.pop(0)), clock=clock)

    def warm_up():
        if seen is not None:
            seen.append(f"warm {name}")

    return Contestant(lap, warm_up)


def standing(ours, ceiling, plain=None, units=60.0):
    """What three rounds of these seconds come to."""
    clock = FakeClock()
    contest = Contest(
        "row",
        "frames",
        "",
        ours=contestant(clock, units, ours),
        ceiling=contestant(clock, units, ceiling),
        plain=contestant(clock, units, plain) if plain else None,
    )
    return Standing(contest, tuple(hold(contest, len(ours))))


def test_a_lap_is_what_the_clock_says():
    clock = FakeClock()
    lap = timed(clock.working(30.0, 1.5), clock=clock)
    assert lap == Lap(30.0, 1.5)
    assert lap.rate == 20.0


def test_ratios_are_medians_of_the_rounds_not_ratios_of_medians():
    # rates: ours 10 20 30; ceiling 60 30 40; plain 5 2 10
    found = standing(ours=[6, 3, 2], ceiling=[1, 2, 1.5], plain=[12, 30, 6])
    assert (found.ours, found.ceiling, found.plain) == (20, 40, 5)
    assert (found.share.low, found.share.high) == pytest.approx((1 / 6, 0.75))
    assert found.share.median == pytest.approx(2 / 3)  # 20 / 40 would be 0.5
    assert (found.times.low, found.times.median, found.times.high) == pytest.approx((2, 3, 10))


def test_of_an_even_number_of_rounds_the_median_is_between_the_middle_ones():
    found = standing(ours=[1, 2], ceiling=[1, 1])
    assert found.share.median == pytest.approx(0.75)


def test_without_a_plain_way_there_is_nothing_to_be_faster_than():
    found = standing(ours=[1], ceiling=[1])
    assert found.plain is None
    assert found.times is None


def test_everybody_warms_up_before_anybody_is_timed_and_then_they_take_turns():
    clock, seen = FakeClock(), []
    ways = {name: contestant(clock, 1, [1, 1], seen, name) for name in ("ours", "ceiling", "plain")}
    list(hold(Contest("row", "frames", "", **ways), 2))
    turns = ["ours", "ceiling", "plain"]
    assert seen == [*(f"warm {name}" for name in turns), *turns, *turns]


def test_a_round_is_handed_over_before_the_next_begins():
    clock, seen = FakeClock(), []
    way = contestant(clock, 1, [1, 1], seen, "x")
    rounds = hold(Contest("row", "frames", "", ours=way, ceiling=contestant(clock, 1, [1, 1])), 2)
    next(rounds)
    assert seen == ["warm x", "x"]
