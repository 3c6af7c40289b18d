"""M against the paper's counts, numpy, torch's own layer, and itself cut in other ways."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import world_models_numpy as oracle
from torch import nn

from stages.errors import UsageError
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape

SMALL = MDNRNNShape(latent_size=4, action_size=2, hidden_size=8, num_mixtures=3)
FLAGGED = MDNRNNShape(latent_size=4, action_size=2, hidden_size=8, restart_flag=True)
CARRACING = MDNRNNShape(32, 3, 256)
DOOM = MDNRNNShape(64, 1, 512, end_head=True, restart_flag=True)


def lively(shape, seed=0):
    """A memory whose biases are not zero either."""
    model = MDNRNN(shape, seed=seed)
    generator = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def as_numpy(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def inputs(shape, num_lanes, num_steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(num_lanes, num_steps, shape.latent_size, generator=generator)
    return z, torch.randn(num_lanes, num_steps, shape.action_size, generator=generator)


@pytest.mark.parametrize(
    ("shape", "count", "lstm"), [(CARRACING, 422_368, 299_008), (DOOM, 1_678_785, 1_185_792)]
)
def test_trained_and_saved_numbers_are_the_papers(shape, count, lstm):
    model = MDNRNN(shape)
    saved = {name: value.numel() for name, value in model.state_dict().items()}
    assert model.num_parameters() == count
    assert sum(saved.values()) == count
    assert sum(number for name, number in saved.items() if name.startswith("lstm.")) == lstm
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_saved_names_and_shapes():
    shapes = {name: tuple(value.shape) for name, value in MDNRNN(DOOM).state_dict().items()}
    assert shapes == {
        "lstm.weight_ih": (2048, 66),
        "lstm.weight_hh": (2048, 512),
        "lstm.bias": (2048,),
        "head.weight": (960, 512),
        "head.bias": (960,),
        "end_head.weight": (1, 512),
        "end_head.bias": (1,),
    }


def test_head_shapes():
    shape = MDNRNNShape(4, 2, 8, num_mixtures=3, reward_head=True, end_head=True)
    prediction = MDNRNN(shape).heads(torch.zeros(5, 7, 8))
    assert prediction.log_weight.shape == prediction.mean.shape == (5, 7, 4, 3)
    assert prediction.log_sigma.shape == (5, 7, 4, 3)
    assert prediction.reward.shape == prediction.end_logit.shape == (5, 7)
    bare = MDNRNN(SMALL).heads(torch.zeros(5, 8))
    assert bare.reward is None
    assert bare.end_logit is None
    with pytest.raises(AssertionError, match="end head"):
        _ = bare.ended


@pytest.mark.parametrize("num_lanes", [3, 20])
def test_unroll_and_advance_equal_numpy(num_lanes):
    model = lively(SMALL)
    z, a = inputs(SMALL, num_lanes, 6)
    h, state = model.unroll(z, a)
    one = model.initial_state(num_lanes)
    expected = oracle.initial_state(num_lanes, 8)
    for time in range(6):
        x = torch.cat((z[:, time], a[:, time]), 1).numpy()
        expected = oracle.lstm_step(as_numpy(model), x, expected)
        one = model.advance(z[:, time], a[:, time], one)
        np.testing.assert_allclose(h[:, time].detach().numpy(), expected[0], atol=1e-5)
        np.testing.assert_allclose(one[0].detach().numpy(), expected[0], atol=1e-5)
    for found in (state, one):
        np.testing.assert_allclose(found[1].detach().numpy(), expected[1], atol=1e-5)


def test_layer_is_torchs_with_the_second_bias_held_at_the_forget_offset():
    model = lively(SMALL)
    layer = nn.LSTM(6, 8, batch_first=True)
    second = torch.zeros(32)
    second[8:16] = 1.0
    with torch.no_grad():
        layer.weight_ih_l0.copy_(model.lstm.weight_ih)
        layer.weight_hh_l0.copy_(model.lstm.weight_hh)
        layer.bias_ih_l0.copy_(model.lstm.bias)
        layer.bias_hh_l0.copy_(second)
    z, a = inputs(SMALL, 5, 7)
    found, wanted = model.unroll(z, a)[0], layer(torch.cat((z, a), -1))[0]
    torch.testing.assert_close(found, wanted)
    found.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(model.lstm.weight_hh.grad, layer.weight_hh_l0.grad)
    torch.testing.assert_close(model.lstm.bias.grad, layer.bias_ih_l0.grad)


@pytest.mark.parametrize("units", [0, 11])
@pytest.mark.parametrize("joint", [False, True])
def test_heads_equal_numpy(joint, units):
    model = lively(replace(SMALL, joint_mixture=joint, head_hidden=units))
    h = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    z, a = (part[:, 0] for part in inputs(SMALL, 6, 1))
    prediction = model.heads(model.seen(h, z, a))
    told = {"num_mixtures": 3, "joint": joint}
    seen = oracle.heads_see(as_numpy(model), h.numpy(), z.numpy(), a.numpy())
    weight, mean, sigma = oracle.mixture_head(as_numpy(model), seen, **told)
    found = prediction.log_weight.exp().detach().numpy()
    assert found.shape == (6, 1 if joint else 4, 3)
    np.testing.assert_allclose(np.broadcast_to(found, weight.shape), weight, atol=1e-6)
    np.testing.assert_allclose(prediction.mean.detach().numpy(), mean, atol=1e-5)
    np.testing.assert_allclose(prediction.log_sigma.exp().detach().numpy(), sigma, rtol=1e-4)


def test_sigma_goes_below_one_and_stops_at_its_bound():
    model = MDNRNN(SMALL)
    for bias, expected in [(-3.0, -3.0), (-50.0, -7.0), (2.0, 2.0)]:
        with torch.no_grad():
            model.head.weight.zero_()
            model.head.bias.unflatten(0, (3, 4, 3))[2].fill_(bias)
        assert set(model.heads(torch.zeros(1, 8)).log_sigma.flatten().tolist()) == {expected}


def test_windows_that_carry_their_state_equal_one_long_pass():
    model = lively(SMALL)
    z, a = inputs(SMALL, 5, 12)
    whole, last = model.unroll(z, a)
    state, pieces = None, []
    for window in (slice(0, 5), slice(5, 6), slice(6, 12)):
        h, state = model.unroll(z[:, window], a[:, window], state)
        pieces.append(h)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    torch.testing.assert_close(state[1], last[1])


@pytest.mark.parametrize("shape", [SMALL, FLAGGED])
def test_restart_equals_a_fresh_start(shape):
    model = lively(shape)
    z, a = inputs(shape, 4, 3)
    restart = torch.zeros(4, 3, dtype=torch.bool)
    restart[:, 0] = True
    used = (torch.full((4, 8), float("nan")), torch.full((4, 8), 5.0))
    fresh, _ = model.unroll(z, a, restart=restart)
    torch.testing.assert_close(model.unroll(z, a, used, restart)[0], fresh)
    h, _ = model.advance(z[:, 0], a[:, 0], used, restart[:, 0])
    torch.testing.assert_close(h, fresh[:, 0])


def test_restarts_inside_a_window_equal_episodes_by_themselves():
    model = lively(FLAGGED)
    z, a = inputs(FLAGGED, 3, 9)
    restart = torch.zeros(3, 9, dtype=torch.bool)
    starts = [[0, 4], [0], [0, 4, 7]]
    for lane, steps in enumerate(starts):
        restart[lane, steps] = True
    whole, (last_h, _) = model.unroll(z, a, restart=restart)
    for lane, steps in enumerate(starts):
        for begin, end in zip(steps, [*steps[1:], 9], strict=True):
            rows = (slice(lane, lane + 1), slice(begin, end))
            alone, _ = model.unroll(z[rows], a[rows], restart=restart[rows])
            torch.testing.assert_close(whole[rows], alone)
    torch.testing.assert_close(last_h, whole[:, -1])


def test_restart_touches_only_its_own_lanes():
    model = lively(SMALL)
    z, a = inputs(SMALL, 20, 1)
    used = (torch.full((20, 8), 0.5), torch.full((20, 8), 0.5))
    restart = torch.zeros(20, dtype=torch.bool)
    restart[7] = True
    plain = model.advance(z[:, 0], a[:, 0], used)[0]
    found = model.advance(z[:, 0], a[:, 0], used, restart)[0]
    changed = (plain != found).any(1)
    assert changed.nonzero().flatten().tolist() == [7]
    assert float(used[0][7, 0]) == 0.5  # the caller's state is not written to


def test_flag_is_an_input_that_must_be_given():
    model = lively(FLAGGED)
    z, a = inputs(FLAGGED, 2, 1)
    state = model.initial_state(2)
    yes, no = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    with_flag = model.advance(z[:, 0], a[:, 0], state, yes)[0]
    without = model.advance(z[:, 0], a[:, 0], state, no)[0]
    assert not torch.allclose(with_flag, without)
    with pytest.raises(AssertionError, match="restart"):
        model.advance(z[:, 0], a[:, 0], state)


def test_rows_do_not_depend_on_the_other_rows():
    model = MDNRNN(CARRACING, seed=3)
    z, a = inputs(CARRACING, 70, 2)

    def two_steps(rows):
        state = model.initial_state(len(z[rows]))
        for time in range(2):
            state = model.advance(z[rows, time], a[rows, time], state)
        return state

    with torch.inference_mode():
        whole = two_steps(slice(None))
        for start, stop in [(0, 1), (5, 9), (3, 18), (0, 16), (20, 37), (6, 70), (69, 70)]:
            h, c = two_steps(slice(start, stop))
            assert torch.equal(h, whole[0][start:stop]), (start, stop)
            assert torch.equal(c, whole[1][start:stop]), (start, stop)


def test_predictions_are_float32_under_autocast():
    model = lively(SMALL)
    z, a = inputs(SMALL, 4, 3)
    exact = model.heads(model.unroll(z, a)[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = model.heads(model.unroll(z, a)[0])
    assert prediction.log_weight.dtype == prediction.mean.dtype == torch.float32
    torch.testing.assert_close(prediction.mean, exact.mean, atol=0.05, rtol=0.05)


def test_wrong_widths_are_refused():
    model = MDNRNN(SMALL)
    with pytest.raises(AssertionError, match="do not fit"):
        model.unroll(torch.zeros(2, 3, 5), torch.zeros(2, 3, 2))
    with pytest.raises(UsageError, match="num_mixtures = 0"):
        MDNRNNShape(num_mixtures=0)


def test_seed_alone_decides_the_initial_weights():
    torch.manual_seed(1)
    first = MDNRNN(SMALL, seed=7).state_dict()
    torch.manual_seed(2)
    second, third = MDNRNN(SMALL, seed=7).state_dict(), MDNRNN(SMALL, seed=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lstm.weight_ih"], third["lstm.weight_ih"])
