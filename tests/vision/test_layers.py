"""The layers of training V against torch's own, and V's pass forward and back with them."""

import pytest
import torch
from torch.nn import functional

from stages.training.latents import draw
from stages.vision import layers
from stages.vision.losses import vae_loss
from stages.vision.vae import VAE


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def convolution(signal, weight, bias):
    return functional.conv2d(signal, weight, bias, stride=2)


def deconvolution(signal, weight, bias):
    return functional.conv_transpose2d(signal, weight, bias, stride=2)


CASES = {  # layer, torch's, channels in, out, kernel, rows and columns of the image
    "first": (layers.convolve, convolution, 3, 32, 4, (64, 64)),
    "odd image": (layers.convolve, convolution, 6, 10, 4, (31, 31)),
    "many channels": (layers.convolve, convolution, 8, 128, 4, (14, 10)),
    "patches": (layers.convolve_small, convolution, 5, 7, 4, (6, 8)),
    "patches, odd image": (layers.convolve_small, convolution, 5, 7, 4, (7, 9)),
    "deconvolution": (layers.deconvolve, deconvolution, 6, 3, 6, (5, 7)),
    "small, odd kernel": (layers.deconvolve_small, deconvolution, 6, 4, 5, (5, 3)),
    "small, even kernel": (layers.deconvolve_small, deconvolution, 6, 4, 6, (2, 3)),
}


def gradients(layer, signal, weight, bias, target):
    inputs = [part.clone().requires_grad_() for part in (signal, weight, bias)]
    made = layer(*inputs)
    (made.float() * target).sum().backward()
    return made, [part.grad for part in inputs]


@pytest.mark.parametrize("name", CASES)
def test_layer_and_its_gradients_are_torchs(name):
    layer, reference, fan_in, fan_out, size, image = CASES[name]
    signal = normal(3, fan_in, *image)
    transposed = reference is deconvolution
    weight = normal(*((fan_in, fan_out) if transposed else (fan_out, fan_in)), size, size, seed=1)
    bias = normal(fan_out, seed=2)
    target = normal(*reference(signal, weight, bias).shape, seed=3)
    wanted, expected = gradients(reference, signal, weight, bias, target)
    for memory_format in (torch.channels_last, torch.contiguous_format):
        laid = signal.contiguous(memory_format=memory_format)
        made, found = gradients(layer, laid, weight, bias, target)
        torch.testing.assert_close(made, wanted, atol=1e-4, rtol=1e-4)
        for one, other in zip(found, expected, strict=True):
            assert float((one - other).norm() / other.norm()) < 1e-5
    made, found = gradients(layer, signal.bfloat16(), weight, bias, target)
    assert made.dtype == torch.bfloat16
    assert [part.dtype for part in found] == [torch.bfloat16, torch.float32, torch.float32]
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.02


def test_dense_image_is_the_transposed_convolution_of_one_pixel():
    flat, weight, bias = normal(4, 6), normal(6, 5, 3, 3, seed=1), normal(5, seed=2)
    expected = functional.conv_transpose2d(flat[:, :, None, None], weight, bias, stride=2)
    torch.testing.assert_close(layers.dense_image(flat, weight, bias), expected)


def test_squared_error_and_its_gradient():
    found, wanted, weight = normal(3, 2, 4, 5).requires_grad_(), normal(3, 2, 4, 5), normal(3)
    made = layers.squared_error(found, wanted)
    expected = (found - wanted).square().flatten(1).sum(1)
    torch.testing.assert_close(made, expected)
    (one,) = torch.autograd.grad((made * weight).sum(), found)
    (other,) = torch.autograd.grad((expected * weight).sum(), found)
    torch.testing.assert_close(one, other)


def plain_loss(model, frames, noise):
    """V and its loss with torch's layers alone."""
    signal = frames.contiguous()
    for name in ("conv1", "conv2", "conv3", "conv4"):
        signal = torch.relu(getattr(model.encoder, name)(signal))
    mu, logvar = model.encoder.mu(signal.flatten(1)), model.encoder.logvar(signal.flatten(1))
    signal = model.decoder.dense(draw(mu, logvar, noise))[:, :, None, None]
    for name in ("deconv1", "deconv2", "deconv3"):
        signal = torch.relu(getattr(model.decoder, name)(signal))
    squares = (torch.sigmoid(model.decoder.deconv4(signal)) - frames).square().flatten(1).sum(1)
    kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1)
    return squares.mean() + kl.clamp(min=16).mean()


@pytest.mark.parametrize(
    ("dtype", "loss_error", "gradient_error"),
    [(torch.float32, 1e-6, 1e-5), (torch.bfloat16, 2e-3, 0.2)],
)
def test_training_pass_is_that_of_torchs_layers(dtype, loss_error, gradient_error):
    model = VAE(32, seed=1)
    frames = torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    noise = normal(20, 32, seed=4)
    expected = plain_loss(model, frames, noise)
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    made = model(frames, noise, dtype=dtype)
    assert made.frames.dtype == made.mu.dtype == made.logvar.dtype == torch.float32
    loss = vae_loss(made, frames)["loss"]
    found = torch.autograd.grad(loss, list(model.parameters()))
    assert loss.item() == pytest.approx(expected.item(), rel=loss_error)
    for (name, _), one, other in zip(model.named_parameters(), found, wanted, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm() / other.norm()) < gradient_error, name
