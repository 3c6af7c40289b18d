"""`wm status` and `wm config`: what a workspace holds, what is stale and why, and its settings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stages import Stage, stage_writing
from stages.artifacts.artifact import Artifact
from stages.artifacts.disk import explained
from stages.artifacts.lock import RUNNING
from stages.artifacts.manifest import is_payload_name
from stages.artifacts.state import STATE
from stages.artifacts.workspace import KINDS, LOCK, Workspace
from stages.errors import StageError
from stages.events import Monitor, Noted, Report, Scalar, Table, number_text
from stages.inspection.expectations import Expectation, expectations, visitor
from stages.inspection.lineage import rounds_of
from stages.inspection.running import Running, running, running_table
from stages.pipeline import Prepared, Request, family_stages, job_of, settle
from stages.rounds import rounds_table
from stages.settings.resolve import SEED, SEED_RULE, Settings
from stages.settings.schema import describe

NUM_NUMBERS = 3  # of a summary, in the list of artifacts
TELLING = {  # the numbers of a summary that say most, by kind; others follow
    **dict.fromkeys(("rollouts", "plays"), ("episodes", "steps", "mean_return")),
    "vision": ("reconstruction", "kl", "parameters"),
    "memory": ("nll", "baseline_unit_gaussian", "parameters"),
    "latents": ("episodes", "frames", "latent_size"),
    "control": ("selected_score", "generations", "parameters"),
    "evaluations": ("mean", "stderr", "episodes"),
}


def look(root: Path, request: Request, *, progress: Monitor) -> Prepared:
    """A workspace with the settings that hold in it, as `prepare` gives it, but nothing is written.

    The workspace need not exist: then it is empty.

    Raises:
        UsageError: there is something else at `root`.
    """
    if Workspace.exists(root) or (root.exists() and not _is_empty(root)):
        Workspace.open(root)
    settled = settle(root, request)
    for remark in settled.remarks:
        progress.emit(Noted(remark))
    settings = settled.settings
    return Prepared(Workspace(root.absolute()), settings, job_of(settings, request))


def status(prepared: Prepared) -> Report:
    """Every stage with its state, and every artifact with its size, numbers and parents."""
    workspace, job = prepared.workspace, prepared.job
    conditions = list(_conditions(prepared))
    made: list[dict[str, str]] = [{} for _ in range(conditions[-1].round)]
    for one in conditions:
        if one.state == "fresh" and one.artifact:
            made[one.round - 1][one.stage.writes] = one.artifact
    tables = [
        _stages_table(conditions),
        running_table(_working(workspace)),
        _artifacts_table(workspace),
    ]
    rounds = [rounds_table(workspace, made)] if len(made) > 1 else []
    waiting = [one.stage.name for one in conditions if one.state != "fresh"]
    note = "Everything is up to date." if not waiting else "`wm run` makes what is not fresh."
    if not Workspace.exists(workspace.root):
        note = f"There is no workspace at {workspace.root} yet; `wm run` makes it."
    return Report(
        command="status",
        path=str(workspace.root),
        up_to_date=not waiting,
        summary={"recipe": job.recipe, "preset": job.preset, "seed": job.seed},
        tables=tuple(table for table in (*tables, *rounds) if table.rows),
        notes=(note,),
    )


def _working(workspace: Workspace) -> list[Running]:
    """The stages whose locks are held, however their notes look from this machine."""
    held = {stage_writing(kind).name for kind in KINDS if workspace.lock_holder(kind)}
    found = [one for one in running(workspace) if one.stage in held]
    return [replace(one, state=RUNNING) for one in found]


def config_report(settings: Settings) -> Report:
    """Every setting: its value, who chose it, and what it means."""
    documented = describe({name: type(one) for name, one in settings.sections.items()})
    docs = {row.key: f"{row.doc} ({row.limits})" if row.limits else row.doc for row in documented}
    docs[SEED] = SEED_RULE.doc
    rows = [(key, value, origin, docs[key]) for key, value, origin in settings.rows()]
    return Report(
        command="config",
        summary={
            "family": settings.family,
            "recipe": settings.recipe,
            "preset": settings.preset or None,
        },
        tables=(Table("Settings", ("key", "value", "origin", "meaning"), rows),),
        notes=("Change one with --set KEY=VALUE.",),
    )


@dataclass(frozen=True)
class Condition:
    """What `status` says about one stage."""

    stage: Stage
    round: int
    artifact: str | None
    state: str  # fresh | stale | missing | partial | running | damaged | waiting
    because: str | None = None


def _stages_table(conditions: Sequence[Condition]) -> Table:
    """A row per stage, and per round where there are several."""
    several = conditions[-1].round > 1
    columns = ("stage", *(("round",) if several else ()), "artifact", "state", "because")
    return Table(
        "Stages",
        columns,
        [
            (c.stage.name, *((c.round,) if several else ()), c.artifact, c.state, c.because)
            for c in conditions
        ],
    )


def _artifacts_table(workspace: Workspace) -> Table:
    """A row per artifact; the round that it belongs to where there are several."""
    rounds = rounds_of(workspace)
    several = max(rounds.values(), default=1) > 1
    columns = ("artifact", *(("round",) if several else ()), "bytes", "numbers", "parents")
    rows = []
    for one in _artifacts(workspace):
        name, *others = _artifact_row(workspace, one)
        rows.append((name, *((rounds.get(one.id),) if several else ()), *others))
    return Table("Artifacts", columns, rows)


def _conditions(prepared: Prepared) -> Iterator[Condition]:
    """The state of every stage of the family, in order; one that is damaged stops nothing."""
    order = family_stages(prepared)
    expected, fault = _walked(prepared)
    last = expected[-1].round if expected else 1
    for one in expected:
        yield _condition(prepared.workspace, one, last=one.round == last)
    if fault is not None:
        number, place = divmod(len(expected), len(order))
        damaged, *others = order[place:]
        because = f"{fault.what} {fault.fix}".strip()
        yield Condition(damaged, number + 1, None, "damaged", because)
        for stage in others:
            yield Condition(stage, number + 1, None, "waiting", f"{damaged.name} is damaged")


def _walked(prepared: Prepared) -> tuple[list[Expectation], StageError | None]:
    """What the settings call for, up to where something is damaged."""
    found: list[Expectation] = []
    try:
        for one in expectations(prepared):
            found.append(one)  # noqa: PERF402 - those before an error are kept
    except StageError as error:
        return found, error
    return found, None


def _condition(workspace: Workspace, expected: Expectation, *, last: bool) -> Condition:
    """`last`: its round is the newest, which is the one that somebody may work on."""
    kind, artifact = expected.stage.writes, expected.artifact

    def told(state: str, because: str | None = None) -> Condition:
        shown = artifact.id if artifact else None
        return Condition(expected.stage, expected.round, shown, state, because)

    holder = workspace.lock_holder(kind)
    if holder and (last or not expected.fresh):
        return told("running", holder)
    fault = next(artifact.misfits(), None) if artifact else None
    if fault is not None:
        return told("damaged", f"{fault.what} {fault.fix}")
    if expected.fresh:
        return told("fresh", expected.reason or None)
    partials = workspace.partials(kind)
    if partials:
        return told("partial", _unfinished(partials))
    if artifact is None:
        return told("missing")
    return told("stale", expected.reason)


def _unfinished(partials: Sequence[Path]) -> str:
    folders = [path for path in partials if path.is_dir()]
    files = [path for folder in folders for path in folder.iterdir() if path.is_file()]
    num_files = sum(is_payload_name(path.name) and path.name != STATE for path in files)
    kilobytes = sum(path.stat().st_size for path in files) // 1000
    return f"{num_files} files ({kilobytes} kB) of unfinished work; the same command goes on"


def _artifacts(workspace: Workspace) -> list[Artifact]:
    return [artifact for kind in KINDS for artifact in workspace.artifacts(kind)]


def _artifact_row(workspace: Workspace, artifact: Artifact) -> tuple[Scalar, ...]:
    parents = [
        _parent(workspace, ref.kind, ref.payload_digest, ref.id)
        for ref in artifact.manifest.parents
    ]
    shown = visitor(artifact) or ", ".join(parents) or None
    return artifact.id, num_bytes(artifact), _numbers(artifact), shown


def _parent(workspace: Workspace, kind: str, payload_digest: str, written: str) -> str:
    """The parent's id in this workspace, found by its content; copies may have another number."""
    same = [one for one in workspace.artifacts(kind) if one.id == written] if kind in KINDS else []
    if same and same[0].manifest.payload_digest == payload_digest:
        return written
    found = workspace.holding(kind, payload_digest) if kind in KINDS else None
    return found.id if found else f"{written} (gone)"


def _numbers(artifact: Artifact) -> str | None:
    summary = artifact.manifest.summary
    names = [name for name in TELLING.get(artifact.kind, ()) if name in summary]
    names = list(dict.fromkeys([*names, *summary]))
    values = {name: summary[name] for name in names if type(summary[name]) in (int, float)}
    shown = [f"{name.replace('_', ' ')} {number_text(value)}" for name, value in values.items()]
    return ", ".join(shown[:NUM_NUMBERS]) or None


def num_bytes(artifact: Artifact) -> int:
    """Size of an artifact's payload."""
    return sum(entry.bytes for entry in artifact.manifest.files)


def _is_empty(root: Path) -> bool:
    """Whether it is a folder with nothing in it but what a refused first command leaves: locks."""
    with explained("read", root):
        return root.is_dir() and all(
            path.name == LOCK or (path.name in KINDS and {x.name for x in path.iterdir()} <= {LOCK})
            for path in root.iterdir()
        )
