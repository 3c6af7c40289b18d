"""Two heats of a generation: who drives the second, where, and what it says of a candidate."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from stages.events import Silent
from stages.fleet import Fleet, Terms, with_final

SKILL = np.array([10.0, 50.0, 30.0, 40.0, 20.0])  # of five candidates
EASE = {1: 0.0, 2: 5.0, 11: -200.0, 12: -300.0}  # of four tracks


class Driven(Fleet):
    """A fleet whose episodes return skill and ease; it remembers who was asked."""

    def __init__(self):
        super().__init__(None, None, 4, executor=None, log=None, progress=None, deadline=9)
        object.__setattr__(self, "asked", [])

    def drive(self, name, lanes, terms, *, dream=None, oracle=False):
        assert dream is None and not oracle
        self.asked.append((name, [(float(w[0]), seed) for w, seed, _ in lanes], terms))
        return [(float(w[0]) + EASE[seed], 100) for w, seed, _ in lanes]


def race(finalists):
    fleet = Driven()
    tracks = [[1, 2, 11, 12] if finalists else [1, 2]] * len(SKILL)
    fitness, frames = fleet.race(
        "generation 3", SKILL[:, None], tracks, Terms(150, 25), finalists=finalists
    )
    return fleet, fitness, frames


def test_without_finalists_all_drive_all_tracks():
    fleet, fitness, frames = race(0)
    assert fitness.tolist() == (SKILL + 2.5).tolist()
    assert frames == 1000
    assert [name for name, *_ in fleet.asked] == ["generation 3"]


def test_the_best_drive_the_second_half_of_the_tracks():
    fleet, fitness, frames = race(2)
    (first, lanes, _), (final, again, terms) = fleet.asked
    assert first != final
    assert {seed for _, seed in lanes} == {1, 2}
    assert again == [(50.0, 11), (50.0, 12), (40.0, 11), (40.0, 12)]
    assert terms == Terms(150, 25)
    assert frames == 1400
    # Harder tracks cost the finalists nothing: skill and the level of the first heat remain.
    assert fitness == pytest.approx(SKILL + 2.5)


def test_a_final_can_reverse_the_order_and_lose_the_lead():
    fitness = np.array([100.0, 98.0, 90.0])
    mixed = with_final(fitness, np.array([0, 1]), np.array([300.0, 340.0]))
    # Level: the finalists' 99 beside 320. First: (100 + 79) / 2, second: (98 + 119) / 2.
    assert mixed.tolist() == [89.5, 108.5, 90.0]


def test_a_final_that_is_not_finite_is_no_level():
    fitness = np.array([100.0, 98.0, 90.0])
    mixed = with_final(fitness, np.array([0, 1]), np.array([np.nan, 340.0]))
    assert np.isnan(mixed[0])
    assert mixed[1:].tolist() == [98.0, 90.0]


class Kept:
    """An executor that drives nothing and keeps what it was given."""

    def __init__(self):
        self.given = []

    def run(self, tasks, *, monitor, deadline):
        del monitor, deadline
        for task in tasks:
            self.given.append(task.payload)
            yield SimpleNamespace(key=task.key, value=[(1.0, 4)] * len(task.payload.seeds))


class NoLog:
    def pending(self, name):
        return {}

    def add_pending(self, name, task, rows):
        pass


@pytest.mark.parametrize(("lanes", "pieces"), [(64, [16] * 4), (24, [12, 12]), (5, [5])])
def test_terms_reach_every_lane_and_little_work_is_cut_for_two_cores(lanes, pieces):
    executor = Kept()
    fleet = Fleet(
        "world", "agent", 16, executor=executor, log=NoLog(), progress=Silent(), deadline=9
    )
    fleet = replace(fleet, world=SimpleNamespace(engine="gymnasium-fast"))
    seeds = [[number] for number in range(lanes)]
    terms = Terms(40, 7, random_start=True)
    fitness, frames = fleet.race("x", np.zeros((lanes, 2), np.float32), seeds, terms)
    assert (fitness.tolist(), frames) == ([1.0] * lanes, 4 * lanes)
    assert [len(trial.seeds) for trial in executor.given] == pieces
    assert [s for trial in executor.given for s in trial.seeds] == list(range(lanes))
    for trial in executor.given:
        assert (trial.max_steps, trial.patience, trial.random_start) == (40, 7, True)
