"""How every stage makes its artifact: plan, skip what exists, lock, build in a partial, commit."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from shlex import quote
from typing import Any

from stages import Stage, stage_writing
from stages.artifacts.artifact import Artifact
from stages.artifacts.canonical import fingerprint
from stages.artifacts.disk import plain_size
from stages.artifacts.manifest import Certificate
from stages.artifacts.partial import Partial
from stages.artifacts.versions import provenance
from stages.artifacts.workspace import KINDS, Workspace
from stages.contracts import Job
from stages.errors import (
    ArtifactDamaged,
    InputMissing,
    InputsMismatch,
    StageError,
    UsageError,
)
from stages.events import Monitor, Noted, Report, Scalar, Table

WORLD_FIELDS = ("env", "repeat", "crop", "size", "max_frames")  # what two stages must agree on


@dataclass(frozen=True)
class Plan:
    """Everything that decides the bytes of an artifact, before any work is done."""

    stage: Stage
    algorithm: int
    family: str
    config: Mapping[str, Any]  # resolved: the world, the stage's section, the seed
    parents: tuple[Artifact, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Name of this work: equal plans have equal fingerprints."""
        return fingerprint(
            self.stage.name,
            algorithm=self.algorithm,
            config=self.config,
            parents=[parent.manifest.payload_digest for parent in self.parents],
            family=self.family,
        )


@dataclass(frozen=True)
class Outcome:
    """What a stage built in its partial folder."""

    payload: Sequence[str]  # names of the files that make the artifact
    summary: Mapping[str, Any]
    seeds: Mapping[str, Any] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int = 1


def produce(
    workspace: Workspace,
    plan: Plan,
    job: Job,
    build: Callable[[Partial], Outcome],
    *,
    progress: Monitor,
) -> Report:
    """The artifact of this plan: the one that exists, or a new one built and committed."""
    kind = plan.stage.writes
    existing = _existing(workspace, plan, job)
    if existing is None:
        with workspace.lock(kind):
            existing = _existing(workspace, plan, job)  # another run may just have made it
            if existing is None:
                return _build(workspace, plan, job, build, progress=progress)
    return _report(plan, existing, up_to_date=True)


def _existing(workspace: Workspace, plan: Plan, job: Job) -> Artifact | None:
    """The artifact that makes this work unnecessary; its files are there in full size."""
    if job.force:
        return None
    found = workspace.matching(plan.stage.writes, plan.fingerprint)
    if found is not None:
        _check_sizes(found)
    return found


def _check_sizes(artifact: Artifact) -> None:
    """A cheap look before "up to date" is said; `wm verify` reads every byte."""
    for entry in artifact.manifest.files:
        path = artifact.path / entry.name
        size = plain_size(path) if path.exists() else None
        if size != entry.bytes:
            raise ArtifactDamaged(
                f"{artifact.id}/{entry.name} is damaged.",
                why=f"It should have {entry.bytes} bytes and "
                + ("is missing." if size is None else f"has {size}."),
                fix=artifact.remedy,
            )


def _build(
    workspace: Workspace,
    plan: Plan,
    job: Job,
    build: Callable[[Partial], Outcome],
    *,
    progress: Monitor,
) -> Report:
    partial = workspace.begin(plan.stage.writes, plan.fingerprint)
    artifact = partial.finished()
    if artifact is not None:  # a commit was cut just before its end
        return _report(plan, artifact)
    partial.record_starts([p.id for p in plan.parents if p.kind == plan.stage.writes])
    if partial.names():
        progress.emit(Noted(f"Resuming {plan.stage.name} where it was left."))
    started = time.monotonic()
    try:
        outcome = build(partial)
    except StageError:
        if not partial.names():  # refused before any work: nothing to go on with
            partial.discard()
        raise
    artifact = partial.commit(
        _certificate(plan, job, outcome, seconds=time.monotonic() - started),
        payload=outcome.payload,
    )
    return replace(_report(plan, artifact), tables=outcome.tables, notes=outcome.notes)


def _certificate(plan: Plan, job: Job, outcome: Outcome, *, seconds: float) -> Certificate:
    machine = provenance(device=outcome.device, threads=outcome.threads)
    return Certificate(
        stage=plan.stage.name,
        family=plan.family,
        recipe=job.recipe,
        preset=job.preset,
        algorithm=plan.algorithm,
        config=plan.config,
        parents=tuple(parent.reference() for parent in plan.parents),
        seeds=outcome.seeds,
        summary=outcome.summary,
        provenance={**machine, "seconds_of_last_run": round(seconds, 3)},
    )


def _report(plan: Plan, artifact: Artifact, *, up_to_date: bool = False) -> Report:
    return Report(
        command=plan.stage.name,
        artifact=artifact.id,
        path=str(artifact.path),
        up_to_date=up_to_date,
        summary=scalars(artifact.manifest.summary),
    )


def scalars(summary: Mapping[str, Any]) -> dict[str, Scalar]:
    """The plain numbers and words of a summary, for a table."""
    return {
        name: value
        for name, value in summary.items()
        if isinstance(value, str | int | float | bool) and value != ""
    }


