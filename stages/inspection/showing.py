"""`wm show`: one artifact: what it is, from what, its numbers, and where its pictures are."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.agent_folder import load_agent
from stages.artifacts.artifact import Artifact
from stages.artifacts.disk import explained, read_file
from stages.artifacts.folders import MANIFEST, artifact_id
from stages.artifacts.manifest import MANIFEST_LIMIT, FileEntry, Manifest, ParentRef
from stages.artifacts.summaries import AGENTS
from stages.artifacts.workspace import KINDS, VIDEOS, Workspace
from stages.errors import ArtifactDamaged, ExitCode, InputMissing, StageError, UsageError
from stages.events import Report, Scalar, Table
from stages.inspection.lineage import rounds_of
from stages.inspection.remaking import again, differences

READ_BYTES = 64_000_000  # up to this size every byte is read; `wm verify` reads any size
IS = {  # an artifact in words, by kind
    "rollouts": "episodes of the world, recorded",
    "plays": "episodes that somebody played",
    "vision": "V: makes a frame a latent vector, and that a frame again",
    "latents": "recorded episodes as V's latent vectors",
    "memory": "M: foresees the next latent from latent and action",
    "control": "C: chooses actions from what V and M tell",
    "evaluations": "scores on held-out episodes, beside the random policy",
    AGENTS: "V, M and C in one folder: an agent that needs no workspace",
}
NUM_LISTED = 8  # elements of a list that is shown among the numbers
WHAT = {  # what a file of an artifact holds
    "weights.safetensors": "weights",
    "metrics.jsonl": "what was measured on the way, a line each",
    "reconstructions.png": "frames above, what V makes of them below",
    "traversal.png": "what single latent numbers do, from low to high",
    "horizon.json": "how good the dreams are, 1, 2, 5 ... steps on",
    "search.jsonl": "every generation of the search, a line each",
    "search.safetensors": "the search: mean vectors and what they scored",
    "basis.safetensors": "the space that was searched",
    "episodes.csv": "a row per episode",
    "scores.json": "scores of the agent and of the random policy",
    "vision.safetensors": "weights of V, float16",
    "memory.safetensors": "weights of M, float16",
    "control.safetensors": "weights of C, float32",
}
SHARDS = {"rollouts": "episodes", "plays": "episodes", "latents": "latents of episodes"}
TO_LOOK_AT = (".png", ".csv", ".jsonl", ".json")  # suffixes that people open


@dataclass(frozen=True)
class Shown:
    """One artifact as far as it can be read."""

    id: str
    kind: str
    path: Path
    workspace: Workspace | None  # None: a packed agent
    manifest: Manifest | None  # None: nothing of it can be read
    artifact: Artifact | None  # None: its manifest is damaged
    faults: tuple[StageError, ...] = ()


def show(root: Path, name: str) -> Report:
    """What is known of one artifact; exit code 4 where it is damaged.

    Args:
        root: the workspace, where `name` is an id.
        name: an id such as "vision/0001", or the path of an artifact's or an agent's folder.

    Raises:
        UsageError: neither an id nor such a folder.
        InputMissing: there is no such artifact.
    """
    shown = _found(root, name)
    manifest = shown.manifest
    tables = [_damage(shown)]
    notes: list[str] = []
    if manifest is not None:
        unlike, remark = _settings(shown, manifest)
        tables += [_numbers(manifest), _made_from(shown, manifest), _read_by(shown, manifest)]
        tables += [unlike, _files(shown, manifest), _to_look_at(shown), _versions(manifest)]
        notes += [remark, *_how_again(shown)]
    return Report(
        command="show",
        path=str(shown.path),
        summary=_told(shown),
        tables=tuple(table for table in tables if table.rows),
        notes=tuple(note for note in notes if note),
        exit_code=ExitCode.DAMAGED if shown.faults else ExitCode.DONE,
    )


def _found(root: Path, name: str) -> Shown:
    """The artifact of this id or in this folder."""
    kind, slash, number = name.partition("/")
    if kind in KINDS and slash and number.isdecimal() and len(number) < 10:
        return _in_workspace(Workspace.open(root), kind, int(number))
    try:
        folder = Path(name).expanduser()
    except RuntimeError:  # ~ and a name that no user has
        raise _unknown(root, name) from None
    with explained("read", folder):
        is_folder = folder.is_dir()
    if not is_folder:
        raise _unknown(root, name)
    if Workspace.exists(folder):
        raise UsageError(
            f"{name} is a workspace, not an artifact.", fix=f"Did you mean: wm status -w {name}"
        )
    path = folder.resolve()
    if path.parent.name in KINDS and Workspace.exists(path.parent.parent):
        if path.name.isdecimal() and len(path.name) < 10:
            home = Workspace.open(path.parent.parent)
            return _in_workspace(home, path.parent.name, int(path.name))
        raise InputMissing(
            f"{name} is unfinished work, no artifact.",
            fix=f"`wm doctor -w {path.parent.parent}` says which command goes on with it.",
        )
    return _agent(path)


def _unknown(root: Path, name: str) -> StageError:
    """The error for what is neither an id nor a folder, with the nearest id that exists."""
    existing = _ids(Workspace.open(root))
    near = difflib.get_close_matches(name, existing, n=1, cutoff=0.5)
    listed = ", ".join(existing[-NUM_LISTED:])
    return UsageError(
        f"{name!r} is neither the id of an artifact nor a folder.",
        why=f"The workspace has {listed}." if listed else "The workspace has no artifacts yet.",
        fix=f"Did you mean {near[0]}?" if near else f"Ids are written like {KINDS[0]}/0001.",
    )


def _ids(workspace: Workspace) -> list[str]:
    found = []
    for kind in KINDS:
        good, _ = workspace.scan(kind)
        found += [artifact.id for artifact in good]
    return found


def _in_workspace(workspace: Workspace, kind: str, number: int) -> Shown:
    identity = artifact_id(kind, number)
    path = workspace.root / kind / f"{number:04d}"
    try:
        artifact = workspace.get(identity)
    except ArtifactDamaged as error:
        return Shown(identity, kind, path, workspace, _doubtful(path), None, (error,))
    except InputMissing as error:
        if path.is_dir():  # it has lost its manifest
            bare = [one for one in workspace.bare(kind) if one.what.startswith(identity)]
            return Shown(identity, kind, path, workspace, None, None, tuple(bare) or (error,))
        near = difflib.get_close_matches(identity, _ids(workspace), n=1, cutoff=0.6)
        error.fix = f"Did you mean {near[0]}?" if near else error.fix
        raise
    faults = tuple(_faults(artifact))
    return Shown(identity, kind, path, workspace, artifact.manifest, artifact, faults)


def _agent(path: Path) -> Shown:
    identity = f"{AGENTS}/{path.name}"
    try:
        agent = load_agent(path)
    except ArtifactDamaged as error:
        return Shown(identity, AGENTS, path, None, _doubtful(path), None, (error,))
    return Shown(identity, AGENTS, path, None, agent.manifest, agent, tuple(_faults(agent)))


def _doubtful(path: Path) -> Manifest | None:
    """What a manifest says whose digest is wrong; None where it cannot even be read."""
    try:
        content = read_file(path / MANIFEST, limit=MANIFEST_LIMIT)
        return Manifest.from_bytes(content, source=str(path / MANIFEST))
    except (StageError, OSError):
        return None


def _faults(artifact: Artifact) -> Iterator[StageError]:
    """What is wrong with its files: every byte of small artifacts is read, else their sizes."""
    is_small = sum(entry.bytes for entry in artifact.manifest.files) <= READ_BYTES
    yield from artifact.verify() if is_small else artifact.misfits()


def _told(shown: Shown) -> Mapping[str, Scalar]:
    """What it is, in a few words."""
    facts: dict[str, Scalar] = {
        "artifact": shown.id,
        "what": IS[shown.kind],
        "state": "damaged" if shown.faults else "complete",
    }
    if shown.manifest is None:
        return facts
    told, machine = shown.manifest, shown.manifest.provenance
    rounds = rounds_of(shown.workspace) if shown.workspace else {}
    several = max(rounds.values(), default=1) > 1
    facts |= {
        "made_by": f"wm {told.stage}",
        "recipe": told.recipe,
        "preset": told.preset or None,
        "seed": _scalar(told.config.get("seed")),
        "round": rounds.get(shown.id) if several else None,
        "bytes": sum(entry.bytes for entry in told.files),
        "took_seconds": _scalar(machine.get("seconds_of_last_run")),
        "device": _scalar(machine.get("device")),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _scalar(value: Any) -> Scalar:
    return value if isinstance(value, str | int | float) else None


def _damage(shown: Shown) -> Table:
    rows = [(error.what.partition(" ")[0], error.what, error.fix) for error in shown.faults]
    return Table("Damage", ("what", "because", "fix"), rows)


def _numbers(manifest: Manifest) -> Table:
    return Table("Numbers", ("number", "value"), list(_flat(manifest.summary)))


def _flat(summary: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    """Numbers and words of a summary, those of tables in it as `table.name`."""
    for name, value in summary.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            if 0 < len(value) <= NUM_LISTED:
                yield f"{prefix}{name}", ", ".join(map(str, value))
        elif value not in ("", None) and not name.endswith("_digest"):
            yield f"{prefix}{name}", value


def _made_from(shown: Shown, manifest: Manifest) -> Table:
    rows = [(_here(shown.workspace, parent), parent.kind) for parent in manifest.parents]
    return Table("Made from", ("artifact", "kind"), rows)


def _here(workspace: Workspace | None, parent: ParentRef) -> str:
    """A parent's id in this workspace, where it is found by what it holds."""
    if workspace is None or parent.kind not in KINDS:
        return parent.id
    held = [a.id for a in workspace.artifacts(parent.kind) if _is(a, parent)]
    return parent.id if parent.id in held else (held[-1] if held else f"{parent.id} (gone)")


