"""A packed agent: V, M and C with a manifest, in one folder that needs no workspace."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.artifact import Artifact, load_manifest, remedy, repairable
from stages.artifacts.aside import write_folder
from stages.artifacts.disk import (
    digest_bytes,
    explained,
    write_file,
)
from stages.artifacts.folders import MANIFEST
from stages.artifacts.manifest import (
    MANIFEST_DIGEST,
    Certificate,
    FileEntry,
    Manifest,
    digest_line,
)
from stages.artifacts.summaries import AGENTS, check_told, world_of
from stages.artifacts.workspace import Workspace
from stages.contracts import WorldSpec
from stages.errors import InputMissing, InputsMismatch, UsageError

VISION = "vision.safetensors"  # float16
MEMORY = "memory.safetensors"  # float16; absent where C sees z alone
CONTROL = "control.safetensors"  # float32
_NAMES = {VISION, MEMORY, CONTROL, MANIFEST, MANIFEST_DIGEST}
_PACK = "wm export agent DIR"


@dataclass(frozen=True)
class AgentFolder(Artifact):
    """An agent under a name of its own; it has no number."""

    world: WorldSpec  # that it was trained in

    @property
    def id(self) -> str:
        """How messages and the manifests of its evaluations call it: "agents/carracing"."""
        return f"{AGENTS}/{self.path.name}"


def load_agent(folder: Path) -> AgentFolder:
    """The agent in a folder, its manifest checked; files are checked as they are opened.

    Raises:
        InputMissing: there is no such folder, or no manifest in it.
        InputsMismatch: it is something else of ours: a workspace, or another kind of artifact.
        ArtifactDamaged: the manifest is not what was written, or of a newer format.
    """
    with explained("read", folder):
        found = (folder / MANIFEST).exists()
    if Workspace.exists(folder):
        raise InputsMismatch(
            f"{folder} is a workspace, not a packed agent.",
            fix=f"Use it with -w {folder}, or pack its agent: {_PACK} -w {folder}",
        )
    if not found:
        why = f"It has no {MANIFEST}." if folder.exists() else "There is no such folder."
        raise InputMissing(f"There is no agent at {folder}.", why=why, fix=f"Pack one: {_PACK}")
    path = folder.resolve()
    with repairable(remedy(AGENTS)):
        manifest = load_manifest(path, f"{AGENTS}/{path.name}")
        if manifest.kind != AGENTS:
            raise InputsMismatch(
                f"{folder} holds an artifact of the kind {manifest.kind!r}, not an agent.",
                fix=f"Pack the agent of its workspace: {_PACK}",
            )
        return _agent(path, manifest)


def _agent(path: Path, manifest: Manifest) -> AgentFolder:
    source = f"{AGENTS}/{path.name}"
    check_told(manifest, source)
    world = world_of(manifest, source)
    return AgentFolder(kind=AGENTS, number=0, path=path, manifest=manifest, world=world)


def check_place(folder: Path, *, force: bool) -> None:
    """Refuse a place where no agent may be written; with `force` an earlier agent may go.

    Raises:
        UsageError: inside a workspace, or there is something already.
    """
    for place in (folder, *folder.parents):
        if Workspace.exists(place):
            raise UsageError(
                f"{folder} lies in the workspace {place}.",
                why="A packed agent is a folder of its own.",
                fix="Choose a new folder outside of every workspace.",
            )
    with explained("read", folder):
        if not folder.exists():
            return
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if MANIFEST not in names or names - _NAMES:
        foreign = sorted(names - _NAMES)
        raise UsageError(
            f"{folder} exists and is not an agent alone.",
            why=f"It holds {foreign[0]!r}." if foreign else "",
            fix="Choose a new folder.",
        )
    if not force:
        raise UsageError(
            f"{folder} holds another agent already.",
            fix="Choose a new folder, or replace that agent with --force.",
        )


def write_agent(
    folder: Path, files: Mapping[str, bytes], certificate: Certificate, *, fingerprint: str
) -> AgentFolder:
    """Put an agent at `folder` (absolute), whole or not at all, in place of an earlier one."""
    entries = [FileEntry(n, len(content), digest_bytes(content)) for n, content in files.items()]
    manifest = Manifest.certified(certificate, kind=AGENTS, fingerprint=fingerprint, files=entries)
    content = manifest.to_bytes()
    whole = {**files, MANIFEST_DIGEST: digest_line(content), MANIFEST: content}

    def fill(aside: Path) -> None:
        for name, one in whole.items():
            write_file(aside / name, one)

    write_folder(folder, fill)
    return _agent(folder, manifest)
