"""The actor and the critic against plain sums, torch's distributions, CMA-ES's C and toy worlds."""

import math

import numpy as np
import pytest
import torch
from dream_samples import SPEC, A, H, Z, build
from scipy import stats

from stages.contracts import ActionSpec, Step
from stages.control.actor_critic import (
    LAMBDA,
    Actor,
    ActorCritic,
    Dreamt,
    Learner,
    Terms,
    advantages,
    dream,
)
from stages.control.controllers import Controllers, ControllerShape, to_actions
from stages.control.pilot import Choices, Dreamer, PilotShape
from stages.worlds.driving import drive

BOX = ActionSpec("box", 2, low=(-1.0, 0.0), high=(1.0, 1.0))
CHOICE = ActionSpec("choice", 3)


def shape(*, hidden=0, bias=False, inputs=Z + 2 * H, outputs=A):
    return ControllerShape(inputs, outputs, hidden=hidden, bias=bias)


def some_c(made, *, seed=3, size=0.3):
    return size * np.random.default_rng(seed).standard_normal(made.num_parameters)


def test_advantages_are_the_sum_of_what_later_steps_say():
    random = np.random.default_rng(1)
    num_steps, discount = 9, 0.9
    rewards, values = random.standard_normal((2, num_steps, 3))
    kept, last = random.uniform(0.2, 1, (num_steps, 3)), random.standard_normal(3)
    found = advantages(
        *(torch.from_numpy(part) for part in (rewards, kept, values, last)), discount=discount
    )
    follows = np.vstack((values[1:], last))
    surprise = rewards + discount * kept * follows - values
    for step in range(num_steps):
        expected = np.zeros(3)
        for later in range(step, num_steps):
            weight = (discount * LAMBDA) ** (later - step) * kept[step:later].prod(axis=0)
            expected += weight * surprise[later]
        np.testing.assert_allclose(found[step], expected, rtol=1e-9)


def test_a_perfect_critic_is_never_surprised():
    """A reward of 1 for ever, with a constant chance of an end: worth 1 / (1 - discount kept)."""
    kept = torch.full((50, 2), 0.97, dtype=torch.float64)
    worth = 1 / (1 - 0.99 * 0.97)
    values = torch.full_like(kept, worth)
    found = advantages(torch.ones_like(kept), kept, values, values[0], discount=0.99)
    assert found.abs().max() < 1e-9


@pytest.mark.parametrize(("hidden", "bias"), [(0, False), (0, True), (5, True)])
def test_its_mean_is_the_controller_that_is_kept(hidden, bias):
    made = shape(hidden=hidden, bias=bias, inputs=7, outputs=2)
    parameters = some_c(made)
    model = ActorCritic(made, seed=1)
    model.scale.copy_(torch.linspace(0.1, 4, 7))
    model.load(parameters)
    inputs = torch.randn(20, 7)
    controllers = Controllers(made, parameters[None].astype(np.float32))
    expected = controllers(inputs, torch.zeros(20, dtype=torch.int64))
    found = torch.tanh(model.means(inputs / model.scale))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(model.parameters_of_c(), parameters, rtol=1e-5)


def test_how_likely_an_action_was():
    means, drawn = torch.randn(50, 2), torch.randn(50, 2)
    for sigma in (0.3, 1.2):
        expected = torch.distributions.Normal(means, sigma).log_prob(drawn).sum(-1)
        found = Actor(BOX, ()).log_chance(means, drawn, sigma)
        differ = found - expected
        assert differ.max() - differ.min() < 1e-4, "up to what does not depend on the means"
        chosen = torch.arange(50) % 2
        expected = torch.distributions.Categorical(logits=torch.tanh(means) / sigma).log_prob(
            chosen
        )
        found = Actor(CHOICE, ()).log_chance(means, chosen, sigma)
        torch.testing.assert_close(found, expected)


