"""Makes tests/formats/v1: one small artifact of every kind, by the stages themselves.

    python tests/formats/make_v1.py FOLDER

V has 4.2 million weights whatever its settings. So that they can be kept in a repository, it
starts with few weights that are not zero, learns at a rate that changes none of them, and is
stored compressed.
"""

import json
import lzma
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from oracles import finished_run  # noqa: E402

from stages import train_vision  # noqa: E402
from stages.contracts import Resources  # noqa: E402
from stages.events import Silent  # noqa: E402
from stages.pipeline import Request, prepare  # noqa: E402
from stages.run import run_all  # noqa: E402

KEPT = 24  # inputs that a unit of V listens to
SETTINGS = (
    "rollout.episodes=2",
    "rollout.gymnasium_episodes=0",
    "rollout.task_episodes=2",
    "rollout.max_steps=6",
    "vision.latent_size=4",
    "vision.steps=1",
    "vision.batch_size=2",
    "vision.learning_rate=1e-300",
    "vision.held_out_frames=16",
    "vision.log_every=1",
    "memory.hidden_size=6",
    "memory.num_mixtures=2",
    "memory.steps=4",
    "memory.log_every=2",
    "control.generations=2",
    "control.population=4",
    "control.episodes=[1]",
    "control.max_steps=4",
    "control.select_every=2",
    "control.select_episodes=1",
    "evaluate.episodes=2",
    "evaluate.random_episodes=1",
    "evaluate.max_steps=4",
)


def thinned(name: str, weights: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    """Few weights of equal size and random sign, which keep the size of what flows through."""
    if weights.ndim < 2:
        return torch.zeros_like(weights)
    units_first = weights.transpose(0, 1) if "deconv" in name else weights
    flat = np.zeros(units_first.flatten(1).shape, dtype=np.float32)
    num_kept = min(KEPT, flat.shape[1])
    for row in flat:
        places = random.choice(flat.shape[1], num_kept, replace=False)
        row[places] = random.choice([-1, 1], num_kept) * np.sqrt(2 / num_kept)
    made = torch.from_numpy(flat).view(units_first.shape)
    return (made.transpose(0, 1) if "deconv" in name else made).contiguous()


def build_thin_vision(shape, *, seed=0):
    from stages.vision.vae import VAE

    model = VAE(shape["latent_size"], seed=seed)
    random = np.random.default_rng(seed)
    state = model.state_dict()
    model.load_state_dict({name: thinned(name, value, random) for name, value in state.items()})
    return model


def main(target: Path) -> None:
    assert not target.exists(), f"{target} is there already"
    train_vision.build_vision = build_thin_vision
    request = Request(
        recipe="carracing",
        preset="debug",
        seed=1,
        overrides=SETTINGS,
        resources=Resources(workers=1, device="cpu", threads=1),
    )
    prepared = prepare(target, request, progress=Silent())
    run_all(prepared, progress=Silent())
    agent = finished_run.load_agent(target)
    (frame,) = finished_run.load_episodes(target)[0].frames[:1]
    outputs, actions = finished_run.drive(agent, frame[None])
    expected = {"latent": finished_run.models.encode(agent.vision, frame[None])[0][0].tolist()}
    expected |= {"output": outputs[0].tolist(), "action": actions[0].tolist()}
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    weights = target / "vision/0001/weights.safetensors"
    packed = lzma.compress(weights.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
    weights.with_suffix(".safetensors.xz").write_bytes(packed)
    weights.unlink()
    for lock in target.rglob(".lock"):
        lock.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
