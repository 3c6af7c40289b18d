"""The rows of V and M: training both, and encoding recorded frames with V."""

from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.artifacts.artifact import Artifact
from stages.bench.ceilings import ENCODED, MatrixProduct, encode_resident
from stages.bench.contest import Contest, Contestant, Lap, timed
from stages.bench.plain_training import MemorySizes, plain_memory_step, plain_vision_step
from stages.bench.worksite import SEED, StepClock, Worksite
from stages.sample_latents import EncodingTask, action_spec_of, encode_shard

if TYPE_CHECKING:
    import torch

SETTLING = 3  # training steps at the start of every lap that are not timed
VISION_FLOP = 0.233e9  # a frame through V, forwards and backwards: 3 x 2 x multiplications


def vision_rows(site: Worksite) -> Iterator[Contest]:
    """Training V: the stage itself, its steps timed."""
    site.artifact("rollouts")
    config, num_steps = site.config("train-vision"), site.sizes.vision_steps
    precision = precision_of(config)
    batch = config.batch_size
    yield Contest(
        row="train-vision",
        unit="frames",
        used=(
            f"{precision} on {_where(site)}, batch {batch}, read from disk; ceiling: matrix "
            f"product in {precision} at {VISION_FLOP / 1e9:g} GFLOP per frame; plain: float32, "
            "eager, the data set in memory"
        ),
        ours=training_contestant(
            site,
            "train-vision",
            num_steps,
            batch,
            held_out_frames=16,
        ),
        ceiling=matrix_ceiling(site, precision, VISION_FLOP),
        plain=_plain_vision(site, config, num_steps),
    )


def memory_rows(site: Worksite) -> Iterator[Contest]:
    """Training M: the stage itself, its steps timed."""
    latents = site.artifact("latents")
    config, num_steps = site.config("train-memory"), site.sizes.memory_steps
    precision = precision_of(config)
    length = config.window or site.sizes.episode_actions
    flop = memory_flop(config, latents)
    yield Contest(
        row="train-memory",
        unit="steps",
        used=(
            f"{precision} on {_where(site)}, {config.batch_size} sequences of {length} steps; "
            f"ceiling: matrix product in {precision} at {flop / 1e6:.3g} MFLOP per step; plain: "
            "float32, eager, the data set in memory"
        ),
        ours=training_contestant(site, "train-memory", num_steps, config.batch_size * length),
        ceiling=matrix_ceiling(site, precision, flop),
        plain=_plain_memory(site, config, length, num_steps),
    )


def latents_rows(site: Worksite) -> Iterator[Contest]:
    """Encoding, from shard to shard."""
    tasks = _encoding_tasks(site)
    batches, latent_size = site.sizes.encoding_batches, site.models.vision_shape["latent_size"]

    def encode(num_batches: int) -> float:
        work = [(latent_size, num_batches)] * site.cores
        return site.total(encode_resident, work)

    def encode_all() -> float:
        return float(sum(one.frames for one in site.everywhere(encode_shard, tasks)))

    yield Contest(
        row="sample-latents",
        unit="frames",
        used=(
            f"float32, {site.cores} workers, {len(tasks)} shards from disk to disk; "
            f"ceiling: the bare encoder on a resident batch of {ENCODED} in as many processes"
        ),
        ours=Contestant(
            lambda: timed(encode_all),
            lambda: site.everywhere(encode_shard, tasks[: site.cores]),
        ),
        ceiling=Contestant(lambda: timed(lambda: encode(batches)), lambda: encode(2)),
    )


def precision_of(config: Any) -> str:
    """The number format of a model's matrix products; `auto` was resolved with the workspace."""
    return str(config.precision)


def memory_flop(config: Any, latents: Artifact) -> float:
    """Operations of M per step, forwards and backwards: three times two per multiplication."""
    summary = latents.manifest.summary
    latent_size, action_size = summary["latent_size"], summary["actions"]["size"]
    return 3.0 * forward_flop(latent_size, action_size, config.hidden_size, config.num_mixtures)


def forward_flop(latent_size: int, action_size: int, hidden_size: int, num_mixtures: int) -> int:
    """Operations of the LSTM and the mixture head for one step of one lane."""
    lstm = 4 * hidden_size * (latent_size + action_size + hidden_size)
    return 2 * (lstm + 3 * latent_size * num_mixtures * hidden_size)


def matrix_ceiling(site: Worksite, precision: str, flop_per_unit: float) -> Contestant:
    """As many units as the matrix product at this precision would allow, where models run."""
    import torch

    sizes = site.sizes
    product = MatrixProduct(
        getattr(torch, precision),
        site.device,
        size=sizes.matrix_size,
        seconds=sizes.matrix_seconds,
    )
    run: Callable[[], float] = lambda: product.run() / flop_per_unit  # noqa: E731
    return Contestant(lambda: timed(run), product.run)


