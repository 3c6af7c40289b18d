"""What is gathered of recorded latents to measure M, on real files."""

import json

import numpy as np
import pytest
import torch
from training_samples import latent_records, latent_set

from stages import foresight
from stages.artifacts.canonical import readable_json
from stages.foresight import HeldOut, dreamt_errors, one_step_errors
from stages.inspection.foresight import parse_horizon
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape

SHAPE = MDNRNNShape(4, 2, 8, num_mixtures=2, reward_head=True, end_head=True)
LENGTHS = [30, 12, 25, 40, 18, 22, 35, 9]


class Counting:
    """Latents that remember which episodes were read."""

    def __init__(self, source):
        self.source, self.lengths, self.read = source, source.lengths, []

    def episode(self, number):
        self.read.append(number)
        return self.source.episode(number)


@pytest.fixture
def source(tmp_path):
    return Counting(latent_set(tmp_path, latent_records(LENGTHS), per_shard=3))


def held_out(source, seed=3):
    return HeldOut(source, [0, 2, 4, 5], [1, 3, 6, 7], seed, 10.0, torch.device("cpu"))


def test_a_file_has_everything_that_its_reader_wants(source):
    found = dreamt_errors(MDNRNN(SHAPE, seed=1), held_out(source))
    content = readable_json(found)
    assert parse_horizon(content, source="here") == json.loads(content)
    assert (found["starts"], found["first_frames"], found["episodes"]) == (64, 4, 4)
    assert [row["steps"] for row in found["horizon"]][:4] == [1, 2, 5, 10]
    assert found["ends"]["steps"] == 12 + 40 + 35 + 9
    assert found["ends"]["events"] == 3  # of the seeds 1, 3, 7: that of 6 was cut


def test_the_same_again_gives_the_same_bytes(source):
    one, same = (readable_json(dreamt_errors(MDNRNN(SHAPE), held_out(source))) for _ in range(2))
    assert one == same
    assert one != readable_json(dreamt_errors(MDNRNN(SHAPE), held_out(source, seed=4)))


def test_no_more_episodes_are_read_than_are_needed(source, monkeypatch):
    monkeypatch.setattr(foresight, "MAX_KNOWN_STEPS", 20)
    monkeypatch.setattr(foresight, "MAX_BASELINE_STEPS", 30)
    found = dreamt_errors(MDNRNN(SHAPE), held_out(source))
    assert len(set(source.read) & {1, 3, 6, 7}) == found["episodes"] <= 2
    assert 1 <= len(set(source.read) & {0, 2, 4, 5}) <= 2
    assert found["horizon"][0]["starts"] <= 64


def test_baselines_are_fitted_on_training_episodes_alone(source):
    """Held-out latents moved far away: what is fitted stays, and cannot explain them."""
    model = MDNRNN(SHAPE)
    near = dreamt_errors(model, held_out(source))
    records = latent_records(LENGTHS)
    for number in (1, 3, 6, 7):
        records[number].mu[:] += np.float16(20)
    source.source.episode = lambda number: records[number]
    far = dreamt_errors(model, held_out(source))
    assert near["horizon"][0]["error_mean"] < 2
    assert far["horizon"][0]["error_mean"] == pytest.approx(20, abs=0.5)


def test_one_step_errors_stand_beside_their_baselines(source):
    errors = one_step_errors(MDNRNN(SHAPE), held_out(source))
    assert errors.keys() >= {"nll", "reward", "end", "baseline_persistence", "nll_above_floor"}
    assert errors["nll_above_floor"] == errors["nll"] - errors["baseline_entropy_floor"]
