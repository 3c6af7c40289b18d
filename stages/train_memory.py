"""`wm train-memory`: fit M, which predicts the next latent from latent and action."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stages import stage_named
from stages.artifacts.artifact import Artifact
from stages.artifacts.canonical import readable_json
from stages.artifacts.fitting import (
    check_actions_known,
    check_grown,
    check_one_parent,
    check_same_actions,
    check_world,
    parent_of,
    start_of,
    world_fields,
)
from stages.artifacts.metrics import METRICS
from stages.artifacts.partial import Partial
from stages.artifacts.producing import Outcome, Plan, choose_parents, produce
from stages.artifacts.workspace import Workspace
from stages.contracts import Job, setting
from stages.events import Doing, Monitor, Noted, OnceEach, Report
from stages.families import WEIGHTS, build_memory, start_from
from stages.memory.blocks import check_blocks
from stages.training.precision import DOC as PRECISION
from stages.training.precision import PRECISIONS, training_dtype

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from stages.artifacts.latents import LatentSet
    from stages.memory.mdn_rnn import MDNRNN
    from stages.memory.watch import Watch
    from stages.training.loop import Plan as Training
    from stages.training.parts import Part
    from stages.training.sequences import SequenceBatch
    from stages.training.session import Session

STAGE = stage_named("train-memory")
ALGORITHM = 5
HORIZON = "horizon.json"  # how good dreams are k steps on


@dataclass(frozen=True)
class Config:
    """The `[memory]` section."""

    hidden_size: int = setting(256, doc="H, units of the LSTM", low=1)
    num_mixtures: int = setting(5, doc="K, Gaussians per latent dimension", low=1)
    joint_mixture: bool = setting(
        False, doc="draw one of the K for all latent dimensions at once, not one for each"
    )
    head_hidden: int = setting(
        0, doc="ReLU units that see h, z and a, before the heads; 0: none, as in the paper", low=0
    )
    num_blocks: int = setting(
        0, doc="blocks in which z is drawn, each told those before it; 0: at once", low=0
    )
    block_hidden: int = setting(128, doc="ReLU units of each block", low=1)
    reward_head: bool = setting(False, doc="predict the reward too")
    end_head: bool = setting(False, doc="predict the end of the episode too")
    restart_flag: bool = setting(False, doc="tell M the first step of an episode")
    end_weight: float = setting(10.0, doc="weight of a step that ends, in the end head", above=0)
    min_log_sigma: float = setting(-7.0, doc="lower bound of log sigma")
    steps: int = setting(1000, doc="training steps; 0 leaves M as it starts", low=0)
    batch_size: int = setting(
        100, doc="sequences per step; of whole episodes their number on average", low=1
    )
    window: int = setting(0, doc="steps per sequence; 0: whole episodes", low=0)
    learning_rate: float = setting(1e-3, doc="of Adam at the start", above=0)
    final_rate: float = setting(0.0, doc="what the rate falls to", low=0)
    rate_decay: float = setting(1.0, doc="factor of the rate per step", above=0, high=1)
    clip: float = setting(1.0, doc="bound of each gradient element; 0: none", low=0)
    precision: str = setting("auto", doc=PRECISION, choices=PRECISIONS)
    held_out: float = setting(0.1, doc="share of all tracks that testing keeps", low=0, high=0.9)
    log_every: int = setting(50, doc="steps per line of metrics", low=1)


def plan(workspace: Workspace, config: Config, job: Job) -> Plan:
    """What this training would be: the settings, the latents, the V that made them, the start."""
    chosen = choose_parents(workspace, STAGE, job)
    latents = chosen["latents"]
    for artifact in (*latents, *chosen[STAGE.writes]):
        check_world(asdict(job.world), artifact)
    check_one_parent(latents, "vision")
    check_same_actions(latents)
    check_actions_known(latents)
    size, joint = latents[0].manifest.summary["latent_size"], config.joint_mixture
    check_blocks(config.num_blocks, config.block_hidden, size, joint=joint)
    resolved = {
        "world": world_fields(latents),
        "memory": _fields(config),
        "seed": job.seed,
    }
    vision = _vision_of(workspace, latents[0])
    parents = [*latents, vision]
    if chosen[STAGE.writes]:
        start = start_of(chosen, STAGE, shape=_shape(config, latents[0]))
        check_same_actions([latents[0], start])
        check_grown(workspace, start, vision)
        parents.append(start)
    return Plan(STAGE, ALGORITHM, job.family, resolved, tuple(parents))


def run(workspace: Workspace, config: Config, job: Job, *, progress: Monitor) -> Report:
    """Train M, or go on where a partial stands, and commit weights and metrics."""
    planned = plan(workspace, config, job)

    def build(partial: Partial) -> Outcome:
        return _train(partial, planned.parents, config, job, progress=progress)

    return produce(workspace, planned, job, build, progress=progress)


def _vision_of(workspace: Workspace, latents: Artifact) -> Artifact:
    return workspace.resolve(parent_of(latents, "vision"))


def _fields(config: Config) -> dict[str, Any]:
    """The settings as artifacts tell them: those of earlier versions do not know of these."""
    told = asdict(config)
    if not config.num_blocks:
        del told["num_blocks"], told["block_hidden"]
    for name in ("joint_mixture", "head_hidden"):
        if not told[name]:
            del told[name]
    return told


def _shape(config: Config, latents: Artifact) -> dict[str, Any]:
    return {
        "latent_size": latents.manifest.summary["latent_size"],
        "action_size": latents.manifest.summary["actions"]["size"],
        "hidden_size": config.hidden_size,
        "num_mixtures": config.num_mixtures,
        "reward_head": config.reward_head,
        "end_head": config.end_head,
        "restart_flag": config.restart_flag,
        "min_log_sigma": config.min_log_sigma,
        "joint_mixture": config.joint_mixture,
        "head_hidden": config.head_hidden,
        "num_blocks": config.num_blocks,
        "block_hidden": config.block_hidden if config.num_blocks else 0,
    }


def _train(
    partial: Partial, parents: Sequence[Artifact], config: Config, job: Job, *, progress: Monitor
) -> Outcome:
    progress.emit(Doing("loading libraries, and reading the latents for their digests"))
    from stages.artifacts.latents import LatentSet
    from stages.artifacts.weights import pack_tensors
    from stages.foresight import HeldOut, dreamt_errors, one_step_errors
    from stages.training.batches import split_episodes
    from stages.training.loop import check_errors
    from stages.training.sequences import SequenceBatches
    from stages.training.session import Session

    session = Session(partial, job.resources, progress=progress)
    latents = [parent for parent in parents if parent.kind == "latents"]
    episodes = LatentSet.of(latents)
    train, held_out = split_episodes(episodes.seeds.tolist(), fraction=config.held_out)
    batches = SequenceBatches(
        episodes, train, batch_size=config.batch_size, window=config.window, seed=job.seed
    )
    shape = _shape(config, latents[0])
    model = build_memory(shape, seed=job.seed)
    start_from(model, parents, STAGE.writes)
    model.to(session.device)
    watch = _watch(episodes, config, progress)
    loss = _loss(model, batches.batch, session, config, job.seed, watch)
    state = session.fit(model, loss, _training(config, job.seed), prefix="memory")
    model.eval()
    test = HeldOut(
        episodes,
        train,
        held_out,
        seed=job.seed,
        end_weight=config.end_weight,
        device=session.device,
    )
    errors = one_step_errors(model, test, progress=progress)
    check_errors(errors, section="memory", step=config.steps)
    session.log_held_out(config.steps, "memory", errors)
    horizon = dreamt_errors(model, test, progress=progress)
    if config.steps and errors["nll"] > errors["baseline_unit_gaussian"]:
        progress.emit(
            Noted("M predicts worse than a unit Gaussian: try a smaller rate.", warning=True)
        )
    partial.write(WEIGHTS, pack_tensors(state.weights()))
    partial.write(HORIZON, readable_json(horizon))
    return Outcome(
        payload=[WEIGHTS, METRICS, HORIZON],
        summary={
            "shape": shape,
            "parameters": model.num_parameters(),
            "train_episodes": len(train),
            "held_out_episodes": len(held_out),
            "train_steps_of_data": batches.num_steps,
            "actions": latents[0].manifest.summary["actions"],
            **errors,
            "useful_steps": horizon["useful_steps"],
        },
        device=str(session.device),
        threads=session.threads,
    )


def _training(config: Config, seed: int) -> "Training":
    from stages.training.loop import Plan as Training

    return Training(
        section="memory",
        seed=seed,
        num_steps=config.steps,
        learning_rate=config.learning_rate,
        rate_decay=config.rate_decay,
        min_rate=config.final_rate,
        clip=config.clip,
        log_every=config.log_every,
    )


def _watch(episodes: "LatentSet", config: Config, progress: Monitor) -> "Watch":
    """What looks at M while it is trained; at what it is to learn it has looked already."""
    from stages.memory.watch import Watch

    watch = Watch(OnceEach(progress))
    for head, name, column in (
        (config.reward_head, "rewards", "rewards"),
        (config.end_head, "ends", "terminations"),
    ):
        if head:
            watch.look_at_targets(name, _columns(episodes, column))
    return watch


def _columns(episodes: "LatentSet", name: str) -> "Iterator[NDArray[Any]]":
    """A per-step column of every file, one after the other."""
    for shard in episodes.shards:
        yield shard.column(name)
        shard.close()


def _loss(
    model: "MDNRNN",
    batch: "Callable[[int], SequenceBatch]",
    session: "Session",
    config: Config,
    seed: int,
    watch: "Watch",
) -> "Callable[[int], list[Part]]":
    """The loss of a training step: a function of the step and the model alone."""
    from stages.memory.losses import draw_sequences, training_loss
    from stages.memory.watch import FEW
    from stages.training.parts import Part, cut_rows

    dtype = training_dtype(config.precision)

    def part(found: "SequenceBatch", noise: "NDArray[np.float32]", weight: float) -> Part:
        def compute() -> "dict[str, torch.Tensor]":
            sequences = draw_sequences(found, noise, device=session.device)
            return training_loss(model, sequences, dtype=dtype, end_weight=config.end_weight)

        return Part(weight, compute)

    def loss(step: int) -> list[Part]:
        whole = batch(step)
        noise = whole.noise(seed=seed, step=step)
        if watch.due(step):
            some = draw_sequences(whole.rows(FEW), noise[FEW], device=session.device)
            watch.look(model, some, step)
        cut = cut_rows(len(noise), num_threads=session.threads, device=session.device)
        found = [(whole.rows(rows), noise[rows]) for rows in cut]
        num_steps = max(1, int(whole.mask.sum()))  # that count: a short episode weighs less
        return [part(one, drawn, one.mask.sum() / num_steps) for one, drawn in found]

    return loss
