"""The whole pipeline: the settings of a workspace, one stage by name, or all that is missing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from stages import Stage, stage_named
from stages.artifacts.producing import Plan
from stages.artifacts.workspace import Artifact, Workspace
from stages.contracts import Job, Resources, WorldSpec
from stages.errors import EnvironmentLacks, InputMissing, InputsMismatch, UsageError
from stages.events import Monitor, Noted, Report, Table
from stages.families import family_named
from stages.settings.overrides import parse_overrides
from stages.settings.recipes import Recipe, load_recipe
from stages.settings.resolve import Settings, resolve

DEFAULT_RECIPE = "carracing"


class Verb(Protocol):
    """What every stage's module offers."""

    Config: type[Any]

    def plan(self, workspace: Workspace, config: Any, job: Job) -> Plan:
        """What the stage would make; no work is done."""
        ...

    def run(self, workspace: Workspace, config: Any, job: Job, *, progress: Monitor) -> Report:
        """Make it."""
        ...


@dataclass(frozen=True)
class Request:
    """What the command line asked for; None and empty mean: inherit from the workspace."""

    recipe: str | None = None  # name, or path of a TOML file
    preset: str | None = None
    seed: int | None = None
    overrides: tuple[str, ...] = ()  # words after --set
    named: Mapping[str, Any] | None = None  # options that stand for a key: rollout.episodes
    parents: tuple[str, ...] = ()  # --from
    force: bool = False
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True)
class Prepared:
    """A workspace with the settings that hold in it for one command."""

    workspace: Workspace
    settings: Settings
    job: Job
    first: bool = False  # this command stored the workspace's settings

    def config(self, stage: Stage) -> Any:
        """The stage's section of the settings."""
        return self.settings.sections[stage.section]


def verb(stage: Stage) -> Verb:
    """The module of a stage."""
    return cast(Verb, import_module(f"stages.{stage.module}"))


def sections(family: str) -> dict[str, type[Any]]:
    """Section of a recipe to the record that types it, in the family's order."""
    stages = [stage_named(name) for name in family_named(family).stages]
    return {"world": WorldSpec} | {stage.section: verb(stage).Config for stage in stages}


@dataclass(frozen=True)
class Settled:
    """The settings that hold for one command, and where they come from."""

    settings: Settings
    recipe: Recipe
    stored: Mapping[str, Any] | None  # what the workspace had stored; None when nothing
    remarks: tuple[str, ...] = ()


def settle(root: Path, request: Request) -> Settled:
    """Settings that hold for a command in this workspace, which need not exist yet."""
    stored = Workspace.open(root).settings() if Workspace.exists(root) else None
    remarks: tuple[str, ...] = ()
    if stored is None:
        recipe = load_recipe(request.recipe or DEFAULT_RECIPE)
    else:
        recipe, remarks = _kept_recipe(Recipe(**stored["recipe"]), request)
        remarks += _passing(stored, request)
    inherited: dict[str, Any] = {}
    if stored is not None:
        inherited = {**parse_overrides(stored["overrides"]), "seed": stored["seed"]}
    settings = resolve(
        sections(recipe.family),
        recipe,
        preset=request.preset or (stored["preset"] if stored else None),
        inherited=inherited,
        overrides=parse_overrides(request.overrides),
        named={**(request.named or {}), "seed": request.seed},
    )
    return Settled(_with_engine(settings, stored), recipe, stored, remarks)


def prepare(root: Path, request: Request, *, progress: Monitor) -> Prepared:
    """Open or create the workspace; its first command stores recipe, preset, seed and --set."""
    settled = settle(root, request)
    workspace = Workspace.open(root, create=True)
    record = settled.stored or _record(settled.settings, request)
    record = {**record, "recipe": asdict(settled.recipe)}
    if record != settled.stored:
        workspace.store_settings(record)
    for remark in settled.remarks:
        progress.emit(Noted(remark))
    job = job_of(settled.settings, request)
    return Prepared(workspace, settled.settings, job, first=settled.stored is None)


def job_of(settings: Settings, request: Request) -> Job:
    """What every stage is told besides its section."""
    return Job(
        family=settings.family,
        recipe=settings.recipe,
        preset=settings.preset,
        seed=settings.seed,
        world=settings.sections["world"],
        parents=request.parents,
        force=request.force,
        resources=request.resources,
    )


def run_stage(prepared: Prepared, name: str, *, progress: Monitor) -> Report:
    """Run one stage of the family by its name or alias."""
    stage = stage_named(name)
    order = family_named(prepared.job.family).stages
    if stage.name not in order:
        raise UsageError(
            f"The family {prepared.job.family} has no stage {stage.name}.",
            fix=f"Its stages are: {', '.join(order)}.",
        )
    with _unbound_on_refusal(prepared):
        return verb(stage).run(
            prepared.workspace, prepared.config(stage), prepared.job, progress=progress
        )


