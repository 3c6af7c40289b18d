"""The small space of a search: what it spans, and that C in it is the same C."""

import numpy as np
import pytest
import torch
from oracles import world_models_numpy as oracle
from training_samples import latent_records, latent_set

from stages.control.basis import Basis, fit_basis
from stages.control.controllers import Controllers, ControllerShape
from stages.control.leading import inputs_of
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape


def correlated(num_rows=4000, seed=0):
    """Six inputs that vary in three directions, far apart in size, around a mean."""
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((num_rows, 3)) * [5.0, 1.0, 0.2]
    return hidden @ random.standard_normal((3, 6)) + random.standard_normal(6) * 4


def test_whitened_data_have_unit_variance_and_no_correlation():
    data = correlated()
    basis = fit_basis(data, 3)
    white = (data - basis.mean) @ basis.directions.T
    np.testing.assert_allclose(np.cov(white, rowvar=False), np.eye(3), atol=1e-9)


def test_the_directions_are_those_of_a_singular_value_decomposition():
    data = correlated()
    basis = fit_basis(data, 2)
    _, sizes, axes = np.linalg.svd(data - data.mean(0), full_matrices=False)
    deviations = sizes / np.sqrt(len(data) - 1)
    expected = axes[:2] / deviations[:2, None]
    for found, wanted in zip(basis.directions, expected, strict=True):
        sign = np.sign(found @ wanted)
        np.testing.assert_allclose(found, sign * wanted, rtol=1e-6, atol=1e-9)
        assert found[np.abs(found).argmax()] > 0


def test_flat_directions_are_left_out():
    assert len(fit_basis(correlated(), 6).directions) == 3


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_an_expanded_controller_answers_as_the_small_one_on_whitened_inputs(hidden, bias):
    data = correlated().astype(np.float32)
    basis = fit_basis(data, 3, centred=bias)
    full = ControllerShape(6, 2, hidden=hidden, bias=bias)
    small = ControllerShape(3, 2, hidden=hidden, bias=bias)
    assert basis.searched(full) == small.num_parameters
    points = np.random.default_rng(1).standard_normal((4, small.num_parameters)) * 0.3
    white = ((data[:4] - basis.mean) @ basis.directions.T).astype(np.float32)
    expected = Controllers(small, points)(torch.from_numpy(white), torch.arange(4))
    expanded = basis.expand(points, full)
    assert expanded.shape == (4, full.num_parameters)
    found = Controllers(full, expanded)(torch.from_numpy(data[:4]), torch.arange(4))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_controller_without_bias_is_not_given_one():
    basis = fit_basis(correlated(), 3, centred=False)
    assert not basis.mean.any()


def expected_rows(record, weights):
    """[z, c, h] before every action of an episode, by the numpy LSTM."""
    rows, state = [], oracle.initial_state(1, 5)
    for z, action in zip(record.mu[:-1].astype(np.float64), record.actions, strict=True):
        h, c = state
        rows.append(np.concatenate([z, c[0], h[0]]))
        state = oracle.lstm_step(weights, np.concatenate([z, action])[None], state)
    return np.array(rows)


def test_inputs_are_what_the_agent_sees_before_each_action(tmp_path):
    memory = MDNRNN(MDNRNNShape(latent_size=4, action_size=2, hidden_size=5), seed=2)
    weights = {name: value.detach().numpy() for name, value in memory.state_dict().items()}
    records = latent_records([3, 7, 1])
    source = latent_set(tmp_path, records, per_shard=5)
    found = inputs_of(source, memory, "zch", limit=1000)
    expected = np.concatenate([expected_rows(record, weights) for record in records])
    order, wanted = np.lexsort(found[:, :4].T), np.lexsort(expected[:, :4].T)
    np.testing.assert_allclose(found[order], expected[wanted], atol=1e-5)


def test_without_a_memory_the_inputs_are_the_latents(tmp_path):
    records = latent_records([3, 2])
    source = latent_set(tmp_path, records, per_shard=5)
    found = inputs_of(source, None, "z", limit=1000)
    expected = np.concatenate([record.mu[:-1] for record in records])
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(expected, axis=0))


def test_a_long_recording_is_thinned_by_episodes(tmp_path):
    records = latent_records([10] * 40)
    source = latent_set(tmp_path, records, per_shard=5)
    assert len(inputs_of(source, None, "z", limit=100)) == 100


def test_a_basis_of_the_identity_changes_nothing():
    shape = ControllerShape(3, 2)
    basis = Basis(np.zeros(3), np.eye(3))
    points = np.arange(shape.num_parameters, dtype=np.float64)[None]
    np.testing.assert_array_equal(basis.expand(points, shape), points)
