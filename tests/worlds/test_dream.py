"""The dream against a plain loop per lane with the reference sampler, and against its contract."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from dream_samples import SHAPE, SPEC, A, H, Z, build, lively, starts

from stages.memory.dreaming import DreamingMemory
from stages.memory.mdn_rnn import MDNRNNShape
from stages.memory.mixture import sample
from stages.memory.noise import normals, uniforms
from stages.worlds import dream
from stages.worlds.dream import DreamTerms, DreamWorld, Inside

SEEDS = list(range(40, 60))


@pytest.fixture(autouse=True, scope="module")
def one_math_thread():
    torch.set_num_threads(1)


def steering(seed, step):
    """An action that depends on the lane's own seed and step alone."""
    return math.sin(seed * 1.3 + step)


def dreamt(world, seeds, *, steps=30):
    """Latents [T + 1, B, Z], rewards [T, B], and how every lane ended, of a whole dream."""
    seen, rewards = [world.reset(seeds).copy()], []
    last = None
    for step in range(steps):
        if not world.live.any():
            break
        actions = np.array([[steering(seed, step)] for seed in seeds], dtype=np.float32)
        last = world.step(actions)
        seen.append(last.observation.copy())
        rewards.append(last.reward)
    return np.stack(seen), np.stack(rewards), last


def plain(model, seed, terms, *, reward=1.0, begun=None):
    """One lane by M's own methods and the reference sampler: latents, rewards, ended, cut."""
    begun, key = begun or starts(reward), torch.tensor([seed])
    which = int(uniforms(key, 0, 1, stream=dream.FIRST)[0, 0] * len(begun.mu))
    z = torch.from_numpy(begun.mu[which : which + 1])
    z = z + math.exp(-1.5) * normals(key, 0, Z, stream=dream.NOISE)
    state, latents, rewards, chance = model.initial_state(1), [z], [], 1.0
    restarts = begun.inside is None or bool(begun.inside.first[which])
    if not restarts:
        state = tuple(torch.from_numpy(part[[which]]) for part in begun.inside[:2])
    for step in range(1, terms.max_steps + 1):
        a = torch.tensor([[steering(seed, step - 1)]], dtype=torch.float32)
        with torch.inference_mode():
            state = model.advance(z, a, state, torch.tensor([step == 1 and restarts]))
            told = model.heads(model.seen(state[0], z, a))
            z = sample(
                told,
                uniform=uniforms(key, step, Z, stream=dream.WEIGHTS),
                noise=normals(key, step, Z, stream=dream.NOISE),
                temperature=terms.temperature,
            )
        latents.append(z)
        earned = reward if told.reward is None else float(told.reward)
        rewards.append(earned * chance)
        odds = math.exp(float(told.end_logit)) / terms.end_weight
        if terms.end == "hard":
            ended = bool(told.end_logit > 0)
        elif terms.end == "expected":
            chance /= 1 + odds
            ended = chance < 0.01
        else:
            ended = bool(uniforms(key, step, 1, stream=dream.END)[0, 0] < odds / (1 + odds))
        if ended:
            return torch.cat(latents).numpy(), rewards, True, False
    return torch.cat(latents).numpy(), rewards, False, True


@pytest.mark.parametrize(
    ("end", "weight"), [("hard", 3.0), ("sampled", 1.0), ("sampled", 3.0), ("expected", 0.2)]
)
@pytest.mark.parametrize(("temperature", "units"), [(0.0, 0), (0.5, 0), (1.15, 0), (0.5, 9)])
def test_a_lane_is_a_plain_loop_over_m(end, weight, temperature, units):
    model = lively(replace(SHAPE, head_hidden=units), end_bias=0.5 if units else -2.0)
    terms = DreamTerms(temperature=temperature, max_steps=30, end=end, end_weight=weight)
    world = build(model, temperature=temperature, end=end, end_weight=weight)
    latents, rewards, last = dreamt(world, SEEDS)
    lengths = []
    for lane, seed in enumerate(SEEDS):
        expected, earned, ended, cut = plain(model, seed, terms)
        lengths.append(len(earned))
        np.testing.assert_allclose(latents[: len(expected), lane], expected, atol=2e-4)
        np.testing.assert_allclose(rewards[: len(earned), lane], earned, rtol=1e-3)
        assert (rewards[len(earned) :, lane] == 0).all(), "a lane that ended earns nothing"
        assert (last.terminated[lane], last.truncated[lane]) == (ended, cut)
        # It goes on repeating what it saw last.
        assert (latents[len(expected) :, lane] == latents[len(expected) - 1, lane]).all()
    assert len(set(lengths)) > 1, "dreams that all last as long would prove little"


