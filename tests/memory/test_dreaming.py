"""Dreaming many lanes at once against M itself, its sampler, and the mixture's moments."""

import numpy as np
import pytest
import torch

from stages.errors import UsageError
from stages.memory import fused_draw
from stages.memory.dreaming import DreamingMemory
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape
from stages.memory.mixture import sample

SHAPE = MDNRNNShape(4, 2, 24, num_mixtures=3, min_log_sigma=-0.5)
JOINT = MDNRNNShape(4, 2, 24, num_mixtures=3, min_log_sigma=-0.5, joint_mixture=True)
WIDE = MDNRNNShape(4, 2, 24, num_mixtures=3, joint_mixture=True, head_hidden=20)
FLAGGED = MDNRNNShape(4, 1, 16, restart_flag=True, end_head=True)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lively(shape):
    model = MDNRNN(shape, seed=1)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(0.4 * normal(*parameter.shape, seed=number))
    return model


def lanes(shape, num_lanes):
    width = shape.hidden_size
    state = (torch.tanh(normal(num_lanes, width, seed=7)), normal(num_lanes, width, seed=8))
    z, a = normal(num_lanes, shape.latent_size), normal(num_lanes, shape.action_size, seed=1)
    return z, a, state


@pytest.mark.parametrize("shape", [SHAPE, FLAGGED])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_a_step_is_ms(shape, dtype, error):
    model, (z, a, state) = lively(shape), lanes(shape, 33)
    dreaming = DreamingMemory(model, dtype=dtype)
    restart = torch.arange(33) % 5 == 0
    for flags in (restart,) if shape.restart_flag else (restart, None):
        wanted = model.advance(z, a, state, flags)
        found = dreaming.advance(z, a, state, flags)
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, other, atol=error, rtol=error)
    smaller = dreaming.advance(z[:3], a[:3], (state[0][:3], state[1][:3]), restart[:3])
    whole = dreaming.advance(z, a, state, restart)
    torch.testing.assert_close(smaller[0], whole[0][:3], atol=error / 10, rtol=0)


def test_a_kept_state_is_not_written_to_by_the_next_step():
    dreaming, (z, a, state) = DreamingMemory(lively(SHAPE)), lanes(SHAPE, 20)
    kept = dreaming.advance(z, a, state)
    copies = [part.clone() for part in (*kept, *state)]
    dreaming.advance(z + 1, a, kept)
    for part, copy in zip((*kept, *state), copies, strict=True):
        assert torch.equal(part, copy)


@pytest.mark.parametrize("num_lanes", [513, 1100])
def test_lanes_beyond_a_block_are_ms_too(num_lanes):
    """Blocks of unlike lanes, a restart in some of each, and another number of lanes between."""
    model, (z, a, state) = lively(FLAGGED), lanes(FLAGGED, num_lanes)
    dreaming, restart = DreamingMemory(model), torch.arange(num_lanes) % 7 == 0
    with torch.no_grad():
        wanted = model.advance(z, a, state, restart)
        uniform = torch.rand(num_lanes, 4, generator=torch.Generator().manual_seed(4))
        noise = normal(num_lanes, 4, seed=5)
        drawn = sample(model.heads(wanted[0]), uniform=uniform, noise=noise, temperature=1.1)
    for _ in range(2):
        found = dreaming.advance(z, a, state, restart)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        z_found = dreaming.draw(found[0], uniform=uniform, noise=noise, temperature=1.1)
        torch.testing.assert_close(z_found, drawn, atol=1e-3, rtol=1e-3)
        dreaming.advance(z[:5], a[:5], (state[0][:5], state[1][:5]), restart[:5])


@pytest.mark.parametrize("wrong", ["z", "a", "lanes"])
def test_inputs_that_do_not_fit_are_refused(wrong):
    dreaming, (z, a, state) = DreamingMemory(lively(SHAPE)), lanes(SHAPE, 20)
    z = z[:, :3] if wrong == "z" else z
    a = torch.cat((a, a), 1) if wrong == "a" else a
    state = (state[0][:7], state[1][:7]) if wrong == "lanes" else state
    with pytest.raises((AssertionError, RuntimeError)):
        dreaming.advance(z, a, state)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 1.15])
@pytest.mark.parametrize("shape", [SHAPE, JOINT, WIDE])
def test_a_draw_is_the_samplers(shape, temperature):
    model = lively(shape)
    h = torch.tanh(normal(50, shape.num_seen, seed=3))
    uniform = torch.rand(50, 4, generator=torch.Generator().manual_seed(4))
    noise = normal(50, 4, seed=5)
    with torch.no_grad():
        wanted = sample(model.heads(h), uniform=uniform, noise=noise, temperature=temperature)
    found = DreamingMemory(model).draw(h, uniform=uniform, noise=noise, temperature=temperature)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [SHAPE, WIDE])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_its_heads_see_what_ms_see(shape, dtype, error):
    model, (z, a, (h, _)) = lively(shape), lanes(shape, 33)
    wanted = model.seen(h, z, a)
    assert wanted.shape == (33, shape.num_seen)
    found = DreamingMemory(model, dtype=dtype).seen(h, z, a)
    torch.testing.assert_close(found.float(), wanted, atol=error * 4, rtol=error)


