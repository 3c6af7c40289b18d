"""The loss of M: masks, heads, padding, and a toy whose entropy is known."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracles import world_models_numpy as oracle
from scipy.special import expit

from stages.memory.losses import (
    Sequences,
    draw_sequences,
    held_out_errors,
    memory_loss,
    predict,
    step_errors,
)
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape
from stages.memory.mixture import Prediction

FULL = MDNRNNShape(3, 2, 8, num_mixtures=2, reward_head=True, end_head=True, restart_flag=True)


def episode(length, seed, shape=FULL):
    generator = torch.Generator().manual_seed(seed)
    ends = torch.zeros(1, length)
    ends[0, -1] = 1
    restart = torch.zeros(1, length, dtype=torch.bool)
    restart[0, 0] = True
    return Sequences(
        z=torch.randn(1, length + 1, shape.latent_size, generator=generator),
        actions=torch.randn(1, length, shape.action_size, generator=generator),
        mask=torch.ones(1, length, dtype=torch.bool),
        rewards=torch.randn(1, length, generator=generator),
        ends=ends,
        restart=restart,
    )


def padded(episodes, garbage):
    """Episodes as one batch, the padding filled with garbage."""
    longest = max(part.mask.shape[1] for part in episodes)

    def stack(name, fill, extra=0):
        rows = []
        for part in episodes:
            row = getattr(part, name)
            missing = longest + extra - row.shape[1]
            rows.append(torch.cat((row, row.new_full((1, missing, *row.shape[2:]), fill)), 1))
        return torch.cat(rows)

    return Sequences(
        z=stack("z", garbage, extra=1),
        actions=stack("actions", garbage),
        mask=stack("mask", False),
        rewards=stack("rewards", garbage),
        ends=stack("ends", 1.0),
        restart=stack("restart", False),
    )


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("garbage", [0.0, 1e3])
def test_padded_batch_equals_the_episodes_by_themselves(garbage):
    model = MDNRNN(FULL, seed=1)
    episodes = [episode(7, 0), episode(3, 1), episode(1, 2)]
    together = memory_loss(predict(model, padded(episodes, garbage))[0], padded(episodes, garbage))
    alone = [memory_loss(predict(model, part)[0], part) for part in episodes]
    lengths = [7, 3, 1]
    for name in ("loss", "nll", "reward", "end"):
        each = [
            length * float(part[name].detach()) for length, part in zip(lengths, alone, strict=True)
        ]
        assert float(together[name].detach()) == pytest.approx(sum(each) / 11, rel=1e-5)
    found = gradients(model, together["loss"])
    wanted = gradients(
        model, sum(n * part["loss"] for n, part in zip(lengths, alone, strict=True)) / 11
    )
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_nll_is_in_nats_per_dimension_of_the_next_latent():
    model = MDNRNN(FULL, seed=1)
    part = episode(6, 3)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    state, nll = oracle.initial_state(1, 8), []
    for time in range(6):
        flag = np.array([[float(time == 0)]])
        x = np.concatenate((part.z[:, time].numpy(), part.actions[:, time].numpy(), flag), 1)
        state = oracle.lstm_step(weights, x, state)
        mixture = oracle.mixture_head(weights, state[0], num_mixtures=2)
        nll.append(-oracle.mixture_log_likelihood(*mixture, part.z[:, time + 1].numpy()))
    loss = memory_loss(predict(model, part)[0], part)
    assert float(loss["nll"].detach()) == pytest.approx(np.mean(nll), rel=1e-4)


def flat_prediction(num_steps, **heads):
    zeros = torch.zeros(1, num_steps, 1, 1)
    return Prediction(zeros, zeros, zeros, **heads)


def test_steps_that_end_weigh_ten_times():
    logits, ends = np.array([-2.0, 0.5, 3.0, -1.0]), np.array([0.0, 1.0, 0.0, 1.0])
    probability = expit(logits)
    entropy = -(ends * np.log(probability) + (1 - ends) * np.log(1 - probability))
    batch = Sequences(
        z=torch.zeros(1, 5, 1),
        actions=torch.zeros(1, 4, 1),
        mask=torch.ones(1, 4, dtype=torch.bool),
        ends=torch.tensor(ends, dtype=torch.float32)[None],
    )
    prediction = flat_prediction(4, end_logit=torch.tensor(logits, dtype=torch.float32)[None])
    weight = np.where(ends > 0, 10, 1)
    assert float(memory_loss(prediction, batch)["end"]) == pytest.approx((weight * entropy).mean())
    plain = memory_loss(prediction, batch, end_weight=1.0)["end"]
    assert float(plain) == pytest.approx(entropy.mean())


def test_end_loss_is_finite_for_a_certain_mistake():
    batch = Sequences(
        z=torch.zeros(1, 2, 1),
        actions=torch.zeros(1, 1, 1),
        mask=torch.ones(1, 1, dtype=torch.bool),
        ends=torch.ones(1, 1),
    )
    prediction = flat_prediction(1, end_logit=torch.full((1, 1), -300.0))
    assert float(memory_loss(prediction, batch)["end"]) == pytest.approx(3_000)


def test_what_stands_in_the_padding_is_never_read():
    batch = Sequences(
        z=torch.tensor([[[0.0], [1.0], [float("nan")]]]),
        actions=torch.zeros(1, 2, 1),
        mask=torch.tensor([[True, False]]),
        rewards=torch.tensor([[2.0, float("inf")]]),
    )
    loss = memory_loss(flat_prediction(2, reward=torch.zeros(1, 2)), batch)
    assert float(loss["nll"]) == pytest.approx(1.4189, abs=1e-4)
    assert float(loss["reward"]) == pytest.approx(4.0)


def test_a_head_without_its_targets_is_a_mistake():
    batch = episode(2, 0)
    bare = Sequences(z=batch.z, actions=batch.actions, mask=batch.mask, restart=batch.restart)
    with pytest.raises(AssertionError, match="rewards"):
        memory_loss(predict(MDNRNN(FULL), bare)[0], bare)


def test_losses_are_float32_under_autocast():
    model = MDNRNN(FULL, seed=1)
    batch = padded([episode(6, 0), episode(4, 1)], 0.0)
    exact = memory_loss(predict(model, batch)[0], batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = memory_loss(predict(model, batch)[0], batch)
    assert {value.dtype for value in loss.values()} == {torch.float32}
    assert float(loss["nll"].detach()) == pytest.approx(float(exact["nll"].detach()), rel=0.02)


def test_held_out_errors_weigh_every_step_alike():
    model = MDNRNN(FULL, seed=2)
    episodes = [episode(9, 0), episode(2, 1), episode(5, 2)]
    per_step = [step_errors(predict(model, part)[0], part) for part in episodes]
    expected = {
        name: np.mean(np.concatenate([part[name].detach().numpy()[0] for part in per_step]))
        for name in ("nll", "reward", "end")
    }
    found = held_out_errors(model, [padded(episodes[:2], 7.0), episodes[2]])
    assert found == pytest.approx(expected, rel=1e-4)


def test_drawn_sequences_are_the_batch_with_noise():
    rng = np.random.default_rng(0)
    mask = np.array([[True, True, True], [True, False, False]])
    batch = SimpleNamespace(
        mu=rng.normal(size=(2, 4, 3)).astype(np.float32),
        logvar=rng.normal(size=(2, 4, 3)).astype(np.float32),
        actions=rng.normal(size=(2, 3, 2)).astype(np.float32),
        rewards=rng.normal(size=(2, 3)).astype(np.float32),
        ends=np.array([[False, False, True], [False, False, False]]),
        mask=mask,
        first=np.array([True, False]),
    )
    noise = rng.normal(size=(2, 4, 3)).astype(np.float32)
    drawn = draw_sequences(batch, noise, device=torch.device("cpu"))
    expected = batch.mu + np.sqrt(np.exp(batch.logvar)) * noise
    np.testing.assert_allclose(drawn.z.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert drawn.restart.tolist() == [[True, False, False], [False, False, False]]
    assert np.array_equal(drawn.mask.numpy(), mask)
    loss = memory_loss(predict(MDNRNN(FULL), drawn)[0], drawn)
    assert torch.isfinite(loss["loss"])


def test_a_tiny_memory_learns_a_two_mode_toy_to_its_entropy():
    sigma = 0.05
    entropy = math.log(2) + 0.5 * math.log(2 * math.pi * math.e * sigma**2)
    rng = np.random.default_rng(0)
    modes = rng.choice([-1.0, 1.0], (256, 9, 1))
    z = torch.tensor(modes + sigma * rng.standard_normal(modes.shape), dtype=torch.float32)
    batch = Sequences(z, torch.zeros(256, 8, 1), torch.ones(256, 8, dtype=torch.bool))
    model = MDNRNN(MDNRNNShape(1, 1, 4, num_mixtures=2), seed=0)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(250):
        loss = memory_loss(predict(model, batch)[0], batch)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) == pytest.approx(entropy, abs=0.06)
    assert entropy < -0.8 < 1.4 < 0.5 * math.log(2 * math.pi * math.e)  # one Gaussian cannot


def test_a_memory_remembers_what_the_latent_no_longer_shows():
    rng = np.random.default_rng(1)
    first = rng.choice([-1.0, 1.0], (128, 1, 1)).astype(np.float32)
    z = np.zeros((128, 6, 1), np.float32)
    z[:, :1], z[:, 5:] = first, first  # shown once, asked for five steps later
    mask = torch.zeros(128, 5, dtype=torch.bool)
    mask[:, 4] = True
    batch = Sequences(torch.tensor(z), torch.zeros(128, 5, 1), mask)
    model = MDNRNN(MDNRNNShape(1, 1, 8, num_mixtures=1), seed=0)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    falling = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.98)  # or it swings about
    for _ in range(150):
        prediction, _ = predict(model, batch)
        loss = memory_loss(prediction, batch)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()
    said = prediction.mean[:, 4, 0, 0].detach().numpy()
    np.testing.assert_allclose(said, first[:, 0, 0], atol=0.2)
