"""Dreams k steps on: against loops over M's own methods, and a toy whose answers are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from stages.errors import NumbersBad
from stages.memory import horizon
from stages.memory.dreaming import DreamingMemory
from stages.memory.horizon import dream, measured, useful_steps
from stages.memory.lags import Lags, LagSums
from stages.memory.losses import Sequences, held_out_errors
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape
from stages.memory.noise import normals, uniforms
from stages.memory.starts import Episodes, Place, choose_places, gather_starts

FULL = MDNRNNShape(3, 2, 8, num_mixtures=2, reward_head=True, end_head=True, restart_flag=True)
FLAT = Lags(np.zeros(3), np.ones(3), {})


def lively(shape, seed=1):
    model = MDNRNN(shape, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
        if model.wide is not None:
            model.wide.weight.mul_(0.2)  # ReLUs have no bounds, and a dream would explode
        if model.after is not None:
            model.before.weight.mul_(0.3)
            model.after.weight.mul_(0.1)
    return model


def recorded(z, actions, *, rewards=None, ended=True, noise=0.0, lengths=None):
    """Episodes of z [B, T + 1, Z], all of them ending or all of them cut."""
    num, steps = actions.shape[:2]
    mask = np.arange(steps) < np.array(lengths or [steps] * num)[:, None]
    ends = np.zeros((num, steps), np.float32)
    if ended:
        ends[range(num), mask.sum(1) - 1] = 1
    first = np.zeros((num, steps), bool)
    first[:, 0] = True
    rewards = np.zeros((num, steps)) if rewards is None else rewards
    arrays = (z, actions, mask, rewards.astype(np.float32), ends, first)
    drawn = Sequences(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))
    return Episodes(drawn, z - noise, np.full_like(z, -4.0))


def noisy(lengths, shape=FULL, seed=0):
    rng = np.random.default_rng(seed)
    size = (len(lengths), max(lengths))
    z = rng.standard_normal((size[0], size[1] + 1, shape.latent_size)).astype(np.float32)
    actions = rng.standard_normal((*size, shape.action_size)).astype(np.float32)
    return recorded(z, actions, rewards=rng.standard_normal(size), lengths=lengths, noise=0.1)


# ---------------------------------------------------------------- against M's own methods, any M


WIDE = replace(FULL, head_hidden=9)
BLOCKS = replace(WIDE, joint_mixture=True, num_blocks=3, block_hidden=6)


@pytest.mark.parametrize("shape", [FULL, WIDE, BLOCKS])
def test_a_dream_is_a_loop_over_ms_steps_with_the_noise_of_its_lane(shape):
    model, batch, at = lively(shape), noisy([9, 6]), [1, 3, 7]
    places = [Place(0, 0), Place(0, 4), Place(1, 2)]
    starts, _ = gather_starts(model, [batch], places, at)
    dreams = dream(model, starts, at=at, seed=50, end_weight=4.0, num_dreams=5)
    found = dict(zip(at, dreams, strict=True))
    for lane in range(15):
        start, seed = lane // 5, torch.tensor([50 + lane])
        z = torch.from_numpy(starts.now[[start]])
        state = (starts.state[0][[start]], starts.state[1][[start]])
        earned, alive, kept = 0.0, True, 1.0
        for step in range(1, 8):
            action = starts.actions[[start], step - 1]
            restart = torch.tensor([step == 1 and places[start].step == 0])
            with torch.no_grad():
                state = model.advance(z, action, state, restart)
                seen = model.seen(state[0], z, action)
                reward, logit = model.other_heads(seen)
                drawn = {"uniform": uniforms(seed, step, 3, stream=1)}
                drawn["noise"] = normals(seed, step, 3, stream=2)
                z = model.draw(seen, **drawn)
            odds = math.exp(logit)
            earned += float(reward)
            alive = alive and odds <= 1
            kept = kept / (1 + odds / 4)
            if step in at:
                shown = found[step]
                torch.testing.assert_close(shown.z[lane], z[0], atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(shown.seen[lane], seen[0], atol=1e-4, rtol=1e-4)
                told = (shown.earned[lane], shown.alive[lane], shown.kept[lane])
                assert told == pytest.approx((earned, float(alive), kept), rel=1e-3)


@pytest.mark.parametrize("shape", [FULL, BLOCKS])
def test_one_step_on_from_everywhere_is_the_held_out_error(shape):
    model, batch = lively(shape), noisy([9, 6, 1])
    places = choose_places([9, 6, 1], np.random.default_rng(0))
    assert len(places) == 16
    starts, known = gather_starts(model, [batch], places, [1])
    found = measured(model, starts, known, FLAT, at=[1], seed=3, end_weight=10.0)
    errors = held_out_errors(model, [batch.drawn])
    (row,) = found["horizon"]
    assert row["nll"] == pytest.approx(errors["nll"], rel=1e-5)
    assert row["reward"]["error"] ** 2 == pytest.approx(errors["reward"], rel=1e-4)
    assert found["ends"]["steps"] == 16
    assert found["ends"]["observed"] == pytest.approx(3 / 16)


def test_the_marginal_is_the_mean_density_over_dreams():
    """Beside scipy's densities, dream by dream and component by component."""
    model, batch, at = lively(FULL), noisy([9, 6]), [1, 4]
    places = choose_places([9, 6], np.random.default_rng(0))
    starts, known = gather_starts(model, [batch], places, at)
    row = measured(model, starts, known, FLAT, at=at, seed=3, end_weight=10.0)["horizon"][1]
    *_, dreamt = dream(model, starts, at=at, seed=3, end_weight=10.0)
    with torch.no_grad():
        said = model.heads(dreamt.seen)
    parts = (said.log_weight.exp(), said.mean, said.log_sigma.exp())
    weight, mean, sigma = (part.unflatten(0, (-1, 16)).numpy() for part in parts)  # [S, P, Z, K]
    nll, error, spread = [], [], []
    for number in np.flatnonzero(starts.left >= 4):
        z = starts.later[number, 1][None, :, None]
        density = weight[number] * stats.norm(mean[number], sigma[number]).pdf(z)
        nll.append(-np.log(density.sum(-1).mean(0)))
        means = (weight[number] * mean[number]).sum(-1)  # [P, Z]
        error.append((means.mean(0) - starts.later_mu[number, 1]) ** 2)
        spread.append(means.var(0, ddof=1))
    assert row["starts"] == len(nll) == 9
    assert row["nll"] == pytest.approx(np.mean(nll), rel=1e-5)
    assert row["error"] == pytest.approx(np.sqrt(np.mean(error)), rel=1e-5)
    assert row["spread"] == pytest.approx(np.sqrt(np.mean(spread)), rel=1e-5)