def choose_parents(
    workspace: Workspace, stage: Stage, job: Job, *, kinds: Sequence[str] | None = None
) -> dict[str, tuple[Artifact, ...]]:
    """Parents by kind: those named by --from, otherwise the newest complete one of each kind.

    Of the kind that the stage itself writes there is one, to start from, only where it is named.
    """
    kinds = stage.reads if kinds is None else kinds
    optional = (stage.writes,) if stage.warm else ()
    named: dict[str, list[Artifact]] = {kind: [] for kind in (*kinds, *optional)}
    for identity in job.parents:
        kind = identity.partition("/")[0]
        if kind in KINDS and kind not in named:
            raise UsageError(
                f"`wm {stage.name}` does not read {kind}.",
                why=f"It reads {' and '.join(named) or 'nothing'}.",
                fix=f"Leave out `--from {identity}`.",
            )
        artifact = workspace.get(identity)
        named[artifact.kind].append(artifact)
    for kind in kinds:
        named[kind] = named[kind] or [_newest(workspace, kind)]
    return {kind: tuple(found) for kind, found in named.items()}


def _newest(workspace: Workspace, kind: str) -> Artifact:
    artifact = workspace.newest(kind)
    if artifact is None:
        raise InputMissing(
            f"There is nothing in {workspace.root / kind} yet.",
            why=f"`wm {stage_writing(kind).name}` fills it.",
            fix=f"Run `wm {stage_writing(kind).name} -w {quote(str(workspace.root))}` first, "
            "or `wm run` for all that is missing.",
        )
    return artifact


def only(artifacts: Sequence[Artifact]) -> Artifact:
    """The single artifact of a kind that a stage reads once."""
    if len(artifacts) != 1:
        names = ", ".join(artifact.id for artifact in artifacts)
        raise UsageError(
            f"One artifact is needed, not {names}.",
            fix=f"Give `--from {artifacts[0].kind}/...` once.",
        )
    return artifacts[0]


def start_of(
    chosen: Mapping[str, Sequence[Artifact]], stage: Stage, **described: Mapping[str, Any]
) -> Artifact:
    """The artifact to start from; it must be described as the new one will be.

    `described` holds what the summaries must have in common, as `shape={...}`.
    """
    start = only(chosen[stage.writes])
    for name, wanted in described.items():
        theirs = start.manifest.summary[name]
        different = [key for key in wanted if theirs.get(key) != _plain(wanted[key])]
        if different:
            sides = (f"{k}: {theirs.get(k)} there, {_plain(wanted[k])} here" for k in different)
            raise InputsMismatch(
                f"{start.id} cannot be the start: it was made with other settings.",
                why="; ".join(sides) + ".",
                fix=f"Leave out `--from {start.id}`, or use the settings and parents that it has.",
            )
    return start


def check_grown(workspace: Workspace, start: Artifact, model: Artifact) -> None:
    """Refuse a start whose own model is neither this one nor one that this one started from.

    To another model's latents its weights would mean nothing.
    """
    wanted, seen = parent_digest(start, model.kind), model
    while seen.manifest.payload_digest != wanted:
        older = next((p for p in seen.manifest.parents if p.kind == model.kind), None)
        if older is None:
            theirs = next(p.id for p in start.manifest.parents if p.kind == model.kind)
            raise InputsMismatch(
                f"{start.id} cannot be the start: it belongs to {theirs}.",
                why=f"{model.id} is another {model.kind} and did not start from {theirs}.",
                fix=f"Name `--from {theirs}`, or train {model.kind} on from it: "
                f"`wm {stage_writing(model.kind).name} --from {theirs}`.",
            )
        seen = workspace.resolve(older)


def check_world(world: Mapping[str, Any], artifact: Artifact, *, fix: str = "") -> None:
    """Refuse an artifact of another world, showing both sides field by field."""
    theirs = artifact.manifest.config["world"]
    different = [name for name in WORLD_FIELDS if theirs[name] != _plain(world[name])]
    if different:
        sides = "; ".join(
            f"world.{k}: {theirs[k]} there, {_plain(world[k])} here" for k in different
        )
        raise InputsMismatch(
            f"{artifact.id} belongs to another world than this command.",
            why=sides + ".",
            fix=fix
            or f"Make it again with `wm {artifact.manifest.stage}`, or use the settings it was "
            "made with (`wm config` shows yours).",
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def parent_digest(artifact: Artifact, kind: str) -> str:
    """Payload digest of the artifact's parent of this kind."""
    for parent in artifact.manifest.parents:
        if parent.kind == kind:
            return parent.payload_digest
    raise InputsMismatch(f"{artifact.id} names no {kind} among its parents.")


def check_same_parent(child: Artifact, parent: Artifact) -> None:
    """Refuse a child that was made from another artifact of the parent's kind."""
    if parent_digest(child, parent.kind) == parent.manifest.payload_digest:
        return
    theirs = next(p for p in child.manifest.parents if p.kind == parent.kind)
    raise InputsMismatch(
        f"{child.id} was made from another {parent.kind} than {parent.id}.",
        why=f"It was made from {theirs.id} (payload {theirs.payload_digest[:12]}); "
        f"{parent.id} is {parent.manifest.payload_digest[:12]}.",
        fix=f"Make it again from {parent.id}: `wm sample-latents`, then `wm train-memory`; "
        f"or name both: `--from {theirs.id} --from {child.id}`.",
    )
