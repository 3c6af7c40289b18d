"""Adam against torch's own optimiser, step for step, and what it does without."""

import subprocess
import sys

import pytest
import torch

from stages.training.adam import Adam


def pair(seed: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = (5, 3), (7,), (2, 3, 4, 4)
    ours = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    theirs = [one.detach().clone().requires_grad_() for one in ours]
    return ours, theirs


@pytest.mark.parametrize("fused", [False, True])
def test_every_step_equals_torchs_bit_for_bit(fused):
    ours, theirs = pair(0)
    adam, oracle = Adam(ours, fused=fused), torch.optim.Adam(theirs, lr=1.0, fused=fused or None)
    generator = torch.Generator().manual_seed(1)
    for step in range(30):
        oracle.param_groups[0]["lr"] = rate = 1e-2 * 0.9**step
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        if step % 3 == 0:
            ours[1].grad = theirs[1].grad = None  # has no part in this step
        adam.step(rate)
        oracle.step()
        assert all(one.grad is None for one in ours)
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.equal(mine, other)
            if other in oracle.state:
                expected = oracle.state[other]
                mean, square, count = adam.moments(mine)
                assert torch.equal(mean, expected["exp_avg"])
                assert torch.equal(square, expected["exp_avg_sq"])
                assert float(count) == float(expected["step"])


@pytest.mark.parametrize("fused", [False, True])
def test_it_goes_on_where_its_moments_were_kept(fused):
    straight, stopped = pair(2)
    adam, before = Adam(straight, fused=fused), Adam(stopped, fused=fused)
    for step in range(6):
        if step == 3:
            after = Adam(stopped, fused=fused)
            for one in stopped:
                mean, square, count = (part.clone() for part in before.moments(one))
                after.restore(one, mean, square, float(count))
                mean.fill_(torch.nan)  # it has its own
            before = after
        for mine, other in zip(straight, stopped, strict=True):
            mine.grad, other.grad = mine.detach().sin(), other.detach().sin()
        adam.step(0.01)
        before.step(0.01)
    assert all(torch.equal(*both) for both in zip(straight, stopped, strict=True))


def test_before_the_first_step_its_moments_are_zeros():
    (one, *_), _ = pair(3)
    mean, square, count = Adam([one]).moments(one)
    assert mean.shape == square.shape == one.shape
    assert not mean.any() and not square.any() and not count


def test_training_does_not_load_torchs_compiler():
    """It would take every training command seconds to begin."""
    code = """
import sys, torch
from stages.training.adam import Adam
weights = torch.ones(3, requires_grad=True)
adam = Adam([weights], fused=True)
(weights ** 2).sum().backward()
adam.step(0.1)
adam.step(0.1)
print("torch._dynamo" in sys.modules, float(weights[0]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"
    assert float(done.stdout.split()[1]) == pytest.approx(0.9)