def test_a_dream_inside_of_an_episode_goes_on_from_what_m_remembers():
    model, random, begun = lively(), np.random.default_rng(8), starts()
    h, c = random.uniform(-0.9, 0.9, (2, len(begun.mu), model.shape.hidden_size)).astype(np.float32)
    first = np.arange(len(begun.mu)) % 3 == 0
    begun = replace(begun, inside=Inside(h, c, first))
    latents, rewards, _ = dreamt(build(model, begun=begun, end_weight=3.0), SEEDS)
    chosen = set()
    for lane, seed in enumerate(SEEDS):
        expected, earned, *_ = plain(
            model, seed, DreamTerms(max_steps=30, end_weight=3.0), begun=begun
        )
        np.testing.assert_allclose(latents[: len(expected), lane], expected, atol=2e-4)
        np.testing.assert_allclose(rewards[: len(earned), lane], earned, rtol=1e-3)
        which = np.abs(begun.mu - expected[0]).sum(axis=1).argmin()
        chosen.add(bool(first[which]))
    assert chosen == {False, True}
    elsewhere, _, _ = dreamt(build(model, end_weight=3.0), SEEDS)
    assert not np.allclose(elsewhere[1], latents[1], atol=1e-2), "what M remembers matters"


def test_what_is_expected_is_the_mean_of_what_is_drawn_with_less_noise():
    seeds = list(range(3000))
    returns = {}
    for end in ("sampled", "expected"):
        _, rewards, _ = dreamt(build(end=end, end_weight=3.0), seeds)
        returns[end] = rewards.sum(axis=0)
    drawn, expected = returns["sampled"], returns["expected"]
    noise = np.hypot(drawn.std(), expected.std()) / math.sqrt(len(seeds))
    assert abs(drawn.mean() - expected.mean()) < 3.5 * noise
    assert expected.var() < drawn.var() / 2


def test_lanes_do_not_know_their_place():
    together, _, _ = dreamt(build(), SEEDS)
    for number in (0, 13, 19):
        alone, _, _ = dreamt(build(), [SEEDS[number]])
        both = min(len(alone), len(together))
        np.testing.assert_allclose(alone[:both, 0], together[:both, number], atol=1e-4)
    world = build()
    dreamt(world, SEEDS[:3])
    again, _, _ = dreamt(world, SEEDS)
    assert np.array_equal(again, together), "a dream before leaves nothing behind"


def test_rewards_are_ms_where_it_foresees_them():
    model = lively(MDNRNNShape(Z, A, H, 3, reward_head=True, end_head=True, restart_flag=True))
    terms = DreamTerms(max_steps=10)
    _, rewards, _ = dreamt(build(model, reward=None, max_steps=10), SEEDS)
    for lane, seed in enumerate(SEEDS[:5]):
        _, earned, _, _ = plain(model, seed, terms, reward=None)
        np.testing.assert_allclose(rewards[: len(earned), lane], earned, atol=1e-4)
    with pytest.raises(AssertionError, match="no reward"):
        build(reward=None)


def test_without_an_end_head_only_time_ends_a_dream():
    model = lively(MDNRNNShape(Z, A, H, 3))
    _, rewards, last = dreamt(build(model, max_steps=9), SEEDS[:2], steps=40)
    assert len(rewards) == 9
    assert last.truncated.all() and not last.terminated.any()


