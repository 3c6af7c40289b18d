"""`wm train-vision`: fit V, the frame autoencoder, on recorded frames."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from stages import stage_named
from stages.artifacts.artifact import Artifact
from stages.artifacts.fitting import check_world, start_of, world_fields
from stages.artifacts.metrics import METRICS
from stages.artifacts.partial import Partial
from stages.artifacts.producing import Outcome, Plan, choose_parents, produce
from stages.artifacts.workspace import Workspace
from stages.contracts import Frames, Job, setting
from stages.events import Doing, Monitor, Noted, OnceEach, Pictured, Report
from stages.families import WEIGHTS, build_vision, start_from
from stages.training.precision import DOC as PRECISION
from stages.training.precision import PRECISIONS, training_dtype

if TYPE_CHECKING:
    from stages.artifacts.episodes import EpisodeSet
    from stages.training.parts import Part
    from stages.training.session import Session
    from stages.vision.vae import VAE
    from stages.vision.watch import Watch

STAGE = stage_named("train-vision")
ALGORITHM = 4
PICTURE = "reconstructions.png"  # originals above what V makes of them
TRAVERSAL = "traversal.png"  # a frame while single latent dimensions move
NUM_PICTURED = 12  # frames in the first picture


@dataclass(frozen=True)
class Config:
    """The `[vision]` section."""

    latent_size: int = setting(32, doc="Z, size of the latent vector", low=1)
    kl_floor: float = setting(
        0.5,
        doc="nats per latent dimension below which KL costs nothing; with more V sees small things",
        low=0,
    )
    detail: float = setting(
        0.0, doc="how much more pixels count that stand out from those around; 0: all alike", low=0
    )
    steps: int = setting(1000, doc="training steps", low=1)
    batch_size: int = setting(100, doc="frames per step", low=2)
    learning_rate: float = setting(1e-4, doc="of Adam, constant", above=0)
    precision: str = setting("auto", doc=PRECISION, choices=PRECISIONS)
    held_out: float = setting(0.1, doc="share of all tracks that testing keeps", low=0, high=0.9)
    held_out_frames: int = setting(2048, doc="frames of them that are scored", low=16)
    log_every: int = setting(50, doc="steps per line of metrics", low=1)


def plan(workspace: Workspace, config: Config, job: Job) -> Plan:
    """What this training would be: the settings, the rollouts, and the V that it starts from."""
    chosen = choose_parents(workspace, STAGE, job)
    rollouts = chosen["rollouts"]
    start = [start_of(chosen, STAGE, shape=_shape(config))] if chosen[STAGE.writes] else []
    for artifact in (*rollouts, *start):
        check_world(asdict(job.world), artifact)
    resolved = {
        "world": world_fields(rollouts),
        "vision": _fields(config),
        "seed": job.seed,
    }
    return Plan(STAGE, ALGORITHM, job.family, resolved, (*rollouts, *start))


def run(workspace: Workspace, config: Config, job: Job, *, progress: Monitor) -> Report:
    """Train V, or go on where a partial stands, and commit weights, metrics and a picture."""
    planned = plan(workspace, config, job)

    def build(partial: Partial) -> Outcome:
        return _train(partial, planned.parents, config, job, progress=progress)

    return produce(workspace, planned, job, build, progress=progress)


def _fields(config: Config) -> dict[str, Any]:
    """The settings as artifacts tell them: those of earlier versions know nothing of detail."""
    told = asdict(config)
    if not config.detail:
        del told["detail"]
    return told


def _shape(config: Config) -> dict[str, Any]:
    return {"latent_size": config.latent_size}


def _train(
    partial: Partial, parents: Sequence[Artifact], config: Config, job: Job, *, progress: Monitor
) -> Outcome:
    progress.emit(Doing("loading libraries, and reading the recordings for their digests"))
    from stages.artifacts.episodes import EpisodeSet
    from stages.artifacts.weights import pack_tensors
    from stages.training.batches import FrameBatches, split_episodes
    from stages.training.loop import Plan as Training
    from stages.training.loop import check_errors
    from stages.training.session import Session
    from stages.vision.watch import Watch

    session = Session(partial, job.resources, progress=progress)
    rollouts = [parent for parent in parents if parent.kind != STAGE.writes]
    episodes = EpisodeSet.of(rollouts)
    train, held_out = split_episodes(episodes.seeds.tolist(), fraction=config.held_out)
    batches = FrameBatches(episodes, train, batch_size=config.batch_size, seed=job.seed)
    model = build_vision(_shape(config), seed=job.seed)
    start_from(model, parents, STAGE.writes)
    model.to(session.device)
    training = Training(
        section="vision",
        seed=job.seed,
        num_steps=config.steps,
        learning_rate=config.learning_rate,
        log_every=config.log_every,
    )
    watch = Watch(OnceEach(progress))
    loss = _loss(model, batches.batch, session, config, job.seed, watch)
    state = session.fit(model, loss, training, prefix="vision")
    watch.conclude()
    model.eval()
    progress.emit(Doing("measuring V's errors on held-out episodes"))
    errors = _errors(model, episodes, train, held_out, config)
    check_errors(errors, section="vision", step=config.steps)
    session.log_held_out(config.steps, "vision", errors)
    if errors["reconstruction"] > errors["baseline_mean_image"]:
        progress.emit(Noted("V sees no better than the mean image: train longer.", warning=True))
    partial.write(WEIGHTS, pack_tensors(state.weights()))
    progress.emit(Doing("drawing pictures"))
    _draw_pictures(partial, model, episodes, held_out)
    for picture in (PICTURE, TRAVERSAL):
        name = f"vision/{picture.removesuffix('.png')}"
        progress.emit(Pictured(name, config.steps, partial.read(picture) or b""))
    return Outcome(
        payload=[WEIGHTS, METRICS, PICTURE, TRAVERSAL],
        summary={
            "shape": _shape(config),
            "parameters": model.num_parameters(),
            "engines": sorted({e for one in rollouts for e in one.manifest.summary["engines"]}),
            "train_episodes": len(train),
            "held_out_episodes": len(held_out),
            "train_frames": batches.num_frames,
            **errors,
        },
        device=str(session.device),
        threads=session.threads,
        notes=(f"{PICTURE} has originals above reconstructions; `wm show` prints its path.",),
    )


def _loss(
    model: "VAE",
    batch: Callable[[int], Frames],
    session: "Session",
    config: Config,
    seed: int,
    watch: "Watch",
) -> "Callable[[int], list[Part]]":
    """The loss of a training step: a function of the step and the model alone."""
    import torch

    from stages.training.batches import to_float
    from stages.training.device import torch_generator
    from stages.training.parts import Part, cut_rows
    from stages.vision.losses import vae_loss

    dtype = training_dtype(config.precision)

    def part(recorded: Frames, noise: torch.Tensor, weight: float) -> Part:
        def compute() -> dict[str, torch.Tensor]:
            frames = to_float(recorded, session.device)
            made = model(frames, noise, dtype=dtype)
            found = vae_loss(made, frames, kl_floor=config.kl_floor, detail=config.detail)
            watch.see(made.mu, found["reconstruction"])
            return found

        return Part(weight, compute)

    def loss(step: int) -> list[Part]:
        watch.conclude()  # the step before
        frames = batch(step)
        watch.begin(step, frames)
        random = torch_generator(seed, "vision-noise", step, device=session.device)
        noise = torch.randn(len(frames), model.latent_size, generator=random, device=session.device)
        cut = cut_rows(len(frames), num_threads=session.threads, device=session.device)
        return [
            part(frames[rows], noise[rows], (rows.stop - rows.start) / len(frames)) for rows in cut
        ]

    return loss


def _errors(
    model: "VAE", episodes: "EpisodeSet", train: list[int], held_out: list[int], config: Config
) -> dict[str, Any]:
    """V's held-out errors beside those of the mean image and of the previous frame."""
    from stages.training.batches import in_order_frames
    from stages.vision.baselines import mean_image, mean_image_error, previous_frame_error
    from stages.vision.losses import decibels, held_out_errors

    num_batches = max(1, config.held_out_frames // 128)

    def some(numbers: list[int]) -> Iterator[Frames]:
        return islice(in_order_frames(episodes, numbers, batch_size=128), num_batches)

    def whole(numbers: list[int]) -> Iterator[Frames]:
        """The same number of frames, whole episodes: no pair spans two of them."""
        num_frames = 0
        for number in numbers:
            if num_frames >= num_batches * 128:
                return
            observations = episodes.episode(number).observations
            num_frames += len(observations)
            yield observations

    held = held_out_errors(model, some(held_out))
    image = mean_image(some(train))
    return {
        "reconstruction": held.reconstruction,
        "decibels": decibels(held.reconstruction),
        "kl": held.kl,
        "baseline_mean_image": mean_image_error(image, some(held_out)),
        "baseline_previous_frame": previous_frame_error(whole(held_out)),
        "held_out_frames": held.num_frames,
    }


def _draw_pictures(
    partial: Partial, model: "VAE", episodes: "EpisodeSet", held_out: list[int]
) -> None:
    """PNG files of frames spread over the held-out episodes."""
    import numpy as np

    from stages.artifacts.pictures import png
    from stages.vision.pictures import reconstruction_picture, traversal_picture

    frames = []
    for place in range(NUM_PICTURED):
        observations = episodes.episode(held_out[place % len(held_out)]).observations
        frames.append(observations[(place + 1) * (len(observations) - 1) // (NUM_PICTURED + 1)])
    shown = np.stack(frames)
    partial.write(PICTURE, png(reconstruction_picture(model, shown)))
    partial.write(TRAVERSAL, png(traversal_picture(model, shown[NUM_PICTURED // 2, None])))
