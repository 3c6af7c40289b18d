"""The oracle is the real world: an agent that sees latents acts there as it does with eyes."""

import numpy as np
import pytest
import torch

from stages.contracts import WorldSpec
from stages.control.controllers import Controllers
from stages.control.pilot import Choices, Dreamer, Pilot, PilotShape
from stages.memory.mdn_rnn import MDNRNN, MDNRNNShape
from stages.vision.vae import VAE
from stages.worlds.driving import StopRule, drive
from stages.worlds.following import Follower
from stages.worlds.making import make_world
from stages.worlds.oracle import OracleWorld

SPEC = WorldSpec(engine="gymnasium-fast", repeat=8)
SEEDS = [3, 4, 5]


@pytest.mark.parametrize("features", ["z", "zh", "zch"])
@pytest.mark.parametrize("latent", ["mean", "sample"])
def test_an_agent_drives_there_as_in_the_world_bit_for_bit(features, latent):
    torch.set_num_threads(1)
    vision = VAE(8, seed=1).eval()
    memory = MDNRNN(MDNRNNShape(8, 3, 16, 2, restart_flag=True), seed=2).eval()
    shape = PilotShape(features=features, latent=latent, squash=("linear", "linear", "clip"))
    kind = shape.controller(8, 16, 3)
    random = np.random.default_rng(0)
    controllers = Controllers(kind, random.normal(size=(3, kind.num_parameters)))

    def driven(world, policy):
        rule = StopRule(6)  # lanes end at different steps
        return drive(world, policy, SEEDS, stop_rule=rule, max_steps=30)

    plain = make_world(SPEC)
    choices = Choices(controllers, shape, plain.action_spec)

    def follower():
        return Follower(vision, memory if features != "z" else None, latent=latent)

    expected = driven(plain, Pilot(follower(), choices))
    seen = OracleWorld(make_world(SPEC), follower())
    found = driven(seen, Dreamer(seen, choices))
    assert found == expected
    assert len({outcome.num_steps for outcome in found}) > 1
    plain.close()
    seen.close()
