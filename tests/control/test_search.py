"""CMA-ES: it finds optima, goes on exactly where its log ends, and survives bad scores."""

import subprocess
import sys

import numpy as np
import pytest

from stages.control.search import Search, SearchShape, check_fitness, digest_of
from stages.errors import ArtifactDamaged, NumbersBad, UsageError

SIZE = 10


def sphere(x):
    return (x**2).sum(axis=1)


def ellipsoid(x):
    """Axes whose lengths differ by a factor of 1,000."""
    return (10 ** (6 * np.arange(x.shape[1]) / (x.shape[1] - 1)) * x**2).sum(axis=1)


def shape(**changes) -> SearchShape:
    return SearchShape(
        **{"num_parameters": SIZE, "population": 12, "sigma": 0.5, "seed": 3} | changes
    )


def run(search: Search, cost, generations: int) -> list[tuple[list[float], str]]:
    """Minimise a cost away from zero, where the search starts; the log of what it told."""
    log = []
    for _ in range(generations):
        asked = search.ask()
        fitness = -cost(asked - 0.7)
        search.tell(fitness)
        log.append((fitness.tolist(), digest_of(asked)))
    return log


@pytest.mark.parametrize("cost", [sphere, ellipsoid])
def test_optima_are_found_to_ten_digits(cost):
    search = Search(shape())
    run(search, cost, 700)
    assert cost(search.mean[None] - 0.7)[0] < 1e-10
    np.testing.assert_allclose(search.mean, 0.7, atol=1e-4)


def test_the_diagonal_strategy_finds_them_too():
    search = Search(shape(covariance="diagonal"))
    run(search, ellipsoid, 700)
    assert ellipsoid(search.mean[None] - 0.7)[0] < 1e-10


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("stopped_after", [1, 7, 20])
def test_a_replayed_search_equals_one_that_was_never_stopped(stopped_after, covariance):
    whole = Search(shape(covariance=covariance))
    log = run(whole, ellipsoid, 20)
    resumed = Search(shape(covariance=covariance))
    for fitness, digest in log[:stopped_after]:
        resumed.replay(fitness, digest)
    assert run(resumed, ellipsoid, 20 - stopped_after) == log[stopped_after:]
    assert resumed.generation == whole.generation == 20
    assert np.array_equal(resumed.mean, whole.mean)
    assert resumed.sigma == whole.sigma
    assert np.array_equal(resumed.ask(), whole.ask())


def test_a_log_of_another_search_is_refused_with_its_generation():
    log = run(Search(shape()), sphere, 3)
    other = Search(shape(seed=4))
    with pytest.raises(ArtifactDamaged, match="generation 0"):
        other.replay(*log[0])


def test_an_altered_score_is_noticed_at_the_next_generation():
    log = run(Search(shape()), sphere, 3)
    search = Search(shape())
    worst = min(range(12), key=lambda candidate: log[0][0][candidate])
    altered = list(log[0][0])
    altered[worst] = 1.0
    search.replay(altered, log[0][1])
    with pytest.raises(ArtifactDamaged, match="generation 1"):
        search.replay(*log[1])


def test_seeds_change_the_search_and_nothing_else_does():
    np.random.seed(1)
    first = Search(shape()).ask()
    np.random.seed(2)
    assert np.array_equal(Search(shape()).ask(), first)
    assert not np.array_equal(Search(shape(seed=4)).ask(), first)
    assert first.shape == (12, SIZE)


def test_the_caller_may_not_change_what_was_asked():
    one, other = Search(shape()), Search(shape())
    asked = one.ask()
    fitness = -sphere(asked)
    asked[:] = 0
    one.tell(fitness)
    other.ask()
    other.tell(fitness)
    assert np.array_equal(one.mean, other.mean)


def test_candidates_without_a_score_count_as_the_worst():
    found = check_fitness(np.array([3.0, np.nan, -1.0, np.inf]), generation=0)
    assert found.tolist() == [3.0, -1.0, -1.0, -1.0]


def test_bad_candidates_steer_the_search_away():
    """NaN for all candidates left of zero in the first coordinate moves the mean to the right."""
    search = Search(shape())
    asked = search.ask()
    search.tell(np.where(asked[:, 0] < np.sort(asked[:, 0])[5], np.nan, 1.0 * asked[:, 0]))
    assert search.mean[0] > 0


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_generation_that_is_mostly_bad_stops_the_search(bad):
    search = Search(shape())
    search.ask()
    fitness = np.array([bad] * 7 + [1.0] * 5)
    with pytest.raises(NumbersBad, match="7 of 12 candidates of generation 1"):
        search.tell(fitness)
    assert search.generation == 0


def test_too_small_a_population_is_refused():
    with pytest.raises(UsageError, match=r"control\.population = 3"):
        Search(shape(population=3))


def test_a_falling_step_size_arrives_where_it_should():
    search = Search(shape(sigma=0.4, sigma_end=0.1, generations=8))
    found = [search.sigma]
    for _ in range(8):
        asked = search.ask()
        search.tell(-sphere(asked))
        found.append(search.sigma)
    np.testing.assert_allclose(found, 0.4 * 0.25 ** (np.arange(9) / 8), rtol=1e-12)


def test_a_falling_step_size_is_what_candidates_are_drawn_with():
    search = Search(
        shape(num_parameters=200, population=40, sigma=0.4, sigma_end=0.004, generations=1)
    )
    search.tell(-np.arange(40.0) * 0 - sphere(search.ask()))
    spread = (search.ask() - search.mean).std()
    assert 0.002 < spread < 0.008


def test_a_falling_step_size_is_replayed():
    whole = Search(shape(sigma_end=0.05, generations=9))
    log = run(whole, ellipsoid, 9)
    resumed = Search(shape(sigma_end=0.05, generations=9))
    for fitness, digest in log[:4]:
        resumed.replay(fitness, digest)
    assert run(resumed, ellipsoid, 5) == log[4:]


def test_a_search_loads_no_plots_and_leaves_them_to_others():
    """matplotlib and scipy are imported by pycma where they are found, and take longer than it."""
    code = (
        "import sys; from stages.control.search import Search, SearchShape; "
        "Search(SearchShape(num_parameters=3, population=4, sigma=0.5)).ask(); "
        "print({'matplotlib', 'scipy', 'cma'} & set(sys.modules)); "
        "import matplotlib.pyplot, scipy.stats; print('there')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["{'cma'}", "there"]