def test_what_is_drawn_has_the_means_spread_and_shares():
    many, sigma = 20_000, 0.4
    seeds, mean = torch.arange(many), torch.tensor([0.7, -0.2, 0.1])
    drawn = Actor(BOX, ()).draw(mean[:2].expand(many, 2), seeds, 4, sigma)
    np.testing.assert_allclose(drawn.mean(0), mean[:2], atol=0.015)
    assert stats.kstest(drawn[:, 0], "norm", (0.7, sigma)).pvalue > 1e-3
    chosen = Actor(CHOICE, ()).draw(mean.expand(many, 3), seeds, 4, sigma)
    shares = np.bincount(chosen, minlength=3) / many
    np.testing.assert_allclose(shares, torch.softmax(torch.tanh(mean) / sigma, 0), atol=0.015)


def test_without_noise_it_dreams_what_the_controller_dreams():
    made, seeds = shape(), list(range(30))
    parameters = some_c(made).astype(np.float32)
    for end in ("hard", "expected", "sampled"):
        world = build(end=end, end_weight=3.0)
        pilot = PilotShape(features="zch", bias=False)
        controllers = Controllers(made, parameters[None])
        outcomes = drive(world, Dreamer(world, Choices(controllers, pilot, SPEC)), seeds)
        model = ActorCritic(made, seed=1)
        model.load(parameters)
        dreamt = dream(world, model, Actor(SPEC, ()), "zch", seeds, sigma=1e-7, tick=lambda: None)
        expected = [outcome.total_reward for outcome in outcomes]
        np.testing.assert_allclose(dreamt.returns, expected, rtol=1e-3)
        assert dreamt.num_frames == sum(outcome.num_frames for outcome in outcomes)
        counted = (dreamt.rewards * dreamt.chance).sum(0)
        np.testing.assert_allclose(counted, expected, rtol=1e-3)
        assert torch.isfinite(dreamt.inputs).all()
        onwards = dreamt.chance[:-1] * dreamt.kept[:-1]
        torch.testing.assert_close(onwards, dreamt.chance[1:], atol=1e-5, rtol=1e-4)


def test_a_dream_is_cut_where_it_is_told_to_be():
    ticks = []
    made = shape()
    model = ActorCritic(made, seed=1)
    dreamt = dream(
        build(end="expected", end_weight=3.0),
        model,
        Actor(SPEC, ()),
        "zch",
        [1, 2],
        sigma=0.5,
        max_steps=4,
        tick=lambda: ticks.append(1),
    )
    assert len(dreamt.inputs) == len(ticks) == 4


class Corridor:
    """A toy: z is drawn anew at every step, and a step earns z * action; nothing ever ends."""

    action_spec = SPEC

    def __init__(self, num_steps):
        self._num_steps = num_steps

    def reset(self, seeds):
        self._random = torch.Generator().manual_seed(seeds[0])
        self._step = 0
        self.live = np.ones(len(seeds), dtype=bool)
        self.chance = torch.ones(len(seeds))
        self._draw()

    def _draw(self):
        self.latent = torch.randn(len(self.live), 2, generator=self._random)
        self.state = torch.zeros(len(self.live), 1), torch.zeros(len(self.live), 1)

    def step(self, actions):
        reward = self.latent[:, 0].double().numpy() * actions[:, 0]
        self._draw()
        self._step += 1
        if self._step == self._num_steps:
            self.live = ~self.live
        nobody = np.zeros(len(reward), dtype=bool)
        return Step(None, reward, nobody, ~self.live, np.ones(len(reward), dtype=int), {})


def climbed(world, made, actor, *, generations, features="z", **terms):
    model = ActorCritic(made, seed=1)
    learner = Learner(model, actor, Terms(**{"discount": 0.9, "passes": 3, **terms}))
    returns = []
    for generation in range(generations):
        seeds = range(1000 * generation, 1000 * generation + 64)
        dreamt = dream(world, model, actor, features, seeds, sigma=0.5, tick=lambda: None)
        if not generation:
            learner.measure(dreamt)
            dreamt = dream(world, model, actor, features, seeds, sigma=0.5, tick=lambda: None)
        order = torch.Generator().manual_seed(generation)
        learner.learn(dreamt, 0.5, order=order, tick=lambda: None)
        returns.append(dreamt.returns.mean())
    return model, returns


