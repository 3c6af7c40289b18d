"""`wm evaluate`: score the agent on held-out episodes of the reference world, gymnasium.

Seeds are the same for every agent and disjoint from all training seeds; nothing stops an episode
early, rewards are the world's own, every frame counts. A random policy is scored beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages import stage_named
from stages.agents import AgentFiles, Parameters, lineage, trained_agent
from stages.artifacts.agent_folder import load_agent
from stages.artifacts.artifact import Artifact
from stages.artifacts.canonical import canonical_json, readable_json
from stages.artifacts.disk import read_file
from stages.artifacts.fitting import check_world, parent_of
from stages.artifacts.manifest import MANIFEST_LIMIT
from stages.artifacts.metrics import METRICS, MetricsLog, TaskMetrics
from stages.artifacts.partial import Partial
from stages.artifacts.producing import Outcome, Plan, choose_parents, only, produce
from stages.artifacts.scores import episodes_csv, read_csv
from stages.artifacts.workspace import Workspace
from stages.contracts import (
    EpisodeOutcome,
    Job,
    Policy,
    WorldSpec,
    setting,
)
from stages.control.scoring import ScoreLines, parse_result
from stages.errors import keeping
from stages.events import Advanced, Doing, Filmed, Monitor, Noted, Report, Scalar, Table
from stages.execution.cores import resolve_workers
from stages.execution.local import LocalExecutor
from stages.execution.protocol import Task
from stages.execution.worker import sign_of_life
from stages.training.seeding import episode_seeds, named_seeds
from stages.trials import cached_vision, cached_world, load_pilot
from stages.worlds.making import check_world_known, note_code

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.vision.vae import VAE

STAGE = stage_named("evaluate")
ALGORITHM = 1
REFERENCE = "gymnasium"
DRIVERS = {"agent": "the agent", "random": "the random policy"}
SHOWN = (
    "episodes", "mean", "std", "stderr", "ci95_low", "ci95_high", "median", "min", "max",
    "share_900", "share_laps_finished", "mean_tiles_missed", "mean_frames",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """The `[evaluate]` section."""

    episodes: int = setting(100, doc="held-out episodes of the agent", low=1)
    random_episodes: int = setting(16, doc="episodes of the random policy beside it", low=0)
    task_episodes: int = setting(10, doc="episodes per task, driven as lanes", low=1)
    max_steps: int = setting(0, doc="actions per episode at most; 0: to its end", low=0)


@dataclass(frozen=True)
class ScoringTask:
    """Some of the held-out episodes, for the agent or for the random policy."""

    who: str  # "agent" | "random"
    world: WorldSpec
    agent: AgentFiles
    parameters: Parameters  # [1, P]
    seeds: tuple[int, ...]
    max_steps: int


def plan(workspace: Workspace, config: Config, job: Job) -> Plan:
    """What this evaluation would be: the controller and the models behind it."""
    check_world_known(job.world.env, "wm evaluate")
    control = _candidate(workspace, job)
    world = replace(job.world, engine=REFERENCE)
    resolved = {"world": asdict(world), "evaluate": asdict(config)}
    return Plan(STAGE, ALGORITHM, job.family, resolved, lineage(workspace, control))


def _candidate(workspace: Workspace, job: Job) -> Artifact:
    """The controller to score, or the packed agent named by `job`; InputsMismatch elsewhere."""
    if job.agent is None:
        control = only(choose_parents(workspace, STAGE, job)["control"])
        check_world(asdict(job.world), control)
        return control
    agent = load_agent(Path(job.agent))
    elsewhere = "Score it in a workspace of its own (-w): a new one takes the agent's world."
    check_world(asdict(job.world), agent, fix=elsewhere)
    return agent


def run(workspace: Workspace, config: Config, job: Job, *, progress: Monitor) -> Report:
    """Drive the episodes that are missing and commit scores and the table of episodes."""
    planned = plan(workspace, config, job)
    control = planned.parents[0]

    def build(partial: Partial) -> Outcome:
        note_code(partial, job.world.env, progress)
        progress.emit(Doing("reading the agent"))
        tasks = list(_tasks(workspace, control, config, job))
        results = _score(tasks, partial, job, progress=progress)
        return _written(partial, results, control, job)

    report = produce(workspace, planned, job, build, progress=progress)
    artifact = workspace.get(str(report.artifact))
    return replace(report, tables=(score_table(artifact),), notes=_remarks(artifact))


def score_table(evaluation: Artifact) -> Table:
    """The agent's scores beside the random policy's."""
    scores = evaluation.manifest.summary["scores"]
    names = [name for name in SHOWN if any(name in row for row in scores.values())]
    rows = tuple((name, *(scores[who].get(name) for who in scores)) for name in names)
    return Table("Return on held-out episodes", ("what", *scores), (*rows, *_cuts(evaluation)))


def _cuts(evaluation: Artifact) -> Iterator[tuple[Scalar, ...]]:
    """A row that says how many episodes ended by the settings' limit, where these set one."""
    config = evaluation.manifest.config
    max_steps, world = config["evaluate"]["max_steps"], config["world"]
    limits = [max_steps, -(-world["max_frames"] // world["repeat"])]  # actions, rounded up
    limit = min((each for each in limits if each), default=0)
    if limit:
        content = read_file(evaluation.file("episodes.csv"), limit=MANIFEST_LIMIT)
        named = {"columns": ("who", "terminated"), "counts": ("num_steps",)}
        episodes = read_csv(content, source=f"{evaluation.id}/episodes.csv", **named)
        cut = [
            e["who"] for e in episodes if int(e["num_steps"]) >= limit and e["terminated"] == "0"
        ]
        scores = evaluation.manifest.summary["scores"]
        yield f"episodes cut at {limit:,} actions", *(cut.count(who) for who in scores)


def run_task(task: ScoringTask) -> dict[str, Any]:
    """Outcomes, and V's error on some of the frames; runs in a worker."""
    from stages.vision.probe import Probe
    from stages.worlds.driving import drive

    world = cached_world(task.world, REFERENCE, random_start=False)
    probe = Probe()
    policy: Policy = (
        load_pilot(task.agent, task.parameters, world.action_spec)
        if task.who == "agent"
        else _random_policy(task)
    )
    outcomes = drive(
        world,
        policy,
        task.seeds,
        observers=(probe,),
        max_steps=task.max_steps or None,
        tick=sign_of_life,
        drivers=[DRIVERS[task.who]] * len(task.seeds),
    )
    errors = probe.errors(_vision(task.agent)) if task.who == "agent" else []
    return {"outcomes": [asdict(outcome) for outcome in outcomes], "errors": errors}


def _random_policy(task: ScoringTask) -> Policy:
    from stages.control.data_policies import make_data_policy

    world = cached_world(task.world, REFERENCE, random_start=False)
    return make_data_policy(
        "white", world.action_spec, world.observation_shape, repeat=task.world.repeat
    )


def _vision(agent: AgentFiles) -> "VAE":
    return cached_vision(agent.vision_digest, agent.vision, agent.vision_shape["latent_size"])


def _tasks(
    workspace: Workspace, control: Artifact, config: Config, job: Job
) -> Iterator[ScoringTask]:
    agent, parameters = trained_agent(workspace, control)
    for who, count in (("agent", config.episodes), ("random", config.random_episodes)):
        seeds = episode_seeds("evaluation", job.seed, 0, count)
        for start in range(0, count, config.task_episodes):
            yield ScoringTask(
                who=who,
                world=replace(job.world, engine=REFERENCE),
                agent=agent,
                parameters=parameters[None],
                seeds=tuple(seeds[start : start + config.task_episodes]),
                max_steps=config.max_steps,
            )


def _score(
    tasks: Sequence[ScoringTask], partial: Partial, job: Job, *, progress: Monitor
) -> list[dict[str, Any]]:
    """Results of all tasks in order; each is kept in the partial as soon as it is there."""
    names = [f"task-{number:05d}.json" for number in range(len(tasks))]
    kept = [number for number, name in enumerate(names) if partial.has(name)]
    results = {number: _kept(partial, names[number]) for number in kept}
    missing = [number for number in range(len(tasks)) if number not in results]
    total = sum(len(task.seeds) for task in tasks)
    done = sum(len(tasks[number].seeds) for number in results)
    lines = ScoreLines()
    metrics = TaskMetrics(MetricsLog(partial, progress), lines.line)
    for number, result in results.items():
        metrics.finished(number, result)
    progress.emit(Advanced(done, total, "episodes", lines.latest))
    executor = LocalExecutor(resolve_workers(job.resources.workers))
    with executor, keeping(lambda: f"{done} of {total} episodes are scored and kept."):
        about = [f"{task.who}, {named_seeds(task.seeds)}" for task in tasks]
        work = [Task(number, run_task, tasks[number], about[number]) for number in missing]
        deadline = job.resources.stall_seconds
        for finished in executor.run(work, monitor=progress, deadline=deadline):
            number = int(finished.key)
            partial.write(
                names[number], canonical_json({"who": tasks[number].who, **finished.value})
            )
            done += len(tasks[number].seeds)
            results[number] = _kept(partial, names[number])
            metrics.finished(number, results[number])
            progress.emit(Advanced(done, total, "episodes", lines.latest))
    return [results[number] for number in range(len(tasks))]


def _kept(partial: Partial, name: str) -> dict[str, Any]:
    """The result of one task, as it was kept."""
    return parse_result(partial.read(name) or b"", source=f"{partial.path / name}")


def _written(
    partial: Partial, results: Sequence[Mapping[str, Any]], control: Artifact, job: Job
) -> Outcome:
    from stages.control.scoring import summarise
    from stages.worlds.making import lap_rule

    outcomes = {
        who: [EpisodeOutcome(**o) for r in results if r["who"] == who for o in r["outcomes"]]
        for who in dict.fromkeys(result["who"] for result in results)
    }
    scores = {who: summarise(episodes) for who, episodes in outcomes.items()}
    errors = [error for result in results for error in result["errors"]]
    summary = {
        "mean": scores["agent"]["mean"],
        "stderr": scores["agent"]["stderr"],
        "episodes": scores["agent"]["episodes"],
        "scores": scores,
        "engine": REFERENCE,
        "trained_on": control.manifest.summary["engine"],
        "lap_rule": lap_rule(job.world.env, REFERENCE),
        "latent": control.manifest.summary["pilot"]["latent"],
        "vision_error": float(np.mean(errors)) if errors else None,
    }
    rows = [_row(who, episode) for who, episodes in outcomes.items() for episode in episodes]
    partial.write("episodes.csv", episodes_csv(rows))
    partial.write("scores.json", readable_json(scores))
    seeds = [episode.seed for episode in outcomes["agent"]]
    return Outcome(
        payload=["episodes.csv", "scores.json", METRICS],
        summary=summary,
        seeds={"purpose": "evaluation", "seeds": seeds},
    )


def _row(who: str, episode: EpisodeOutcome) -> dict[str, Any]:
    row = asdict(episode)
    facts = row.pop("facts")
    return {"who": who, **row, **facts}


def _remarks(evaluation: Artifact) -> tuple[str, ...]:
    summary = evaluation.manifest.summary
    remarks = [f"Scored on {summary['engine']}; C was trained on {summary['trained_on']}."]
    if summary["lap_rule"]:
        remarks.append(f"A lap ends by the rule {summary['lap_rule']}.")
    if summary["vision_error"] is not None:
        remarks.append(
            f"V's reconstruction error on these pictures is {summary['vision_error']:.1f} "
            "(sum of squares per frame)."
        )
    return tuple(remarks)


def record(
    workspace: Workspace, evaluation: str, num_episodes: int, job: Job, *, progress: Monitor
) -> Report:
    """Drive the first seeds of an evaluation again and write them as mp4 files into `videos/`."""
    from stages.artifacts.video import require_encoder, write_video
    from stages.worlds.making import frames_per_second

    require_encoder()

    artifact = workspace.get(evaluation)
    control = (
        load_agent(Path(job.agent))
        if job.agent is not None
        else workspace.resolve(parent_of(artifact, "control"))
    )
    speed = frames_per_second(job.world.env) / job.world.repeat
    agent, parameters = trained_agent(workspace, control)
    seeds = artifact.manifest.seeds["seeds"][:num_episodes]
    if len(seeds) < num_episodes:
        progress.emit(Noted(f"{artifact.id} has {len(seeds)} episodes to record."))
    section = artifact.manifest.config["evaluate"]
    paths: list[str] = []
    for number, seed in enumerate(seeds):
        progress.poll()
        progress.emit(Advanced(number, len(seeds), "videos"))
        progress.emit(Doing(f"filming seed {seed}"))
        driven = driven_again(agent, parameters, job.world, seed, section["max_steps"])
        path = workspace.videos() / f"{artifact.id.replace('/', '-')}-seed-{seed}.mp4"
        write_video(path, (frame for frame, _ in driven), frames_per_second=speed)
        paths.append(str(path))
        progress.emit(Filmed(f"evaluate/seed-{seed}", number, path))
    progress.emit(Advanced(len(seeds), len(seeds), "videos"))
    return Report(command="evaluate --record", path=str(workspace.videos()), notes=tuple(paths))


def driven_again(
    agent: AgentFiles, parameters: Parameters, spec: WorldSpec, seed: int, max_steps: int
) -> Iterator[tuple["NDArray[np.uint8]", float]]:
    """The engine's own frames of one episode, and its return so far, one per action and the last.

    A frame is overwritten by the next.
    """
    from stages.worlds.making import make_prepared

    with closing(make_prepared(spec, engine=REFERENCE)) as world:
        pilot = load_pilot(agent, parameters[None], world.action_spec)
        observation = world.reset([seed])
        pilot.reset([seed])
        num_steps, total = 0, 0.0
        while world.live.any() and not 0 < max_steps <= num_steps:
            yield world.raw[0], total
            step = world.step(pilot.act(observation, world.live))
            observation = step.observation
            total += float(step.reward[0])
            num_steps += 1
        yield world.raw[0], total
