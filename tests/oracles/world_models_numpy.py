"""World Models in numpy: V and M as the paper and docs/formats.md describe them, without torch.

Weights are dictionaries {name: array} as they stand in weights.safetensors.
Axes: B batch, H W C rows, columns, channels, Z latent, A action, K components, U LSTM units.
"""

import numpy as np

FORGET_OFFSET = 1.0  # not in the file


def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), 1 - 1 / (1 + np.exp(-np.abs(x))))


def relu(x):
    return np.maximum(x, 0)


# ------------------------------------------------------------------------------------------- V


def convolve(images, weight, bias):
    """[B, C, H, W] by kernels [O, C, k, k], stride 2, no padding."""
    num_images, _, num_rows, num_columns = images.shape
    num_outputs, _, size, _ = weight.shape
    rows, columns = (num_rows - size) // 2 + 1, (num_columns - size) // 2 + 1
    out = np.empty((num_images, num_outputs, rows, columns))
    for row in range(rows):
        for column in range(columns):
            patch = images[:, :, 2 * row : 2 * row + size, 2 * column : 2 * column + size]
            out[:, :, row, column] = np.einsum("bcij,ocij->bo", patch, weight, optimize=True) + bias
    return out


def deconvolve(images, weight, bias):
    """[B, C, H, W] by kernels [C, O, k, k]: every input pixel stamps its kernel, stride 2."""
    num_images, _, rows, columns = images.shape
    _, num_outputs, size, _ = weight.shape
    out = np.zeros((num_images, num_outputs, 2 * (rows - 1) + size, 2 * (columns - 1) + size))
    for row in range(rows):
        for column in range(columns):
            stamp = np.einsum("bc,coij->boij", images[:, :, row, column], weight, optimize=True)
            out[:, :, 2 * row : 2 * row + size, 2 * column : 2 * column + size] += stamp
    return out + bias[:, None, None]


def encode(weights, frames):
    """(mu, logvar), float64 [B, Z] each, of frames uint8 [B, 64, 64, 3]."""
    flat = encoder_layers(weights, frames)[-1].reshape(len(frames), 1024)  # channel, row, column
    mu = flat @ weights["encoder.mu.weight"].T + weights["encoder.mu.bias"]
    logvar = flat @ weights["encoder.logvar.weight"].T + weights["encoder.logvar.bias"]
    return mu, logvar


def encoder_layers(weights, frames):
    """What every convolution answers, after its relu: a list of [B, C, H, W]."""
    images = frames.transpose(0, 3, 1, 2).astype(np.float64) / 255
    layers = []
    for layer in ("conv1", "conv2", "conv3", "conv4"):
        weight, bias = weights[f"encoder.{layer}.weight"], weights[f"encoder.{layer}.bias"]
        images = relu(convolve(images, weight.astype(np.float64), bias))
        layers.append(images)
    return layers


def decode(weights, latents):
    """Frames float64 [B, 64, 64, 3] in 0..1 of latents [B, Z]."""
    return sigmoid(decoder_layers(weights, latents)[-1]).transpose(0, 2, 3, 1)


def decoder_layers(weights, latents):
    """The dense layer's answer, then every deconvolution's; relu between deconvolutions."""
    flat = latents @ weights["decoder.dense.weight"].T + weights["decoder.dense.bias"]
    images = flat[:, :, None, None].astype(np.float64)  # linear: no relu here
    layers = [images]
    for layer in ("deconv1", "deconv2", "deconv3", "deconv4"):
        weight, bias = weights[f"decoder.{layer}.weight"], weights[f"decoder.{layer}.bias"]
        images = deconvolve(images, weight.astype(np.float64), bias)
        images = images if layer == "deconv4" else relu(images)
        layers.append(images)
    return layers


def kl(mu, logvar):
    """KL from N(0, 1) in nats, [B]."""
    return -0.5 * (1 + logvar - mu**2 - np.exp(logvar)).sum(axis=1)


# ------------------------------------------------------------------------------------------- M


def initial_state(num_lanes, num_units):
    """(h, c) at the start of an episode, [B, U] each."""
    return np.zeros((num_lanes, num_units)), np.zeros((num_lanes, num_units))


def lstm_step(weights, x, state):
    """The next (h, c) of inputs x [B, Z + A (+ 1)]: latent, action, perhaps restart flag."""
    h, c = state
    gates = x @ weights["lstm.weight_ih"].T + h @ weights["lstm.weight_hh"].T + weights["lstm.bias"]
    take, keep, new, show = np.split(gates.astype(np.float64), 4, axis=1)
    c = sigmoid(keep + FORGET_OFFSET) * c + sigmoid(take) * np.tanh(new)
    h = sigmoid(show) * np.tanh(c)
    return h, c


def heads_see(weights, h, z, a):
    """What the heads see [B, S] after a step from z and a to h: h, or hidden units of all three."""
    if "wide.weight" not in weights:
        return h
    parts = np.split(weights["wide.weight"], np.cumsum([h.shape[1], z.shape[1]]), axis=1)
    mixed = sum(x @ part.T for x, part in zip((h, z, a), parts, strict=True))
    return np.maximum(mixed + weights["wide.bias"], 0)


def mixture_head(weights, h, num_mixtures=5, min_log_sigma=-7.0, joint=False):
    """(weight, mean, sigma), [B, Z, K] each, of h [B, U]; joint: every z_i has the same weights."""
    raw = h @ weights["head.weight"].T + weights["head.bias"]
    if joint:
        logits, rest = raw[:, :num_mixtures], raw[:, num_mixtures:]
        mean, log_sigma = np.moveaxis(rest.reshape(len(h), 2, -1, num_mixtures), 1, 0)
        logits = np.broadcast_to(logits[:, None], mean.shape)
    else:
        logits, mean, log_sigma = np.moveaxis(raw.reshape(len(h), 3, -1, num_mixtures), 1, 0)
    scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weight = scores / scores.sum(axis=-1, keepdims=True)
    return weight, mean, np.exp(np.maximum(log_sigma, min_log_sigma))


def block_heads(weights, seen, following, num_blocks, num_mixtures=2):
    """(weight, mean, sigma), [B, Z, K] each, of the blocks of z given the true ones before them.

    `seen` [B, S] is what the heads see; a block's units also see the z [B, Z] before the block.
    """
    found = []
    told = seen @ weights["blocks.weight"].T + weights["blocks.bias"]
    size, units = following.shape[1] // num_blocks, told.shape[1] // num_blocks
    rows = len(weights["head.bias"]) // num_blocks
    for block in range(num_blocks):
        known = np.where(np.arange(following.shape[1]) < block * size, following, 0)
        hidden = np.maximum(told + known @ weights["before.weight"].T, 0)
        mine = hidden[:, block * units : (block + 1) * units]
        own = slice(block * rows, (block + 1) * rows)
        both = np.concatenate([weights["head.weight"][own], weights["after.weight"][own]], axis=1)
        head = {"head.weight": both, "head.bias": weights["head.bias"][own]}
        found.append(mixture_head(head, np.hstack([seen, mine]), num_mixtures, joint=True))
    return tuple(np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))


def mixture_log_likelihood(weight, mean, sigma, z):
    """Log p(z) per dimension, [B, Z]: the density summed plainly, component by component."""
    density = np.zeros_like(z, dtype=np.float64)
    for k in range(weight.shape[-1]):
        normal = np.exp(-0.5 * ((z - mean[..., k]) / sigma[..., k]) ** 2)
        density += weight[..., k] * normal / (np.sqrt(2 * np.pi) * sigma[..., k])
    return np.log(density)