def test_first_latents_are_drawn_from_recorded_first_frames():
    world = build()
    first = world.reset(list(range(4000)))
    begun = starts()
    distance = np.abs(first[:, None] - begun.mu[None]).max(axis=2)
    nearest = distance.argmin(axis=1)
    spread = first - begun.mu[nearest]
    assert abs(spread.std() / math.exp(-1.5) - 1) < 0.05
    assert (np.bincount(nearest, minlength=7) > 4000 / 7 * 0.7).all(), "every one of them begins"


def test_dropout_is_one_mask_per_episode_and_spares_actions():
    world = build(dropout=0.25)
    world.reset(list(range(500)))
    z, h = world._kept
    np.testing.assert_allclose(z.unique().numpy(), [0, 4 / 3], rtol=1e-6)
    assert abs(float((h == 0).float().mean()) - 0.25) < 0.02
    before = [part.clone() for part in world._kept]
    world.step(np.zeros((500, 1), dtype=np.float32))
    assert all(torch.equal(a, b) for a, b in zip(before, world._kept, strict=True))
    plainly, _, _ = dreamt(build(), SEEDS)
    dropped, _, _ = dreamt(build(dropout=0.25), SEEDS)
    assert np.array_equal(plainly[0], dropped[0])
    assert not np.allclose(plainly[1], dropped[1])


def test_retired_lanes_stand_still_and_frames_are_counted():
    world = build(lively(end_bias=-50.0), repeat=4)
    world.reset(SEEDS[:3])
    world.retire(np.array([False, True, False]))
    step = world.step(np.zeros((3, 1), dtype=np.float32))
    assert step.num_frames.tolist() == [4, 0, 4]
    assert step.reward.tolist() == [1.0, 0.0, 1.0]
    assert world.live.tolist() == [True, False, True]


def test_a_step_that_was_returned_is_never_written_to():
    world = build()
    world.reset(SEEDS)
    first = world.step(np.zeros((len(SEEDS), 1), dtype=np.float32))
    kept = [np.copy(part) for part in (first.observation, first.terminated, first.reward)]
    for _ in range(8):
        world.step(np.ones((len(SEEDS), 1), dtype=np.float32))
    for part, copy in zip((first.observation, first.terminated, first.reward), kept, strict=True):
        assert np.array_equal(part, copy)


def test_a_memory_that_overflows_names_the_lane():
    from stages.errors import NumbersBad

    model = lively()
    with torch.no_grad():
        model.head.bias.fill_(float("inf"))
    world = build(model)
    world.reset(SEEDS)
    with pytest.raises(NumbersBad, match="dream is NaN or huge") as bad:
        world.step(np.zeros((len(SEEDS), 1), dtype=np.float32))
    assert bad.value.lane == 0


def test_a_dream_that_grows_without_bounds_ends_and_says_so():
    class Bursting(DreamingMemory):
        """After the first step lanes whose first uniform number is high leave all numbers."""

        def draw(self, h, *, uniform, noise, temperature):
            z = super().draw(h, uniform=uniform, noise=noise, temperature=temperature)
            return torch.where((uniform[:, :1] > 0.9) & (self.steps > 0), torch.inf * z, z)

        def advance(self, *words):
            self.steps = getattr(self, "steps", -1) + 1
            return super().advance(*words)

    model = lively(end_bias=-50.0)
    terms = DreamTerms(max_steps=30)
    world = DreamWorld(Bursting(model), starts(), SPEC, terms)
    latents, rewards, last = dreamt(world, SEEDS)
    keys = torch.tensor(SEEDS)
    drawn = torch.stack([uniforms(keys, step, 1, stream=dream.WEIGHTS)[:, 0] for step in range(31)])
    burst = (drawn[2:] > 0.9).int().argmax(0).numpy() + 2  # the step, from 1, of every lane
    some = (drawn[2:] > 0.9).any(0).numpy()
    assert some.any()
    assert (last.facts["diverged"] == some).all() and (last.terminated == some).all()
    assert (last.truncated == ~some).all()
    assert (rewards.sum(0)[some] == burst[some] - 1).all(), "the step itself earns nothing"
    assert np.isfinite(latents).all()
