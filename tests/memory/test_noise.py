"""Counter-based noise against numpy's unsigned integers, and against what it should look like."""

import numpy as np
import pytest
import torch
from scipy import stats

from stages.memory.noise import normals, uniforms

MASK = (1 << 64) - 1


def plain(seed, step, column, stream):
    """One uniform number by Python's own integers."""

    def mixed(value):
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
        return value ^ (value >> 31)

    key = mixed((mixed((seed + 0x9E3779B97F4A7C15 * (step + 1)) & MASK) + stream) & MASK)
    bits = mixed((key + 0xD1B54A32D192ED03 * (column + 1)) & MASK) >> 40
    return (bits + 0.5) / 2**24


def test_every_number_is_a_hash_of_its_place():
    seeds = [0, 1, 7, 2**31 - 1, 402653184]
    for step in (0, 1, 2099, 10**6):
        for stream in (0, 3):
            found = uniforms(torch.tensor(seeds), step, 5, stream=stream)
            expected = [[plain(seed, step, k, stream) for k in range(5)] for seed in seeds]
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7)


def test_lanes_do_not_know_their_place():
    seeds = torch.arange(100, 160)
    together = normals(seeds, 17, 32)
    for lane in (0, 31, 59):
        assert torch.equal(normals(seeds[lane : lane + 1], 17, 32)[0], together[lane])
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(normals(seeds[order], 17, 32), together[order])


@pytest.mark.parametrize("axis", ["seeds", "steps", "columns", "streams"])
def test_neighbours_are_independent_and_of_the_right_distribution(axis):
    """Along every axis: neighbouring seeds are what a search uses."""
    n = 40_000
    if axis == "seeds":
        found = uniforms(torch.arange(n), 3, 1)
    elif axis == "steps":
        found = torch.cat([uniforms(torch.tensor([9]), step, 1) for step in range(n // 10)])
    elif axis == "columns":
        found = uniforms(torch.tensor([5]), 3, n)
    else:
        found = torch.cat([uniforms(torch.tensor([9]), 4, 1, stream=k) for k in range(n // 10)])
    values = found.flatten().double().numpy()
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    for lag in (1, 2, 7):
        correlation = np.corrcoef(values[:-lag], values[lag:])[0, 1]
        assert abs(correlation) < 4 / np.sqrt(len(values))
    normal = stats.norm.ppf(values)
    assert stats.kstest(normal, "norm").pvalue > 1e-3


def test_normal_numbers_are_finite_and_have_the_inverse_distribution():
    seeds = torch.arange(20_000)
    uniform, normal = uniforms(seeds, 1, 8).double(), normals(seeds, 1, 8)
    assert torch.isfinite(normal).all()
    np.testing.assert_allclose(normal.numpy(), stats.norm.ppf(uniform.numpy()), atol=2e-4)
    assert 4 < normal.abs().max() < 6


def test_no_number_is_one_and_no_normal_infinite():
    """A hash of all ones, which half a step more would round to 1."""
    seed = torch.tensor([9415209])
    assert 0.9999 < float(uniforms(seed, 3, 1, stream=6)) < 1
    assert 5 < float(normals(seed, 3, 1, stream=6)) < 6
