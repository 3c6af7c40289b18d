"""`wm train-control`: search the controller C with CMA-ES, or let it climb in the dream.

The log `search.jsonl` is the search: it is replayed to resume, and kept to be read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from stages import stage_named
from stages.agents import (
    MODELS,
    check_engine,
)
from stages.artifacts.artifact import Artifact
from stages.artifacts.fitting import (
    check_grown,
    check_same_parent,
    check_world,
    start_of,
)
from stages.artifacts.partial import Partial
from stages.artifacts.producing import Outcome, Plan, choose_parents, only, produce
from stages.artifacts.workspace import Workspace
from stages.contracts import Job
from stages.control.config import DREAM, Config, check_place
from stages.errors import UsageError
from stages.events import Monitor, Report
from stages.gathered import dream_limit
from stages.worlds.making import check_random_start, check_world_known

if TYPE_CHECKING:
    pass

__all__ = ["ALGORITHM", "STAGE", "Config", "plan", "run"]

STAGE = stage_named("train-control")
ALGORITHM = 1


def plan(workspace: Workspace, config: Config, job: Job) -> Plan:
    """What this search would be: the settings, V and M, and the data that C's inputs vary in."""
    check_place(config)
    if config.place != DREAM:
        check_world_known(job.world.env, f"wm train-control --in {config.place}")
    naming = _naming(workspace, job, config.kinds)
    chosen = choose_parents(workspace, STAGE, naming, kinds=config.kinds)
    models = [only(chosen[kind]) for kind in config.kinds if kind != "latents"]
    parents = [*models, *chosen.get("latents", ())]
    vision = parents[0]
    if config.place == DREAM:
        dream_limit(config, job.world)
    if config.random_start:
        check_random_start(job.world.env, job.world.engine, key="control.random_start")
    check_engine(job.world.engine, vision)
    for parent in parents:
        check_world(asdict(job.world), parent)
        if parent is not vision:
            check_same_parent(parent, vision)
    parents += _start(workspace, chosen, config, job)
    resolved = {"world": asdict(job.world), "control": config.decisive, "seed": job.seed}
    return Plan(STAGE, ALGORITHM, job.family, resolved, tuple(parents))


def _start(
    workspace: Workspace, chosen: Mapping[str, Sequence[Artifact]], config: Config, job: Job
) -> list[Artifact]:
    """The controller whose weights the search starts from, if one was named."""
    if not chosen[STAGE.writes]:
        return []
    start = start_of(chosen, STAGE, pilot=asdict(config.pilot))
    check_world(asdict(job.world), start)
    for kind in MODELS:
        for model in chosen.get(kind, ()):
            check_grown(workspace, start, model)
    if config.components:
        raise UsageError(
            f"A search along principal components cannot start from {start.id}.",
            why="Its weights need not lie in the space of the components.",
            fix=f"Use --set control.components=0, or leave out `--from {start.id}`.",
        )
    return [start]


def run(workspace: Workspace, config: Config, job: Job, *, progress: Monitor) -> Report:
    """Search, or go on where the log ends, and commit the best mean vector."""
    planned = plan(workspace, config, job)

    def build(partial: Partial) -> Outcome:
        from stages.hunt import Hunt

        return Hunt(partial, planned.parents, config, job, progress).outcome()

    return produce(workspace, planned, job, build, progress=progress)


def _naming(workspace: Workspace, job: Job, kinds: Sequence[str]) -> Job:
    """The job without named parents that are not read, and with the latents that M learnt from."""
    kept = tuple(name for name in job.parents if name.partition("/")[0] not in STAGE.reads)
    kept += tuple(name for name in job.parents if name.partition("/")[0] in kinds)
    wanted = "latents" in kinds and not any(name.startswith("latents/") for name in kept)
    if wanted and "memory" in kinds:
        memory = only(choose_parents(workspace, STAGE, replace(job, parents=kept))["memory"])
        named = [parent for parent in memory.manifest.parents if parent.kind == "latents"]
        kept += tuple(workspace.resolve(parent).id for parent in named)
    return replace(job, parents=kept)
