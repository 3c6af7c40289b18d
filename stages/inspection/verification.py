"""`wm verify`: every byte of every artifact against what its manifest promises."""

from collections.abc import Sequence
from pathlib import Path

from stages.artifacts.artifact import Artifact
from stages.artifacts.workspace import KINDS, Workspace
from stages.errors import ArtifactDamaged, ExitCode, StageError, UsageError
from stages.events import Advanced, Doing, Monitor, Report, Scalar, Silent, Table
from stages.inspection.overview import num_bytes


def verify(
    workspace: Workspace, ids: Sequence[str] = (), *, progress: Monitor | None = None
) -> Report:
    """Read every file of these artifacts again, or of all; exit code 4 when one is damaged.

    Raises:
        UsageError: a word that is no id.
        InputMissing: an id that does not exist.
    """
    monitor = progress or Silent()
    found, broken = _to_verify(workspace, ids)
    rows: list[tuple[Scalar, ...]] = [
        (error.what.partition("/manifest")[0], "damaged", None, error.what, error.fix)
        for error in broken
    ]
    total = sum(num_bytes(artifact) for artifact in found)
    for done, artifact in enumerate(found, start=1):
        monitor.poll()
        monitor.emit(Doing(f"reading {artifact.id}"))
        rows.append(_verified_row(artifact))
        monitor.emit(Advanced(done, len(found), "artifacts", latest=artifact.id))
    num_damaged = sum(row[1] == "damaged" for row in rows)
    return Report(
        command="verify",
        path=str(workspace.root),
        summary={"artifacts": len(rows), "damaged": num_damaged, "bytes": total},
        tables=(Table("Artifacts", ("artifact", "state", "bytes", "because", "fix"), rows),),
        exit_code=ExitCode.DAMAGED if num_damaged else ExitCode.DONE,
    )


def refuse_paths(ids: Sequence[str]) -> None:
    """UsageError when one of these ids is the path of a workspace."""
    for identity in ids:
        if Workspace.exists(Path(identity)):
            raise UsageError(
                f"{identity} is a workspace, not an artifact's id.",
                fix=f"Did you mean: wm verify -w {identity}",
            )


def _to_verify(workspace: Workspace, ids: Sequence[str]) -> tuple[list[Artifact], list[StageError]]:
    """The artifacts to read, and the errors of those whose manifest is damaged already."""
    found: list[Artifact] = []
    broken: list[StageError] = []
    for identity in ids:
        try:
            found.append(workspace.get(identity))
        except ArtifactDamaged as error:
            broken.append(error)
    for kind in () if ids else KINDS:
        good, damaged = workspace.scan(kind)
        found += good
        broken += [*damaged, *workspace.bare(kind)]
    return found, broken


def _verified_row(artifact: Artifact) -> tuple[Scalar, ...]:
    errors = artifact.verify()
    state = "damaged" if errors else "ok"
    because = [error.what for error in errors]
    if foreign := artifact.foreign():
        because.append(f"{_listed(foreign)} did not come with it; nothing reads that.")
    fix = errors[0].fix if errors else None
    return artifact.id, state, num_bytes(artifact), " ".join(because) or None, fix


def _listed(names: Sequence[str]) -> str:
    """At most three of these names."""
    more = [f"{len(names) - 3} more"] if len(names) > 3 else []
    return " and ".join(filter(None, (", ".join(names[:3]), *more)))
