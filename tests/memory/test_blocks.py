"""M that draws z block by block: against numpy, by the draws' own distribution, and refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import world_models_numpy as oracle
from scipy import stats
from scipy.special import logsumexp

from stages.errors import UsageError
from stages.memory.dreaming import DreamingMemory
from stages.memory.horizon import predictive_means
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape
from stages.memory.mixture import mean_nll

SHAPE = MDNRNNShape(
    6, 2, 8, num_mixtures=2, joint_mixture=True, head_hidden=12, num_blocks=3, block_hidden=7
)


def lively(shape=SHAPE, seed=0):
    """An M that is not as it began."""
    model = MDNRNN(shape, seed=seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=random))
        for part in (model.head, model.after):
            part.weight.mul_(0.2)  # sigmas of about 1
    return model


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def told(model, seen, following):
    """numpy's (weight, mean, sigma), [B, Z, K] each, of every block given those before it."""
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    return oracle.block_heads(weights, seen.numpy(), following.numpy(), model.shape.num_blocks)


@torch.no_grad()
def test_every_block_equals_numpy_given_those_before_it():
    model, following = lively(), normal(7, 6, seed=4)
    seen = model.seen(normal(7, 8), normal(7, 6, seed=1), normal(7, 2, seed=2))
    found = model.heads(seen, following)
    weight, mean, sigma = told(model, seen, following)
    np.testing.assert_allclose(found.log_weight.exp().repeat_interleave(2, 1), weight, atol=1e-5)
    np.testing.assert_allclose(found.mean, mean, atol=1e-5)
    np.testing.assert_allclose(found.log_sigma.exp(), sigma, rtol=1e-4)
    plain = np.zeros(7)
    for block in range(3):
        own = slice(2 * block, 2 * block + 2)
        density = stats.norm(mean[:, own], sigma[:, own]).logpdf(following[:, own, None]).sum(1)
        plain -= logsumexp(np.log(weight[:, 2 * block]) + density, axis=-1)
    np.testing.assert_allclose(mean_nll(found, following), plain / 6, rtol=1e-4)


def test_a_block_knows_those_before_it_and_nothing_else():
    model, following = lively(), normal(5, 6).requires_grad_()
    prediction = model.heads(normal(5, 12, seed=1), following)
    for block in range(3):
        (moved,) = torch.autograd.grad(
            prediction.mean[:, 2 * block : 2 * block + 2].sum(), following,
            retain_graph=True, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        assert (moved[:, : 2 * block] != 0).any() == (block > 0)
        assert not moved[:, 2 * block :].any()


@torch.no_grad()
def test_draws_have_the_density_that_is_told():
    """What is drawn, sent through the told distribution functions, is uniform (Rosenblatt 1952)."""
    shape = replace(SHAPE, latent_size=3)  # blocks of one number, whose distribution is plain
    model, num = lively(shape), 20_000
    model.after.weight.view(3, 3, 2, -1)[:, 1].mul_(5)  # the means depend on what came before
    seen = normal(1, 12, seed=3).expand(num, 12)
    uniform = torch.rand(num, 3, generator=torch.Generator().manual_seed(6))
    drawn = model.draw(seen, uniform=uniform, noise=normal(num, 3, seed=5))
    weight, mean, sigma = told(model, seen, drawn)
    below = (weight * stats.norm(mean, sigma).cdf(drawn.numpy()[..., None])).sum(-1)  # [N, Z]
    for column in below.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(below.T) - np.eye(3)).max() < 0.03
    depend = stats.spearmanr(drawn.numpy()).statistic - np.eye(3)
    assert np.abs(depend).max() > 0.1, "the test would prove nothing"


@pytest.mark.parametrize("temperature", [0.0, 0.4, 1.0, 1.15])
@pytest.mark.parametrize("num_lanes", [50, 513])
def test_dreams_draw_what_m_draws(num_lanes, temperature):
    model = lively()
    seen, noise = normal(num_lanes, 12, seed=3), normal(num_lanes, 6, seed=5)
    uniform = torch.rand(num_lanes, 6, generator=torch.Generator().manual_seed(4))
    given = {"uniform": uniform, "noise": noise, "temperature": temperature}
    with torch.no_grad():
        wanted = model.draw(seen, **given)
    found = DreamingMemory(model).draw(seen, **given)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    fewer = {"uniform": uniform[:9], "noise": noise[:9], "temperature": temperature}
    alone = DreamingMemory(model).draw(seen[:9], **fewer)
    torch.testing.assert_close(alone, found[:9], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_means_follow_the_means_before_them():
    model, seen = lively(), normal(4, 12, seed=3)
    found = torch.from_numpy(predictive_means(model, seen)).float()
    weight, mean, _ = told(model, seen, found)
    np.testing.assert_allclose(found, (weight * mean).sum(-1), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joint_mixture": False}, "needs a joint mixture"),
        ({"num_blocks": 4}, "does not divide vision.latent_size = 6"),
        ({"block_hidden": 0}, "too small"),
        ({"num_blocks": -1}, "does not divide"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        replace(SHAPE, **changes)