def test_it_learns_to_do_what_pays():
    """With a = tanh(w z) the reward is |z| at best, 0.8 of a step; noise costs a little."""
    made = shape(inputs=2)
    model, returns = climbed(
        Corridor(20), made, Actor(SPEC, ()), generations=60, learning_rate=0.02
    )
    wanted, idle = model.parameters_of_c()
    assert wanted > 1 and abs(idle) < wanted / 5
    assert np.mean(returns[:2]) < 4
    assert np.mean(returns[-5:]) > 0.75 * 20 * math.sqrt(2 / math.pi)


def test_hidden_units_learn_too():
    made = shape(inputs=2, hidden=6)
    model, returns = climbed(
        Corridor(20), made, Actor(SPEC, ()), generations=60, learning_rate=0.02
    )
    assert np.mean(returns[-5:]) > 0.75 * 20 * math.sqrt(2 / math.pi)
    assert (model.parameters_of_c() != 0).all()


def test_it_learns_to_live_in_a_dream():
    world = build(end="expected", end_weight=1.0, max_steps=40)
    _, returns = climbed(
        world, shape(), Actor(SPEC, ()), generations=40, features="zch", learning_rate=0.01
    )
    assert np.mean(returns[-5:]) > 1.15 * np.mean(returns[:5])


def test_measuring_changes_no_controller():
    made = shape()
    model = ActorCritic(made, seed=1)
    parameters = some_c(made)
    model.load(parameters)
    learner = Learner(model, Actor(SPEC, ()), Terms(1e-3, 0.99, 1))
    dreamt = dream(
        build(end="expected"), model, Actor(SPEC, ()), "zch", range(50), sigma=0.5, tick=int
    )
    raw = dreamt.inputs[dreamt.chance > 0]
    learner.measure(dreamt)
    np.testing.assert_allclose(model.parameters_of_c(), parameters, rtol=1e-4)
    size = raw.square().mean(0).sqrt()
    torch.testing.assert_close(model.scale, size.clamp(min=0.1 * float(size.median())))
    assert model.worth > 1, "of some steps that earn 1 each"


def test_a_choice_is_the_largest_mean_when_it_is_kept():
    made = shape(inputs=4, outputs=3)
    model = ActorCritic(made, seed=1)
    model.load(some_c(made, size=1.0))
    inputs = torch.randn(40, 4)
    kept = to_actions(torch.tanh(model.means(inputs)), CHOICE, ())
    drawn = Actor(CHOICE, ()).draw(model.means(inputs), torch.arange(40), 0, 1e-6)
    assert (drawn.numpy() == kept).all()


def test_steps_of_lanes_that_are_gone_teach_nothing():
    made = shape(inputs=2)
    learnt = []
    for noise in (0.0, 1e6):
        model = ActorCritic(made, seed=1)
        random = torch.Generator().manual_seed(2)
        inputs = torch.randn(6, 8, 2, generator=random)
        drawn = torch.randn(6, 8, 1, generator=random)
        rewards = torch.randn(6, 8, generator=random)
        chance = torch.ones(6, 8)
        chance[3:, :4] = 0
        kept = torch.ones(6, 8)
        kept[2:, :4] = 0
        gone = (chance == 0).float()
        rewards = rewards + noise * gone
        inputs = inputs + noise * gone[..., None]
        dreamt = Dreamt(inputs, drawn, rewards, kept, chance, torch.zeros(8, 2), np.zeros(8), 36)
        learner = Learner(model, Actor(SPEC, ()), Terms(0.01, 0.9, 2))
        order = torch.Generator().manual_seed(0)
        learner.learn(dreamt, 0.5, order=order, tick=lambda: None)
        learnt.append(model.parameters_of_c())
    np.testing.assert_array_equal(*learnt)
