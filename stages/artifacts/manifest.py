"""The manifest: an artifact's birth certificate, and the record that says it is complete."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.artifacts.canonical import readable_json
from stages.artifacts.disk import digest_bytes
from stages.artifacts.folders import MANIFEST
from stages.artifacts.plain import parse_json
from stages.errors import ArtifactDamaged

FORMAT = "wm-artifact"
FORMAT_VERSION = 1
MANIFEST_DIGEST = "manifest.sha256"
MANIFEST_LIMIT = 16 * 2**20  # bytes; bounded before it is parsed
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """One payload file: its name inside the folder, size in bytes and sha256."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ParentRef:
    """An input: its id when it was used, its kind, and the digest of what it held."""

    id: str
    kind: str
    payload_digest: str


@dataclass(frozen=True)
class Certificate:
    """What a stage says about the artifact that it commits."""

    stage: str
    family: str
    recipe: str
    preset: str
    algorithm: int
    config: Mapping[str, Any]  # resolved, with "world", the stage's section and "seed"
    parents: tuple[ParentRef, ...]
    seeds: Mapping[str, Any]  # purpose, first and number, or what tells them
    summary: Mapping[str, Any]  # metrics; finite numbers
    provenance: Mapping[str, Any]  # versions, device, threads, host, times, rates


@dataclass(frozen=True)
class Manifest:
    """Everything that `manifest.json` holds."""

    kind: str
    stage: str
    family: str
    recipe: str
    preset: str
    algorithm: int
    config: Mapping[str, Any]
    fingerprint: str
    parents: tuple[ParentRef, ...]
    files: tuple[FileEntry, ...]  # sorted by name
    payload_digest: str
    seeds: Mapping[str, Any]
    summary: Mapping[str, Any]
    provenance: Mapping[str, Any]
    format: str = FORMAT
    format_version: int = FORMAT_VERSION

    @classmethod
    def certified(
        cls, certificate: Certificate, *, kind: str, fingerprint: str, files: Iterable[FileEntry]
    ) -> "Manifest":
        """The manifest of a finished stage."""
        ordered = tuple(sorted(files, key=lambda entry: entry.name))
        return cls(
            kind=kind,
            fingerprint=fingerprint,
            files=ordered,
            payload_digest=payload_digest(ordered),
            **{name: getattr(certificate, name) for name in certificate.__dataclass_fields__},
        )

    def to_bytes(self) -> bytes:
        """Content of `manifest.json`."""
        return readable_json(self)

    @classmethod
    def from_bytes(cls, content: bytes, *, source: str) -> "Manifest":
        """Parse and check `manifest.json`; `source` names it in errors.

        Raises:
            ArtifactDamaged: not JSON, not a manifest, another format, or inconsistent.
        """
        found = _Found(parse_json(content, source=source), source)
        found.check_version()
        manifest = cls(
            kind=found.text("kind"),
            stage=found.text("stage"),
            family=found.text("family"),
            recipe=found.text("recipe"),
            preset=found.text("preset"),
            algorithm=found.count("algorithm"),
            config=found.mapping("config"),
            fingerprint=found.digest("fingerprint"),
            parents=tuple(found.parents()),
            files=tuple(found.files()),
            payload_digest=found.digest("payload_digest"),
            seeds=found.mapping("seeds"),
            summary=found.mapping("summary"),
            provenance=found.mapping("provenance"),
        )
        return _consistent(manifest, source)


def payload_digest(files: Sequence[FileEntry]) -> str:
    """One digest over all payload files: of the lines `name bytes sha256`, sorted by name."""
    lines = sorted(f"{entry.name} {entry.bytes} {entry.sha256}\n" for entry in files)
    return digest_bytes("".join(lines).encode())


def is_payload_name(name: str) -> bool:
    """Whether a payload file may have this name: plain, and inside its folder."""
    return bool(_NAME.fullmatch(name)) and name not in (MANIFEST, MANIFEST_DIGEST)