@pytest.mark.parametrize("temperature", [0.5, 1.15])
def test_draws_in_half_precision_have_the_mixtures_moments(temperature):
    """Mean and variance of sum_k w_k N(m_k, tau sigma_k^2), w = softmax(logit / tau)."""
    model, num_lanes = lively(SHAPE), 200_000
    h = torch.tanh(normal(1, 24, seed=3))
    random = torch.Generator().manual_seed(6)
    found = DreamingMemory(model, dtype=torch.bfloat16).draw(
        h.expand(num_lanes, 24),
        uniform=torch.rand(num_lanes, 4, generator=random),
        noise=torch.randn(num_lanes, 4, generator=random),
        temperature=temperature,
    )
    prediction = model.heads(h)
    log_weight = prediction.log_weight[0].detach().double().numpy() / temperature
    weight = np.exp(log_weight) / np.exp(log_weight).sum(-1, keepdims=True)
    mean = prediction.mean[0].detach().double().numpy()
    variance = temperature * np.exp(2 * prediction.log_sigma[0].detach().double().numpy())
    expected = (weight * mean).sum(-1)
    spread = np.sqrt((weight * (variance + mean**2)).sum(-1) - expected**2)
    np.testing.assert_allclose(found.double().mean(0).numpy(), expected, atol=0.03)
    np.testing.assert_allclose(found.double().std(0).numpy(), spread, rtol=0.02)


def test_a_lanes_draw_does_not_depend_on_its_place():
    model = lively(SHAPE)
    dreaming = DreamingMemory(model)
    h, noise = torch.tanh(normal(40, 24, seed=3)), normal(40, 4, seed=5)
    uniform = torch.rand(40, 4, generator=torch.Generator().manual_seed(4))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    whole = dreaming.draw(h, uniform=uniform, noise=noise, temperature=1.0)
    moved = dreaming.draw(h[order], uniform=uniform[order], noise=noise[order], temperature=1.0)
    torch.testing.assert_close(moved, whole[order], atol=1e-5, rtol=1e-5)


def test_bad_temperatures_are_refused():
    dreaming, zeros = DreamingMemory(lively(SHAPE)), torch.zeros(16, 4)
    with pytest.raises(UsageError, match="temperature"):
        dreaming.draw(torch.zeros(16, 24), uniform=zeros, noise=zeros, temperature=-1.0)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 1.3])
def test_the_draw_that_is_compiled_is_the_samplers(temperature):
    model, (z, a, state) = lively(SHAPE), lanes(SHAPE, 40)
    with torch.no_grad():
        h, _ = model.advance(z, a, state)
        raw = (h @ model.head.weight.T).T.view(3, 4, 3, -1)
        bias = model.head.bias.view(3, 4, 3, 1)
        uniform = torch.rand(40, 4, generator=torch.Generator().manual_seed(4))
        noise = normal(40, 4, seed=5)
        wanted = sample(model.heads(h), uniform=uniform, noise=noise, temperature=temperature)
        found = fused_draw.draw(raw, bias, uniform, noise, torch.tensor(temperature), -0.5)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
@pytest.mark.skipif(not fused_draw.can_compile(), reason="no C++ compiler")
def test_compiled_it_draws_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    model, (z, a, state) = lively(SHAPE), lanes(SHAPE, 40)
    plain, fused = DreamingMemory(model), DreamingMemory(model, compiled=True)
    h, _ = plain.advance(z, a, state)
    uniform = torch.rand(40, 4, generator=torch.Generator().manual_seed(4))
    drawn = {"uniform": uniform, "noise": normal(40, 4, seed=5)}
    for temperature in (0.0, 0.5, 1.15):
        wanted = plain.draw(h, temperature=temperature, **drawn)
        found = fused.draw(h, temperature=temperature, **drawn)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert any((tmp_path / "cache").rglob("*.so")), "it was compiled"


def test_where_compiling_fails_it_draws_as_without():
    model, (z, a, state) = lively(SHAPE), lanes(SHAPE, 40)
    plain, fused = DreamingMemory(model), DreamingMemory(model, compiled=True)
    calls = []

    def broken(*parts):
        calls.append(parts)
        raise RuntimeError("C++ compile error")

    fused._fused = broken
    h, _ = plain.advance(z, a, state)
    drawn = {"uniform": torch.full((40, 4), 0.4), "noise": normal(40, 4), "temperature": 0.8}
    for _ in range(2):
        assert torch.equal(fused.draw(h, **drawn), plain.draw(h, **drawn))
    assert len(calls) == 1, "it is not tried again"
