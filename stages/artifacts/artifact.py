"""An artifact: a numbered folder that is complete, immutable, and checked before it is used."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stages import IMPORT, PLAY, stage_writing
from stages.artifacts.disk import digest_file, explained, plain_size, read_file
from stages.artifacts.folders import MANIFEST, artifact_id
from stages.artifacts.manifest import (
    MANIFEST_DIGEST,
    MANIFEST_LIMIT,
    FileEntry,
    Manifest,
    ParentRef,
    checked_manifest,
)
from stages.artifacts.summaries import AGENTS, check_told
from stages.errors import ArtifactDamaged, InputMissing, StageError

_checked: set[tuple[Path, int, int, str]] = set()  # path, size, time, sha256 seen by this process


@dataclass(frozen=True)
class Artifact:
    """One complete artifact. Can be pickled and sent to a worker."""

    kind: str
    number: int
    path: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """Its name for people and options, such as "vision/0001"."""
        return artifact_id(self.kind, self.number)

    @classmethod
    def load(cls, path: Path, *, kind: str) -> "Artifact":
        """Read and check the manifest of a numbered folder.

        Raises:
            ArtifactDamaged: the manifest is not what was written, or of a newer format.
            InputMissing: the folder or its manifest is not there.
        """
        number = int(path.name)
        name = artifact_id(kind, number)
        with repairable(remedy(kind)):
            manifest = load_manifest(path, name)
            if manifest.kind != kind:
                raise ArtifactDamaged(f"{name} holds an artifact of kind {manifest.kind!r}.")
            check_told(manifest, name)
        return cls(kind=kind, number=number, path=path, manifest=manifest)

    def file(self, name: str) -> Path:
        """Path of a payload file, after its size and sha256 were found right in this process.

        Raises:
            ArtifactDamaged: its bytes are not those that the manifest promises.
            InputMissing: it is not there.
        """
        entry = self.entry(name)
        with repairable(self.remedy):
            self._check(entry)
        return self.path / name

    def files(self, suffix: str = "") -> list[Path]:
        """Checked paths of the payload files whose name ends so, sorted by name."""
        return [self.file(name) for name in self.names(suffix)]

    def names(self, suffix: str = "") -> list[str]:
        """Names of the payload files that end so, sorted; nothing is read."""
        return [entry.name for entry in self.manifest.files if entry.name.endswith(suffix)]

    def entry(self, name: str) -> FileEntry:
        """What the manifest says about one payload file; InputMissing when it has none."""
        for entry in self.manifest.files:
            if entry.name == name:
                return entry
        raise InputMissing(
            f"{self.id} has no file {name!r}.",
            why=f"It has {', '.join(self.names()) or 'no files'}.",
            fix=self.remedy,
        )

    @property
    def remedy(self) -> str:
        """The sentence with the command that makes it again, from the same start."""
        if self.manifest.stage == IMPORT.name:
            return f"Import it again: wm import FORMAT PATH --force (`wm show {self.id}` says more)"
        named = [parent.id for parent in self.manifest.parents if parent.kind == self.kind]
        again = remedy(self.kind) + "".join(f" --from {name}" for name in named)
        if named or (self.kind == "rollouts" and self.manifest.parents):
            again += f" (if `wm run --rounds` made it: remove {self.path} and run that again)"
        return again

    def verify(self) -> list[StageError]:
        """Read every payload file again, whatever was read before; what is wrong, if anything."""
        return [error for entry in self.manifest.files if (error := self._fault(entry))]

    def misfits(self) -> Iterator[ArtifactDamaged]:
        """What a cheap look finds wrong: files that are missing or have another size.

        `verify` reads every byte.
        """
        for entry in self.manifest.files:
            try:
                size = plain_size(self.path / entry.name)
            except FileNotFoundError:
                wrong = "is missing"
            except ArtifactDamaged:
                wrong = "is not a plain file"
            else:
                if size == entry.bytes:
                    continue
                wrong = f"has {size:,} bytes instead of {entry.bytes:,}"
            yield ArtifactDamaged(f"{self.id}/{entry.name} {wrong}.", fix=self.remedy)

    def foreign(self) -> list[str]:
        """Names in its folder that the manifest does not tell. Nothing reads them."""
        known = {MANIFEST, MANIFEST_DIGEST, *self.names()}
        with explained("list", self.path):
            return sorted({path.name for path in self.path.iterdir()} - known)

    def reference(self) -> ParentRef:
        """How another artifact names this one as its parent."""
        return ParentRef(self.id, self.kind, self.manifest.payload_digest)

    def _fault(self, entry: FileEntry) -> StageError | None:
        try:
            with repairable(self.remedy):
                self._check(entry, trust=False)
        except StageError as error:
            return error
        return None

    def _check(self, entry: FileEntry, *, trust: bool = True) -> None:
        path = self.path / entry.name
        shown = f"{self.id}/{entry.name}"
        try:
            size = plain_size(path)
        except FileNotFoundError as error:
            raise InputMissing(f"{shown} is not there.", why=f"{path} is missing.") from error
        key = (path, size, path.stat().st_mtime_ns, entry.sha256)
        if trust and key in _checked:
            return
        if size != entry.bytes:
            raise _damaged(shown, f"{entry.bytes} bytes", f"{size} bytes")
        digest = digest_file(path)
        if digest != entry.sha256:
            raise _damaged(shown, f"sha256 {entry.sha256}", f"sha256 {digest}")
        _checked.add(key)


@contextmanager
def repairable(fix: str) -> Iterator[None]:
    """Add what mends it to errors without a remedy."""
    try:
        yield
    except (ArtifactDamaged, InputMissing) as error:
        error.fix = error.fix or fix
        raise


def remedy(kind: str) -> str:
    """The sentence with the command that makes an artifact of this kind again."""
    if kind == AGENTS:
        return "Put the folder back as it was, or pack it again: wm export agent DIR --force"
    if kind == PLAY.writes:
        return "Put it back, or remove its folder: what somebody played cannot be made again."
    return f"Make it again: wm {stage_writing(kind).name} --force"


def load_manifest(path: Path, name: str) -> Manifest:
    """The checked manifest in a folder; `name` is what errors call the folder."""
    source = f"{name}/{MANIFEST}"
    try:
        content = read_file(path / MANIFEST, limit=MANIFEST_LIMIT)
    except FileNotFoundError as error:
        raise InputMissing(f"{source} is not there.", why=f"{path} is no artifact.") from error
    try:
        digest = read_file(path / MANIFEST_DIGEST, limit=MANIFEST_LIMIT)
    except FileNotFoundError as error:
        raise ArtifactDamaged(f"{name}/{MANIFEST_DIGEST} is not there.") from error
    return checked_manifest(content, digest, source=source)


def _damaged(shown: str, expected: str, found: str) -> ArtifactDamaged:
    return ArtifactDamaged(
        f"{shown} is damaged: expected {expected}, found {found}.",
        why="Its bytes changed after it was written.",
    )