def test_the_simple_forecasts_are_numpys():
    model, batch, at = lively(FULL), noisy([9, 6]), [1, 4]
    places = choose_places([9, 6], np.random.default_rng(0))
    starts, known = gather_starts(model, [batch], places, at)
    lags = Lags(np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 3.0]), {4: np.array([2, 3, 4.0])})
    rows = measured(model, starts, known, lags, at=at, seed=3, end_weight=10.0)["horizon"]
    assert rows[0]["nll_held"] is None
    z, pairs = batch.drawn.z.numpy(), []
    for row, step in places:
        if step + 4 <= [9, 6][row]:
            pairs.append((z[row, step], z[row, step + 4]))
    now, later = (np.array(part, dtype=float) for part in zip(*pairs, strict=True))
    wanted = {
        "nll_held": -stats.norm(now, np.sqrt(lags.change[4])).logpdf(later).mean(),
        "nll_mean": -stats.norm(lags.mean, np.sqrt(lags.variance)).logpdf(later).mean(),
        "error_held": np.sqrt(np.mean((now - later) ** 2)),
        "error_mean": np.sqrt(np.mean((later - 0.1 - lags.mean) ** 2)),
        "distance_real": np.sqrt(np.mean((later - 0.1 - lags.mean) ** 2)),
        "entropy_floor": stats.norm(0, math.exp(-2)).entropy(),
    }
    for name, value in wanted.items():
        assert rows[1][name] == pytest.approx(value, rel=1e-5), name


def test_the_same_again_is_the_same_and_another_seed_is_not():
    model, batch, at = lively(FULL), noisy([9, 6]), [1, 4]
    places = choose_places([9, 6], np.random.default_rng(0))
    starts, known = gather_starts(model, [batch], places, at)
    ticks = []
    one, same, other = (
        measured(
            model, starts, known, FLAT, at=at, seed=seed, end_weight=1.0,
            tick=lambda done, total: ticks.append((done, total)),
        )
        for seed in (3, 3, 2**40)
    )  # fmt: skip
    assert one == same
    assert one["horizon"][0]["nll"] == other["horizon"][0]["nll"]  # nothing is drawn before
    assert one["horizon"][1]["nll"] != other["horizon"][1]["nll"]
    assert ticks == [(step, 4) for step in (1, 2, 3, 4)] * 3


