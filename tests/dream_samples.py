"""Small dreams whose M is far from zero."""

import numpy as np
import torch

from stages.contracts import ActionSpec
from stages.memory.dreaming import DreamingMemory
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape
from stages.worlds.dream import DreamTerms, DreamWorld, Starts

Z, A, H = 4, 1, 12
SHAPE = MDNRNNShape(Z, A, H, 3, end_head=True, restart_flag=True)
SPEC = ActionSpec("box", A, low=(-1.0,), high=(1.0,))


def lively(shape=SHAPE, *, end_bias=-2.0):
    """An M whose gates and mixtures are far from zero."""
    model, source = MDNRNN(shape, seed=1), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=source))
        if model.wide is not None:
            model.wide.weight.mul_(0.2)  # ReLUs have no bounds, and a dream would explode
        if model.end_head is not None:
            model.end_head.weight.mul_(4)  # so that it makes up its mind
            model.end_head.bias.fill_(end_bias)
    return model.eval()


def starts(reward=1.0, number=7):
    random = np.random.default_rng(5)
    mu = random.standard_normal((number, Z)).astype(np.float32)
    return Starts(mu, np.full((number, Z), -3.0, dtype=np.float32), reward)


def build(model=None, *, reward=1.0, begun=None, **terms):
    kept = DreamTerms(**{"max_steps": 30, **terms})
    return DreamWorld(DreamingMemory(model or lively()), begun or starts(reward), SPEC, kept)
