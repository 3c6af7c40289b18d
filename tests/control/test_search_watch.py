"""A search that goes nowhere is noticed while it runs; one that finds something is not."""

import numpy as np
import pytest

from stages.control.basis import fit_basis
from stages.control.restarts import Restarts
from stages.control.search import SearchShape
from stages.control.watch import FLAT_CANDIDATES, watch, watch_basis
from stages.events import OnceEach, Silent

POPULATION = 12


class Heard(Silent):
    """Keeps what was told."""

    def __init__(self):
        self.texts = []

    def emit(self, event):
        assert event.warning
        self.texts.append(event.text)


def run(score, rounds, **changes):
    """Search with the score of (generation, candidates [n, P]); what was told, and when."""
    shape = {"num_parameters": 8, "population": POPULATION, "sigma": 0.1, "seed": 3} | changes
    search = Restarts([SearchShape(**shape)], trial=rounds)
    heard, log, when = Heard(), [], []
    warnings = OnceEach(heard)
    for generation in range(1, rounds + 1):
        fitness = np.asarray(score(generation, search.ask()), dtype=np.float64)
        search.tell(fitness)
        log.append({"generation": generation, "fitness": fitness.tolist()})
        log.append({"generation": generation, "selection": [0.0]})
        watch(search, log, warnings)
        when += [generation] * (len(heard.texts) - len(when))
    return heard.texts, when


def sphere(_, asked):
    return -((asked - 0.7) ** 2).sum(axis=1)


def test_a_search_that_finds_something_is_not_warned_of():
    assert run(sphere, 60) == ([], [])


@pytest.mark.parametrize("rounding", [0, 1e-13])
def test_scores_that_are_all_alike_are_told_of_once(rounding):
    random = np.random.default_rng(0)

    def flat(_, asked):
        return 23.5 + rounding * random.standard_normal(len(asked))

    texts, when = run(flat, 30)
    assert when == [-(-FLAT_CANDIDATES // POPULATION)]
    assert texts[0].startswith(f"All candidates of the last {when[0]} generations scored alike")


def test_a_few_flat_generations_are_no_collapse():
    def now_and_then(number, asked):
        return sphere(number, asked) if number % 5 == 0 else [7.0] * len(asked)

    assert run(now_and_then, 40, sigma_end=0.05, generations=40)[0] == []


def test_a_step_that_has_all_but_vanished_is_told_of():
    texts, when = run(sphere, 200)
    assert "step has fallen from 0.1 to" in texts[0]
    assert 60 < when[0] < 200
    assert len(texts) == 1


def test_a_step_that_runs_away_is_told_of():
    texts, _ = run(lambda _, asked: asked[:, 0], 60)  # more is better, for ever
    assert "step has grown from 0.1 to" in texts[0]


def test_a_step_that_follows_a_plan_is_as_it_should_be():
    assert run(sphere, 50, sigma_end=1e-6, generations=50)[0] == []


def test_a_space_without_directions_is_told_of():
    heard = Heard()
    inputs = np.random.default_rng(0).standard_normal((50, 6))
    watch_basis(None, OnceEach(heard))
    watch_basis(fit_basis(inputs, 3), OnceEach(heard))
    assert heard.texts == []
    watch_basis(fit_basis(np.ones((50, 6)), 3), OnceEach(heard))
    assert "What C sees never varies" in heard.texts[0]
