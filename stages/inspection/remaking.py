"""How one artifact was asked for: settings unlike its recipe's, and the command that makes it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from shlex import join
from typing import Any

from stages import IMPORT, PLAY, Stage, stage_writing
from stages.artifacts.artifact import Artifact
from stages.artifacts.manifest import Manifest
from stages.artifacts.summaries import AGENTS, STAND_INS
from stages.artifacts.workspace import KINDS, Workspace
from stages.contracts import WHOLE_FRAME
from stages.errors import StageError, UsageError
from stages.pipeline import Request, job_of, sections, settle, verb
from stages.settings.recipes import Recipe, available, load_recipe
from stages.settings.resolve import SEED, resolve
from stages.settings.values import value_text

AUTO = "auto"
PATH = "PATH"  # of the data that were imported
RECORDED = "controller"  # how a recording calls its policy when a controller drove
_PLAYED = "What somebody played cannot be made again."


@dataclass(frozen=True)
class Difference:
    """A setting of an artifact that its recipe and preset choose otherwise."""

    key: str
    value: str  # as one would write it after --set
    usual: str


@dataclass(frozen=True)
class Again:
    """The command that makes an artifact again; empty where there is none, and why."""

    command: str
    remark: str = ""


def differences(workspace: Workspace | None, manifest: Manifest) -> list[Difference]:
    """Settings of an artifact unlike those of its recipe and preset; UsageError without these."""
    recipe = _recipe(workspace, manifest)
    classes = sections(recipe.family)
    usual = resolve(classes, recipe, preset=manifest.preset or None).plain()
    drivers = [parent.id for parent in manifest.parents if parent.kind == "control"]
    return [
        replace(one, value=drivers[0]) if drivers and one.value == RECORDED else one
        for one in _unlike(manifest.config, usual)
    ]


def again(workspace: Workspace | None, artifact: Artifact) -> Again:
    """The command that makes this very artifact, checked by planning it."""
    if artifact.kind == PLAY.writes:
        return Again("", _PLAYED)
    if workspace is None or artifact.kind == AGENTS:
        controls = [parent.id for parent in artifact.manifest.parents if parent.kind == "control"]
        words = ["wm", "export", "agent", str(artifact.path)]
        words += [word for name in controls for word in ("--from", name)]
        return Again(join([*words, "--force"]), "In the workspace that it came from.")
    stage = stage_writing(artifact.kind)
    strange = [p.id for p in artifact.manifest.parents if p.kind not in (*KINDS, AGENTS)]
    if strange:
        return Again("", f"It cannot be made again: {strange[0]} is of no kind that is known.")
    try:
        if artifact.manifest.stage == IMPORT.name:
            return _imported(workspace, artifact)
        return _planned(workspace, artifact, stage)
    except StageError as error:
        return Again("", f"It cannot be made again as things are: {error.what} {error.why}".strip())


def _planned(workspace: Workspace, artifact: Artifact, stage: Stage) -> Again:
    manifest = artifact.manifest
    visited = [parent for parent in manifest.parents if parent.kind == AGENTS]
    if visited:
        told = f"DIR stands for the folder of {visited[0].id}."
        return Again(join(["wm", stage.name, "-w", str(workspace.root), "--agent", "DIR"]), told)
    request = _request(workspace, manifest, stage)
    settings = settle(workspace.root, request).settings
    job = job_of(settings, request)
    plan = verb(stage).plan(workspace, settings.sections[stage.section], job)
    words = ["wm", stage.name, "-w", str(workspace.root), *_words(request), "--force"]
    if plan.fingerprint == manifest.fingerprint:
        return Again(join(words))
    changed = "its algorithm has changed since" if plan.algorithm != manifest.algorithm else ""
    return Again(join(words), f"Now that makes another one: {changed or 'settings have changed'}.")


def _imported(workspace: Workspace, artifact: Artifact) -> Again:
    """An import's command; where the data lie is not kept, only what they are called."""
    from stages.exchange.importing import ALGORITHM

    manifest = artifact.manifest
    asked = manifest.config.get(IMPORT.name)
    if not isinstance(asked, Mapping):
        return Again("", "It cannot be made again: it does not tell how it was imported.")
    words = import_words(workspace, manifest, str(workspace.root))
    remark = f"{PATH} stands for where {manifest.summary.get('source', 'the data')} lies."
    if manifest.algorithm != ALGORITHM:
        remark += " Now that makes another one: its algorithm has changed since."
    return Again(join([*words, "--force"]), remark)


