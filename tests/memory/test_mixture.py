"""The mixture density against closed forms, scipy, numpy, and what temperature must do."""

import math

import numpy as np
import pytest
import torch
from oracles import world_models_numpy as oracle
from scipy import stats
from scipy.special import logsumexp

from stages.errors import UsageError
from stages.memory.mixture import Prediction, log_likelihood, mean_nll, sample


def gaussian(mean=0.0, sigma=1.0, shape=(1, 1)):
    """A prediction of one component per dimension."""
    full = torch.ones((*shape, 1))
    return Prediction(0 * full, mean * full, math.log(sigma) * full)


def random_prediction(seed, shape=(50, 4), num_mixtures=5):
    rng = np.random.default_rng(seed)
    full = (*shape, num_mixtures)
    weight = rng.dirichlet(np.ones(num_mixtures), shape)
    mean, sigma = rng.normal(0, 2, full), np.exp(rng.normal(-1, 1, full))
    tensors = (
        torch.tensor(part, dtype=torch.float32) for part in (np.log(weight), mean, np.log(sigma))
    )
    return Prediction(*tensors), weight, mean, sigma


def test_density_at_the_mean_of_a_unit_gaussian():
    nll = -log_likelihood(gaussian(mean=3.0), torch.tensor([[3.0]]))
    assert float(nll) == pytest.approx(0.9189, abs=1e-4)


def test_unit_gaussian_on_its_own_data_costs_its_entropy():
    z = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0))
    nll = -log_likelihood(gaussian(shape=(1, 1)), z)
    assert float(nll.mean()) == pytest.approx(1.4189, abs=0.005)


def test_equal_components_are_one_gaussian():
    z = torch.linspace(-4, 4, 9)[:, None]
    full = torch.ones(9, 1, 5)
    weights = torch.log_softmax(
        torch.randn(9, 1, 5, generator=torch.Generator().manual_seed(0)), -1
    )
    found = log_likelihood(Prediction(weights, 0.5 * full, math.log(0.3) * full), z)
    np.testing.assert_allclose(found.numpy(), stats.norm(0.5, 0.3).logpdf(z.numpy()), rtol=1e-5)


def test_density_equals_scipy():
    prediction, weight, mean, sigma = random_prediction(1)
    z = np.random.default_rng(2).normal(0, 2, (50, 4))
    expected = logsumexp(np.log(weight) + stats.norm(mean, sigma).logpdf(z[..., None]), axis=-1)
    found = log_likelihood(prediction, torch.tensor(z, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    plain = oracle.mixture_log_likelihood(weight, mean, sigma, z)
    usual = expected > -50  # where the plain sum of densities does not underflow
    assert usual.mean() > 0.5
    np.testing.assert_allclose(found[usual], plain[usual], rtol=1e-3, atol=1e-4)


def joint_of(prediction, weight):
    """The same Gaussians under one choice of component per row: that of the first dimension."""
    first = prediction.log_weight[:, :1]
    return Prediction(first, prediction.mean, prediction.log_sigma), weight[:, 0]


def test_nats_per_dimension_equal_scipys():
    prediction, weight, mean, sigma = random_prediction(1)
    z = np.random.default_rng(2).normal(0, 2, (50, 4))
    every = np.log(weight) + stats.norm(mean, sigma).logpdf(z[..., None])  # [50, 4, K]
    found = mean_nll(prediction, torch.tensor(z))
    np.testing.assert_allclose(found.numpy(), -logsumexp(every, axis=-1).mean(-1), rtol=1e-3)

    joint, shares = joint_of(prediction, weight)
    wanted = [
        -logsumexp(
            [
                np.log(share) + stats.multivariate_normal(m, np.diag(s**2)).logpdf(row)
                for share, m, s in zip(shares[n], mean[n].T, sigma[n].T, strict=True)
            ]
        )
        / 4
        for n, row in enumerate(z)
    ]
    np.testing.assert_allclose(mean_nll(joint, torch.tensor(z)).numpy(), wanted, rtol=1e-3)
    alone = logsumexp(
        np.log(shares)[:, None] + stats.norm(mean, sigma).logpdf(z[..., None]), axis=-1
    )
    found = log_likelihood(joint, torch.tensor(z))  # of every dimension by itself
    np.testing.assert_allclose(found.numpy(), alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.5])
def test_dimensions_of_a_joint_mixture_jump_together(temperature):
    """Covariance of what is drawn: sum_k w_k m_k m_k' - m m', w = softmax(log w / tau)."""
    rows, log_weight = 200_000, np.log([0.5, 0.2, 0.3])
    mean = np.array([[-1.0, 0.0, 2.0], [3.0, -2.0, 0.5]])  # [Z, K]
    sigma = np.array([[0.1, 1.0, 0.5], [0.3, 0.2, 0.4]])
    prediction = Prediction(
        torch.tensor(log_weight, dtype=torch.float32).expand(rows, 1, 3),
        *(
            torch.tensor(part, dtype=torch.float32).expand(rows, 2, 3)
            for part in (mean, np.log(sigma))
        ),
    )
    z = draws(prediction, temperature=temperature).double().numpy()
    weight = np.exp(log_weight / temperature)
    weight /= weight.sum()
    centre = mean @ weight
    wanted = (mean * weight) @ mean.T - np.outer(centre, centre)
    wanted += np.diag((weight * temperature * sigma**2).sum(1))
    np.testing.assert_allclose(z.mean(0), centre, atol=0.02)
    np.testing.assert_allclose(np.cov(z.T), wanted, atol=0.03)
    assert abs(wanted[0, 1]) > 0.3


def test_density_integrates_to_one():
    prediction, *_ = random_prediction(3, shape=(1, 1))
    z = torch.linspace(-60, 60, 200_001)[:, None]
    density = log_likelihood(prediction, z).exp().double()
    assert float(density.sum() * 120 / 200_000) == pytest.approx(1, abs=1e-3)


def test_outliers_stay_finite_and_so_do_their_gradients():
    mean = torch.zeros(1, 1, 5, requires_grad=True)
    log_sigma = torch.full((1, 1, 5), math.log(0.01), requires_grad=True)
    weights = torch.full((1, 1, 5), -math.log(5))
    found = log_likelihood(Prediction(weights, mean, log_sigma), torch.tensor([[10.0]]))
    expected = stats.norm(0, 0.01).logpdf(10.0)  # 1,000 sigmas away: the density underflows
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)
    found.sum().backward()
    assert torch.isfinite(mean.grad).all()
    assert torch.isfinite(log_sigma.grad).all()
    assert mean.grad.sum() > 0  # towards the outlier


