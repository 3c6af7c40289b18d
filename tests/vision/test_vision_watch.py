"""A V that learns nothing is noticed while it is trained; one that learns is not."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stages import train_vision
from stages.events import OnceEach, Silent
from stages.training.parts import crew
from stages.vision.baselines import mean_image, mean_image_error
from stages.vision.vae import VAE
from stages.vision.watch import EVERY, FIRST_STEP, Watch
from stages.vision.watch import mean_image_error as error_of_batch_mean

DUE = FIRST_STEP - 1  # number, from 0, of the first step that is looked at
Z = 8


class Heard(Silent):
    """Keeps what was told."""

    def __init__(self):
        self.texts = []

    def emit(self, event):
        assert event.warning
        self.texts.append(event.text)


def noise(num_frames=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_frames, 64, 64, 3), dtype=np.uint8)


def train_steps(model, frames, steps, num_threads=1):
    """The loss of `wm train-vision` at these steps, computed as in training; what was told."""
    heard = Heard()
    watch = Watch(OnceEach(heard))
    session = SimpleNamespace(device=torch.device("cpu"), threads=num_threads)
    config = train_vision.Config(latent_size=Z, precision="float32")
    loss = train_vision._loss(model, lambda _: frames, session, config, 0, watch)
    with crew(num_threads) as threads:
        for step in steps:
            threads.learn(loss(step), model.parameters())
    watch.conclude()
    return heard.texts


def collapsed():
    """A V whose latents are the same for every frame, as after training at 1e-2."""
    model = VAE(Z, seed=1)
    with torch.no_grad():
        model.encoder.mu.weight.zero_()
    return model


@pytest.mark.parametrize("num_threads", [1, 2])
def test_latents_that_never_vary_are_told_of_once(num_threads):
    texts = train_steps(collapsed(), noise(), [DUE, DUE + EVERY, DUE + 2 * EVERY], num_threads)
    assert len(texts) == 2
    assert f"None of V's {Z} latent dimensions varies" in texts[0]
    assert f"after {FIRST_STEP} steps" in texts[0]
    assert "no better than one mean image" in texts[1]


def test_early_steps_and_small_batches_say_nothing():
    assert train_steps(collapsed(), noise(), [0, EVERY - 1, DUE - EVERY, DUE - 1, DUE + 1]) == []
    assert train_steps(collapsed(), noise(8), [DUE]) == []


def look(mu, error, frames):
    heard = Heard()
    watch = Watch(OnceEach(heard))
    watch.begin(DUE, frames)
    for rows in (slice(0, 12), slice(12, None)):  # parts of unlike size
        watch.see(torch.from_numpy(mu[rows]), torch.tensor(error))
    watch.conclude()
    return heard.texts


@pytest.mark.parametrize(
    ("alive", "told"), [(0, "None of"), (1, "Only 1 of"), (3, "Only 3 of"), (4, ""), (32, "")]
)
def test_an_eighth_of_the_dimensions_should_be_alive(alive, told):
    mu = np.random.default_rng(0).standard_normal((200, 32)).astype(np.float32)
    mu[:, alive:] *= 0.05  # a variance of 0.0025
    texts = look(mu, 0.0, noise(200))
    assert len(texts) == bool(told)
    assert all(told in text for text in texts)


def test_pictures_are_held_against_the_mean_image_of_the_batch():
    frames = noise(40)
    squares = mean_image_error(mean_image([frames]), [frames]) * 40 / 39  # of another frame
    assert error_of_batch_mean(frames) == pytest.approx(squares, rel=1e-5)
    mu = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    assert look(mu, 0.99 * squares, frames) == []
    (text,) = look(mu, 1.01 * squares, frames)
    assert f"error {1.01 * squares:.1f}, the mean image's {squares:.1f}" in text
