"""`wm rollout`: record episodes of the world with a data policy, shard by shard."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stages import IMPORT, stage_named
from stages.agents import AgentFiles, Parameters, action_spec, check_engine, lineage, trained_agent
from stages.artifacts.fitting import check_world
from stages.artifacts.metrics import METRICS, MetricsLog, TaskMetrics
from stages.artifacts.partial import Partial
from stages.artifacts.producing import Outcome, Plan, produce
from stages.artifacts.shards import shard_name
from stages.artifacts.workspace import Artifact, Workspace
from stages.contracts import NO_WORLD, FrameWorld, Job, Policy, WorldSpec, setting
from stages.errors import UsageError, keeping
from stages.events import Advanced, Doing, Monitor, OnceEach, Report
from stages.execution.cores import resolve_workers
from stages.execution.local import LocalExecutor
from stages.execution.protocol import Task
from stages.execution.worker import sign_of_life
from stages.training.seeding import episode_seeds, named_seeds
from stages.trials import cached_world, load_pilot
from stages.worlds.coverage import Tallies, Tally
from stages.worlds.making import check_random_start, check_world_known, note_code
from stages.worlds.monotony import Glance, Monotony, glance

STAGE = stage_named("rollout")
ALGORITHM = 1
REFERENCE = "gymnasium"


@dataclass(frozen=True)
class Config:
    """The `[rollout]` section."""

    episodes: int = setting(100, doc="episodes to record", low=1)
    gymnasium_episodes: int = setting(
        0, doc="how many of them at most are recorded on gymnasium, whatever the engine", low=0
    )
    policy: str = setting(
        "brownian",
        doc="who drives: brownian, habits, hold, hold-long, random-net, scripted, white, or a "
        "control's id",
    )
    task_episodes: int = setting(16, doc="episodes per task and shard, driven as lanes", low=1)
    patience: int = setting(
        0, doc="end an episode after so many actions without reward; 0: never", low=0
    )
    max_steps: int = setting(0, doc="actions per episode at most; 0: to its end", low=0)
    random_start: bool = setting(
        False, doc="begin anywhere on the track (CarRacing), so that all of it is seen"
    )
    first_episode: int = setting(
        0, doc="tracks to pass over, those of earlier recordings: the others are new", low=0
    )
    epsilon: float = setting(
        0.0,
        doc="share of a controller's actions that are random instead, held for a while",
        low=0,
        high=1,
    )

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings that decide what is recorded; older recordings lack some that are 0."""
        idle = [name for name in ("first_episode", "epsilon") if not getattr(self, name)]
        return {name: value for name, value in asdict(self).items() if name not in idle}


@dataclass(frozen=True)
class RecordingTask:
    """One shard: these seeds, on this engine, into this file."""

    folder: str
    name: str
    world: WorldSpec
    engine: str
    policy: str
    agent: tuple[AgentFiles, Parameters] | None
    epsilon: float
    seeds: tuple[int, ...]
    patience: int
    max_steps: int
    random_start: bool


def plan(workspace: Workspace, config: Config, job: Job) -> Plan:
    """What this rollout would be; no parents, or the controller that drives and its models."""
    if job.parents:
        raise UsageError(
            f"`wm rollout` reads no artifacts, so `--from {job.parents[0]}` says nothing.",
            fix="To let a controller drive: --set rollout.policy=control/0001",
        )
    if job.world.env == NO_WORLD:
        return _imported(workspace, job)
    if config.random_start:
        check_random_start(job.world.env, job.world.engine)
    parents: tuple[Artifact, ...] = ()
    if config.policy.startswith("control/"):
        control = workspace.get(config.policy)
        parents = lineage(workspace, control)
        check_world(asdict(job.world), control)
        if config.episodes > config.gymnasium_episodes:  # those are for a V that knows no others
            check_engine(job.world.engine, next(one for one in parents if one.kind == "vision"))
    elif config.epsilon:
        raise UsageError(
            f"rollout.epsilon={config.epsilon:g} says how often a controller does something else.",
            why=f"The policy {config.policy!r} is random by itself.",
            fix="Set rollout.policy to a controller, or use rounds.epsilon: the rounds of wm run.",
        )
    driven = replace(config, policy="controller") if parents else config
    world = {"world": asdict(job.world), "rollout": driven.decisive, "seed": job.seed}
    return Plan(STAGE, ALGORITHM, job.family, world, parents)


def _imported(workspace: Workspace, job: Job) -> Plan:
    """The newest import, which stands for a recording where there is no world to record."""
    whole, damaged = workspace.scan("rollouts")
    for error in damaged:  # it may be the newest import: an older one is not taken instead
        raise error
    found = [one for one in whole if one.manifest.stage == IMPORT.name]
    if not found or job.force:
        check_world_known(job.world.env, "wm rollout")
    told = found[-1].manifest
    return Plan(IMPORT, told.algorithm, told.family, told.config)


def run(workspace: Workspace, config: Config, job: Job, *, progress: Monitor) -> Report:
    """Record what is missing of the plan's shards and commit them as one artifact."""
    planned = plan(workspace, config, job)

    def build(partial: Partial) -> Outcome:
        note_code(partial, job.world.env, progress)
        tasks = list(recording_tasks(workspace, config, job, partial.path))
        _record(tasks, partial, job, progress=progress)
        return _outcome(tasks, partial, config, job)

    return produce(workspace, planned, job, build, progress=progress)


