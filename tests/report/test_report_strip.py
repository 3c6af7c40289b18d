"""The dream beside what came, against V and M in plain numpy."""

import json

import h5py
import numpy as np
import pytest
from oracles import world_models_numpy as models
from safetensors.numpy import load_file

from stages.artifacts.workspace import Workspace
from stages.report.strips import NUM_DREAMS, dream_beside

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def dreamt(micro_workspace):
    workspace = Workspace.open(micro_workspace)
    memory = workspace.newest("memory")
    assert memory is not None
    return dream_beside(workspace, memory)


@pytest.fixture(scope="module")
def episode(micro_workspace, dreamt):
    """Frames, mu and actions of the episode that was shown, found by its seed."""
    for number in range(20):
        name = f"shard-{number:05d}.h5"
        recorded = h5py.File(micro_workspace / "rollouts/0001" / name)
        place = np.flatnonzero(recorded["seeds"][:] == dreamt.seed)
        if len(place):
            states = slice(*recorded["observation_offsets"][place[0] : place[0] + 2])
            steps = slice(*recorded["step_offsets"][place[0] : place[0] + 2])
            latents = h5py.File(micro_workspace / "latents/0001" / name)
            return (
                recorded["observations"][states],
                latents["mu"][states].astype(np.float32),
                latents["actions"][steps],
            )
    raise AssertionError("no such episode")


def test_the_episode_was_held_out(micro_workspace, dreamt):
    """M's training share is 0.9: the summary tells how many episodes were held out."""
    told = json.loads((micro_workspace / "memory/0001/manifest.json").read_bytes())["summary"]
    assert told["held_out_episodes"] >= 1
    from stages.training.batches import split_episodes

    seeds = [
        int(seed)
        for path in sorted((micro_workspace / "latents/0001").glob("*.h5"))
        for seed in h5py.File(path)["seeds"][:]
    ]
    _, held_out = split_episodes(seeds, fraction=0.1)
    assert dreamt.seed in [seeds[number] for number in held_out]


def test_the_frames_are_those_that_were_recorded_and_what_v_makes_of_them(
    micro_workspace, dreamt, episode
):
    frames, _, _ = episode
    size = frames.shape[1]
    top, middle, bottom = np.split(dreamt.frames, 3, axis=0)
    expected = frames[dreamt.start + np.array(dreamt.steps)]
    assert (np.concatenate(list(expected), axis=1) == top).all()
    weights = load_file(micro_workspace / "vision/0001/weights.safetensors")
    mu, _ = models.encode(weights, expected)
    drawn = np.round(models.decode(weights, mu) * 255)
    found = np.stack(np.split(middle.astype(float), len(dreamt.steps), axis=1))
    assert found.shape[1:] == (size, size, 3)
    assert np.abs(found - drawn).max() <= 1
    assert (bottom[:, :size] == middle[:, :size]).mean() > 0.9, "the dream starts from what V saw"


def test_the_first_step_is_what_m_expects_after_the_real_past(micro_workspace, dreamt, episode):
    _, mu, actions = episode
    weights = load_file(micro_workspace / "memory/0001/weights.safetensors")
    shape = json.loads((micro_workspace / "memory/0001/manifest.json").read_bytes())["summary"][
        "shape"
    ]
    state = models.initial_state(1, shape["hidden_size"])
    for step in range(dreamt.start + 1):
        x = np.concatenate([mu[step], actions[step]])[None]
        state = models.lstm_step(weights, x, state)
    weight, mean, _ = models.mixture_head(
        weights, state[0], shape["num_mixtures"], shape["min_log_sigma"]
    )
    expected = (weight * mean).sum(-1)[0]
    error = np.sqrt(np.mean((expected - mu[dreamt.start + 1]) ** 2))
    assert dreamt.each.shape == (NUM_DREAMS, len(dreamt.held))
    assert dreamt.each[:, 1] == pytest.approx(error, rel=1e-4), "nothing was drawn before it"
    assert dreamt.together[1] == pytest.approx(error, rel=1e-4)
    assert np.ptp(dreamt.each[:, 2:], axis=0).min() > 0, "later dreams go their own ways"


def test_the_start_held_is_how_far_the_frames_go_from_it(dreamt, episode):
    _, mu, _ = episode
    past = mu[dreamt.start : dreamt.start + len(dreamt.held)]
    expected = [np.sqrt(np.mean((later - past[0]) ** 2)) for later in past]
    assert dreamt.held == pytest.approx(expected, rel=1e-5)
    assert dreamt.each[:, 0] == pytest.approx(0, abs=1e-6)
