"""Data policies: their distributions, the worlds they fit, and that lanes never mix."""

import numpy as np
import pytest
import torch

from stages.contracts import ActionSpec, WorldSpec
from stages.control.data_policies import (
    DATA_POLICIES,
    LONGEST_HOLD,
    Strays,
    make_data_policy,
    policies_for,
)
from stages.control.random_net import FILTERS, HIDDEN_SIZE, LATENT_SIZE, RandomNetwork
from stages.errors import UsageError
from stages.worlds.driving import Recorder, drive
from stages.worlds.making import make_world

CAR = ActionSpec(kind="box", size=3, low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0))
BOX = ActionSpec(kind="box", size=2, low=(-50.0, -50.0), high=(50.0, 50.0))
CHOICE = ActionSpec(kind="choice", size=4)
SHAPE = (64, 64, 3)
FRAMES = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), dtype=np.uint8)


def actions_of(name, spec, seeds, num_steps, *, repeat=1, frames=FRAMES):
    """What the policy does when every lane sees the same pictures, [steps, B, ...]."""
    policy = make_data_policy(name, spec, SHAPE, repeat=repeat)
    policy.reset(seeds)
    live = np.ones(len(seeds), dtype=bool)
    shown = [np.stack([frames[step % len(frames)]] * len(seeds)) for step in range(num_steps)]
    return np.array([policy.act(observation, live).copy() for observation in shown])


@pytest.mark.parametrize("name", DATA_POLICIES)
def test_a_lane_acts_the_same_alone_among_others_and_beside_dead_ones(name):
    together = actions_of(name, CAR, [11, 12, 13], 24)
    np.testing.assert_array_equal(actions_of(name, CAR, [13], 24)[:, 0], together[:, 2])
    assert (together[:, 0] != together[:, 1]).any() or name == "scripted"
    policy = make_data_policy(name, CAR, SHAPE)
    policy.reset([12, 13])
    for step in range(24):
        observation = np.stack([FRAMES[step % 5]] * 2)
        acted = policy.act(observation, np.array([step < 4, True]))
        np.testing.assert_array_equal(acted[1], together[step, 2])


@pytest.mark.parametrize("name", DATA_POLICIES)
def test_a_reset_forgets_the_episode_before(name):
    policy = make_data_policy(name, CAR, SHAPE)
    runs = []
    for _ in range(2):
        policy.reset([3])
        runs.append([policy.act(FRAMES[:1], np.array([True])).copy() for _ in range(25)])
    np.testing.assert_array_equal(runs[0], runs[1])


@pytest.mark.parametrize("name", DATA_POLICIES)
def test_actions_stay_inside_the_bounds(name):
    actions = actions_of(name, CAR, range(10), 60, repeat=4)
    assert actions.dtype == np.float32
    assert (actions >= np.array(CAR.low)).all()
    assert (actions <= np.array(CAR.high)).all()


@pytest.mark.parametrize("repeat", [1, 4])
def test_a_brownian_walk_spreads_by_a_fiftieth_per_frame(repeat):
    """Far from the bounds the steps are Gaussian and their variance grows with the frames."""
    actions = actions_of("brownian", BOX, range(40), 100, repeat=repeat)
    steps = np.diff(actions, axis=0)  # 7,920 of them
    assert steps.std() == pytest.approx(np.sqrt(repeat / 50), rel=0.05)
    assert abs(steps.mean()) < 5 * np.sqrt(repeat / 50 / steps.size)
    assert np.ptp(actions[0]) > 80  # it starts anywhere in the box


def test_a_brownian_walk_rests_at_the_bounds():
    actions = actions_of("brownian", CAR, range(20), 100, repeat=4)
    assert (actions[..., 1] == 0).any()
    assert (actions[..., 1] == 1).any()


def test_white_noise_is_uniform_and_fresh():
    actions = actions_of("white", CAR, range(20), 100)
    np.testing.assert_allclose(actions.mean((0, 1)), [0, 0.5, 0.5], atol=0.06)
    np.testing.assert_allclose(actions.std((0, 1)), np.array([2, 1, 1]) / np.sqrt(12), rtol=0.06)
    successive = np.corrcoef(actions[:-1, :, 0].ravel(), actions[1:, :, 0].ravel())
    assert abs(successive[0, 1]) < 0.1


