"""A batch in parts: the gradients of the whole, the same bits every time, errors that come out."""

import threading
import time

import numpy as np
import pytest
import torch
from training_samples import latent_records, latent_set

from stages.families import build_memory, build_vision
from stages.memory.losses import draw_sequences, training_loss
from stages.training.parts import Part, crew, cut_rows
from stages.training.sequences import SequenceBatches
from stages.vision.losses import vae_loss

CPU = torch.device("cpu")
SHAPE = {"hidden_size": 16, "num_mixtures": 3, "restart_flag": False, "min_log_sigma": -7.0}


@pytest.mark.parametrize(
    ("num_rows", "num_threads", "sizes"),
    [(100, 1, [100]), (100, 2, [50, 50]), (100, 4, [25] * 4), (100, 64, [16, 17, 17, 16, 17, 17]),
     (31, 8, [31]), (32, 8, [16, 16]), (1, 2, [1])],
)  # fmt: skip
def test_rows_are_shared_out_evenly_and_none_is_too_small(num_rows, num_threads, sizes):
    cut = cut_rows(num_rows, num_threads=num_threads, device=CPU)
    assert [rows.stop - rows.start for rows in cut] == sizes
    assert [row for rows in cut for row in range(num_rows)[rows]] == list(range(num_rows))


def test_a_gpu_gets_the_batch_whole():
    assert cut_rows(100, num_threads=8, device=torch.device("cuda")) == [slice(0, 100)]


def learn(model, parts, num_threads):
    before = torch.get_num_threads()
    with crew(num_threads) as threads:
        learnt = threads.learn(parts, model.parameters())
    torch.set_num_threads(before)
    return learnt


def gradients_of(model, scalars):
    """What autograd makes of the whole batch."""
    model.zero_grad()
    scalars["loss"].backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def assert_the_same(learnt, scalars, gradients):
    for name, value in scalars.items():
        assert learnt.scalars[name] == pytest.approx(float(value.detach()), rel=1e-5), name
    for found, wanted in zip(learnt.gradients, gradients, strict=True):
        bound = 1e-5 * float(wanted.abs().max())
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=bound)


def test_frames_in_parts_have_the_gradients_of_the_batch():
    random = torch.Generator().manual_seed(0)
    frames = torch.rand(48, 3, 64, 64, generator=random)
    noise = torch.randn(48, 4, generator=random)
    model = build_vision({"latent_size": 4}, seed=1)

    def loss(rows):
        return vae_loss(model(frames[rows], noise[rows]), frames[rows])

    whole = loss(slice(0, 48))
    gradients = gradients_of(model, whole)
    cut = [slice(0, 10), slice(10, 48)]
    parts = [Part((r.stop - r.start) / 48, lambda r=r: loss(r)) for r in cut]
    assert_the_same(learn(model, parts, 2), whole, gradients)


def test_sequences_in_parts_have_the_gradients_of_the_batch(tmp_path):
    """Short episodes are padded, so parts hold different numbers of steps that count."""
    source = latent_set(tmp_path, latent_records([3, 40, 9, 40, 2, 40]), per_shard=3)
    batches = SequenceBatches(source, range(6), batch_size=6, window=0, seed=0)
    batch = batches.batch(0)
    noise = batch.noise(seed=0, step=0)
    shape = {**SHAPE, "latent_size": batch.mu.shape[2], "action_size": batch.actions.shape[2]}
    model = build_memory({**shape, "reward_head": True, "end_head": True}, seed=1)

    def loss(rows):
        part = batch.rows(rows)
        return training_loss(model, draw_sequences(part, noise[rows], device=CPU))

    whole = loss(slice(0, 6))
    gradients = gradients_of(model, whole)
    cut = [slice(0, 2), slice(2, 6)]
    shares = [float(batch.mask[rows].sum() / batch.mask.sum()) for rows in cut]
    assert shares[0] != pytest.approx(1 / 3), "or the weights are not tested"
    parts = [Part(share, lambda r=r: loss(r)) for share, r in zip(shares, cut, strict=True)]
    assert_the_same(learn(model, parts, 2), whole, gradients)


def test_which_part_is_ready_first_does_not_show():
    model = torch.nn.Linear(8, 1)
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(3))

    def slow(rows, seconds):
        def compute():
            time.sleep(seconds)
            return {"loss": model(inputs[rows]).square().mean()}

        return Part(0.25, compute)

    cut = [slice(k, k + 16) for k in range(0, 64, 16)]
    first = learn(model, [slow(rows, 0.02 * k) for k, rows in enumerate(cut)], 4)
    second = learn(model, [slow(rows, 0.06 - 0.02 * k) for k, rows in enumerate(cut)], 4)
    assert first.scalars == second.scalars
    assert all(torch.equal(a, b) for a, b in zip(first.gradients, second.gradients, strict=True))


def test_math_threads_are_shared_out_and_given_back():
    model, seen = torch.nn.Linear(1, 1), []

    def compute():
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        time.sleep(0.05)
        return {"loss": model(torch.ones(1, 1)).sum()}

    before = torch.get_num_threads()
    try:
        with crew(4) as threads:
            threads.learn([Part(0.5, compute)] * 2, model.parameters())
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert [count for _, count in seen] == [2, 2]
    assert len({name for name, _ in seen}) == 2


def test_an_error_of_another_thread_comes_out():
    model = torch.nn.Linear(1, 1)

    def fine():
        return {"loss": model(torch.ones(1, 1)).sum()}

    def fails():
        raise OSError("no such shard")

    with pytest.raises(OSError, match="no such shard"):
        learn(model, [Part(0.5, fine), Part(0.5, fails)], 2)
