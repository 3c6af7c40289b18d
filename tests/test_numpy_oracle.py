"""A finished run read by numpy, h5py and safetensors alone answers as the package does."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import environment
from oracles import finished_run as oracle
from oracles import world_models_numpy as models

TESTS = Path(__file__).parent
pytestmark = pytest.mark.pipeline


def test_the_oracle_uses_nothing_of_ours():
    code = (
        "import sys\n"
        "import oracles.finished_run\n"
        "used = {name.partition('.')[0] for name in sys.modules}\n"
        "print(*sorted(used & {'torch', 'stages', 'wm_cli', 'gymnasium', 'cma', 'scipy'}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(PYTHONPATH=str(TESTS)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""


@pytest.fixture(params=["debug_workspace", "breakout_workspace", "doom_workspace"])
def finished(request):
    """All worlds in turn."""
    return request.getfixturevalue(request.param)


def package_actions(workspace, frames):
    """Actions of the package's own agent, one lane per episode; frames [B, T, H, W, C]."""
    from stages.agents import trained_agent
    from stages.artifacts.workspace import Workspace
    from stages.contracts import ActionSpec
    from stages.trials import load_pilot

    opened = Workspace.open(workspace)
    files, parameters = trained_agent(opened, opened.newest("control"))
    actions = opened.newest("rollouts").manifest.summary["actions"]
    spec = ActionSpec(
        actions["kind"], actions["size"], tuple(actions["low"]), tuple(actions["high"])
    )
    pilot = load_pilot(files, parameters[None], spec)
    pilot.reset(range(len(frames)))
    live = np.ones(len(frames), dtype=bool)
    return np.stack([pilot.act(frames[:, t], live) for t in range(frames.shape[1])], axis=1)


def test_actions_agree_on_the_recorded_frames(finished):
    agent = oracle.load_agent(finished)
    episodes = oracle.load_episodes(finished)[::3]
    length = min(len(episode.frames) for episode in episodes)
    frames = np.stack([episode.frames[:length] for episode in episodes])
    found = package_actions(finished, frames)
    answers = [oracle.drive(agent, each) for each in frames]
    if agent.actions["kind"] == "box":
        np.testing.assert_allclose(found, [actions for _, actions in answers], atol=1e-4, rtol=0)
        assert np.ptp(found, axis=1).max() > 1e-3, "actions that never change would prove nothing"
        return
    for lane, (outputs, actions) in enumerate(answers):
        best = np.sort(outputs, axis=1)
        clear = best[:, -1] - best[:, -2] > 1e-4
        assert clear.mean() > 0.9
        different = np.flatnonzero(found[lane] != actions)
        assert not clear[different[:1]].any(), "later steps follow from the first difference"


def test_latents_and_predictions_agree(finished):
    from stages.families import WEIGHTS, build_memory, load_into

    agent = oracle.load_agent(finished)
    episode, (mu, logvar) = oracle.load_episodes(finished)[-1], oracle.load_latents(finished)[-1]
    found_mu, found_logvar = models.encode(agent.vision, episode.frames)
    np.testing.assert_allclose(mu, found_mu, atol=2e-3, rtol=2e-3)  # stored as float16
    np.testing.assert_allclose(logvar, found_logvar, atol=2e-3, rtol=2e-3)

    import torch

    shape = agent.memory_shape
    vectors = episode.actions
    if agent.actions["kind"] == "choice":
        vectors = np.eye(shape["action_size"])[vectors]
    state = models.initial_state(1, shape["hidden_size"])
    first = np.arange(len(vectors)) == 0
    for z, a, flag in zip(found_mu, vectors, first, strict=False):
        inputs = [z, a, [flag]] if shape["restart_flag"] else [z, a]
        state = models.lstm_step(agent.memory, np.concatenate(inputs)[None], state)
    joint = shape.get("joint_mixture", False)
    mixtures = (shape["num_mixtures"], shape["min_log_sigma"], joint)
    weight, mean, sigma = models.mixture_head(agent.memory, state[0], *mixtures)

    memory = build_memory(shape)
    load_into(memory, oracle.find(finished, "memory")[0] / WEIGHTS)
    with torch.inference_mode():
        z = torch.from_numpy(found_mu[None, :-1].astype(np.float32))
        restart = torch.from_numpy(first[None]) if shape["restart_flag"] else None
        h, _ = memory.unroll(z, torch.from_numpy(vectors[None].astype(np.float32)), None, restart)
        prediction = memory.heads(h[:, -1])
    np.testing.assert_allclose(h[:, -1].numpy(), state[0], atol=1e-4)
    found = prediction.log_weight.exp().expand(weight.shape).numpy()
    np.testing.assert_allclose(found, weight, atol=1e-4)
    np.testing.assert_allclose(prediction.mean.numpy(), mean, atol=1e-4)
    np.testing.assert_allclose(prediction.log_sigma.exp().numpy(), sigma, atol=1e-4)
    if shape["end_head"]:
        logit = state[0] @ agent.memory["end_head.weight"].T + agent.memory["end_head.bias"]
        np.testing.assert_allclose(prediction.end_logit.numpy(), logit[0], atol=1e-4)


def test_the_saved_controller_is_the_mean_that_was_selected(finished):
    from safetensors.numpy import load_file

    folder, manifest = oracle.find(finished, "control")
    weights = load_file(folder / "weights.safetensors")
    tensors = [weights["layer0.weight"], weights.get("layer0.bias", np.zeros(0, np.float32))]
    joined = np.concatenate([tensor.ravel() for tensor in tensors])
    selected = load_file(folder / "search.safetensors")["selected"]
    assert np.array_equal(joined, selected.astype(np.float32))
    assert joined.size == manifest["summary"]["parameters"]


def test_a_controller_found_in_a_small_space_answers_as_docs_formats_says(micro_workspace):
    from safetensors.numpy import load_file

    folder, manifest = oracle.find(micro_workspace, "control")
    weights = load_file(folder / "weights.safetensors")
    basis = load_file(folder / "basis.safetensors")
    selected = load_file(folder / "search.safetensors")["selected"]
    num_outputs, num_inputs = weights["layer0.weight"].shape
    num_components = len(basis["directions"])
    assert selected.size == manifest["summary"]["searched"] == num_outputs * (num_components + 1)
    small = selected[: num_outputs * num_components].reshape(num_outputs, num_components)
    random = np.random.default_rng(0)
    for x in random.standard_normal((5, num_inputs)):
        seen = basis["directions"] @ (x - basis["mean"])
        expected = small @ seen + selected[num_outputs * num_components :]
        found = weights["layer0.weight"] @ x + weights["layer0.bias"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
