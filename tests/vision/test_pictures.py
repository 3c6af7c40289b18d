"""Pictures: the right frames in the right places."""

import numpy as np
import torch
from oracles import world_models_numpy as oracle

from stages.vision.pictures import reconstruction_picture, traversal_picture
from stages.vision.vae import VAE


def as_numpy(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def test_originals_stand_above_their_reconstructions():
    model = VAE(8, seed=1)
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    picture = reconstruction_picture(model, frames)
    assert picture.shape == (128, 192, 3)
    assert picture.dtype == np.uint8
    mu, _ = oracle.encode(as_numpy(model), frames)
    expected = oracle.decode(as_numpy(model), mu) * 255
    for index in range(3):
        columns = slice(64 * index, 64 * (index + 1))
        assert np.array_equal(picture[:64, columns], frames[index])
        assert np.abs(picture[64:, columns] - expected[index]).max() <= 0.6


def test_traversal_moves_the_dimensions_that_say_most():
    model = VAE(4, seed=1)
    with torch.no_grad():
        model.encoder.logvar.weight.zero_()
        model.encoder.logvar.bias.copy_(torch.tensor([0.0, -3.0, -1.0, -2.0]))
    frame = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    picture = traversal_picture(model, frame, num_dimensions=2, num_steps=3, reach=2.0)
    assert picture.shape == (128, 192, 3)
    mu, _ = oracle.encode(as_numpy(model), frame)
    for row, dimension in enumerate([1, 3]):  # the narrowest posteriors
        for column, value in enumerate([-2.0, 0.0, 2.0]):
            latents = mu.copy()
            latents[0, dimension] = value
            expected = oracle.decode(as_numpy(model), latents)[0] * 255
            found = picture[64 * row : 64 * (row + 1), 64 * column : 64 * (column + 1)]
            assert np.abs(found - expected).max() <= 0.6