def test_dreams_that_are_no_numbers_are_refused():
    model, batch = lively(FULL), noisy([9, 6])
    starts, known = gather_starts(model, [batch], [Place(0, 0)], [1])
    with torch.no_grad():
        model.head.bias.fill_(1e38)
    with pytest.raises(NumbersBad, match="after one step"):
        measured(model, starts, known, FLAT, at=[1], seed=0, end_weight=1.0)


def test_lost_dreams_stand_still_and_are_counted(monkeypatch):
    class Bursting(DreamingMemory):
        """Every fourth lane explodes when it dreams its third step."""

        steps = 0

        def draw(self, h, *, uniform, noise, temperature):
            self.steps += 1
            z = super().draw(h, uniform=uniform, noise=noise, temperature=temperature)
            if self.steps == 3:
                z[::4] = torch.tensor(1e30)
            return z

    monkeypatch.setattr(horizon, "DreamingMemory", Bursting)
    model, batch, at = lively(FULL), noisy([9, 6]), [1, 2, 3, 4, 5]
    starts, _ = gather_starts(model, [batch], [Place(0, 0), Place(1, 0)], at)
    found = list(dream(model, starts, at=at, seed=0, end_weight=1.0))
    assert [one.lost for one in found] == [0, 0, 0.25, 0.25, 0.25]
    for later in found[2:]:
        assert torch.equal(later.z[::4], found[1].z[::4])
        assert not torch.equal(later.z[1::4], found[1].z[1::4])
    assert torch.isfinite(found[-1].z).all()


# ------------------------------------------------------------- a toy whose answers are known

PHI, PUSH, SIGMA, SMALL = 0.8, 0.3, 0.2, 0.01