def recording_tasks(
    workspace: Workspace, config: Config, job: Job, folder: Path
) -> Iterator[RecordingTask]:
    """Cut the episodes into tasks; depends on the settings alone, never on the workers."""
    agent = None
    if config.policy.startswith("control/"):
        agent = trained_agent(workspace, workspace.get(config.policy))
    seeds = episode_seeds("rollout", job.seed, config.first_episode, config.episodes)
    native = max(0, config.episodes - config.gymnasium_episodes)
    parts = [(job.world.engine, seeds[:native]), (REFERENCE, seeds[native:])]
    number = 0
    for engine, part in parts:
        for start in range(0, len(part), config.task_episodes):
            yield RecordingTask(
                folder=str(folder),
                name=shard_name(number),
                world=job.world,
                engine=engine,
                policy=config.policy,
                agent=agent,
                epsilon=config.epsilon,
                seeds=tuple(part[start : start + config.task_episodes]),
                patience=config.patience,
                max_steps=config.max_steps,
                random_start=config.random_start,
            )
            number += 1


def record_shard(task: RecordingTask) -> tuple[Glance, Tally]:
    """Drive the task's episodes, write its shard and look at it; runs in a worker."""
    from stages.artifacts.episodes import EpisodeShard, EpisodeShardWriter
    from stages.artifacts.sidecars import put
    from stages.worlds.driving import Recorder, StopRule, drive

    policy = "controller" if task.agent else task.policy  # its id differs between workspaces
    writer = EpisodeShardWriter(engine=task.engine, env=task.world.env, policy=policy)
    # Kept for the next task: an environment that is closed leaves 0.1 MB behind.
    world = cached_world(task.world, task.engine, random_start=task.random_start)
    drive(
        world,
        _policy(task, world),
        task.seeds,
        observers=(Recorder(writer.append),),
        stop_rule=StopRule(task.patience) if task.patience else None,
        max_steps=task.max_steps or None,
        tick=sign_of_life,
    )
    put(Path(task.folder) / task.name, writer.image())
    with EpisodeShard(Path(task.folder) / task.name) as shard:
        return glance(shard), Tally.of(shard)


def _policy(task: RecordingTask, world: FrameWorld) -> Policy:
    from stages.control.data_policies import Strays, make_data_policy

    if task.agent is not None:
        files, parameters = task.agent
        strays = None
        if task.epsilon:
            repeat = task.world.repeat
            strays = Strays(world.action_spec, epsilon=task.epsilon, repeat=repeat)
        return load_pilot(files, parameters[None], world.action_spec, strays)
    return make_data_policy(
        task.policy,
        world.action_spec,
        world.observation_shape,
        repeat=task.world.repeat,
    )


def _record(
    tasks: Sequence[RecordingTask], partial: Partial, job: Job, *, progress: Monitor
) -> None:
    from stages.artifacts.episodes import each_shard

    progress.emit(Doing("looking for what is recorded already"))
    kept = {task.name: number for number, task in enumerate(tasks) if partial.has(task.name)}
    missing = [task for task in tasks if task.name not in kept]
    total = sum(len(task.seeds) for task in tasks)
    done = total - sum(len(task.seeds) for task in missing)
    monotony, tallies = Monotony(OnceEach(progress)), Tallies("rollout")
    metrics = TaskMetrics(MetricsLog(partial, progress), tallies.line)
    monotony.see_first(each_shard(partial.path, kept))
    for number, shard in zip(kept.values(), each_shard(partial.path, kept), strict=True):
        metrics.finished(number, Tally.of(shard))
    executor = LocalExecutor(resolve_workers(job.resources.workers))
    with executor, keeping(lambda: f"{done} of {total} episodes are recorded and kept."):
        progress.emit(Advanced(done, total, "episodes", tallies.latest))
        numbers = {task.name: number for number, task in enumerate(tasks)}
        work = [Task(task.name, record_shard, task, named_seeds(task.seeds)) for task in missing]
        deadline = job.resources.stall_seconds
        for finished in executor.run(work, monitor=progress, deadline=deadline):
            seen, tally = finished.value
            done += seen.num_episodes
            monotony.see(seen)
            metrics.finished(numbers[str(finished.key)], tally)
            progress.emit(Advanced(done, total, "episodes", tallies.latest))
    progress.emit(Doing("measuring what the episodes cover"))


def _outcome(tasks: Sequence[RecordingTask], partial: Partial, config: Config, job: Job) -> Outcome:
    from stages.artifacts.episodes import each_shard
    from stages.worlds.coverage import cover
    from stages.worlds.making import frames_per_second, is_own, lap_rule

    coverage = cover(each_shard(partial.path, (task.name for task in tasks)))
    engines = list(dict.fromkeys(task.engine for task in tasks))
    rules = {engine: lap_rule(job.world.env, engine) for engine in engines}
    env, repeat = job.world.env, job.world.repeat
    rate = {"frames_per_second": frames_per_second(env) / repeat} if is_own(env) else {}
    return Outcome(
        payload=[*(task.name for task in tasks), METRICS],
        summary={
            "engines": engines,
            "policy": config.policy,
            "lap_rules": rules,
            "actions": asdict(action_spec(job.world, job.world.engine)),
            **rate,  # for films: whoever makes one runs no code of a module that is named here
            **coverage,
        },
        seeds={"purpose": "rollout", "first": tasks[0].seeds[0], "count": config.episodes},
    )
