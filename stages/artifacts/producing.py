"""How every stage makes its artifact: plan, skip what exists, lock, build in a partial, commit."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from shlex import quote
from typing import Any

from stages import PLAY, Stage, stage_writing
from stages.artifacts.artifact import Artifact
from stages.artifacts.canonical import fingerprint
from stages.artifacts.manifest import Certificate
from stages.artifacts.partial import Partial
from stages.artifacts.summaries import STAND_INS
from stages.artifacts.versions import package_versions, processor, provenance
from stages.artifacts.workspace import KINDS, TRACKING, Workspace
from stages.contracts import Job
from stages.errors import InputMissing, InputsMismatch, StageError, UsageError
from stages.events import Began, Doing, Ended, Monitor, Noted, Report, Scalar, Table

DREAM = "dream"  # engine of episodes that M dreamt


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
        for error in found.misfits():
            raise error
    return found


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
    if artifact is not None:  # a commit was cut just before its end: trackers have it all
        return _report(plan, artifact)
    progress.emit(_began(workspace, plan))
    partial.record_starts(job.parents)
    if partial.names():
        progress.emit(Noted(f"Resuming {plan.stage.name} where it was left."))
        progress.emit(Doing("reading what is there"))
    for name in partial.rotten():
        text = f"{partial.path / name} has changed since it was written: that is not used."
        progress.emit(Noted(text, warning=True))
    _compare_versions(partial, progress)
    started = time.monotonic()
    try:
        outcome = build(partial)
    except StageError:
        if not partial.names():  # refused before any work: nothing to go on with
            partial.discard()
        raise
    progress.emit(Doing(f"reading {len(outcome.payload)} files again for their digests"))
    artifact = partial.commit(
        _certificate(plan, job, outcome, seconds=time.monotonic() - started),
        payload=outcome.payload,
    )
    progress.emit(Ended())
    return replace(_report(plan, artifact), tables=outcome.tables, notes=outcome.notes)


def _began(workspace: Workspace, plan: Plan) -> Began:
    """What trackers are told of a run; the same again where it goes on, but not after --force."""
    kind = plan.stage.writes
    alike = (one.manifest.fingerprint == plan.fingerprint for one in workspace.artifacts(kind))
    earlier = sum(alike)
    name = f"{plan.stage.name}-{plan.fingerprint[:16]}"
    return Began(
        stage=plan.stage.name,
        run=f"{name}-{earlier + 1}" if earlier else name,
        tracking=workspace.root / TRACKING,
        config=plan.config,
        tell=workspace.lock(kind).tell,
    )


def _compare_versions(partial: Partial, progress: Monitor) -> None:
    """Say when work goes on with other packages or another processor than it began with."""
    here = {**package_versions(), "processor": processor()}
    begun = partial.recorded().get("versions")
    if begun is None:
        partial.record({"versions": here})
        return
    names = sorted(name for name in {*begun, *here} if begun.get(name) != here.get(name))
    if names:
        sides = "; ".join(f"{name} {begun.get(name)} then, {here.get(name)} now" for name in names)
        text = f"Going on with other versions than this work began with: {sides}."
        progress.emit(Noted(f"{text} The result may differ from an undisturbed one.", warning=True))


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
        kind = _read_as(identity.partition("/")[0], named)
        if kind in KINDS and kind not in named:
            raise UsageError(
                f"`wm {stage.name}` does not read {kind}.",
                why=f"It reads {' and '.join(named) or 'nothing'}.",
                fix=f"Leave out `--from {identity}`.",
            )
        artifact = workspace.get(identity)
        _refuse_dreamt(artifact)
        named[kind].append(artifact)
    for kind in kinds:
        named[kind] = named[kind] or [_newest(workspace, kind)]
    return {kind: tuple(found) for kind, found in named.items()}


def _read_as(kind: str, kinds: Collection[str]) -> str:
    """The kind as which a stage that reads these kinds takes this one."""
    takes = (read for read, others in STAND_INS.items() if kind in others and read in kinds)
    return next(takes, kind)


def _refuse_dreamt(artifact: Artifact) -> None:
    """Refuse to learn from a dream: its frames are V's own, and what happens in it is M's guess."""
    if artifact.kind == PLAY.writes and DREAM in artifact.manifest.summary["engines"]:
        raise InputsMismatch(
            f"{artifact.id} was played in a dream.",
            why="Its frames were drawn by V and what happens in it was guessed by M: there is "
            "nothing of the world to learn from it.",
            fix=f"Leave out `--from {artifact.id}`, or play in the world: wm play world",
        )


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
