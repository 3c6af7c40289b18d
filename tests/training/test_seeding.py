"""Streams of random numbers and seeds of episodes."""

import numpy as np
import pytest
import torch

from stages.errors import UsageError
from stages.training.seeding import (
    PURPOSES,
    RANGE,
    episode_seeds,
    generator,
    named_seeds,
    torch_seed,
)

ROOTS = [0, 1, 2, 12345, 2**31 - 1, -3]


def test_a_stream_depends_on_seed_and_path_alone():
    first = generator(7, "blocks", 3).standard_normal(5)
    np.random.default_rng().standard_normal(3)
    assert np.array_equal(first, generator(7, "blocks", 3).standard_normal(5))


def test_streams_of_different_names_differ():
    paths = [(), ("a",), ("b",), ("a", 1), ("a", "1"), ("a1",), (1, "a"), ("a", 1, 0), ("ab",)]
    names = [(seed, *path) for seed in (0, 1, 11) for path in [*paths, ("a", "b")]]
    draws = {generator(*name).integers(0, 2**62) for name in names}
    assert len(draws) == len(names)
    assert len({torch_seed(*name) for name in names}) == len(names)


def test_neighbouring_streams_are_uncorrelated():
    draws = np.stack([generator(seed, "x").standard_normal(4000) for seed in range(20)])
    correlation = np.corrcoef(draws) - np.eye(20)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


@pytest.mark.parametrize("root", ROOTS)
def test_torch_takes_the_seed(root):
    seed = torch_seed(root, "init")
    assert 0 <= seed < 2**63
    torch.Generator().manual_seed(seed)


def test_purposes_never_overlap_and_fit_31_bits():
    """Ranges of 2**27 per purpose, whatever the root seed and the episode."""
    for number, purpose in enumerate(PURPOSES):
        for root in ROOTS:
            for start in (0, 5, 10**6, RANGE - 50):
                for seed in episode_seeds(purpose, root, start, 50):
                    assert seed // 2**27 == number
                    assert 0 <= seed < 2**31


@pytest.mark.parametrize("purpose", PURPOSES)
def test_episodes_of_a_purpose_have_distinct_seeds(purpose):
    seeds = episode_seeds(purpose, 3, 0, 20_000)
    assert len(set(seeds)) == 20_000
    late = episode_seeds(purpose, 3, RANGE - 20_000, 20_000)  # wraps around somewhere
    assert not set(seeds) & set(late)


def test_seeds_do_not_depend_on_how_they_are_asked_for():
    whole = episode_seeds("rollout", 9, 0, 100)
    assert episode_seeds("rollout", 9, 0, 60) + episode_seeds("rollout", 9, 60, 40) == whole


def test_only_evaluation_is_the_same_for_every_root_seed():
    for purpose in PURPOSES:
        lists = {tuple(episode_seeds(purpose, root, 0, 10)) for root in ROOTS}
        assert len(lists) == (1 if purpose == "evaluation" else len(ROOTS))


def test_more_episodes_than_seeds():
    with pytest.raises(UsageError, match="rollout"):
        episode_seeds("rollout", 0, RANGE - 1, 2)


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ([7], "seed 7"),
        ([7, 7, 7], "seed 7"),
        ([12, 13], "seeds 12-13"),
        (np.arange(27, 11, -1), "seeds 12-27"),
        ([3, 9, 10, 11, 40], "seeds 3, 9-11, 40"),
        (range(0, 40, 2), "seeds 0, 2, 4, 6, 8, 10, 12, 14, ..."),
    ],
)
def test_seeds_are_named_in_runs(seeds, text):
    assert named_seeds(seeds) == text
