"""The fast training loss of M against autograd of the plain formula, and numerical gradients."""

from dataclasses import replace

import pytest
import torch

from stages.memory.losses import Sequences, memory_loss, predict, training_loss
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape
from stages.memory.mixture_nll import ROWS, mixture_nll

SHAPE = MDNRNNShape(5, 2, 16, num_mixtures=3, reward_head=True, end_head=True, restart_flag=True)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain_nll(h, weight, bias, z, share, *, min_log_sigma):
    """Bishop 1994, equation 22-23, as it is written."""
    raw = (h @ weight.t() + bias).unflatten(-1, (3, z.shape[1], -1))
    logit, mean, log_sigma = raw.unbind(-3)
    log_sigma = log_sigma.clamp(min=min_log_sigma)
    components = torch.distributions.Normal(mean, log_sigma.exp())
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logit), components, validate_args=False
    )
    return -(share[:, None] * mixture.log_prob(z)).sum() / z.shape[1]


def plain_joint_nll(h, weight, bias, z, share, *, min_log_sigma):
    """The same of one mixture whose components are Gaussians of Z dimensions."""
    raw = h @ weight.t() + bias
    logits, rest = raw[:, :5], raw[:, 5:].unflatten(1, (2, z.shape[1], 5))
    mean, log_sigma = rest[:, 0].mT, rest[:, 1].mT.clamp(min=min_log_sigma)  # [N, K, Z]
    components = torch.distributions.Normal(mean, log_sigma.exp(), validate_args=False)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits),
        torch.distributions.Independent(components, 1, validate_args=False),
        validate_args=False,
    )
    return -(share * mixture.log_prob(z)).sum() / z.shape[1]


@pytest.mark.parametrize("num_rows", [7, 2 * ROWS + 3])
@pytest.mark.parametrize(("plain", "num_choices"), [(plain_nll, 4), (plain_joint_nll, 1)])
def test_value_and_gradients_are_those_of_the_plain_formula(plain, num_choices, num_rows):
    double, num_outputs = torch.float64, (num_choices + 2 * 4) * 5
    h, weight = normal(num_rows, 6, dtype=double), normal(num_outputs, 6, seed=1, dtype=double)
    bias = normal(num_outputs, seed=2, dtype=double)
    z = 2 * normal(num_rows, 4, seed=3, dtype=double)
    share = torch.rand(num_rows, generator=torch.Generator().manual_seed(4), dtype=double)
    inputs = [part.requires_grad_() for part in (h, weight, bias)]
    bound = -1.0  # some sigmas are at it
    found = mixture_nll(*inputs, z, share, min_log_sigma=bound, num_mixtures=5)
    wanted = plain(*inputs, z, share, min_log_sigma=bound)
    torch.testing.assert_close(found, wanted)
    for one, other in zip(
        torch.autograd.grad(3 * found, inputs), torch.autograd.grad(3 * wanted, inputs), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("num_outputs", [12, 10])  # of the second one the mixture is joint
def test_gradients_are_those_of_small_differences(num_outputs):
    double = torch.float64
    z, share = normal(3, 2, seed=3, dtype=double), torch.tensor([0.5, 0.0, 2.0], dtype=double)
    inputs = [
        part.requires_grad_()
        for part in (normal(3, 4, dtype=double), normal(num_outputs, 4, seed=1, dtype=double))
    ]
    bias = normal(num_outputs, seed=2, dtype=double).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *parts: mixture_nll(*parts, z, share, min_log_sigma=-7.0, num_mixtures=2),
        (*inputs, bias),
    )


def test_far_outliers_stay_finite():
    h, weight, bias = normal(4, 3), torch.zeros(12, 3), torch.full((12,), -50.0)
    parts = [part.requires_grad_() for part in (h, weight, bias)]
    nll = mixture_nll(
        *parts, torch.full((4, 2), 1e4), torch.ones(4), min_log_sigma=-7.0, num_mixtures=2
    )
    assert torch.isfinite(nll)
    assert all(torch.isfinite(part).all() for part in torch.autograd.grad(nll, parts))


def sequences(shape, num_lanes, num_steps):
    random = torch.Generator().manual_seed(9)
    mask = torch.rand(num_lanes, num_steps, generator=random) < 0.8
    z = normal(num_lanes, num_steps + 1, shape.latent_size)
    restart = torch.zeros(num_lanes, num_steps, dtype=torch.bool)
    restart[::2, 0] = True
    return Sequences(
        z=z,
        actions=normal(num_lanes, num_steps, shape.action_size, seed=1),
        mask=mask,
        rewards=normal(num_lanes, num_steps, seed=2),
        ends=torch.rand(num_lanes, num_steps, generator=random) < 0.1,
        restart=restart,
    )


@pytest.mark.parametrize(
    ("dtype", "loss_error", "gradient_error"),
    [(torch.float32, 1e-6, 1e-5), (torch.bfloat16, 2e-3, 0.03)],
)
@pytest.mark.parametrize(
    "other",
    [
        {},
        {"joint_mixture": True},
        {"head_hidden": 14},
        {"joint_mixture": True, "num_blocks": 5, "block_hidden": 9},
    ],
)
def test_training_loss_is_the_plain_loss(other, dtype, loss_error, gradient_error):
    model = MDNRNN(replace(SHAPE, **other), seed=3)
    batch = sequences(SHAPE, 6, 11)
    expected = memory_loss(predict(model, batch)[0], batch)
    found = training_loss(model, batch, dtype=dtype)
    assert found.keys() == expected.keys() == {"loss", "nll", "reward", "end"}
    for name in expected:
        assert found[name].item() == pytest.approx(expected[name].item(), rel=loss_error), name
    gradient_error *= 1.5 if model.wide is not None else 1  # one more product is rounded
    names = list(dict(model.named_parameters()))
    one = torch.autograd.grad(found["loss"], list(model.parameters()))
    other = torch.autograd.grad(expected["loss"], list(model.parameters()))
    for name, mine, plain in zip(names, one, other, strict=True):
        assert mine.dtype == torch.float32
        assert float((mine - plain).norm() / plain.norm()) < gradient_error, name


def test_padding_may_hold_anything():
    model = MDNRNN(MDNRNNShape(5, 2, 16), seed=3)
    batch = sequences(model.shape, 4, 6)
    batch.mask[:, :] = True
    batch.mask[1, 4:] = False
    wanted = torch.autograd.grad(training_loss(model, batch)["loss"], list(model.parameters()))
    batch.z[1, 6:] = float("nan")  # only ever a target
    found = torch.autograd.grad(training_loss(model, batch)["loss"], list(model.parameters()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_odd_and_even_inputs_agree_in_half_precision():
    """An input of zeros that is added changes nothing."""
    for action_size in (2, 3):
        model = MDNRNN(MDNRNNShape(4, action_size, 32), seed=1)
        z, a = normal(5, 9, 4), normal(5, 9, action_size, seed=1)
        whole, (_, cell) = model.unroll(z, a)
        half, (h, c) = model.unroll(z, a, dtype=torch.bfloat16)
        assert half.dtype == torch.bfloat16
        assert h.dtype == c.dtype == torch.float32
        torch.testing.assert_close(half.float(), whole, atol=0.02, rtol=0)
        torch.testing.assert_close(c, cell, atol=0.03, rtol=0)
