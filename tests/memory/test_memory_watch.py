"""An M that learns nothing is noticed while it is trained; one that learns is not."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from stages.events import OnceEach, Silent
from stages.memory.losses import Sequences, training_loss
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape
from stages.memory.watch import EVERY, FIRST_STEP, Watch, gaussian_nll

SHAPE = MDNRNNShape(3, 2, 12, num_mixtures=2)
B, T = 8, 40


class Heard(Silent):
    """Keeps what was told."""

    def __init__(self):
        self.texts = []

    def emit(self, event):
        assert event.warning
        self.texts.append(event.text)


def waves(seed=0, *, still=False):
    """Latents that move in circles of their own, or stand still, with a little noise."""
    random = np.random.default_rng(seed)
    start = random.uniform(0, 2 * np.pi, (B, 1, 3))
    angle = start + (0 if still else 0.4 * np.arange(T + 1)[None, :, None])
    z = np.sin(angle) * (0 if still else 1) + (1e-6 if still else 0.02) * random.standard_normal(
        angle.shape
    )
    return Sequences(
        z=torch.from_numpy(z.astype(np.float32)),
        actions=torch.zeros(B, T, 2),
        mask=torch.ones(B, T, dtype=torch.bool),
    )


@pytest.fixture(scope="module")
def trained():
    """An M that has learnt the waves."""
    model = MDNRNN(SHAPE, seed=1)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(150):
        adam.zero_grad()
        training_loss(model, waves(step))["loss"].backward()
        adam.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


def asked(weights, batch, **changes):
    """What is told of an M with these weights, of which some are replaced."""
    model = MDNRNN(SHAPE, seed=1)
    model.load_state_dict(weights)
    with torch.no_grad():
        for name, change in changes.items():
            change(model.get_parameter(name.replace("__", ".")))
    heard = Heard()
    watch = Watch(OnceEach(heard))
    for step in (FIRST_STEP, FIRST_STEP + EVERY):
        watch.look(model, batch, step)
    return heard.texts


def test_an_m_that_learns_is_not_warned_of(trained):
    assert asked(trained, waves(999)) == []


def test_an_m_without_training_is_no_better_than_a_gaussian():
    (text,) = asked(MDNRNN(SHAPE, seed=1).state_dict(), waves(999))
    assert f"After {FIRST_STEP} steps M predicts the next latent no better" in text


def test_units_that_never_move_are_told_of(trained):
    def stop(parameter):
        parameter.zero_()

    weights = {f"lstm__{name}": stop for name in ("weight_ih", "weight_hh", "bias")}
    texts = asked(trained, waves(999), **weights)
    assert any("12 of M's 12 units never move" in text for text in texts)


def test_a_mixture_of_one_is_told_of(trained):
    def prefer_the_first(bias):
        bias.view(3, 3, 2)[0, :, 0] = 50

    texts = asked(trained, waves(999), head__bias=prefer_the_first)
    assert any("M uses 1 of its 2 Gaussians" in text for text in texts)


def test_sigmas_at_their_bound_are_told_of(trained):
    def shrink(bias):
        bias.view(3, 3, 2)[2] = -100

    texts = asked(trained, waves(999), head__bias=shrink)
    assert any("100% of M's sigmas stand at their lower bound" in text for text in texts)


def test_padding_is_not_looked_at(trained):
    batch = waves(999)
    batch.mask[:, 20:] = False
    batch.z[:, 21:] = float("nan")
    assert asked(trained, batch) == []
    batch.mask[:, 10:] = False
    assert asked(MDNRNN(SHAPE, seed=1).state_dict(), batch) == [], "80 steps say little"


def test_looking_changes_nothing(trained):
    model = MDNRNN(SHAPE, seed=1)
    model.load_state_dict(trained)
    state = torch.get_rng_state()
    Watch(OnceEach(Silent())).look(model, waves(999), FIRST_STEP)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_looks_late_and_now_and_then():
    watch = Watch(OnceEach(Silent()))
    due = [step for step in range(FIRST_STEP + 2 * EVERY + 1) if watch.due(step)]
    assert due == [FIRST_STEP, FIRST_STEP + EVERY, FIRST_STEP + 2 * EVERY]


def test_the_gaussian_is_the_one_of_the_latents():
    z = np.random.default_rng(0).normal([1, -2, 0], [0.5, 3, 1], (400, 3))
    expected = -norm.logpdf(z, z.mean(0), z.std(0)).mean()
    assert gaussian_nll(torch.from_numpy(z)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ([[0.0, 0.0], [0.0]], "Every one of the recorded rewards is 0.0: "),
        ([[0.0, 0.0], [1.0]], ""),
        ([[0.0, 2.0], [0.0, 2.0]], ""),
    ],
)
def test_what_a_head_cannot_learn_is_told_of(columns, told):
    heard = Heard()
    Watch(OnceEach(heard)).look_at_targets("rewards", map(np.array, columns))
    assert len(heard.texts) == bool(told)
    assert all(told in text and "memory.reward_head" in text for text in heard.texts)
