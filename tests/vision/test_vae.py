"""V against the paper's table, and against the same network written in numpy."""

import numpy as np
import pytest
import torch
from oracles import world_models_numpy as oracle

from stages.errors import UsageError
from stages.training.latents import draw
from stages.vision.vae import VAE, check_frame_shape, decode_latents, encode_frames


@pytest.fixture(scope="module")
def model():
    return VAE(32, seed=1)


@pytest.fixture(scope="module")
def lively(model):
    """A model whose biases are not zero and whose outputs are not grey."""
    other = VAE(32, seed=2)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0, 0.5, generator=generator)
            else:
                parameter.mul_(1.5)
    return other


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)


def as_numpy(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(("latent_size", "count"), [(32, 4_348_547), (64, 4_446_915)])
def test_parameter_count_is_the_papers(latent_size, count):
    model = VAE(latent_size)
    assert model.num_parameters() == count
    assert sum(value.numel() for value in model.state_dict().values()) == count


def test_every_layer_has_the_papers_parameters(model):
    layers = {
        "encoder.conv1": 1_568,
        "encoder.conv2": 32_832,
        "encoder.conv3": 131_200,
        "encoder.conv4": 524_544,
        "encoder.mu": 32_800,
        "encoder.logvar": 32_800,
        "decoder.dense": 33_792,
        "decoder.deconv1": 3_276_928,
        "decoder.deconv2": 204_864,
        "decoder.deconv3": 73_760,
        "decoder.deconv4": 3_459,
    }
    state = model.state_dict()
    assert set(state) == {f"{name}.{part}" for name in layers for part in ("weight", "bias")}
    for name, count in layers.items():
        assert state[f"{name}.weight"].numel() + state[f"{name}.bias"].numel() == count


def test_every_intermediate_shape_is_the_papers(model):
    shapes = {}

    def keep(name):
        def hook(_module, _inputs, output):
            shapes[name] = tuple(output.shape[1:])

        return hook

    modules = {**dict(model.encoder.named_children()), **dict(model.decoder.named_children())}
    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    made = model.decode(model.encode(torch.zeros(2, 3, 64, 64))[0])
    for handle in handles:
        handle.remove()
    assert tuple(made.shape) == (2, 3, 64, 64)
    expected = {
        "conv1": (32, 31, 31),
        "conv2": (64, 14, 14),
        "conv3": (128, 6, 6),
        "conv4": (256, 2, 2),
        "mu": (32,),
        "logvar": (32,),
        "dense": (1024,),
        "deconv2": (64, 13, 13),
        "deconv3": (32, 30, 30),
        "deconv4": (3, 64, 64),
    }
    assert expected.items() <= shapes.items()
    # deconv1 is computed as a matrix product; as the layer that it stands for it gives 5x5.
    assert tuple(model.decoder.deconv1(torch.zeros(1, 1024, 1, 1)).shape) == (1, 128, 5, 5)


def test_encoder_equals_numpy(lively, frames):
    mu, logvar = encode_frames(lively, frames[:3])
    expected_mu, expected_logvar = oracle.encode(as_numpy(lively), frames[:3])
    assert np.std(expected_mu) > 0.05
    np.testing.assert_allclose(mu.numpy(), expected_mu, atol=2e-5)
    np.testing.assert_allclose(logvar.numpy(), expected_logvar, atol=2e-5)


def test_decoder_equals_numpy(lively):
    latents = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = lively.decode(latents).permute(0, 2, 3, 1).numpy()
    expected = oracle.decode(as_numpy(lively), latents.numpy())
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(found, expected, atol=2e-5)
    pixels = decode_latents(lively, latents)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels - expected * 255).max() <= 0.51


def test_first_deconvolution_is_torchs_and_so_are_its_gradients(lively):
    latents = torch.randn(2, 32, generator=torch.Generator().manual_seed(3))
    decoder = lively.decoder
    signal = decoder.dense(latents)[:, :, None, None]
    for layer in (decoder.deconv1, decoder.deconv2, decoder.deconv3):
        signal = torch.relu(layer(signal))
    expected = torch.sigmoid(decoder.deconv4(signal))
    names = ["deconv1.weight", "deconv1.bias", "dense.weight"]
    parameters = [decoder.get_parameter(name) for name in names]
    wanted = torch.autograd.grad(expected.square().sum(), parameters)
    made = lively.decode(latents)
    found = torch.autograd.grad(made.square().sum(), parameters)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-4)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_rows_do_not_depend_on_the_batch(model, frames):
    whole_mu, whole_logvar = encode_frames(model, frames)
    for start, stop in [(0, 1), (3, 4), (7, 12), (0, 16), (5, 22), (39, 40), (8, 40)]:
        mu, logvar = encode_frames(model, frames[start:stop])
        assert torch.equal(mu, whole_mu[start:stop]), (start, stop)
        assert torch.equal(logvar, whole_logvar[start:stop]), (start, stop)


def test_padding_does_not_leak_out(model, frames):
    mu, logvar = encode_frames(model, frames[:1])
    assert mu.shape == logvar.shape == (1, 32)
    assert mu.dtype == logvar.dtype == torch.float32
    assert encode_frames(model, frames[:0])[0].shape == (0, 32)


@pytest.mark.parametrize("shape", [(84, 96, 3), (64, 64, 1), (32, 32, 3), (3, 64, 64)])
def test_other_frames_are_refused_by_their_size(model, shape):
    spelled = "x".join(map(str, shape))
    with pytest.raises(UsageError, match=spelled):
        encode_frames(model, np.zeros((2, *shape), dtype=np.uint8))
    with pytest.raises(UsageError, match=r"world\.size=64"):
        check_frame_shape(shape)
    with pytest.raises(UsageError, match=spelled):
        model.encode(torch.zeros(2, shape[2], shape[0], shape[1]))


def test_empty_latent_is_refused():
    with pytest.raises(UsageError, match="latent_size = 0"):
        VAE(0)


def test_seed_alone_decides_the_initial_weights():
    torch.manual_seed(1)
    first = VAE(4, seed=7).state_dict()
    torch.manual_seed(2)
    second, third = VAE(4, seed=7).state_dict(), VAE(4, seed=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["encoder.conv1.weight"], third["encoder.conv1.weight"])


def test_drawn_latents_have_the_posteriors_moments():
    noise = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0))
    z = draw(torch.tensor([1.0, -2.0]), torch.tensor([0.0, 2 * np.log(0.1)]), noise)
    np.testing.assert_allclose(z.mean(0).numpy(), [1, -2], atol=0.01)
    np.testing.assert_allclose(z.std(0).numpy(), [1, 0.1], rtol=0.01)


def test_half_precision_latents_are_drawn_in_float32():
    mu = torch.zeros(4, dtype=torch.float16)
    logvar = torch.full((4,), -20.0, dtype=torch.float16)
    z = draw(mu, logvar, torch.ones(4))
    assert z.dtype == torch.float32
    np.testing.assert_allclose(z.numpy(), np.exp(-10), rtol=1e-5)