def linear(*, phi=PHI, sigma=SIGMA, end_logit=None, reward=False):
    """M of z' = phi z + PUSH a + sigma n, which rewards z + PUSH / phi a; h is SMALL times that."""
    shape = MDNRNNShape(1, 1, 1, num_mixtures=1, reward_head=reward, end_head=end_logit is not None)
    model = MDNRNN(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.lstm.bias.copy_(torch.tensor([30.0, -30.0, 0.0, 30.0]))  # take, forget, new, show
        model.lstm.weight_ih[2] = SMALL * torch.tensor([1.0, PUSH / phi])
        model.head.weight[1] = phi / SMALL
        model.head.bias[2] = math.log(sigma)
        if reward:
            model.reward_head.weight.fill_(1 / SMALL)
        if end_logit is not None:
            model.end_head.bias.fill_(end_logit)
    return model


def walk(num, steps, *, phi=PHI, sigma=SIGMA, seed=0):
    """Episodes of the toy from its stationary spread, and rewards as its M foresees them."""
    rng = np.random.default_rng(seed)
    actions = rng.choice([-1.0, 1.0], (num, steps))
    z = np.zeros((num, steps + 1))
    z[:, 0] = rng.normal(0, 0.6, num)
    for step in range(steps):
        noise = sigma * rng.standard_normal(num)
        z[:, step + 1] = phi * z[:, step] + PUSH * actions[:, step] + noise
    rewards = z[:, :-1] + PUSH / phi * actions
    return recorded(
        z[..., None].astype(np.float32), actions[..., None].astype(np.float32),
        rewards=rewards, ended=False,
    )  # fmt: skip


def toy_rows(model, batch, at, *, end_weight=1.0):
    num = len(batch.mu)
    places = [Place(episode, 0) for episode in range(num)]
    starts, known = gather_starts(model, [batch], places, at)
    sums = LagSums(at, 1)
    for z in batch.mu:
        sums.add(z)
    return measured(model, starts, known, sums.fitted(), at=at, seed=9, end_weight=end_weight)


def foreseen(batch, lag):
    """Mean [B] and variance of the toy's z after `lag` steps, in closed form."""
    z, a = batch.mu[:, 0, 0], batch.drawn.actions[..., 0].numpy()
    mean = PHI**lag * z + sum(PHI ** (lag - 1 - step) * PUSH * a[:, step] for step in range(lag))
    return mean, SIGMA**2 * (1 - PHI ** (2 * lag)) / (1 - PHI**2)


@pytest.mark.parametrize("lag", [1, 2, 5, 20])
def test_a_memory_that_is_right_reaches_the_closed_form(lag):
    batch = walk(400, 20)
    row = toy_rows(linear(), batch, [lag])["horizon"][0]
    mean, variance = foreseen(batch, lag)
    z = batch.mu[:, lag, 0]
    best = -stats.norm(mean, math.sqrt(variance)).logpdf(z).mean()
    assert row["nll"] == pytest.approx(best, abs=1e-4 if lag == 1 else 0.05)
    if lag < 20:
        assert row["nll"] < min(row["nll_held"], row["nll_mean"])
    error = math.sqrt(np.mean((mean - z) ** 2))
    assert row["error"] == pytest.approx(error, abs=0.01)
    before_the_last = math.sqrt(max(0.0, variance - SIGMA**2))
    assert row["spread"] == pytest.approx(before_the_last, abs=0.005)
    assert row["distance"] == pytest.approx(row["distance_real"], rel=0.15)


def test_a_memory_that_is_wrong_is_seen_to_be():
    batch = walk(400, 20)
    right, lazy, sure, wild = (
        toy_rows(model, batch, [1, 5, 20])["horizon"]
        for model in (linear(), linear(phi=0.3), linear(sigma=0.02), linear(phi=0.999))
    )
    for wrong in (lazy, sure, wild):
        assert wrong[1]["nll"] > right[1]["nll"] + 0.1
    assert sure[1]["spread"] < 0.2 * right[1]["spread"]
    assert lazy[2]["distance"] < 0.8 * right[2]["distance"]
    assert wild[2]["distance"] > 1.5 * right[2]["distance"]


def test_rewards_that_are_foreseen_rightly_have_slope_one():
    batch = walk(400, 5)
    found = toy_rows(linear(reward=True), batch, [1, 5])["horizon"]
    assert found[0]["reward"]["error"] < 1e-3
    assert found[0]["reward"]["slope"] == pytest.approx(1, abs=1e-3)
    reward = found[1]["reward"]
    real = batch.drawn.rewards.numpy().sum(1)
    means = np.array([batch.mu[:, 0, 0], *(foreseen(batch, lag)[0] for lag in range(1, 5))])
    wanted = (means + PUSH / PHI * batch.drawn.actions[..., 0].numpy().T).sum(0)
    assert reward["real"] == pytest.approx(real.mean(), abs=1e-4)
    assert reward["foreseen"] == pytest.approx(wanted.mean(), abs=0.02)
    assert reward["error"] == pytest.approx(math.sqrt(np.mean((wanted - real) ** 2)), rel=0.06)
    assert reward["slope"] == pytest.approx(1, abs=0.05)


def test_survival_of_dreams_with_a_steady_risk():
    risk, weight = 0.1, 5.0
    odds = weight * risk / (1 - risk)  # what training with that weight teaches
    batch = walk(50, 8)
    found = toy_rows(linear(end_logit=math.log(odds)), batch, [1, 4, 8], end_weight=weight)
    for row in found["horizon"]:
        alive = row["alive"]
        assert alive["sampled"] == pytest.approx((1 - risk) ** row["steps"], rel=1e-4)
        assert alive["hard"] == alive["real"] == 1  # odds below 1: the cut never comes
    sure = toy_rows(linear(end_logit=0.1), batch, [1])["horizon"][0]["alive"]
    assert sure["hard"] == 0


def test_heads_that_are_not_there_say_nothing():
    found = toy_rows(linear(), walk(20, 3), [1])
    assert found["ends"] is None
    assert found["horizon"][0]["reward"] is None
    assert found["horizon"][0]["alive"] is None


def test_useful_steps_end_where_a_simple_forecast_is_as_good():
    def rows(*nlls):
        return [
            {"steps": steps, "nll": nll, "nll_held": held, "nll_mean": mean}
            for steps, (nll, held, mean) in zip((1, 2, 5), nlls, strict=True)
        ]

    assert useful_steps(rows((0, 1, 1), (0, 1, 1), (0, None, 1))) == 5
    assert useful_steps(rows((0, 1, 1), (1, 2, 1), (0, 1, 1))) == 1
    assert useful_steps(rows((2, 1, 3), (0, 1, 1), (0, 1, 1))) == 0
