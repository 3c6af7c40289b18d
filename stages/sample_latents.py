"""`wm sample-latents`: what V makes of every recorded frame, mean and log variance."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stages import stage_named
from stages.agents import vision_weights
from stages.artifacts.artifact import Artifact
from stages.artifacts.fitting import check_same_actions, check_world, world_fields
from stages.artifacts.metrics import METRICS, MetricsLog, TaskMetrics
from stages.artifacts.partial import Partial
from stages.artifacts.producing import Outcome, Plan, choose_parents, only, produce
from stages.artifacts.shards import Rows, shard_name
from stages.artifacts.summaries import actions_of
from stages.artifacts.workspace import Workspace
from stages.contracts import ActionSpec, Job, setting
from stages.errors import ArtifactDamaged, InputsMismatch, NumbersBad, keeping
from stages.events import Advanced, Doing, Monitor, Report
from stages.execution.cores import resolve_workers
from stages.execution.local import LocalExecutor
from stages.execution.protocol import Task
from stages.execution.worker import sign_of_life
from stages.families import WEIGHTS
from stages.trials import cached_vision

STAGE = stage_named("sample-latents")
ALGORITHM = 1
# What float16 can store, and whose exponential is a number in float32: M draws from it.
BOUNDS = {"mu": (-65504.0, 65504.0), "logvar": (-65504.0, 88.0)}


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
    rows: Rows = field(default_factory=dict)  # what a frame and an action must be


def plan(workspace: Workspace, config: Config, job: Job) -> Plan:
    """What this encoding would be: the rollouts and the vision it reads."""
    parents = choose_parents(workspace, STAGE, job)
    vision = only(parents["vision"])
    for artifact in (*parents["rollouts"], vision):
        check_world(asdict(job.world), artifact)
    check_engines(parents["rollouts"], vision)
    check_same_actions(parents["rollouts"])
    resolved = {"world": world_fields([vision, *parents["rollouts"]]), "latents": asdict(config)}
    return Plan(STAGE, ALGORITHM, job.family, resolved, (*parents["rollouts"], vision))


def run(workspace: Workspace, config: Config, job: Job, *, progress: Monitor) -> Report:
    """Encode the shards that are missing and commit them as one artifact."""
    planned = plan(workspace, config, job)
    *rollouts, vision = planned.parents

    def build(partial: Partial) -> Outcome:
        progress.emit(Doing("reading the recordings for their digests"))
        tasks = list(_tasks(partial.path, rollouts, vision, config))
        _encode_all(tasks, partial, job, progress=progress)
        names = [Path(task.target).name for task in tasks]
        progress.emit(Doing("summing up the latents"))
        summary = _summary(partial, names, rollouts, vision)
        return Outcome(payload=[*names, METRICS], summary=summary)

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


def encode_shard(task: EncodingTask) -> "Encoded":
    """Encode one shard in recorded order and write its latents; runs in a worker."""
    from stages.artifacts.episodes import EpisodeShard
    from stages.artifacts.latents import latents_image
    from stages.artifacts.sidecars import put

    with EpisodeShard(Path(task.source), task.rows) as shard:
        put(Path(task.target), latents_image(_records(shard, task)))
    return Encoded.read(Path(task.target))


@dataclass(frozen=True)
class Encoded:
    """What one shard of latents holds."""

    episodes: int
    frames: int
    logvar: float  # sum over frames of its mean over dimensions

    @classmethod
    def read(cls, path: Path) -> "Encoded":
        """From its file."""
        import numpy as np

        from stages.artifacts.latents import LatentShard

        with LatentShard(path) as shard:
            logvar = shard.column("logvar").astype(np.float64)
            return cls(shard.num_episodes, len(logvar), float(logvar.mean(axis=1).sum()))

    def __add__(self, other: "Encoded") -> "Encoded":
        """Of both shards."""
        return Encoded(
            self.episodes + other.episodes,
            self.frames + other.frames,
            self.logvar + other.logvar,
        )


class _Lines:
    """Lines of metrics, from shards in their order."""

    def __init__(self) -> None:
        self._all, self._num_shards = Encoded(0, 0, 0.0), 0

    def line(self, found: Encoded) -> tuple[int, dict[str, float]]:
        """The line of the next shard: its step is the number of shards so far."""
        self._all, self._num_shards = self._all + found, self._num_shards + 1
        return self._num_shards, {
            "latents/episodes": self._all.episodes,
            "latents/frames": self._all.frames,
            "latents/mean_logvar": found.logvar / found.frames,
        }


def _records(shard: Any, task: EncodingTask) -> Iterator[Any]:
    """A LatentRecord per episode of the shard."""
    import numpy as np

    from stages.artifacts.latents import LatentRecord
    from stages.vision.vae import encode_frames

    model = cached_vision(task.vision_digest, task.vision, task.latent_size)
    for number in range(shard.num_episodes):
        episode = shard.episode(number)
        parts = []
        for start in range(0, len(episode.observations), task.batch_size):
            frames = episode.observations[start : start + task.batch_size]
            parts.append(encode_frames(model, frames))
            sign_of_life()
        mu, logvar = (np.concatenate([part[k].numpy() for part in parts]) for k in (0, 1))
        yield LatentRecord(
            seed=episode.seed,
            mu=_stored("mu", mu, episode.seed, task),
            logvar=_stored("logvar", logvar, episode.seed, task),
            actions=_vectors(episode.actions, task),
            rewards=episode.rewards,
            terminations=episode.terminations,
            truncations=episode.truncations,
        )


def _vectors(actions: Any, task: EncodingTask) -> Any:
    """Actions as M sees them; ArtifactDamaged where a choice is none of those that there are."""
    spec = task.action_spec
    wanted = "float32" if spec.kind == "box" else "int64"
    chosen = spec.kind == "box" or ((actions >= 0) & (actions < spec.size)).all()
    if str(actions.dtype) != wanted or not chosen:
        raise ArtifactDamaged(
            f"{task.source} holds actions that are none of this world.",
            why=f"An action is {spec}, and they are {actions.dtype} up to {actions.max()}.",
            fix="Record it again: wm rollout --force",
        )
    return spec.vectors(actions)


def _stored(name: str, values: Any, seed: int, task: EncodingTask) -> Any:
    """Latents as float16; NumbersBad where they are no numbers that M could learn from."""
    import numpy as np

    low, high = BOUNDS[name]
    fits = (values >= low) & (values <= high)  # NaN fits nowhere
    if not fits.all():
        frame, dimension = np.argwhere(~fits)[0]
        raise NumbersBad(
            f"V's {name} is {values[frame, dimension]:g} for frame {frame} of the episode of seed "
            f"{seed}, in {task.source}.",
            why=f"It must be a number from {low:g} to {high:g}.",
            fix="Train V again, with a smaller vision.learning_rate.",
        )
    return values.astype(np.float16)


def _tasks(
    folder: Path, rollouts: Sequence[Artifact], vision: Artifact, config: Config
) -> Iterator[EncodingTask]:
    from stages.artifacts.episodes import rows_of

    sources = [(path, artifact) for artifact in rollouts for path in artifact.files(".h5")]
    weights = str(vision_weights(vision))
    for number, (path, artifact) in enumerate(sources):
        yield EncodingTask(
            source=str(path),
            target=str(folder / shard_name(number)),
            vision=weights,
            vision_digest=vision.entry(WEIGHTS).sha256,
            latent_size=vision.manifest.summary["shape"]["latent_size"],
            action_spec=action_spec_of(artifact),
            batch_size=config.batch_size,
            rows=rows_of(artifact),
        )


def action_spec_of(artifact: Artifact) -> ActionSpec:
    """The actions of recorded episodes or latents, from their manifest."""
    spec = actions_of(artifact.manifest)
    assert spec is not None, f"{artifact.id} tells no actions"
    return spec


def _encode_all(
    tasks: Sequence[EncodingTask], partial: Partial, job: Job, *, progress: Monitor
) -> None:
    names = [Path(task.target).name for task in tasks]
    missing = [task for task in tasks if not partial.has(Path(task.target).name)]
    metrics = TaskMetrics(MetricsLog(partial, progress), _Lines().line)
    for number, task in enumerate(tasks):
        if task not in missing:
            metrics.finished(number, Encoded.read(Path(task.target)))
    done = len(tasks) - len(missing)
    progress.emit(Advanced(done, len(tasks), "shards"))
    executor = LocalExecutor(resolve_workers(job.resources.workers))
    with executor, keeping(lambda: f"{done} of {len(tasks)} shards are encoded and kept."):
        work = [
            Task(Path(task.target).name, encode_shard, task, "/".join(Path(task.source).parts[-3:]))
            for task in missing
        ]
        deadline = job.resources.stall_seconds
        for finished in executor.run(work, monitor=progress, deadline=deadline):
            done += 1
            metrics.finished(names.index(str(finished.key)), finished.value)
            progress.emit(Advanced(done, len(tasks), "shards"))


def _summary(
    partial: Partial, names: Sequence[str], rollouts: Sequence[Artifact], vision: Artifact
) -> dict[str, Any]:
    """Counts, and how sure V is of what it sees."""
    whole = sum((Encoded.read(partial.path / name) for name in names), Encoded(0, 0, 0.0))
    return {
        "episodes": whole.episodes,
        "frames": whole.frames,
        "mean_logvar": whole.logvar / whole.frames,
        "latent_size": vision.manifest.summary["shape"]["latent_size"],
        "actions": rollouts[0].manifest.summary["actions"],
        "engines": sorted({e for one in rollouts for e in one.manifest.summary["engines"]}),
    }