def digest_line(content: bytes) -> bytes:
    """Content of `manifest.sha256`, in the form that `sha256sum --check` reads."""
    return f"{digest_bytes(content)}  {MANIFEST}\n".encode()


def check_format(found: Any, *, name: str, version: int, source: str) -> None:
    """Refuse another format, and a version of it newer than `version`.

    `found` is the parsed document, with the keys `format` and `format_version`.
    """
    if not isinstance(found, Mapping) or found.get("format") != name:
        shown = found.get("format") if isinstance(found, Mapping) else type(found).__name__
        raise ArtifactDamaged(f"{source} is not a {name} file.", why=f"Its format is {shown!r}.")
    found_version = found.get("format_version")
    if type(found_version) is not int or found_version < 1:
        raise ArtifactDamaged(f"{source} has the format version {found_version!r}.")
    if found_version > version:
        raise newer_format(source, found_version, version)


def newer_format(source: str, found: int, known: int) -> ArtifactDamaged:
    """The error for a file that a later version of wm wrote."""
    return ArtifactDamaged(
        f"{source} has format version {found}; this wm reads up to version {known}.",
        why="A newer wm wrote it.",
        fix=f"Install a wm that reads format version {found}: pip install --upgrade wm-pixels",
    )


@dataclass(frozen=True)
class _Found:
    """A parsed manifest whose values are fetched with their types checked."""

    values: Any
    source: str

    def check_version(self) -> None:
        check_format(self.values, name=FORMAT, version=FORMAT_VERSION, source=self.source)

    def get(self, key: str, kind: type) -> Any:
        value = self.values.get(key) if isinstance(self.values, dict) else None
        if type(value) is not kind:
            raise self.wrong(f"{key!r} is {value!r:.60}, not a {kind.__name__}")
        return value

    def text(self, key: str) -> str:
        return str(self.get(key, str))

    def mapping(self, key: str) -> dict[str, Any]:
        return dict(self.get(key, dict))

    def count(self, key: str) -> int:
        value = int(self.get(key, int))
        if value < 0:
            raise self.wrong(f"{key!r} is {value}")
        return value

    def digest(self, key: str) -> str:
        value = self.text(key)
        if not _DIGEST.fullmatch(value):
            raise self.wrong(f"{key!r} is {value!r:.60}, not a sha256")
        return value

    def each(self, key: str) -> "list[_Found]":
        return [_Found(item, f"{self.source}, {key}") for item in self.get(key, list)]

    def parents(self) -> list[ParentRef]:
        return [
            ParentRef(item.text("id"), item.text("kind"), item.digest("payload_digest"))
            for item in self.each("parents")
        ]

    def files(self) -> list[FileEntry]:
        return [
            FileEntry(item.file_name(), item.count("bytes"), item.digest("sha256"))
            for item in self.each("files")
        ]

    def file_name(self) -> str:
        name = self.text("name")
        if not is_payload_name(name):
            raise self.wrong(f"{name!r:.80} is not a plain file name inside the folder")
        return name

    def wrong(self, why: str) -> ArtifactDamaged:
        return ArtifactDamaged(f"{self.source} is not a valid manifest.", why=f"{why}.")


def _consistent(manifest: Manifest, source: str) -> Manifest:
    names = [entry.name for entry in manifest.files]
    if len(set(names)) != len(names):
        raise ArtifactDamaged(f"{source} lists a file twice.")
    if payload_digest(manifest.files) != manifest.payload_digest:
        raise ArtifactDamaged(f"{source} does not agree with its own payload digest.")
    return manifest


def checked_manifest(content: bytes, digest: bytes, *, source: str) -> Manifest:
    """Parse a manifest after comparing it with the content of `manifest.sha256`."""
    if digest != digest_line(content):
        raise ArtifactDamaged(
            f"{source} is not what {MANIFEST_DIGEST} beside it promises.",
            why=f"Its sha256 is {digest_bytes(content)}.",
        )
    return Manifest.from_bytes(content, source=source)
