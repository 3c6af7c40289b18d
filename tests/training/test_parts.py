"""A batch in parts: the gradients of the whole, the same bits every time, errors that come out."""

import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training_samples import latent_records, latent_set

from stages import train_memory, train_vision
from stages.errors import StopNow
from stages.events import OnceEach, Silent
from stages.families import build_memory, build_vision
from stages.memory.watch import Watch as MemoryWatch
from stages.training.parts import Part, crew, cut_rows
from stages.training.sequences import SequenceBatches
from stages.vision.watch import Watch as VisionWatch

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
    try:
        with crew(num_threads) as threads:
            return threads.learn(parts, model.parameters())
    finally:
        torch.set_num_threads(before)


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


def session(num_threads):
    """All that the losses of the stages ask a session for."""
    return SimpleNamespace(device=CPU, threads=num_threads)


def vision_loss(model, frames, num_threads, config):
    watch = VisionWatch(OnceEach(Silent()))
    return train_vision._loss(model, lambda _: frames, session(num_threads), config, 5, watch)


def memory_loss(model, batch, num_threads, config):
    watch = MemoryWatch(OnceEach(Silent()))
    return train_memory._loss(model, lambda _: batch, session(num_threads), config, 5, watch)


def test_frames_in_parts_have_the_gradients_of_the_batch():
    """The loss of `wm train-vision` on two threads, beside that on one by plain autograd."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (33, 64, 64, 3), dtype=np.uint8)
    model = build_vision({"latent_size": 4}, seed=1)
    config = train_vision.Config(latent_size=4, precision="float32")

    def parts(num_threads):
        return vision_loss(model, frames, num_threads, config)(0)

    assert [len(parts(n)) for n in (1, 2)] == [1, 2]
    (whole,) = parts(1)
    scalars = whole.compute()
    gradients = gradients_of(model, scalars)
    assert_the_same(learn(model, parts(2), 2), scalars, gradients)


def test_sequences_in_parts_have_the_gradients_of_the_batch(tmp_path):
    """The same of `wm train-memory`, with short episodes: parts hold unlike numbers of steps."""
    lengths = [2] * 16 + [3, 40, 9, 30] * 5
    source = latent_set(tmp_path, latent_records(lengths), per_shard=9)
    batches = SequenceBatches(source, range(36), batch_size=36, window=0, seed=0)
    batch = batches.batch(0)
    shape = {**SHAPE, "latent_size": batch.mu.shape[2], "action_size": batch.actions.shape[2]}
    model = build_memory({**shape, "reward_head": True, "end_head": True}, seed=1)
    config = train_memory.Config(precision="float32")

    def parts(num_threads):
        return memory_loss(model, batch, num_threads, config)(0)

    (whole,) = parts(1)
    cut = parts(2)
    assert len(cut) == 2
    assert sum(part.weight for part in cut) == pytest.approx(1)
    assert cut[0].weight != pytest.approx(0.5, abs=0.01), "or weights by rows would pass too"
    scalars = whole.compute()
    gradients = gradients_of(model, scalars)
    assert_the_same(learn(model, cut, 2), scalars, gradients)


def test_a_part_without_a_step_that_counts_adds_nothing(tmp_path):
    source = latent_set(tmp_path, latent_records([20] * 32), per_shard=9)
    batch = SequenceBatches(source, range(32), batch_size=32, window=0, seed=0).batch(0)
    batch.mask[16:] = False
    batch.mu[16:] = 99  # what stands in the padding must not matter
    shape = {**SHAPE, "latent_size": batch.mu.shape[2], "action_size": batch.actions.shape[2]}
    model = build_memory({**shape, "reward_head": False, "end_head": False}, seed=1)
    config = train_memory.Config(precision="float32")
    loss = memory_loss(model, batch, 2, config)
    first, second = loss(0)
    assert (first.weight, second.weight) == (1, 0)
    alone, both = learn(model, [first], 1), learn(model, [first, second], 2)
    assert both.scalars == alone.scalars
    for one, other in zip(both.gradients, alone.gradients, strict=True):
        assert torch.equal(one, other)


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


@pytest.mark.parametrize("stop", [KeyboardInterrupt, StopNow])
def test_who_is_stopped_does_not_wait_for_the_step(stop):
    model, go_on = torch.nn.Linear(1, 1), threading.Event()

    def slow():
        go_on.wait(20)
        return {"loss": model(torch.ones(1, 1)).sum()}

    def interrupted(*_):
        raise stop

    earlier, began = signal.signal(signal.SIGALRM, interrupted), time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(stop), crew(2) as threads:
            threads.learn([Part(0.5, slow)] * 2, model.parameters())
    finally:
        signal.signal(signal.SIGALRM, earlier)
    assert time.monotonic() - began < 10
    go_on.set()
