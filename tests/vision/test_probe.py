"""The frames on which V is judged while an agent is scored."""

import numpy as np
import pytest
import torch

from stages.errors import NumbersBad
from stages.vision.probe import EVERY, Probe
from stages.vision.vae import VAE

SEEDS = [21, 22]


def watched(num_steps):
    """A probe that saw so many steps of two lanes, of which the first ends after step 60."""
    probe = Probe()
    random = np.random.default_rng(0)
    shown = random.integers(0, 256, (num_steps + 1, 2, 64, 64, 3), dtype=np.uint8)
    probe.on_reset(shown[0], SEEDS)
    for step in range(1, num_steps + 1):
        live = np.array([step <= 60, True])
        probe.on_step(live, shown[step], None, None, live)
    return probe, shown


def test_a_frame_of_a_live_lane_is_kept_every_so_often():
    probe, shown = watched(2 * EVERY + 3)
    np.testing.assert_array_equal(probe.frames, [shown[EVERY, 0], shown[2 * EVERY, 1]])
    model = VAE(4, seed=0).eval()
    errors = probe.errors(model)
    with torch.no_grad():
        for frame, error in zip(probe.frames, errors, strict=True):
            image = torch.from_numpy(frame / np.float32(255)).permute(2, 0, 1)[None]
            mu, _ = model.encode(image)
            assert error == pytest.approx(
                float((model.decode(mu) - image).square().sum()), rel=1e-4
            )


def test_without_frames_there_is_no_error():
    assert Probe().errors(VAE(4)) == []


def test_an_error_that_is_no_number_names_its_episode():
    probe, _ = watched(2 * EVERY)
    model = VAE(4, seed=0).eval()
    with torch.no_grad():
        model.decoder.deconv4.bias.fill_(float("nan"))
    with pytest.raises(NumbersBad, match="V's error is nan for a frame of the episode of seed 21"):
        probe.errors(model)