def run_all(prepared: Prepared, *, progress: Monitor) -> Report:
    """Run every stage whose artifact is missing or stale, in the family's order."""
    if prepared.job.force or prepared.job.parents:
        raise UsageError(
            "`wm run` makes what is missing; it takes neither --force nor --from.",
            fix="Give them to one stage, e.g. `wm train-vision --force`.",
        )
    made: dict[str, str] = {}
    reports: list[Report] = []
    for stage in _stages(prepared):
        job = replace(prepared.job, parents=_parents_among(stage, made))
        progress.emit(Noted(f"{stage.name}: {stage.line}"))
        with _unbound_on_refusal(prepared):
            report = verb(stage).run(
                prepared.workspace, prepared.config(stage), job, progress=progress
            )
        made[stage.writes] = report.artifact or ""
        reports.append(report)
    last = reports[-1]
    rows = [(r.command, "up to date" if r.up_to_date else "made", r.path) for r in reports]
    pipeline = Table("Pipeline", ("stage", "state", "artifact"), tuple(rows))
    return Report(
        command="run",
        artifact=last.artifact,
        path=str(prepared.workspace.root),
        up_to_date=all(report.up_to_date for report in reports),
        summary=last.summary,
        tables=(pipeline, *last.tables),
        notes=last.notes,
    )


@dataclass(frozen=True)
class Expectation:
    """One stage of a workspace: what its settings call for, and what is there."""

    stage: Stage
    artifact: Artifact | None  # the one that the settings call for, or else the newest
    fresh: bool
    reason: str  # why it is not fresh


def expectations(prepared: Prepared) -> Iterator[Expectation]:
    """Walk the family's order as `run_all` would, without doing any work."""
    made: dict[str, str] = {}
    stale = ""
    for stage in _stages(prepared):
        newest = prepared.workspace.newest(stage.writes)
        if stale:
            yield Expectation(stage, newest, fresh=False, reason=f"{stale} is not up to date")
            continue
        job = replace(prepared.job, parents=_parents_among(stage, made))
        try:
            plan = verb(stage).plan(prepared.workspace, prepared.config(stage), job)
        except (InputsMismatch, InputMissing) as error:
            yield Expectation(stage, newest, fresh=False, reason=error.what)
            stale = stage.name
            continue
        found = prepared.workspace.matching(stage.writes, plan.fingerprint)
        if found is None:
            stale = stage.name
            yield Expectation(stage, newest, fresh=False, reason=_difference(newest, plan))
        else:
            made[stage.writes] = found.id
            yield Expectation(stage, found, fresh=True, reason="")


def _stages(prepared: Prepared) -> list[Stage]:
    return [stage_named(name) for name in family_named(prepared.job.family).stages]


def _parents_among(stage: Stage, made: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(made[kind] for kind in stage.reads if kind in made)


def _kept_recipe(kept: Recipe, request: Request) -> tuple[Recipe, tuple[str, ...]]:
    """The workspace's copy of its recipe, or the user's file that it follows.

    Raises:
        InputsMismatch: --recipe names another recipe than the workspace's.
    """
    if request.recipe is None:
        return kept, ()
    given = load_recipe(request.recipe)
    if given.name != kept.name:
        raise InputsMismatch(
            f"This workspace belongs to the recipe {kept.name}, not to {given.name}.",
            fix="Use another workspace (-w), or change single keys with --set.",
        )
    if given == kept:
        return kept, ()
    if request.recipe == given.name:
        return kept, (
            f"The recipe {kept.name} has changed since this workspace was made, which keeps its "
            "own copy. For the new one use another workspace (-w).",
        )
    return given, (f"{request.recipe} has changed: this workspace follows it from now on.",)


def _passing(stored: Mapping[str, Any], request: Request) -> tuple[str, ...]:
    """What holds for this command alone."""
    changed = [
        f"{name} {stored[name]} -> {getattr(request, name)}"
        for name in ("preset", "seed")
        if getattr(request, name) not in {None, stored[name]}
    ]
    changed += [f"--set {word}" for word in request.overrides]
    if not changed:
        return ()
    remarks = [f"For this command only: {', '.join(changed)} (the workspace keeps its own)."]
    if request.preset not in {None, stored["preset"]} and stored["overrides"]:
        kept = " ".join(f"--set {word}" for word in stored["overrides"])
        remarks.append(f"Stored with the workspace, and above its preset: {kept}.")
    return tuple(remarks)


@contextmanager
def _unbound_on_refusal(prepared: Prepared) -> Iterator[None]:
    """Let an empty workspace forget settings whose very first command was refused."""
    try:
        yield
    except (UsageError, InputMissing, InputsMismatch, EnvironmentLacks):
        workspace = prepared.workspace
        empty = not any(
            workspace.newest(stage.writes) or workspace.partials(stage.writes)
            for stage in _stages(prepared)
        )
        if prepared.first and empty:
            prepared.workspace.store_settings(None)
        raise


def _with_engine(settings: Settings, stored: Mapping[str, Any] | None) -> Settings:
    """Settings with `world.engine = "auto"` replaced by the workspace's or the best engine."""
    world: WorldSpec = settings.sections["world"]
    if world.engine != "auto":
        return settings
    from stages.worlds.making import engines_for, resolve_engine

    kept = stored["engine"] if stored else None
    engine = kept if kept in engines_for(world.env) else resolve_engine(world)
    return settings.changed("world.engine", engine, origin=f"auto: {engine}")


def _record(settings: Settings, request: Request) -> dict[str, Any]:
    """What the first command of a workspace leaves for the later ones."""
    return {  # options for one command, such as --episodes, are not inherited
        "preset": settings.preset,
        "seed": settings.seed,
        "overrides": list(request.overrides),
        "engine": settings.sections["world"].engine,
    }


def _difference(artifact: Artifact | None, plan: Plan) -> str:
    """Why the newest artifact is not what the settings call for, key by key."""
    if artifact is None:
        return "missing"
    old, new = _flat(artifact.manifest.config), _flat(plan.config)
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if keys:
        return "; ".join(f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys[:4])
    return "its inputs have changed"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat
