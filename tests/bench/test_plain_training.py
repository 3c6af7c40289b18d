"""The plain way computes what ours computes: from the same weights, the same losses."""

import numpy as np
import pytest
import torch

from stages.bench.plain_training import MemorySizes, plain_memory_step, plain_vision_step
from stages.memory.losses import Sequences, memory_loss, predict
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape
from stages.training.batches import to_float
from stages.vision.losses import vae_loss
from stages.vision.vae import VAE

CPU = torch.device("cpu")


def adam_step(model, loss, *, rate, clip=0.0):
    """One step of torch's Adam on a loss of ours."""
    adam = torch.optim.Adam(model.parameters(), lr=rate)
    loss.backward()
    if clip:
        torch.nn.utils.clip_grad_value_(model.parameters(), clip)
    adam.step()


def assert_weights_agree(plain, model):
    for name, value in model.state_dict().items():
        assert torch.allclose(plain[name], value, atol=2e-5), name


def test_a_plain_step_of_v_is_a_step_of_v():
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (6, 1, 1, 3), dtype=np.uint8)
    frames = np.ascontiguousarray(np.broadcast_to(colours, (6, 64, 64, 3)))
    noise = torch.from_numpy(random.standard_normal((6, 8), dtype=np.float32))
    model = VAE(8, seed=3)
    plain = plain_vision_step(
        latent_size=8, learning_rate=1e-3, kl_floor=0.5, device=CPU, weights=model.state_dict()
    )
    batch = to_float(frames, CPU)
    loss = vae_loss(model(batch, noise), batch, kl_floor=0.5)["loss"]
    assert plain.step(frames, noise) == pytest.approx(loss.item(), rel=1e-5)
    assert plain.weights().keys() == model.state_dict().keys()
    adam_step(model, loss, rate=1e-3)
    for name, parameter in model.named_parameters():
        # Where a gradient is next to nothing, the sign of Adam's first step is rounding.
        clear = parameter.grad.abs() > 1e-3 * parameter.grad.abs().max()
        difference = plain.weights()[name] - parameter.detach()
        assert clear.any(), name
        assert difference[clear].abs().max() < 2e-5, name  # of a step of 1e-3


def test_a_plain_step_of_m_is_a_step_of_m():
    random = torch.Generator().manual_seed(0)
    z = torch.randn(4, 8, 5, generator=random)
    actions = torch.randn(4, 7, 3, generator=random)
    mask = torch.ones(4, 7, dtype=torch.bool)
    mask[1, 4:] = False
    model = MDNRNN(MDNRNNShape(latent_size=5, hidden_size=12, num_mixtures=3), seed=2)
    sizes = MemorySizes(latent_size=5, hidden_size=12, num_mixtures=3)
    plain = plain_memory_step(
        sizes, learning_rate=1e-2, clip=1.0, device=CPU, weights=model.state_dict()
    )
    batch = Sequences(z=z, actions=actions, mask=mask)
    loss = memory_loss(predict(model, batch)[0], batch)["loss"]
    assert plain.step(z, actions, mask) == pytest.approx(loss.item(), rel=1e-5)
    adam_step(model, loss, rate=1e-2, clip=1.0)
    assert_weights_agree(plain.weights(), model)
    assert plain.weights().keys() == model.state_dict().keys()