def test_density_is_float32_for_half_precision_latents_and_under_autocast():
    prediction, weight, mean, sigma = random_prediction(4)
    z = np.random.default_rng(5).normal(0, 2, (50, 4)).astype(np.float16)
    expected = logsumexp(np.log(weight) + stats.norm(mean, sigma).logpdf(z[..., None]), axis=-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = log_likelihood(prediction, torch.tensor(z))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-3)


def draws(prediction, *, temperature, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = prediction.mean.shape[:-1]
    return sample(
        prediction,
        uniform=torch.rand(shape, generator=generator),
        noise=torch.randn(shape, generator=generator),
        temperature=temperature,
    )


@pytest.mark.parametrize("temperature", [0.1, 1.0, 1.3])
def test_variance_of_one_component_is_proportional_to_temperature(temperature):
    z = draws(gaussian(mean=2.0, sigma=0.5, shape=(200_000, 1)), temperature=temperature)
    assert float(z.mean()) == pytest.approx(2.0, abs=0.01)
    assert float(z.var()) == pytest.approx(temperature * 0.25, rel=0.02)


def mixture_of_three(num_rows=200_000):
    weight, mean, sigma = [0.5, 0.2, 0.3], [-1.0, 0.0, 2.0], [0.1, 1.0, 0.5]
    rows = [torch.tensor(part).expand(num_rows, 1, 3) for part in (weight, mean, sigma)]
    return Prediction(rows[0].log(), rows[1], rows[2].log()), *map(np.array, (weight, mean, sigma))


def test_at_one_the_moments_are_the_mixtures():
    prediction, weight, mean, sigma = mixture_of_three()
    z = draws(prediction, temperature=1.0)
    expected = (weight * mean).sum()
    variance = (weight * (sigma**2 + mean**2)).sum() - expected**2
    assert float(z.mean()) == pytest.approx(expected, abs=0.02)
    assert float(z.var()) == pytest.approx(variance, rel=0.02)


def test_samples_follow_the_density_that_the_loss_uses():
    prediction, weight, mean, sigma = mixture_of_three(20_000)
    z = draws(prediction, temperature=1.0).numpy()[:, 0]

    def distribution(value):
        return (weight * stats.norm(mean, sigma).cdf(np.asarray(value)[..., None])).sum(-1)

    assert stats.kstest(z, distribution).pvalue > 0.01


def test_temperature_sharpens_the_weights():
    prediction, weight, mean, _ = mixture_of_three()
    narrow = Prediction(prediction.log_weight, prediction.mean, prediction.log_sigma - 20)
    z = draws(narrow, temperature=0.5).numpy()[:, 0]
    sharpened = weight**2 / (weight**2).sum()
    found = [np.mean(np.abs(z - centre) < 0.01) for centre in mean]
    np.testing.assert_allclose(found, sharpened, atol=0.01)


@pytest.mark.parametrize("temperature", [0.0, 1e-9, 1e-4])
def test_towards_zero_it_is_the_mean_of_the_likeliest(temperature):
    prediction, *_ = mixture_of_three(1_000)
    np.testing.assert_allclose(draws(prediction, temperature=temperature), -1.0, atol=0.01)


def test_dimensions_draw_their_components_independently():
    full = torch.zeros(100_000, 2, 2)
    mean = torch.tensor([-1.0, 1.0]).expand(100_000, 2, 2)
    z = draws(Prediction(full + math.log(0.5), mean, full - 10), temperature=1.0).numpy()
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.02


def test_every_uniform_number_names_a_component():
    prediction, *_ = mixture_of_three(3)
    uniform = torch.tensor([[0.0], [0.6], [1.0 - 2**-24]])
    z = sample(prediction, uniform=uniform, noise=torch.zeros(3, 1))
    np.testing.assert_allclose(z[:, 0].numpy(), [-1, 0, 2])


@pytest.mark.parametrize("temperature", [-0.1, float("nan"), float("inf")])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(UsageError, match="temperature"):
        draws(gaussian(), temperature=temperature)


def test_the_end_is_a_hard_cut():
    prediction = Prediction(*[torch.zeros(3, 1, 1)] * 3, end_logit=torch.tensor([-0.1, 0.0, 0.1]))
    assert prediction.ended.tolist() == [False, False, True]
