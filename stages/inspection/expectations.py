"""What a workspace's settings call for, stage by stage, against what is there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stages import Stage
from stages.artifacts.artifact import Artifact
from stages.artifacts.producing import Plan
from stages.artifacts.summaries import AGENTS
from stages.artifacts.workspace import Workspace
from stages.errors import InputMissing, InputsMismatch, UsageError
from stages.inspection.lineage import Rounds, rounds_of
from stages.pipeline import Prepared, family_stages
from stages.run import goes_on, plan_in


@dataclass(frozen=True)
class Expectation:
    """One stage of a workspace: what its settings call for, and what is there."""

    stage: Stage
    round: int
    artifact: Artifact | None  # the one that the settings call for, or else the round's newest
    fresh: bool
    reason: str  # why it is not fresh, or whose it is
    fingerprint: str = ""  # of what is called for; empty where that cannot be said yet


def expectations(prepared: Prepared) -> Iterator[Expectation]:
    """Walk the stages as `run_all` would, round after round, without doing any work."""
    made: list[dict[str, str]] = []
    rounds = rounds_of(prepared.workspace)
    stale = ""
    while not stale and (not made or goes_on(prepared, made)):
        made.append({})
        for stage in family_stages(prepared):
            newest, visiting = _newest(prepared.workspace, stage.writes, rounds, len(made))
            if stale:
                yield _unmet(stage, len(made), newest, visiting, f"{stale} is not up to date")
                continue
            try:
                plan = plan_in(prepared, stage, made)
            except (InputsMismatch, InputMissing, UsageError) as error:
                reason = f"{error.what} {error.why}".strip()
                yield _unmet(stage, len(made), newest, visiting, reason)
                stale = stage.name
                continue
            found = prepared.workspace.matching(stage.writes, plan.fingerprint)
            if found is None:
                stale = stage.name
            else:
                made[-1][stage.writes] = found.id
            yield Expectation(
                stage,
                len(made),
                found or newest,
                fresh=found is not None,
                reason="" if found else _difference(newest, plan),
                fingerprint=plan.fingerprint,
            )


def _newest(
    workspace: Workspace, kind: str, rounds: Rounds, number: int
) -> tuple[Artifact | None, Artifact | None]:
    """The newest artifact of the workspace's own making in this round, and a newer visitor.

    A visitor was made from a packed agent.
    """
    newest = workspace.newest(kind)
    if newest is None:
        return None, None
    own = [
        artifact
        for artifact in workspace.artifacts(kind)
        if not visitor(artifact) and (rounds.get(artifact.id) or 1) == number
    ]
    return own[-1] if own else None, newest if visitor(newest) else None


def visitor(artifact: Artifact) -> str:
    """The packed agent that this artifact was made from, in words; empty: from the workspace."""
    names = [one.id for one in artifact.manifest.parents if one.kind == AGENTS]
    return names[0].replace(f"{AGENTS}/", "agent ", 1) if names else ""


def _unmet(
    stage: Stage, number: int, newest: Artifact | None, visiting: Artifact | None, reason: str
) -> Expectation:
    """What stands where a stage has no inputs; nothing here can make a visitor's work stale."""
    if newest is None and visiting is not None and number == 1:
        return Expectation(stage, number, visiting, fresh=True, reason=visitor(visiting))
    return Expectation(stage, number, newest, fresh=False, reason=reason)


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