def import_words(
    workspace: Workspace, manifest: Manifest, place: str, chosen: Sequence[str] = ()
) -> list[str]:
    """The command that imports what this manifest tells of into `place`, with words `chosen`."""
    asked = manifest.config[IMPORT.name]
    words = ["wm", IMPORT.name, str(asked.get("format")), PATH, "-w", place, *chosen]
    for one in _unlike(manifest.config, settle(workspace.root, Request()).settings.plain()):
        words += ["--set", f"{one.key}={one.value}"]
    crop = asked.get("crop")
    if isinstance(crop, list) and crop != list(WHOLE_FRAME):
        words += ["--crop", ",".join(map(str, crop))]
    for name, usual in (("observation", ""), ("every", 1), ("cut", 1000)):
        if asked.get(name, usual) != usual:
            words += [f"--{name}", str(asked[name])]
    return words


def _request(workspace: Workspace, manifest: Manifest, stage: Stage) -> Request:
    """What one would have to ask in this workspace, as little as is needed."""
    stored = workspace.settings() or {}
    preset = manifest.preset if manifest.preset not in {"", stored.get("preset")} else None
    seed = manifest.config.get(SEED)
    plain = Request(preset=preset, seed=seed if seed != stored.get("seed") else None)
    holds = settle(workspace.root, plain).settings.plain()
    words = [f"{one.key}={one.value}" for one in _unlike(manifest.config, holds)]
    if stage.name == "evaluate":  # on the reference, whatever the workspace's engine
        words = [word for word in words if not word.startswith("world.engine=")]
    parents = [workspace.resolve(parent) for parent in manifest.parents]
    if stage.writes == "rollouts" and parents:
        policy = f"rollout.policy={RECORDED}"
        words = [word for word in words if word != policy]
        words += [f"rollout.policy={one.id}" for one in parents if one.kind == "control"]
        parents = []
    kinds = {*stage.reads, *(other for kind in stage.reads for other in STAND_INS.get(kind, ()))}
    kinds |= {stage.writes} if stage.warm else set()
    named = tuple(one.id for one in parents if one.kind in kinds)
    return Request(preset=plain.preset, seed=plain.seed, overrides=tuple(words), parents=named)


def _words(request: Request) -> Iterator[str]:
    if request.preset is not None:
        yield from ("--preset", request.preset)
    if request.seed is not None:
        yield from ("--seed", str(request.seed))
    for word in request.overrides:
        yield from ("--set", word)
    for parent in request.parents:
        yield from ("--from", parent)


def _unlike(
    config: Mapping[str, Any], usual: Mapping[str, Mapping[str, Any]]
) -> Iterator[Difference]:
    """Keys that both know and that differ; what `auto` became is no difference."""
    for section, values in config.items():
        if not isinstance(values, Mapping) or section not in usual:
            continue
        for name, value in values.items():
            if name not in usual[section] or not _is_setting(value):
                continue
            other = usual[section][name]
            if other not in (value, AUTO):
                yield Difference(f"{section}.{name}", _text(value), _text(other))


def _is_setting(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(isinstance(item, str | int | float) for item in items)


def _text(value: Any) -> str:
    return value_text(tuple(value) if isinstance(value, list) else value)


def _recipe(workspace: Workspace | None, manifest: Manifest) -> Recipe:
    """The workspace's copy of the artifact's recipe, or else the shipped one of that name."""
    stored = workspace.settings() if workspace else None
    if stored is not None and stored["recipe"]["name"] == manifest.recipe:
        return Recipe(**stored["recipe"])
    if manifest.recipe not in available():  # a manifest may come from anywhere: it names no file
        raise UsageError(f"the recipe {manifest.recipe!r} is not shipped.")
    return load_recipe(manifest.recipe)
