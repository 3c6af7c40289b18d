"""A partial: work in progress that a killed stage finds again and goes on with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.artifacts.artifact import Artifact, artifact_id, next_number
from stages.artifacts.canonical import canonical_json
from stages.artifacts.disk import (
    append_line,
    digest_file,
    make_folder,
    plain_size,
    read_file,
    remove_file,
    remove_folder,
    remove_stale_temporaries,
    rename_folder,
    sync_folder,
    write_file,
)
from stages.artifacts.lock import StageLock
from stages.artifacts.manifest import (
    MANIFEST,
    MANIFEST_DIGEST,
    MANIFEST_LIMIT,
    Certificate,
    FileEntry,
    Manifest,
    checked_manifest,
    digest_line,
    is_payload_name,
    parse_json,
)
from stages.errors import ArtifactDamaged, StageError

STATE = "state.json"
STARTS = "from"  # in the state: ids of what the work started from
PREFIX = ".partial-"
_RESERVED = (STATE, MANIFEST, MANIFEST_DIGEST)


class Partial:
    """A stage's unfinished folder, found again by its fingerprint. Files in it are whole.

    Whoever uses one holds the stage's lock. Workers may put files into `path` with
    `disk.write_file`.
    """

    def __init__(self, path: Path, *, kind: str, fingerprint: str, lock: StageLock) -> None:
        self.path = path
        self.kind = kind
        self.fingerprint = fingerprint
        self._lock = lock

    def open(self) -> "Partial":
        """Make the folder where it is missing and clear what dead writers left."""
        make_folder(self.path)
        remove_stale_temporaries(self.path)
        return self

    def names(self, suffix: str = "") -> list[str]:
        """Names of the whole files that end so, sorted; not the state and the manifest."""
        found = sorted(path.name for path in self.path.iterdir() if path.name.endswith(suffix))
        return [name for name in found if is_payload_name(name) and name != STATE]

    def has(self, name: str) -> bool:
        """Whether this file is there, and so whole."""
        return self._place(name).is_file()

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole, in place of an earlier one."""
        write_file(self._place(name), content)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when it is not there."""
        try:
            return read_file(self._place(name))
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        remove_file(self._place(name))

    def append(self, name: str, line: str) -> None:
        """Add a line to a log. Before resuming, rewrite it from `lines`: the last may be cut."""
        append_line(self._place(name), line)

    def lines(self, name: str) -> list[str]:
        """The complete lines of a log, without a last one that a death cut; [] when missing."""
        content = self.read(name) or b""
        try:
            return content[: content.rfind(b"\n") + 1].decode().split("\n")[:-1]
        except UnicodeDecodeError as error:
            raise ArtifactDamaged(f"{self._place(name)} is not text.", why=f"{error}.") from error

    def keep_lines(self, name: str, lines: Sequence[str]) -> None:
        """Replace a log by these lines: a resumed stage forgets what came after its checkpoint."""
        self.write(name, "".join(f"{line}\n" for line in lines).encode())

    def record(self, values: Mapping[str, Any]) -> None:
        """Remember small facts about this run, such as its math threads; not payload."""
        write_file(self.path / STATE, canonical_json({**self.recorded(), **values}))

    def record_starts(self, names: Sequence[str]) -> None:
        """Remember the `--from` without which the same command would not find this partial."""
        if names and not self.recorded().get(STARTS):
            self.record({STARTS: list(names)})

    def recorded(self) -> dict[str, Any]:
        """What `record` remembered, also in an earlier process."""
        return recorded_in(self.path)

    def discard(self) -> None:
        """Remove all of this work."""
        with self._lock:
            remove_folder(self.path)
            sync_folder(self.path.parent)

    def commit(self, certificate: Certificate, *, payload: Sequence[str] | None = None) -> Artifact:
        """Make this work an artifact under the next number.

        Args:
            certificate: what the stage says about it.
            payload: the files that belong to the artifact; the others (checkpoints) are dropped.
                None takes every file that is not the state.

        Raises:
            EnvironmentLacks: the disk refused; the work is kept, and the same command goes on.
        """
        names = sorted(self.names() if payload is None else payload)
        assert all(self.has(name) for name in names), f"payload {names}, files {self.names()}"
        manifest = Manifest.certified(
            certificate,
            kind=self.kind,
            fingerprint=self.fingerprint,
            files=[self._entry(name) for name in names],
        )
        content = manifest.to_bytes()
        write_file(self.path / MANIFEST_DIGEST, digest_line(content))
        write_file(self.path / MANIFEST, content)
        return self._publish(manifest)

    def finished(self) -> Artifact | None:
        """Publish a commit that was cut between its manifest and its number; None if there is none.

        Only then may the checkpoints be gone already, so a stage asks this before it resumes.
        """
        try:
            content = read_file(self.path / MANIFEST, limit=MANIFEST_LIMIT)
            digest = read_file(self.path / MANIFEST_DIGEST, limit=MANIFEST_LIMIT)
            manifest = checked_manifest(content, digest, source=str(self.path / MANIFEST))
            whole = all(self._entry(entry.name) == entry for entry in manifest.files)
        except (FileNotFoundError, StageError):  # cut earlier: the stage goes on
            return None
        fits = manifest.fingerprint == self.fingerprint and manifest.kind == self.kind
        return self._publish(manifest) if whole and fits else None

    def _publish(self, manifest: Manifest) -> Artifact:
        kept = {entry.name for entry in manifest.files} | {MANIFEST, MANIFEST_DIGEST}
        for path in sorted(self.path.iterdir()):
            if path.name not in kept:
                remove = remove_folder if path.is_dir() else remove_file
                remove(path)
        sync_folder(self.path)
        with self._lock:
            number = next_number(self.path.parent)
            target = self.path.with_name(artifact_id(self.kind, number).rpartition("/")[2])
            rename_folder(self.path, target)
        return Artifact(kind=self.kind, number=number, path=target, manifest=manifest)

    def _entry(self, name: str) -> FileEntry:
        path = self._place(name)
        return FileEntry(name=name, bytes=plain_size(path), sha256=digest_file(path))

    def _place(self, name: str) -> Path:
        assert is_payload_name(name), f"{name!r} is not a plain file name"
        assert name not in _RESERVED, f"{name!r} is reserved"
        return self.path / name


def partial_path(folder: Path, fingerprint: str) -> Path:
    """Where a stage with this fingerprint works, inside its kind's folder."""
    return folder / f"{PREFIX}{fingerprint[:16]}"


def recorded_in(folder: Path) -> dict[str, Any]:
    """The state that a partial in this folder remembers; {} without one."""
    try:
        content = read_file(folder / STATE, limit=MANIFEST_LIMIT)
    except FileNotFoundError:
        return {}
    return dict(parse_json(content, source=str(folder / STATE)))