def _is(artifact: Artifact, parent: ParentRef) -> bool:
    return artifact.manifest.payload_digest == parent.payload_digest


def _read_by(shown: Shown, manifest: Manifest) -> Table:
    """What was made from it in this workspace."""
    me = (shown.kind, manifest.payload_digest)
    rows = [
        (one.id, f"wm {one.manifest.stage}")
        for kind in KINDS
        for one in (shown.workspace.artifacts(kind) if shown.workspace else ())
        if me in {(parent.kind, parent.payload_digest) for parent in one.manifest.parents}
    ]
    return Table("What was made from it", ("artifact", "by"), rows)


def _settings(shown: Shown, manifest: Manifest) -> tuple[Table, str]:
    columns = ("key", "value", "recipe_has")
    title = f"Settings unlike the recipe {manifest.recipe}"
    title += f" with the preset {manifest.preset}" if manifest.preset else ""
    try:
        found = differences(shown.workspace, manifest)
    except StageError as error:
        return Table(title, columns, []), f"Its recipe cannot be compared: {error.what}"
    rows = [(one.key, one.value, one.usual) for one in found]
    return Table(title, columns, rows), "" if rows else "Its settings are those of its recipe."


def _files(shown: Shown, manifest: Manifest) -> Table:
    """A row per file; shards share one."""
    shards = [entry for entry in manifest.files if entry.name.startswith("shard-")]
    others = [entry for entry in manifest.files if entry not in shards]
    rows = [(entry.name, entry.bytes, WHAT.get(entry.name)) for entry in others]
    if shards:
        rows.insert(0, (_span(shards), sum(e.bytes for e in shards), SHARDS.get(shown.kind)))
    return Table("Files", ("file", "bytes", "what"), rows)


