"""The loss of V: closed forms, Monte Carlo, and what the floor does to gradients."""

import math

import numpy as np
import pytest
import torch
from oracles import world_models_numpy as oracle
from scipy import ndimage

from stages.vision.losses import (
    decibels,
    frame_errors,
    held_out_errors,
    kl_divergence,
    prominence,
    squared_error,
    vae_loss,
)
from stages.vision.vae import VAE, Reconstruction


def test_kl_of_the_prior_is_zero_and_its_floor_is_half_a_nat_per_dimension():
    made = Reconstruction(torch.zeros(3, 3, 64, 64), torch.zeros(3, 32), torch.zeros(3, 32))
    loss = vae_loss(made, torch.zeros(3, 3, 64, 64))
    assert float(loss["kl"]) == 0
    assert float(loss["kl_floored"]) == 16
    assert float(loss["loss"]) == 16


def test_kl_equals_monte_carlo():
    rng = np.random.default_rng(0)
    mu, logvar = rng.normal(0, 1, (1, 4)), rng.normal(-1, 0.5, (1, 4))
    z = mu + np.exp(logvar / 2) * rng.standard_normal((400_000, 4))
    log_q = -0.5 * ((z - mu) ** 2 / np.exp(logvar) + logvar)  # without log(2 pi), as below
    log_p = -0.5 * z**2
    estimate = (log_q - log_p).sum(1).mean()
    found = kl_divergence(torch.tensor(mu), torch.tensor(logvar))
    assert float(found[0]) == pytest.approx(estimate, abs=0.02)


def test_kl_equals_numpy():
    rng = np.random.default_rng(1)
    mu, logvar = rng.normal(size=(6, 32)), rng.normal(size=(6, 32))
    found = kl_divergence(torch.tensor(mu), torch.tensor(logvar))
    np.testing.assert_allclose(found.numpy(), oracle.kl(mu, logvar), rtol=1e-5)


def mixed_batch():
    """One sample at the prior (KL 0), one far from it (KL 36 nats at Z = 2)."""
    mu = torch.tensor([[0.1, 0.0], [6.0, 6.0]], requires_grad=True)
    made = Reconstruction(torch.zeros(2, 3, 64, 64), mu, torch.zeros(2, 2))
    return mu, made


def test_floor_is_per_sample_not_of_the_mean():
    _, made = mixed_batch()
    loss = vae_loss(made, torch.zeros(2, 3, 64, 64))
    per_sample = (max(0.005, 1.0) + 36.0) / 2
    of_the_mean = max((0.005 + 36.0) / 2, 1.0)
    assert float(loss["kl_floored"].detach()) == pytest.approx(per_sample)
    assert abs(per_sample - of_the_mean) > 0.4
    assert float(loss["kl"].detach()) == pytest.approx(of_the_mean)


def test_samples_below_the_floor_send_no_kl_gradient():
    mu, made = mixed_batch()
    vae_loss(made, torch.zeros(2, 3, 64, 64))["loss"].backward()
    np.testing.assert_allclose(mu.grad.numpy(), [[0, 0], [3, 3]])  # mu / B for the second


def test_kl_enters_the_loss_once():
    _, made = mixed_batch()
    frames = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    loss = {name: float(value.detach()) for name, value in vae_loss(made, frames).items()}
    assert loss["loss"] == pytest.approx(loss["reconstruction"] + loss["kl_floored"])
    unfloored = vae_loss(made, frames, kl_floor=0.0)
    assert float(unfloored["kl_floored"].detach()) == pytest.approx(loss["kl"])


def test_reconstruction_sums_over_the_frame_and_averages_over_the_batch():
    rng = np.random.default_rng(2)
    found, wanted = rng.random((5, 3, 64, 64)), rng.random((5, 3, 64, 64))
    expected = [sum((f - w) ** 2 for f, w in zip(a.flat, b.flat, strict=True))
                for a, b in zip(found, wanted, strict=True)]  # fmt: skip
    errors = squared_error(torch.tensor(found), torch.tensor(wanted))
    np.testing.assert_allclose(errors.numpy(), expected, rtol=1e-5)
    made = Reconstruction(torch.tensor(found), torch.zeros(5, 2), torch.zeros(5, 2))
    loss = vae_loss(made, torch.tensor(wanted))["reconstruction"]
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


