"""Whether the fast way learns what the plain way learns: the same start, the same data, N steps.

Both begin with the same weights and see the same batches and the same noise, so that only the
arithmetic differs. Held-out losses of both are measured by the same code, in float32. Training
amplifies the smallest difference, so the plain way also runs from a start that is a millionth off:
how far that leads apart is the yardstick.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stages.artifacts.artifact import Artifact
from stages.bench.model_rows import memory_sizes, precision_of
from stages.bench.plain_training import PlainTraining, plain_memory_step, plain_vision_step
from stages.bench.worksite import SEED, Worksite
from stages.families import build_memory, build_vision

BATCH = 128  # held-out frames that are scored at once
NUDGE = 1e-6  # by which every weight of the second plain start differs
VISION_RATE = 1e-4  # the paper's; at the preset's the plain way departs from itself by up to 10 %


@dataclass(frozen=True)
class Learnt:
    """Held-out losses after the same number of steps."""

    model: str
    measure: str
    steps: int
    precision: str  # of ours; the plain way is float32
    start: float  # before the first step
    ours: float
    plain: float
    plain_nudged: float  # the plain way from a start that is a millionth off

    @property
    def difference(self) -> float:
        """Ours beside the plain one, relative to the plain one."""
        return (self.ours - self.plain) / abs(self.plain)

    @property
    def plain_difference(self) -> float:
        """The plain way beside itself: what a difference may be without meaning anything."""
        return (self.plain_nudged - self.plain) / abs(self.plain)


def learn_vision(site: Worksite, num_steps: int) -> Learnt:
    """V: the loss per frame, squared error plus KL above its floor."""
    from stages.artifacts.episodes import EpisodeSet
    from stages.training.batches import FrameBatches, in_order_frames, split_episodes
    from stages.training.device import torch_generator
    from stages.vision.losses import held_out_errors

    config = site.config("train-vision")
    episodes = EpisodeSet.of([site.artifact("rollouts")])
    seeds = episodes.seeds.tolist()
    train, held_out = split_episodes(seeds, fraction=config.held_out)
    batches = FrameBatches(episodes, train, batch_size=config.batch_size, seed=SEED)
    start = build_vision({"latent_size": config.latent_size}, seed=SEED)

    def loss(weights: Mapping[str, Any]) -> float:
        model = build_vision({"latent_size": config.latent_size})
        model.load_state_dict(dict(weights))
        frames = in_order_frames(episodes, held_out, batch_size=BATCH)
        errors = held_out_errors(model.to(site.device).eval(), frames)
        floor: float = config.kl_floor * config.latent_size
        return errors.reconstruction + max(errors.kl, floor)

    def plain(weights: Mapping[str, Any]) -> float:
        training = plain_vision_step(
            latent_size=config.latent_size,
            learning_rate=VISION_RATE,
            kl_floor=config.kl_floor,
            device=site.device,
            weights=weights,
        )

        def inputs(step: int) -> tuple[Any, ...]:
            frames = batches.batch(step)
            random = torch_generator(SEED, "vision-noise", step, device=site.device)
            return frames, _normal((len(frames), config.latent_size), random)

        return loss(_trained(site, training, inputs, num_steps))

    ours = site.make(
        "train-vision",
        site.quiet(),
        steps=num_steps,
        learning_rate=VISION_RATE,
        held_out_frames=16,
    )
    return Learnt(
        model="V",
        measure="squared error and KL per frame",
        steps=num_steps,
        precision=precision_of(config),
        start=loss(start.state_dict()),
        ours=loss(_weights(ours)),
        plain=plain(start.state_dict()),
        plain_nudged=plain(_nudged(start.state_dict())),
    )


def learn_memory(site: Worksite, num_steps: int) -> Learnt:
    """M: the negative log likelihood in nats per latent dimension."""
    from stages.artifacts.latents import LatentSet
    from stages.memory.losses import draw_sequences, held_out_errors
    from stages.training.batches import split_episodes
    from stages.training.sequences import SequenceBatches, in_order_sequences

    config, latents = site.config("train-memory"), site.artifact("latents")
    episodes = LatentSet.of([latents])
    seeds = episodes.seeds.tolist()
    train, held_out = split_episodes(seeds, fraction=config.held_out)
    batches = SequenceBatches(
        episodes, train, batch_size=config.batch_size, window=config.window, seed=SEED
    )
    ours = site.make("train-memory", site.quiet(), steps=num_steps)
    shape = ours.manifest.summary["shape"]
    start = build_memory(shape, seed=SEED)

    def loss(weights: Mapping[str, Any]) -> float:
        model = build_memory(shape)
        model.load_state_dict(dict(weights))
        drawn = (
            draw_sequences(batch, batch.noise(seed=SEED, step=2**40 + k), device=site.device)
            for k, batch in enumerate(in_order_sequences(episodes, held_out, batch_size=16))
        )
        return held_out_errors(model.to(site.device).eval(), drawn)["nll"]

    def plain(weights: Mapping[str, Any]) -> float:
        training = plain_memory_step(
            memory_sizes(config, latents),
            learning_rate=config.learning_rate,
            clip=config.clip,
            device=site.device,
            weights=weights,
        )

        def inputs(step: int) -> tuple[Any, ...]:
            batch = batches.batch(step)
            noise = batch.noise(seed=SEED, step=step)
            found = draw_sequences(batch, noise, device=site.device)
            return found.z, found.actions, found.mask

        return loss(_trained(site, training, inputs, num_steps))

    return Learnt(
        model="M",
        measure="nats per dimension",
        steps=num_steps,
        precision=precision_of(config),
        start=loss(start.state_dict()),
        ours=loss(_weights(ours)),
        plain=plain(start.state_dict()),
        plain_nudged=plain(_nudged(start.state_dict())),
    )


CHECKS: Mapping[str, Callable[[Worksite, int], Learnt]] = {
    "train-vision": learn_vision,
    "train-memory": learn_memory,
}


def _trained(
    site: Worksite,
    training: PlainTraining,
    inputs: Callable[[int], tuple[Any, ...]],
    num_steps: int,
) -> Mapping[str, Any]:
    """The weights after the plain way saw the inputs of so many steps."""
    for step in range(num_steps):
        site.progress.poll()
        training.step(*inputs(step))
    return training.weights()


def _weights(artifact: Artifact) -> dict[str, Any]:
    import torch

    from stages.artifacts.weights import unpack_tensors
    from stages.families import WEIGHTS

    tensors, _ = unpack_tensors(artifact.file(WEIGHTS))
    return {name: torch.from_numpy(array) for name, array in tensors.items()}


def _nudged(weights: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value * (1 + NUDGE) for name, value in weights.items()}


def _normal(shape: tuple[int, int], random: Any) -> Any:
    import torch

    return torch.randn(shape, generator=random, device=random.device)
