"""What a workspace's settings call for, stage by stage, against what is there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stages import Stage
from stages.artifacts.artifact import Artifact
from stages.artifacts.producing import Plan
from stages.artifacts.summaries import AGENTS
from stages.artifacts.workspace import Workspace
from stages.errors import InputMissing, InputsMismatch, UsageError
from stages.pipeline import Prepared, family_stages, parents_among, verb


@dataclass(frozen=True)
class Expectation:
    """One stage of a workspace: what its settings call for, and what is there."""

    stage: Stage
    artifact: Artifact | None  # the one that the settings call for, or else the newest
    fresh: bool
    reason: str  # why it is not fresh, or whose it is


def expectations(prepared: Prepared) -> Iterator[Expectation]:
    """Walk the family's order as `run_all` would, without doing any work."""
    made: dict[str, str] = {}
    stale = ""
    for stage in family_stages(prepared):
        newest, visiting = _newest(prepared.workspace, stage.writes)
        if stale:
            reason = f"{stale} is not up to date"
            yield _unmet(stage, newest, visiting, reason)
            continue
        job = replace(prepared.job, parents=parents_among(stage, made))
        try:
            plan = verb(stage).plan(prepared.workspace, prepared.config(stage), job)
        except (InputsMismatch, InputMissing, UsageError) as error:
            yield _unmet(stage, newest, visiting, f"{error.what} {error.why}".strip())
            stale = stage.name
            continue
        found = prepared.workspace.matching(stage.writes, plan.fingerprint)
        if found is None:
            stale = stage.name
            yield Expectation(stage, newest, fresh=False, reason=_difference(newest, plan))
        else:
            made[stage.writes] = found.id
            yield Expectation(stage, found, fresh=True, reason="")


def _newest(workspace: Workspace, kind: str) -> tuple[Artifact | None, Artifact | None]:
    """The newest artifact of the workspace's own making, and a newer one of a packed agent."""
    newest = workspace.newest(kind)
    if newest is None or not visitor(newest):
        return newest, None
    own = [artifact for artifact in workspace.artifacts(kind) if not visitor(artifact)]
    return own[-1] if own else None, newest


def visitor(artifact: Artifact) -> str:
    """The packed agent that this artifact was made from, in words; empty: from the workspace."""
    names = [one.id for one in artifact.manifest.parents if one.kind == AGENTS]
    return names[0].replace(f"{AGENTS}/", "agent ", 1) if names else ""


def _unmet(
    stage: Stage, newest: Artifact | None, visiting: Artifact | None, reason: str
) -> Expectation:
    """What stands where a stage has no inputs; nothing here can make a visitor's work stale."""
    if newest is None and visiting is not None:
        return Expectation(stage, visiting, fresh=True, reason=visitor(visiting))
    return Expectation(stage, newest, fresh=False, reason=reason)


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