def test_what_stands_out_counts_more():
    rng = np.random.default_rng(3)
    found, wanted = rng.random((2, 3, 64, 64)), rng.random((2, 3, 64, 64))
    around = ndimage.uniform_filter(wanted, size=(1, 1, 9, 9), mode="nearest")
    weight = 1 + 20 * ((wanted - around) ** 2).sum(1, keepdims=True)
    np.testing.assert_allclose(prominence(torch.tensor(wanted), 20.0), weight, rtol=1e-9)
    leaf = torch.tensor(found, requires_grad=True)
    made = Reconstruction(leaf, torch.zeros(2, 2), torch.zeros(2, 2))
    plain = vae_loss(made, torch.tensor(wanted))
    loss = vae_loss(made, torch.tensor(wanted), detail=20.0)
    squares = weight * (found - wanted) ** 2
    assert loss["loss"].item() == pytest.approx(squares.sum((1, 2, 3)).mean() + 1, rel=1e-5)
    assert loss["reconstruction"].item() == plain["reconstruction"].item()
    (gradient,) = torch.autograd.grad(loss["loss"], leaf)
    np.testing.assert_allclose(gradient, weight * (found - wanted), rtol=1e-5)  # 2 / 2 frames


def test_a_flat_picture_has_nothing_that_stands_out():
    flat = torch.full((1, 3, 64, 64), 0.3)
    torch.testing.assert_close(prominence(flat, 30.0), torch.ones(1, 1, 64, 64))
    flat[0, :, 20, 20] = 1.0
    weight = prominence(flat, 30.0)[0, 0]
    assert weight[20, 20] == weight.max() > 40
    assert weight[30, 30] == 1


def test_losses_are_float32_under_autocast():
    model = VAE(4)
    frames = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    exact = vae_loss(model(frames, torch.zeros(4, 4)), frames)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = model(frames, torch.zeros(4, 4))
        loss = vae_loss(made, frames)
    assert made.mu.dtype == torch.bfloat16  # the network did run in low precision
    assert made.frames.dtype == torch.float32
    assert {value.dtype for value in loss.values()} == {torch.float32}
    assert float(loss["loss"].detach()) == pytest.approx(float(exact["loss"].detach()), rel=0.01)


def test_held_out_errors_weigh_every_frame_alike():
    model = VAE(4, seed=3)
    frames = np.random.default_rng(0).integers(0, 256, (21, 64, 64, 3), dtype=np.uint8)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    mu, logvar = oracle.encode(weights, frames)
    squares = ((oracle.decode(weights, mu) - frames / 255) ** 2).sum((1, 2, 3))
    found = held_out_errors(model, [frames[:20], frames[20:]])
    assert found.num_frames == 21
    assert found.reconstruction == pytest.approx(squares.mean(), rel=1e-4)
    assert found.kl == pytest.approx(oracle.kl(mu, logvar).mean(), rel=1e-3)
    errors, _ = frame_errors(model, frames[:3])
    np.testing.assert_allclose(errors, squares[:3], rtol=1e-4)


def test_decibels_of_the_papers_final_error():
    assert decibels(3.57) == pytest.approx(35.4, abs=0.1)
    assert decibels(12_288) == pytest.approx(0)
    assert decibels(0) == math.inf


def test_training_reconstructs_a_few_frames():
    rng = np.random.default_rng(0)
    colours = rng.random((4, 3, 1, 1)).astype(np.float32)
    frames = torch.tensor(np.broadcast_to(colours, (4, 3, 64, 64)).copy())
    frames[:, :, 20:40, 10:30] = 1 - frames[:, :, 20:40, 10:30]
    model = VAE(4, seed=0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    first = None
    for _ in range(80):
        loss = vae_loss(model(frames, torch.randn(4, 4, generator=generator)), frames)
        optimiser.zero_grad()
        loss["loss"].backward()
        optimiser.step()
        first = first or float(loss["reconstruction"].detach())
    mean_image_error = float((frames - frames.mean(0)).square().flatten(1).sum(1).mean())
    last = float(loss["reconstruction"].detach())
    assert last < 0.5 * mean_image_error
    assert first > mean_image_error
