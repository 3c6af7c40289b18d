"""The agent against a plain loop per lane, in numpy: encode, act, remember."""

import numpy as np
import pytest
import torch
from oracles import world_models_numpy as oracle

from stages.contracts import ActionSpec
from stages.control.controllers import Controllers
from stages.control.pilot import Choices, Pilot, PilotShape
from stages.errors import NumbersBad, UsageError
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape
from stages.vision.vae import VAE
from stages.worlds.following import Follower

CAR = ActionSpec("box", 3, low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0))
CHOICE = ActionSpec("choice", 4)
SQUASH = ("linear", "linear", "clip")
Z, H, T, B = 4, 6, 5, 3
SEEDS = [11, 12, 13]


@pytest.fixture(scope="module")
def vision():
    return VAE(Z, seed=1).eval()


def build_memory(action_size=3, **changes):
    return MDNRNN(MDNRNNShape(Z, action_size, H, 2, **changes), seed=2).eval()


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (T, B, 64, 64, 3), dtype=np.uint8)


def build_pilot(vision, memory, *, spec=CAR, num_controllers=B, **changes):
    shape = PilotShape(squash=SQUASH if spec is CAR else (), **changes)
    kind = shape.controller(Z, H, spec.size)
    random = np.random.default_rng(7)
    parameters = random.normal(scale=0.7, size=(num_controllers, kind.num_parameters))
    controllers = Controllers(kind, parameters)
    follower = Follower(vision, memory, latent=shape.latent)
    return Pilot(follower, Choices(controllers, shape, spec)), parameters


def fly(pilot, frames, *, seeds=SEEDS, live=None):
    """Actions [T, B, A] over recorded frames; `live` [T, B] is all lanes when left out."""
    live = np.ones(frames.shape[:2], dtype=bool) if live is None else live
    pilot.reset(seeds)
    return np.stack([pilot.act(now, alive) for now, alive in zip(frames, live, strict=True)])


def arrays(model):
    return {name: value.numpy().astype(np.float64) for name, value in model.state_dict().items()}


def plain_loop(vision, memory, parameters, frames, *, features, restart_flag=False, instead=None):
    """Actions [T, 3] of one lane: h at step t has seen latents and actions up to t - 1.

    `instead` is what was done in some steps, whatever C wanted.
    """
    v, m = arrays(vision), arrays(memory)
    h, c = oracle.initial_state(1, H)
    num_inputs = {"z": Z, "zh": Z + H, "zch": Z + 2 * H}[features]
    weight, bias = parameters[: 3 * num_inputs].reshape(3, num_inputs), parameters[3 * num_inputs :]
    actions = []
    for step, frame in enumerate(frames):
        z, _ = oracle.encode(v, frame[None])
        seen = {"z": [z], "zh": [z, h], "zch": [z, c, h]}[features]
        out = np.tanh(np.concatenate(seen, axis=1) @ weight.T + bias)[0]
        actions.append([out[0], (out[1] + 1) / 2, min(max(out[2], 0.0), 1.0)])
        actions[-1] = (instead or {}).get(step, actions[-1])
        flag = [[float(step == 0)]] if restart_flag else np.zeros((1, 0))
        x = np.concatenate([z, np.array([actions[-1]]), flag], axis=1)
        h, c = oracle.lstm_step(m, x, (h, c))
    return np.array(actions)


@pytest.mark.parametrize("features", ["z", "zh", "zch"])
def test_actions_are_those_of_a_plain_loop_over_every_lane(vision, frames, features):
    memory = build_memory()
    pilot, parameters = build_pilot(vision, memory, features=features)
    found = fly(pilot, frames)
    assert found.shape == (T, B, 3)
    for lane in range(B):
        expected = plain_loop(vision, memory, parameters[lane], frames[:, lane], features=features)
        np.testing.assert_allclose(found[:, lane], expected, atol=1e-4)
    assert np.ptp(found[..., 0]) > 0.05, "actions that never change would prove nothing"


def test_the_restart_flag_is_set_on_the_first_step_alone(vision, frames):
    memory = build_memory(restart_flag=True)
    pilot, parameters = build_pilot(vision, memory)
    expected = plain_loop(
        vision, memory, parameters[1], frames[:, 1], features="zh", restart_flag=True
    )
    np.testing.assert_allclose(fly(pilot, frames)[:, 1], expected, atol=1e-4)


class SecondStep:
    """Lane 1 does something else in its second step."""

    done = (0.5, 0.9, 0.1)

    def reset(self, seeds):
        self.step = 0

    def over(self, actions, lanes):
        changed = actions.copy()
        if self.step == 1:
            changed[lanes == 1] = self.done
        self.step += 1
        return changed


def test_memory_follows_what_was_done_where_an_agent_strays(vision, frames):
    plain, parameters = build_pilot(vision, build_memory())
    found = fly(Pilot(plain.follower, plain.choices, SecondStep()), frames)
    words = {"features": "zh", "instead": {1: SecondStep.done}}
    for lane, told in ((0, {"features": "zh"}), (1, words)):
        expected = plain_loop(vision, build_memory(), parameters[lane], frames[:, lane], **told)
        np.testing.assert_allclose(found[:, lane], expected, atol=1e-4)
    usual = fly(plain, frames)
    assert np.abs(found[2:, 1] - usual[2:, 1]).max() > 1e-3, "M has not noticed"


def test_an_action_depends_on_the_past_through_h_and_not_on_the_future(vision, frames):
    pilot, _ = build_pilot(vision, build_memory())
    before = fly(pilot, frames)
    changed = frames.copy()
    changed[2] = 255 - changed[2]
    after = fly(pilot, changed)
    assert np.array_equal(after[:2], before[:2])
    assert not np.array_equal(after[3], before[3]), "h has forgotten step 2"
    blind, _ = build_pilot(vision, None, features="z")
    assert np.array_equal(fly(blind, changed)[3:], fly(blind, frames)[3:])


def test_every_episode_begins_without_memories(vision, frames):
    pilot, _ = build_pilot(vision, build_memory())
    assert np.array_equal(fly(pilot, frames), fly(pilot, frames))


@pytest.mark.parametrize("latent", ["mean", "sample"])
def test_a_lane_does_not_depend_on_the_lanes_beside_it(vision, frames, latent):
    pilot, _ = build_pilot(vision, build_memory(), num_controllers=1, latent=latent)
    together = fly(pilot, frames)
    for lane in range(B):
        alone = fly(pilot, frames[:, lane : lane + 1], seeds=SEEDS[lane : lane + 1])
        assert np.array_equal(alone[:, 0], together[:, lane])


@pytest.mark.parametrize("latent", ["mean", "sample"])
def test_a_finished_lane_changes_no_other_and_answers_neutrally(vision, frames, latent):
    pilot, _ = build_pilot(vision, build_memory(), latent=latent)
    whole = fly(pilot, frames)
    live = np.ones((T, B), dtype=bool)
    live[2:, 1] = False
    cut = fly(pilot, frames, live=live)
    assert np.array_equal(cut[live], whole[live])
    assert not cut[~live].any()


def test_a_drawn_latent_comes_from_the_seed_of_its_lane(vision, frames):
    same = np.repeat(frames[:, :1], 3, axis=1)
    pilot, _ = build_pilot(vision, build_memory(), num_controllers=1, latent="sample")
    found = fly(pilot, same, seeds=[5, 6, 5])
    assert np.array_equal(found[:, 0], found[:, 2])
    assert not np.array_equal(found[:, 0], found[:, 1])
    sure, _ = build_pilot(vision, build_memory(), num_controllers=1)
    assert not np.array_equal(found[:, 0], fly(sure, same)[:, 0])


def test_choices_reach_the_memory_one_hot(vision, frames):
    memory = build_memory(action_size=4)
    pilot, parameters = build_pilot(vision, memory, spec=CHOICE, num_controllers=1)
    found = fly(pilot, frames)
    v, m = arrays(vision), arrays(memory)
    weight, bias = parameters[0, :-4].reshape(4, Z + H), parameters[0, -4:]
    for lane in range(B):
        state = oracle.initial_state(1, H)
        for step in range(T):
            z, _ = oracle.encode(v, frames[step, lane][None])
            scores = np.tanh(np.concatenate([z, state[0]], axis=1) @ weight.T + bias)[0]
            assert found[step, lane] == int(np.argmax(scores))
            one_hot = np.array([[float(k == found[step, lane]) for k in range(4)]])
            state = oracle.lstm_step(m, np.concatenate([z, one_hot], axis=1), state)


def spoil_vision(pilot):
    pilot.follower.vision.encoder.mu.bias[0] = float("inf")


def spoil_memory(pilot):
    pilot.follower.memory.lstm.bias[:] = float("nan")


def spoil_the_middle_controller(pilot):
    pilot.choices.controllers.weights["layer0.bias"][1, 0] = float("nan")


@pytest.mark.parametrize(
    ("spoil", "said", "step", "lane"),
    [
        (spoil_vision, "V's latent is NaN or infinite", 0, 0),
        (spoil_memory, "M's state is NaN or infinite", 1, 0),  # h is 0 at first
        (spoil_the_middle_controller, "C's answer is NaN or infinite", 0, 1),
    ],
)
def test_what_is_no_number_is_named_with_its_lane(spoil, said, step, lane, frames):
    """Infinite latents would otherwise vanish in a tanh."""
    pilot, _ = build_pilot(VAE(Z, seed=1).eval(), build_memory())
    with torch.no_grad():
        spoil(pilot)
    pilot.reset(SEEDS)
    live = np.ones(B, dtype=bool)
    for earlier in range(step):
        pilot.act(frames[earlier], live)
    with pytest.raises(NumbersBad, match=said) as caught:
        pilot.act(frames[step], live)
    assert caught.value.lane == lane


def test_a_lane_is_counted_among_all_not_among_the_live_ones(vision, frames):
    pilot, _ = build_pilot(vision, build_memory())
    spoil_the_middle_controller(pilot)
    pilot.reset(SEEDS)
    pilot.act(frames[0], np.array([True, False, True]))
    with pytest.raises(NumbersBad) as caught:
        pilot.act(frames[1], np.array([False, True, True]))
    assert caught.value.lane == 1


def test_a_controller_per_lane_or_one_for_all(vision):
    pilot, _ = build_pilot(vision, build_memory(), num_controllers=2)
    with pytest.raises(AssertionError, match="2 controllers for 3 lanes"):
        pilot.reset(SEEDS)


@pytest.mark.parametrize(("features", "num_inputs"), [("z", 32), ("zh", 288), ("zch", 544)])
def test_what_the_controller_sees(features, num_inputs):
    assert PilotShape(features).controller(32, 256, 3).num_inputs == num_inputs


def test_unknown_features_are_refused():
    with pytest.raises(UsageError, match=r"control\.features = 'hc'"):
        PilotShape("hc").controller(32, 256, 3)