def held_steps(actions):
    """Lengths of the runs of one action of one lane, without the cut-off last one."""
    changes = np.flatnonzero((np.diff(actions, axis=0) != 0).any(axis=1)) + 1
    return np.diff(np.concatenate([[0], changes]))


@pytest.mark.parametrize(("repeat", "lengths"), [(1, range(1, 11)), (4, (1, 2, 3))])
def test_hold_keeps_an_action_for_1_to_10_frames(repeat, lengths):
    actions = actions_of("hold", CAR, range(10), 200, repeat=repeat)
    found = np.concatenate([held_steps(actions[:, lane]) for lane in range(10)])
    assert set(found.tolist()) == set(lengths)
    counts = [-(-frames // repeat) for frames in range(1, 11)]  # each as likely as the others
    assert found.mean() == pytest.approx(np.mean(counts), rel=0.1)


def test_long_holds_are_spread_evenly_over_their_orders_of_magnitude():
    actions = actions_of("hold-long", CAR, range(10), 4000)
    found = np.concatenate([held_steps(actions[:, lane]) for lane in range(10)])
    assert found.min() == 1
    assert 90 < found.max() <= 100
    for most in (3, 10, 30):
        assert (found <= most).mean() == pytest.approx(np.log(most + 1) / np.log(101), abs=0.04)
    strided = actions_of("hold-long", CAR, range(10), 1000, repeat=4)
    most = max(held_steps(strided[:, lane]).max() for lane in range(10))
    assert 20 < most <= 25, "in whole steps of four frames"


@pytest.mark.parametrize("spec", [CAR, CHOICE])
def test_habits_are_kept_from_never_to_always(spec):
    """In the limit of long episodes an episode's commonest action has the share of its strength."""
    num_lanes, num_steps = 100, 1000
    actions = actions_of("habits", spec, range(num_lanes), num_steps)
    shares, lengths = [], []
    for lane in range(num_lanes):
        mine = actions[:, lane].reshape(num_steps, -1)
        shares.append(np.unique(mine, axis=0, return_counts=True)[1].max() / num_steps)
        lengths.append(held_steps(mine))
    if spec == CHOICE:  # three in four of the other actions are another one
        shares = (np.array(shares) - 0.25) / 0.75
    for quantile in (0.25, 0.5, 0.75):
        assert np.quantile(shares, quantile) == pytest.approx(quantile, abs=0.12)
    if spec == CAR:
        weak, strong = np.argsort(shares)[[2, -20]]
        assert len(np.unique(lengths[weak])) > 20
        assert np.unique(lengths[strong]).size < np.unique(lengths[weak]).size
    again = actions_of("habits", spec, range(num_lanes - 1, num_lanes), num_steps)
    assert np.array_equal(again[:, 0], actions[:, -1]), "an episode does not know its lane"


def test_the_script_starts_with_full_gas_and_changes_every_20_frames():
    actions = actions_of("scripted", CAR, range(60), 200, repeat=2)
    np.testing.assert_allclose(actions[:10], np.tile([-0.1, 1, 0], (10, 60, 1)), atol=1e-7)
    changed = {step for step in range(1, 200) if (actions[step] != actions[step - 1]).any()}
    assert changed == set(range(10, 200, 10))
    kinds = np.stack([actions[10::10, :, 1] > 0, actions[10::10, :, 2] > 0], axis=-1)
    assert kinds[..., 0].mean() == pytest.approx(0.4, abs=0.06)
    assert kinds[..., 1].mean() == pytest.approx(0.1, abs=0.04)
    assert (actions[10::10, :, 0] < 0).mean() == pytest.approx(0.2, abs=0.05)
    assert (actions[10::10, :, 0] > 0).mean() == pytest.approx(0.2, abs=0.05)
    assert ((actions[10:] != 0).sum(axis=-1) <= 1).all()  # one pedal, or the wheel


def test_a_script_whose_manoeuvre_is_no_multiple_of_the_repeat_follows_the_frames():
    actions = actions_of("scripted", CAR, range(40), 12, repeat=8)
    changed = [step for step in range(1, 12) if (actions[step] != actions[step - 1]).any()]
    assert changed == [3, 5, 8, 10]  # frames 24, 40, 64, 80: the first at or after 20, 40, 60, 80


@pytest.mark.parametrize("seed", [3, 11])  # scales so small that nothing saturates
def test_a_random_network_is_convolutions_an_lstm_and_a_linear_map(seed):
    """The same draws through torch's own layers."""
    network = RandomNetwork(SHAPE, 3, np.random.default_rng(seed))
    random = np.random.default_rng(seed)
    scale = random.uniform(0, 0.01)

    def layer(num_inputs, num_outputs):
        weight = scale * random.standard_cauchy((num_inputs, num_outputs))
        bias = scale * random.standard_cauchy(num_outputs)
        return (torch.from_numpy(part.astype(np.float32)) for part in (weight.T, bias))

    filters = []
    for channels, num_filters in zip((3, *FILTERS), FILTERS, strict=False):
        weight, bias = layer(16 * channels, num_filters)
        filters.append((weight.reshape(num_filters, channels, 4, 4), bias))
    latent_weight, latent_bias = layer(2 * 2 * 256, LATENT_SIZE)
    gates, gate_bias = layer(LATENT_SIZE + 3 + HIDDEN_SIZE, 4 * HIDDEN_SIZE)
    control_weight, control_bias = layer(LATENT_SIZE + HIDDEN_SIZE, 3)
    cell = torch.nn.LSTMCell(LATENT_SIZE + 3, HIDDEN_SIZE)
    cell.weight_ih.data, cell.weight_hh.data = gates.split([LATENT_SIZE + 3, HIDDEN_SIZE], dim=1)
    cell.bias_ih.data, cell.bias_hh.data = gate_bias, torch.zeros(4 * HIDDEN_SIZE)
    cell.bias_hh.data[HIDDEN_SIZE : 2 * HIDDEN_SIZE] = 1  # the forget gates

    state = torch.zeros(1, HIDDEN_SIZE), torch.zeros(1, HIDDEN_SIZE)
    with torch.inference_mode():
        for frame in FRAMES:
            signal = torch.from_numpy(frame.astype(np.float32) / 255).permute(2, 0, 1)[None]
            for weight, bias in filters:
                signal = torch.relu(torch.nn.functional.conv2d(signal, weight, bias, stride=2))
            flat = signal.permute(0, 2, 3, 1).reshape(1, -1)
            latent = flat @ latent_weight.T + latent_bias
            outputs = torch.tanh(
                torch.cat([latent, state[0]], dim=1) @ control_weight.T + control_bias
            )
            state = cell(torch.cat([latent, outputs], dim=1), state)
            found = network.encode(frame)
            acted = network.control(found)
            network.remember(found, acted)
            np.testing.assert_allclose(found, latent[0], rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(acted, outputs[0], rtol=0, atol=1e-4)


def test_random_networks_differ_by_episode_and_survive_their_heavy_tails():
    actions = actions_of("random-net", CAR, range(12), 5)
    assert np.isfinite(actions).all()
    assert len(np.unique(actions[0], axis=0)) > 5  # many saturate into corners of the box


def test_random_networks_of_a_choice_choose():
    actions = actions_of("random-net", CHOICE, range(12), 5)
    assert actions.dtype == np.int64
    assert set(np.unique(actions).tolist()) <= {0, 1, 2, 3}
    assert len(np.unique(actions)) > 1


def test_choices_are_uniform_where_they_are_drawn():
    for name in ("white", "hold"):
        actions = actions_of(name, CHOICE, range(30), 100)
        assert actions.dtype == np.int64
        shares = np.bincount(actions.ravel(), minlength=4) / actions.size
        np.testing.assert_allclose(shares, 0.25, atol=0.08)


def test_policies_that_make_no_sense_for_the_actions_name_those_that_do():
    assert policies_for(CAR) == DATA_POLICIES
    assert policies_for(CHOICE) == ("habits", "hold", "hold-long", "random-net", "white")
    for name, spec in (("brownian", CHOICE), ("scripted", CHOICE), ("scripted", BOX)):
        with pytest.raises(UsageError) as caught:
            make_data_policy(name, spec, SHAPE)
        assert all(fitting in caught.value.fix for fitting in policies_for(spec))


def test_a_misspelt_policy_is_answered_with_the_nearest():
    with pytest.raises(UsageError) as caught:
        make_data_policy("brownain", CAR, SHAPE)
    assert "brownian" in caught.value.fix


def test_random_networks_refuse_frames_too_small_for_their_convolutions():
    make_data_policy("random-net", CAR, (46, 46, 3)).reset([1])
    with pytest.raises(UsageError, match="45"):
        make_data_policy("random-net", CAR, (45, 46, 3)).reset([1])


@pytest.mark.parametrize("name", DATA_POLICIES)
def test_recorded_episodes_do_not_depend_on_the_lanes(name):
    """In the real CarRacing: two lanes against each seed alone."""
    spec = WorldSpec(engine="gymnasium", repeat=4, max_frames=24)

    def record(seeds):
        world, episodes = make_world(spec), []
        policy = make_data_policy(name, world.action_spec, world.observation_shape, repeat=4)
        drive(world, policy, seeds, observers=[Recorder(episodes.append)])
        world.close()
        return episodes

    together, alone = record([51, 52]), [record([seed])[0] for seed in (51, 52)]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.observations, other.observations)


def strayed(epsilon, seeds, num_steps, *, repeat=1, lanes=None):
    """What lanes do whose agent always wants 2, which no random action is, [steps, n]."""
    strays = Strays(BOX_OF_ONE, epsilon=epsilon, repeat=repeat)
    strays.reset(seeds)
    lanes = np.arange(len(seeds)) if lanes is None else lanes
    wanted = np.full((len(lanes), 1), 2.0, dtype=np.float32)
    return np.array([strays.over(wanted, lanes)[:, 0] for _ in range(num_steps)])


BOX_OF_ONE = ActionSpec(kind="box", size=1, low=(-1.0,), high=(1.0,))


@pytest.mark.parametrize("repeat", [1, 4])
@pytest.mark.parametrize("epsilon", [0.1, 0.5, 0.9])
def test_a_share_epsilon_of_the_steps_strays(epsilon, repeat):
    done = strayed(epsilon, range(40), 4000, repeat=repeat)
    shares = (done != 2).mean(axis=0)
    assert abs(shares.mean() - epsilon) < 4 * shares.std(ddof=1) / np.sqrt(len(shares))
    assert shares.std(ddof=1) < 0.06


def test_strays_are_held_as_those_of_hold_long_are():
    done = strayed(1.0, range(30), 3000, repeat=4)
    assert (done != 2).all()
    held = np.diff(np.flatnonzero(np.append(True, done.T.ravel()[1:] != done.T.ravel()[:-1])))
    assert held.max() == LONGEST_HOLD / 4
    short, long = (held <= 3).sum(), (held > 3).sum()  # 1 to 12 frames, and longer
    assert short / (short + long) == pytest.approx(np.log(13) / np.log(101), abs=0.03)
    assert np.ptp(done) > 1.9, "the whole box"


def test_strays_of_a_lane_are_the_same_alone_and_beside_dead_ones():
    together = strayed(0.3, [5, 6, 7], 200)
    assert np.array_equal(strayed(0.3, [7], 200)[:, 0], together[:, 2])
    assert np.array_equal(strayed(0.3, [5, 6, 7], 200, lanes=np.array([2]))[:, 0], together[:, 2])
    assert not np.array_equal(together[:, 0], together[:, 1])
    assert (strayed(0.0, [5, 6], 200) == 2).all()


def test_strays_leave_what_the_agent_wanted_as_it_was():
    strays = Strays(CHOICE, epsilon=1.0, repeat=1)
    strays.reset([1])
    wanted = np.array([3])
    done = {int(strays.over(wanted, np.array([0]))[0]) for _ in range(500)}
    assert done == {0, 1, 2, 3}
    assert wanted[0] == 3
