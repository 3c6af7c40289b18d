"""A partial: work in progress that a killed stage finds again and goes on with."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from stages.artifacts.artifact import Artifact, repairable
from stages.artifacts.canonical import canonical_json
from stages.artifacts.disk import (
    make_folder,
    read_file,
    remove_file,
    remove_folder,
    remove_stale_temporaries,
    rename_folder,
    sync_folder,
    write_file,
)
from stages.artifacts.folders import MANIFEST, artifact_id, next_number
from stages.artifacts.lock import StageLock
from stages.artifacts.manifest import (
    MANIFEST_DIGEST,
    MANIFEST_LIMIT,
    Certificate,
    FileEntry,
    Manifest,
    checked_manifest,
    digest_line,
    is_payload_name,
)
from stages.artifacts.sidecars import (
    LOG,
    SIDECAR,
    Content,
    GrowingLog,
    content_of,
    is_promised,
    longest_promised,
    promise,
    promised,
    put,
    sidecar,
    take_away,
)
from stages.artifacts.state import STARTS, STATE, recorded_in, remembered
from stages.errors import ArtifactDamaged

PREFIX = ".partial-"
PARTIAL = re.compile(re.escape(PREFIX) + "[0-9a-f]{16}")  # names of such folders
TOLD = ".digests"  # there once every file of a partial has its digests beside it
_RESERVED = (STATE, MANIFEST, MANIFEST_DIGEST)


class Partial:
    """A stage's unfinished folder, found again by its fingerprint. Files in it are whole.

    Whoever uses one holds the stage's lock. Workers may put files into `path` with
    `sidecars.put`. A file that has rotted since it was written counts as missing, so that it is
    made again; a log or a state that has rotted is refused.
    """

    def __init__(self, path: Path, *, kind: str, fingerprint: str, lock: StageLock) -> None:
        self.path = path
        self.kind = kind
        self.fingerprint = fingerprint
        self._lock = lock
        self._sound: dict[str, bool] = {}  # files that were looked at
        self._logs: dict[str, GrowingLog] = {}
        self._shorter: set[str] = set()  # logs of which a part has rotted

    def open(self) -> "Partial":
        """Make the folder where it is missing and clear what dead writers left."""
        if self.path.is_symlink():  # what a commit drops would be dropped behind it
            raise ArtifactDamaged(
                f"{self.path} is a symbolic link.",
                why="Unfinished work lies in a folder of the workspace itself.",
                fix=f"Remove the link: rm {quote(str(self.path))}",
            )
        make_folder(self.path)
        remove_stale_temporaries(self.path)
        if not (self.path / TOLD).exists() and not (self.path / MANIFEST).exists():
            self._adopt()
        return self

    def names(self, suffix: str = "") -> list[str]:
        """Names of the files that end so, sorted; not the state and the manifest."""
        found = sorted(path for path in self.path.iterdir() if path.name.endswith(suffix))
        names = [path.name for path in found if is_payload_name(path.name) and path.is_file()]
        return [name for name in names if name != STATE]

    def rotten(self) -> list[str]:
        """Names of the files whose bytes are no longer those that were written; all are read.

        Files of which nothing was promised are not ours, or lost their digest: they are not used.
        """
        ours = [name for name in self.names() if sidecar(self.path / name).exists()]
        return [name for name in ours if not self._is_sound(name) or name in self._shorter]

    def has(self, name: str) -> bool:
        """Whether this file is there, whole and as it was written."""
        return self._place(name).is_file() and self._is_sound(name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole, in place of an earlier one."""
        put(self._place(name), content)
        self._sound[name] = True
        self._logs.pop(name, None)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when it is not there, or has rotted."""
        return self._checked(self._place(name).name)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        take_away(self._place(name))
        self._sound.pop(name, None)
        self._logs.pop(name, None)

    def append(self, name: str, line: str, *, sealed: bool = True) -> None:
        """Add a line to a log, made when missing.

        A line that is not `sealed` costs less, and counts after a death only if `seal` was called
        after it.
        """
        if name not in self._logs:
            self._logs[name] = GrowingLog(self._place(name), self._log_content(name))
        self._logs[name].append(line, sealed=sealed)
        self._sound[name] = True

    def seal(self, name: str) -> None:
        """Promise that a log holds what it holds now."""
        if name in self._logs:
            self._logs[name].seal()

    def lines(self, name: str) -> list[str]:
        """The good lines of a log, without a last one that a death cut; [] when missing.

        Raises:
            ArtifactDamaged: nothing in it is what was written.
        """
        content = self._log_content(name)
        try:
            return content[: content.rfind(b"\n") + 1].decode().split("\n")[:-1]
        except UnicodeDecodeError as error:
            raise ArtifactDamaged(f"{self._place(name)} is not text.", why=f"{error}.") from error

    def keep_lines(self, name: str, lines: Sequence[str]) -> None:
        """Replace a log by these lines: a resumed stage forgets what came after its checkpoint."""
        self.write(name, "".join(f"{line}\n" for line in lines).encode())

    def record(self, values: Mapping[str, Any]) -> None:
        """Remember small facts about this run, such as its math threads; not payload."""
        put(self.path / STATE, canonical_json({**self.recorded(), **values}))

    def record_starts(self, names: Sequence[str]) -> None:
        """Remember the ids of `--from`, without which the command would not find this partial."""
        if names and not self.recorded().get(STARTS):
            self.record({STARTS: list(names)})

    def recorded(self) -> dict[str, Any]:
        """What `record` remembered, also in an earlier process.

        Raises:
            ArtifactDamaged: it is not what was written.
        """
        if not (self.path / STATE).exists():
            return {}
        content = self._checked(STATE)
        if content is None:
            raise self._changed(STATE)
        return remembered(content, self.path / STATE)

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
        there = self.names()
        assert set(names) <= set(there), f"payload {names}, files {there}"
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

        Raises:
            ArtifactDamaged: its manifest was written whole and is not what was written any more.
        """
        try:
            manifest = self._manifest()
        except FileNotFoundError:  # cut earlier: the stage goes on
            return None
        if manifest.fingerprint != self.fingerprint or manifest.kind != self.kind:
            return None
        if all(
            content_of(self.path / one.name) == (one.sha256, one.bytes) for one in manifest.files
        ):
            return self._publish(manifest)
        for one in manifest.files:  # something rotted meanwhile: the rest is good to go on with
            promise(self.path / one.name, [(one.sha256, one.bytes)])
        write_file(self.path / TOLD, b"")
        remove_file(self.path / MANIFEST)
        remove_file(self.path / MANIFEST_DIGEST)
        return None

    def _publish(self, manifest: Manifest) -> Artifact:
        kept = {entry.name for entry in manifest.files}
        for name in (STATE, *self.names()):  # what others put there stays
            if name not in kept and sidecar(self.path / name).exists():
                take_away(self.path / name)
        remove_stale_temporaries(self.path)
        for path in sorted(self.path.glob(f"{SIDECAR}*")):
            remove_file(path)
        remove_file(self.path / TOLD)
        sync_folder(self.path)
        with self._lock:
            number = next_number(self.path.parent)
            target = self.path.with_name(artifact_id(self.kind, number).rpartition("/")[2])
            rename_folder(self.path, target)
        return Artifact(kind=self.kind, number=number, path=target, manifest=manifest)

    def _manifest(self) -> Manifest:
        """What a commit that was cut had written already."""
        source = self.path / MANIFEST
        content = read_file(source, limit=MANIFEST_LIMIT)
        again = f"Put it back, or remove {source}: the same command then makes the rest again."
        with repairable(again):
            try:
                digest = read_file(self.path / MANIFEST_DIGEST, limit=MANIFEST_LIMIT)
            except FileNotFoundError as error:  # it is written before the manifest
                raise ArtifactDamaged(f"{self.path / MANIFEST_DIGEST} is gone.") from error
            return checked_manifest(content, digest, source=str(source))

    def _entry(self, name: str) -> FileEntry:
        """What a file holds now, which must be what was promised of it."""
        found = content_of(self.path / name)
        if found is None or found not in self._promised(name):
            self._sound[name] = False
            raise self._changed(name)
        return FileEntry(name=name, bytes=found[1], sha256=found[0])

    def _promised(self, name: str) -> list[Content]:
        log = self._logs.get(name)
        return [log.held] if log else promised(self.path / name)

    def _is_sound(self, name: str) -> bool:
        if name not in self._sound:
            found = content_of(self.path / name)
            if found is None:
                return False  # a worker may be about to write it
            whole = found in promised(self.path / name)
            self._sound[name] = whole or (name.endswith(LOG) and self._cut(name))
        return self._sound[name]

    def _cut(self, name: str) -> bool:
        """Cut a log behind its last good line, if there is one."""
        path, contents = self.path / name, promised(self.path / name)
        content = read_file(path)
        kept = longest_promised(content, contents)
        rot = any(len(kept or b"") < size <= len(content) for _, size in contents)
        if kept is None or (rot and not kept):
            return False
        if rot:  # no death cuts like that
            self._shorter.add(name)
        put(path, kept)
        return True

    def _checked(self, name: str) -> bytes | None:
        """The bytes of a file, if they are what was promised of it."""
        try:
            content = read_file(self.path / name)
        except FileNotFoundError:
            return None
        return content if is_promised(content, self._promised(name)) else None

    def _log_content(self, name: str) -> bytes:
        """What a log holds, and the start of what is added to it."""
        if not self._place(name).is_file():
            return b""
        content = self._checked(name) if self._is_sound(name) else None
        if content is None:
            raise self._changed(name)
        self._logs[name] = GrowingLog(self.path / name, content)
        return content

    def _changed(self, name: str) -> ArtifactDamaged:
        replaceable = not name.endswith(LOG) and name != STATE
        return ArtifactDamaged(
            f"{self.path / name} is not what was written.",
            why="Its bytes, or those of its digest beside it, have changed since.",
            fix="Run the same command again: it makes this file again."
            if replaceable
            else f"Put it back, or begin again without this unfinished work: remove {self.path}",
        )

    def _adopt(self) -> None:
        """Promise what the files hold that an earlier version of wm wrote, which promised nothing.

        It promised the checkpoints of a training in the state.
        """
        state = recorded_in(self.path)
        names = [name for name in self.names() if not sidecar(self.path / name).exists()]
        for name in names:
            path = self.path / name
            if name.endswith(LOG):
                content = read_file(path)
                put(path, content[: content.rfind(b"\n") + 1])
            else:
                found = content_of(path)
                assert found is not None, f"{path} was there"
                promise(path, [(state.get("checkpoints", {}).get(name, found[0]), found[1])])
        if state and not sidecar(self.path / STATE).exists():
            put(self.path / STATE, canonical_json(state))
        write_file(self.path / TOLD, b"")

    def _place(self, name: str) -> Path:
        assert is_payload_name(name), f"{name!r} is not a plain file name"
        assert name not in _RESERVED, f"{name!r} is reserved"
        return self.path / name


def partial_path(folder: Path, fingerprint: str) -> Path:
    """Where a stage with this fingerprint works, inside its kind's folder."""
    return folder / f"{PREFIX}{fingerprint[:16]}"
