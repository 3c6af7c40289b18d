"""The pipeline: the settings of a workspace, its stages, and one of them by name."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from stages import Stage, rounds, stage_named
from stages.artifacts.agent_folder import load_agent
from stages.artifacts.fitting import WORLD_FIELDS
from stages.artifacts.producing import DREAM, Plan
from stages.artifacts.workspace import Workspace
from stages.contracts import NO_WORLD, Job, Resources, WorldSpec
from stages.errors import EnvironmentLacks, InputMissing, InputsMismatch, UsageError
from stages.events import Monitor, Noted, Report
from stages.families import family_named
from stages.settings.overrides import parse_overrides
from stages.settings.recipes import Recipe, available, load_recipe
from stages.settings.resolve import Settings, resolve
from stages.settings.values import value_text
from stages.training.precision import native_precision

DEFAULT_RECIPE = "carracing"
IMPORT_RECIPE = "imported"  # of a new workspace whose first command is an import
SEARCH = "train-control"
WORLDLY = (SEARCH, "evaluate")  # stages that drive in a world


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
    agent: Path | None = None  # --agent
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
    found = {"world": WorldSpec} | {stage.section: verb(stage).Config for stage in stages}
    return {**found, rounds.SECTION: rounds.Config}


@dataclass(frozen=True)
class Settled:
    """The settings that hold for one command, and where they come from."""

    settings: Settings
    recipe: Recipe
    stored: Mapping[str, Any] | None  # what the workspace had stored; None when nothing
    precision: str  # what `auto` means in this workspace
    remarks: tuple[str, ...] = ()


def settle(root: Path, request: Request) -> Settled:
    """Settings that hold for a command in this workspace, which need not exist yet."""
    stored = Workspace.stored(root)
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
        preset=request.preset or (stored.get("preset") if stored else None),
        inherited=inherited,
        overrides=parse_overrides(request.overrides),
        named={**(request.named or {}), "seed": request.seed},
    )
    precision = (stored or {}).get("precision") or native_precision(request.resources.device)
    settings = _with_precision(_with_engine(settings, stored), precision)
    return Settled(settings, recipe, stored, precision, remarks)


def prepare(root: Path, request: Request, *, progress: Monitor) -> Prepared:
    """Open or create the workspace; its first command stores recipe, preset, seed and --set."""
    request = with_agent(root, request, progress)
    settled = settle(root, request)
    workspace = Workspace.open(root, create=True)
    with workspace.settings_lock:
        there = Workspace.stored(root)
        if there != settled.stored:  # another first command was faster, or was refused
            settled = settle(root, request)
        record = settled.stored or _record(settled.settings, request)
        record = {**record, "recipe": asdict(settled.recipe), "precision": settled.precision}
        if record != settled.stored:
            workspace.store_settings(record)
        workspace.work_with(record)
    for remark in settled.remarks:
        progress.emit(Noted(remark))
    job = job_of(settled.settings, request)
    return Prepared(workspace, settled.settings, job, first=settled.stored is None)


def with_agent(root: Path, request: Request, progress: Monitor) -> Request:
    """The request; where the workspace is new, with the recipe and the world of its agent.

    Raises:
        UsageError: --agent beside --from, or an agent of a recipe that is not shipped.
        StageError: there is no whole agent in that folder.
    """
    if request.agent is None:
        return request
    if request.parents:
        raise UsageError(
            "--agent and --from exclude each other.",
            why="A packed agent brings its own V, M and C.",
            fix="Leave one of them out.",
        )
    agent = load_agent(request.agent)
    if Workspace.stored(root) is not None:
        return request
    named_recipe = request.recipe is not None
    if not named_recipe:
        told = agent.manifest
        if told.recipe not in available():
            raise UsageError(
                f"{agent.id} was trained with the recipe {told.recipe!r}, which is not shipped.",
                fix="Name the file of that recipe, or another one, with --recipe.",
            )
        preset = request.preset or told.preset or None
        request = replace(request, recipe=told.recipe, preset=preset)
        both = f"the recipe {told.recipe}" + (f" and the preset {preset}" if preset else "")
        progress.emit(Noted(f"A new workspace, with {both} of {agent.id}."))
    mine = settle(root, request).settings.sections["world"]
    if named_recipe and mine.env != agent.world.env:
        return request  # for the stage to refuse, naming both sides
    given = parse_overrides(request.overrides)
    words = tuple(
        f"world.{name}={value_text(getattr(agent.world, name))}"
        for name in WORLD_FIELDS
        if getattr(agent.world, name) != getattr(mine, name) and f"world.{name}" not in given
    )
    return replace(request, overrides=(*words, *request.overrides))


def for_import(root: Path, request: Request, progress: Monitor) -> Request:
    """The request; where the workspace is new and nothing else is said, without an environment."""
    if request.recipe is not None or Workspace.stored(root) is not None:
        return request
    progress.emit(Noted(f"A new workspace, with the recipe {IMPORT_RECIPE}."))
    return replace(request, recipe=IMPORT_RECIPE)


def job_of(settings: Settings, request: Request) -> Job:
    """What every stage is told besides its section."""
    return Job(
        family=settings.family,
        recipe=settings.recipe,
        preset=settings.preset,
        seed=settings.seed,
        world=settings.sections["world"],
        parents=request.parents,
        agent=str(request.agent.absolute()) if request.agent is not None else None,
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
    with unbound_on_refusal(prepared):
        return verb(stage).run(
            prepared.workspace, prepared.config(stage), prepared.job, progress=progress
        )


def family_stages(prepared: Prepared) -> list[Stage]:
    """The stages of the family, in its order; without a world, those that drive in none."""
    stages = [stage_named(name) for name in family_named(prepared.job.family).stages]
    if prepared.job.world.env != NO_WORLD:
        return stages
    dreams = prepared.settings.sections["control"].place == DREAM
    return [one for one in stages if one.name not in WORLDLY or (one.name == SEARCH and dreams)]


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
        f"{name} {stored.get(name)} -> {getattr(request, name)}"
        for name in ("preset", "seed")
        if getattr(request, name) not in {None, stored.get(name)}
    ]
    changed += [f"--set {word}" for word in request.overrides]
    if not changed:
        return ()
    remarks = [f"For this command only: {', '.join(changed)} (the workspace keeps its own)."]
    if request.preset not in {None, stored.get("preset")} and stored["overrides"]:
        kept = " ".join(f"--set {word}" for word in stored["overrides"])
        remarks.append(f"Stored with the workspace, and above its preset: {kept}.")
    return tuple(remarks)


@contextmanager
def unbound_on_refusal(prepared: Prepared) -> Iterator[None]:
    """Take back a workspace whose very first command was refused, unless there is work in it."""
    try:
        yield
    except (UsageError, InputMissing, InputsMismatch, EnvironmentLacks):
        if prepared.first:
            with prepared.workspace.settings_lock:
                if not _in_use(prepared):
                    prepared.workspace.forget()
        raise


def _in_use(prepared: Prepared) -> bool:
    """Whether the workspace holds any work, or somebody else works in it."""
    workspace = prepared.workspace
    return any(
        workspace.newest(kind) or workspace.partials(kind) or workspace.lock_holder(kind)
        for kind in (stage.writes for stage in family_stages(prepared))
    )


def _with_engine(settings: Settings, stored: Mapping[str, Any] | None) -> Settings:
    """Settings with `world.engine = "auto"` replaced by the workspace's or the best engine."""
    world: WorldSpec = settings.sections["world"]
    if world.engine != "auto":
        return settings
    from stages.worlds.making import engines_for, resolve_engine

    kept = stored["engine"] if stored else None
    engine = kept if kept in engines_for(world.env) else resolve_engine(world)
    return settings.changed("world.engine", engine, origin=f"auto: {engine}")


def _with_precision(settings: Settings, precision: str) -> Settings:
    """Settings with every `precision = "auto"` replaced by this one."""
    for section, values in settings.sections.items():
        if getattr(values, "precision", None) == "auto":
            settings = settings.changed(
                f"{section}.precision", precision, origin=f"auto: {precision}"
            )
    return settings


def _record(settings: Settings, request: Request) -> dict[str, Any]:
    """What the first command of a workspace leaves for the later ones."""
    return {  # options for one command, such as --episodes, are not inherited
        "preset": settings.preset,
        "seed": settings.seed,
        "overrides": list(request.overrides),
        "engine": settings.sections["world"].engine,
    }