def training_contestant(
    site: Worksite, command: str, num_steps: int, units_per_step: int, **changes: Any
) -> Contestant:
    """A whole run of a training stage, of which only the steps after the first few are timed."""

    def lap() -> Lap:
        steps = StepClock(site.progress, perf_counter)
        site.make(command, steps, steps=SETTLING + num_steps, **changes)
        seconds = steps.times[-1] - steps.times[SETTLING - 1]
        return Lap(float(num_steps * units_per_step), seconds)

    return Contestant(lap, lambda: site.make(command, site.quiet(), steps=2, **changes))


def _plain_vision(site: Worksite, config: Any, num_steps: int) -> Contestant:
    import torch

    from stages.training.device import torch_generator

    frames = recorded_frames(site.artifact("rollouts"))
    training = plain_vision_step(
        latent_size=config.latent_size,
        learning_rate=config.learning_rate,
        kl_floor=config.kl_floor,
        device=site.device,
    )
    random = np.random.default_rng(SEED)
    normal = torch_generator(SEED, "bench-noise", device=site.device)
    shape = (config.batch_size, config.latent_size)

    def run(steps: int) -> float:
        for _ in range(steps):
            batch = frames[random.integers(0, len(frames), config.batch_size)]
            noise = torch.randn(shape, generator=normal, device=site.device)
            training.step(batch, noise)
            site.progress.poll()
        return float(steps * config.batch_size)

    return Contestant(lambda: timed(lambda: run(num_steps)), lambda: run(2))


def _plain_memory(site: Worksite, config: Any, length: int, num_steps: int) -> Contestant:
    import torch

    from stages.training.device import torch_generator

    training = plain_memory_step(
        memory_sizes(config, site.artifact("latents")),
        learning_rate=config.learning_rate,
        clip=config.clip,
        device=site.device,
    )
    batches = cycle(list(_sequence_batches(site, config, length)))
    normal = torch_generator(SEED, "bench-noise", device=site.device)

    def run(steps: int) -> float:
        for _ in range(steps):
            mu, deviation, actions, mask = next(batches)
            z = mu + deviation * torch.randn(mu.shape, generator=normal, device=site.device)
            training.step(z, actions, mask)
            site.progress.poll()
        return float(steps * config.batch_size * length)

    return Contestant(lambda: timed(lambda: run(num_steps)), lambda: run(2))


def memory_sizes(config: Any, latents: Artifact) -> MemorySizes:
    """What `plain_memory_step` is told."""
    summary = latents.manifest.summary
    return MemorySizes(
        latent_size=summary["latent_size"],
        action_size=summary["actions"]["size"],
        hidden_size=config.hidden_size,
        num_mixtures=config.num_mixtures,
        min_log_sigma=config.min_log_sigma,
    )


def _sequence_batches(
    site: Worksite, config: Any, length: int
) -> "Iterator[tuple[torch.Tensor, ...]]":
    """A few batches that lie in memory: mu, deviation, actions, mask."""
    import torch

    from stages.artifacts.latents import LatentSet
    from stages.training.sequences import SequenceBatches

    latents = LatentSet.of([site.artifact("latents")])
    numbers = range(latents.num_episodes)
    source = SequenceBatches(
        latents, numbers, batch_size=config.batch_size, window=length, seed=SEED
    )
    for step in range(8):
        found = source.batch(step)
        arrays = (found.mu, np.exp(found.logvar / 2), found.actions, found.mask)
        yield tuple(torch.from_numpy(array).to(site.device) for array in arrays)


def recorded_frames(rollouts: Artifact) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Every recorded frame, uint8 [N, H, W, C]."""
    from stages.artifacts.episodes import EpisodeSet

    episodes = EpisodeSet.of([rollouts])
    every = [episodes.episode(n).observations for n in range(episodes.num_episodes)]
    return np.concatenate(every)


def _encoding_tasks(site: Worksite) -> list[EncodingTask]:
    rollouts = site.artifact("rollouts")
    folder = site.root / "encoded"
    folder.mkdir(exist_ok=True)
    return [
        EncodingTask(
            source=str(path),
            target=str(folder / Path(path).name),
            vision=site.models.vision,
            vision_digest="",
            latent_size=site.models.vision_shape["latent_size"],
            action_spec=action_spec_of(rollouts),
            batch_size=site.config("sample-latents").batch_size,
        )
        for path in rollouts.files(".h5")
    ]


def _where(site: Worksite) -> str:
    return f"{site.cores} threads" if site.device.type == "cpu" else site.device.type
