"""`wm sample-latents`: what V makes of every recorded frame, mean and log variance."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages import stage_named
from stages.agents import cached_vision
from stages.artifacts.artifact import Artifact
from stages.artifacts.partial import Partial
from stages.artifacts.producing import (
    WORLD_FIELDS,
    Outcome,
    Plan,
    check_world,
    choose_parents,
    only,
    produce,
)
from stages.artifacts.shards import shard_name
from stages.artifacts.workspace import Workspace
from stages.contracts import ActionSpec, Job, setting
from stages.errors import InputsMismatch
from stages.events import Advanced, Monitor, Report
from stages.execution.cores import resolve_workers
from stages.execution.local import LocalExecutor
from stages.execution.protocol import TASK_DEADLINE, Task
from stages.families import WEIGHTS

STAGE = stage_named("sample-latents")
ALGORITHM = 1


@dataclass(frozen=True)
class Config:
    """The `[latents]` section."""

    batch_size: int = setting(256, doc="frames that are encoded at once", low=16)


@dataclass(frozen=True)
class EncodingTask:
    """One shard of episodes to one shard of latents."""

    source: str  # path of the recorded shard, its digest checked
    target: str
    vision: str
    vision_digest: str
    latent_size: int
    action_spec: ActionSpec
    batch_size: int


def plan(workspace: Workspace, config: Config, job: Job) -> Plan:
    """What this encoding would be: the rollouts and the vision it reads."""
    parents = choose_parents(workspace, STAGE, job)
    vision = only(parents["vision"])
    for artifact in (*parents["rollouts"], vision):
        check_world(asdict(job.world), artifact)
    check_engines(parents["rollouts"], vision)
    world = vision.manifest.config["world"]
    resolved = {"world": {name: world[name] for name in WORLD_FIELDS}, "latents": asdict(config)}
    return Plan(STAGE, ALGORITHM, job.family, resolved, (*parents["rollouts"], vision))


def run(workspace: Workspace, config: Config, job: Job, *, progress: Monitor) -> Report:
    """Encode the shards that are missing and commit them as one artifact."""
    planned = plan(workspace, config, job)
    *rollouts, vision = planned.parents

    def build(partial: Partial) -> Outcome:
        tasks = list(_tasks(partial.path, rollouts, vision, config))
        _encode_all(tasks, partial, job, progress=progress)
        names = [Path(task.target).name for task in tasks]
        return Outcome(payload=names, summary=_summary(partial, names, rollouts, vision))

    return produce(workspace, planned, job, build, progress=progress)


def check_engines(rollouts: Sequence[Artifact], vision: Artifact) -> None:
    """Refuse pictures of an engine that V has not learnt from."""
    from stages.worlds.making import same_pictures

    known = vision.manifest.summary["engines"]
    for artifact in rollouts:
        engines = artifact.manifest.summary["engines"]
        foreign = [e for e in engines if not any(same_pictures(e, other) for other in known)]
        if foreign:
            raise InputsMismatch(
                f"{artifact.id} holds pictures of {', '.join(foreign)}, "
                f"which {vision.id} never saw.",
                why=f"{vision.id} was trained on pictures of {', '.join(sorted(known))}.",
                fix=f"Train it on them too: wm train-vision --from {artifact.id}",
            )


def encode_shard(task: EncodingTask) -> int:
    """Encode one shard in recorded order and write its latents; runs in a worker."""
    from stages.artifacts.disk import write_file
    from stages.artifacts.episodes import EpisodeShard
    from stages.artifacts.latents import latents_image

    with EpisodeShard(Path(task.source)) as shard:
        write_file(Path(task.target), latents_image(_records(shard, task)))
        return int(shard.observation_offsets[-1])


def _records(shard: Any, task: EncodingTask) -> Iterator[Any]:
    """A LatentRecord per episode of the shard."""
    import numpy as np

    from stages.artifacts.latents import LatentRecord
    from stages.vision.vae import encode_frames

    model = cached_vision(task.vision_digest, task.vision, task.latent_size)
    for number in range(shard.num_episodes):
        episode = shard.episode(number)
        parts = [
            encode_frames(model, episode.observations[start : start + task.batch_size])
            for start in range(0, len(episode.observations), task.batch_size)
        ]
        yield LatentRecord(
            seed=episode.seed,
            mu=np.concatenate([mu.numpy() for mu, _ in parts]).astype(np.float16),
            logvar=np.concatenate([logvar.numpy() for _, logvar in parts]).astype(np.float16),
            actions=task.action_spec.vectors(episode.actions),
            rewards=episode.rewards,
            terminations=episode.terminations,
            truncations=episode.truncations,
        )


def _tasks(
    folder: Path, rollouts: Sequence[Artifact], vision: Artifact, config: Config
) -> Iterator[EncodingTask]:
    sources = [(path, artifact) for artifact in rollouts for path in artifact.files(".h5")]
    for number, (path, artifact) in enumerate(sources):
        yield EncodingTask(
            source=str(path),
            target=str(folder / shard_name(number)),
            vision=str(vision.file(WEIGHTS)),
            vision_digest=vision.manifest.payload_digest,
            latent_size=vision.manifest.summary["shape"]["latent_size"],
            action_spec=action_spec_of(artifact),
            batch_size=config.batch_size,
        )


def action_spec_of(artifact: Artifact) -> ActionSpec:
    """The actions of recorded episodes or latents, from their manifest."""
    spec = artifact.manifest.summary["actions"]
    return ActionSpec(spec["kind"], spec["size"], tuple(spec["low"]), tuple(spec["high"]))


def _encode_all(
    tasks: Sequence[EncodingTask], partial: Partial, job: Job, *, progress: Monitor
) -> None:
    missing = [task for task in tasks if not partial.has(Path(task.target).name)]
    done = len(tasks) - len(missing)
    progress.emit(Advanced(done, len(tasks), "shards"))
    with LocalExecutor(resolve_workers(job.resources.workers)) as executor:
        work = [Task(Path(task.target).name, encode_shard, task) for task in missing]
        for _ in executor.run(work, monitor=progress, deadline=TASK_DEADLINE):
            done += 1
            progress.emit(Advanced(done, len(tasks), "shards"))


def _summary(
    partial: Partial, names: Sequence[str], rollouts: Sequence[Artifact], vision: Artifact
) -> dict[str, Any]:
    """Counts, and how sure V is of what it sees."""
    import numpy as np

    from stages.artifacts.latents import LatentShard

    num_frames, num_episodes, entropy = 0, 0, 0.0
    for name in names:
        with LatentShard(partial.path / name) as shard:
            logvar = shard.column("logvar").astype(np.float64)
            entropy += float(logvar.mean(axis=1).sum())
            num_frames += len(logvar)
            num_episodes += shard.num_episodes
    return {
        "episodes": num_episodes,
        "frames": num_frames,
        "mean_logvar": entropy / num_frames,
        "latent_size": vision.manifest.summary["shape"]["latent_size"],
        "actions": rollouts[0].manifest.summary["actions"],
        "engines": sorted({e for one in rollouts for e in one.manifest.summary["engines"]}),
    }