def _span(entries: Sequence[FileEntry]) -> str:
    first, last = entries[0].name, entries[-1].name
    return first if first == last else f"{first} to {last} ({len(entries)})"


def _to_look_at(shown: Shown) -> Table:
    """Paths of its pictures, films and tables that are there."""
    files = [path for path in sorted(shown.path.iterdir()) if path.suffix in TO_LOOK_AT]
    files = [path for path in files if path.name != MANIFEST]
    films: list[Path] = []
    if shown.workspace is not None and (shown.workspace.root / VIDEOS).is_dir():
        films = sorted((shown.workspace.root / VIDEOS).glob(f"{shown.id.replace('/', '-')}-*"))
    rows = [(WHAT.get(path.name, "a film"), str(path)) for path in (*files, *films)]
    return Table("To look at", ("what", "path"), rows)


def _versions(manifest: Manifest) -> Table:
    told = manifest.provenance
    packages = told.get("packages")
    rows = [("python", str(told.get("python", "")))]
    rows += sorted(packages.items()) if isinstance(packages, Mapping) else []
    rows = [(name, str(version)) for name, version in rows if version]
    return Table("Made with", ("package", "version"), rows)


def _how_again(shown: Shown) -> list[str]:
    if shown.artifact is None:
        return []
    found = again(shown.workspace, shown.artifact)
    return [f"Make it again: {found.command}" if found.command else "", found.remark]
