"""A workspace: one folder with the artifacts of one experiment, and what its commands inherit."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages import PLAY, STAGES, stage_writing
from stages.artifacts.artifact import Artifact, repairable
from stages.artifacts.disk import (
    explained,
    make_folder,
    read_file,
    remove_file,
    remove_stale_temporaries,
    write_file,
)
from stages.artifacts.folders import artifact_id, bare_folders, complete_folders
from stages.artifacts.lock import StageLock
from stages.artifacts.manifest import MANIFEST_LIMIT, ParentRef
from stages.artifacts.partial import PARTIAL, PREFIX, Partial, partial_path
from stages.artifacts.stored import document_of, rebound, settings_in
from stages.errors import (
    ArtifactDamaged,
    EnvironmentLacks,
    InputMissing,
    InputsMismatch,
    StageError,
    UsageError,
)

__all__ = ["Artifact", "Workspace"]

WORKSPACE = "workspace.json"
LOCK = ".lock"
VIDEOS = "videos"
TRACKING = "tracking"  # what trackers write, such as event files
REPORT = "report.html"  # of `wm report`; not an artifact
KINDS = tuple(stage.writes for stage in (*STAGES, PLAY))
_PUT_BACK = (
    "Put it back, or work in another folder (-w); every artifact's manifest.json tells "
    "its settings."
)
_SETTLING_SECONDS = 20.0  # that another first command gets to choose and store its settings
_ID = re.compile(r"([^/\s]+)/0*(\d{1,9})")


class Workspace:
    """Where stages find each other's artifacts. Reading takes no lock and changes nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._locks: dict[str, StageLock] = {}
        self._own_settings: Mapping[str, Any] | None = None
        self._settings_lock = StageLock(root / LOCK, "the settings", patience=_SETTLING_SECONDS)

    @classmethod
    def open(cls, root: Path, *, create: bool = False) -> "Workspace":
        """The workspace at `root`; with `create`, made where it is missing and meant to be written.

        Raises:
            InputMissing: there is nothing at `root`.
            UsageError: what is there is not a workspace.
            ArtifactDamaged: workspace.json is damaged or of a newer format.
            EnvironmentLacks: the folder cannot be made or written.
        """
        workspace = cls(root.absolute())
        if create:
            workspace._create()
        else:
            workspace._check()
        return workspace

    @staticmethod
    def exists(root: Path) -> bool:
        """Whether somebody made a workspace at `root`, intact or not."""
        with explained("read", root):
            return (root / WORKSPACE).exists()

    @classmethod
    def stored(cls, root: Path) -> dict[str, Any] | None:
        """The settings of the workspace at `root`; None where it has none, or is none.

        One look: between two, another command may make the workspace, or forget it.
        """
        workspace = cls(root.absolute())
        content = workspace._content() if cls.exists(root) else None
        return None if content is None else workspace._settings_in(content)

    def settings(self) -> dict[str, Any] | None:
        """What the first command stored for later ones; None before that."""
        content = self._content()
        if content is None:
            raise UsageError(
                f"{self.root} is not a workspace.",
                why=f"It has no {WORKSPACE}.",
                fix=f"Choose another one with --workspace, or make it: wm {STAGES[0].name}",
            )
        return self._settings_in(content)

    def _content(self) -> bytes | None:
        """Of the settings' file; None where it is missing."""
        try:
            return read_file(self.root / WORKSPACE, limit=MANIFEST_LIMIT)
        except FileNotFoundError:
            return None

    def _settings_in(self, content: bytes) -> dict[str, Any] | None:
        with repairable(_PUT_BACK):
            return settings_in(content, source=str(self.root / WORKSPACE))

    def store_settings(self, settings: Mapping[str, Any]) -> None:
        """Store what later commands inherit. Hold `settings_lock`."""
        assert self._settings_lock.held, "settings are stored under their lock"
        self._store(settings)

    def forget(self) -> None:
        """Be no workspace any more; for one without work, under its `settings_lock`."""
        assert self._settings_lock.held, "settings are stored under their lock"
        remove_file(self.root / WORKSPACE)

    def work_with(self, settings: Mapping[str, Any]) -> None:
        """Say with which stored settings this process works."""
        self._own_settings = settings

    @property
    def settings_lock(self) -> StageLock:
        """Held while settings are chosen and stored: two first commands must not mix theirs."""
        return self._settings_lock

    def scan(self, kind: str) -> tuple[list[Artifact], list[StageError]]:
        """Complete artifacts by number, and the errors of those whose manifest is damaged."""
        good: list[Artifact] = []
        damaged: list[StageError] = []
        for path in complete_folders(self._folder(kind)):
            try:
                good.append(Artifact.load(path, kind=kind))
            except StageError as error:
                damaged.append(error)
        return good, damaged

    def bare(self, kind: str) -> list[StageError]:
        """Numbered folders that have lost their manifest; we never write one without."""
        return [self._bare(kind, path) for path in bare_folders(self._folder(kind))]

    def _bare(self, kind: str, path: Path) -> ArtifactDamaged:
        return ArtifactDamaged(
            f"{artifact_id(kind, int(path.name))}/manifest.json is missing.",
            why="Without it nothing in the folder can be trusted.",
            fix=f"Put it back, or remove {path} and make it again: wm {stage_writing(kind).name}",
        )

    def artifacts(self, kind: str) -> list[Artifact]:
        """Complete artifacts of a kind whose manifest is intact, by number."""
        return self.scan(kind)[0]

    def newest(self, kind: str) -> Artifact | None:
        """The artifact with the highest number; None when there is none.

        Raises:
            ArtifactDamaged: its manifest is damaged or gone. An older one is never taken instead.
        """
        folders = complete_folders(self._folder(kind))
        bare = bare_folders(self._folder(kind))
        if bare and (not folders or int(bare[-1].name) > int(folders[-1].name)):
            raise self._bare(kind, bare[-1])
        return Artifact.load(folders[-1], kind=kind) if folders else None

    def get(self, name: str) -> Artifact:
        """The artifact with this id: "vision/0001", also "vision/1".

        Raises:
            UsageError: that is not an id.
            InputMissing: it does not exist; those that do are listed.
            ArtifactDamaged: its manifest is damaged.
        """
        kind, number = _parse_id(name)
        for path in complete_folders(self._folder(kind)):
            if int(path.name) == number:
                return Artifact.load(path, kind=kind)
        raise self._missing(f"There is no {name} in this workspace.", kind)

    def matching(self, kind: str, fingerprint: str) -> Artifact | None:
        """The newest artifact with this fingerprint: the stage's work is done already."""
        found = [one for one in self.artifacts(kind) if one.manifest.fingerprint == fingerprint]
        return found[-1] if found else None

    def holding(self, kind: str, payload_digest: str) -> Artifact | None:
        """The newest artifact with this content, whatever its number."""
        wanted = payload_digest
        found = [one for one in self.artifacts(kind) if one.manifest.payload_digest == wanted]
        return found[-1] if found else None

    def resolve(self, parent: ParentRef) -> Artifact:
        """The artifact that another one names as its parent, found by its content.

        Raises:
            InputMissing: it is not in this workspace any more.
            ArtifactDamaged: it may be one whose manifest is damaged.
        """
        found = self.holding(parent.kind, parent.payload_digest)
        if found is None:
            for error in [*self.scan(parent.kind)[1], *self.bare(parent.kind)]:
                raise error
            raise self._missing(
                f"{parent.id} with payload {parent.payload_digest[:16]} is not in this workspace.",
                parent.kind,
            )
        return found

    def lock(self, kind: str) -> StageLock:
        """The lock of the stage that writes this kind; a `with` block holds it."""
        if kind not in self._locks:
            self._locks[kind] = StageLock(self._folder(kind) / LOCK, stage_writing(kind).name)
        return self._locks[kind]

    def lock_holder(self, kind: str) -> str | None:
        """Who runs the stage that writes this kind, in words; None when nobody does."""
        return self.lock(kind).holder()

    def begin(self, kind: str, fingerprint: str) -> Partial:
        """The partial of this fingerprint, new or as an earlier run left it. Hold the lock."""
        assert self.lock(kind).held, f"begin({kind!r}) without its lock"
        path = partial_path(self._folder(kind), fingerprint)
        partial = Partial(path, kind=kind, fingerprint=fingerprint, lock=self.lock(kind)).open()
        try:
            self._remember_settings()
        except InputsMismatch:
            if not partial.names():
                partial.discard()
            raise
        return partial

    def _remember_settings(self) -> None:
        """Store this run's settings again if another first command, refused, made it forget them.

        From now on nobody does: there is work in the workspace. Where a third command has stored
        others meanwhile, this one is refused.
        """
        if self._own_settings is not None:
            with self._settings_lock:
                stored = self.stored(self.root)
                if stored is None:
                    self._store(self._own_settings)
                else:
                    rebound(self.root, stored, self._own_settings)

    def partials(self, kind: str) -> list[Path]:
        """Folders of unfinished work of this kind, of any configuration."""
        found = sorted(self._folder(kind).glob(f"{PREFIX}*"))
        return [path for path in found if PARTIAL.fullmatch(path.name) and path.is_dir()]

    def begun(self, kind: str, fingerprint: str) -> bool:
        """Whether work of this fingerprint is there, finished or not."""
        path = partial_path(self._folder(kind), fingerprint)
        return path.is_dir() or self.matching(kind, fingerprint) is not None

    def videos(self) -> Path:
        """The folder of recorded videos, made when missing; not an artifact."""
        make_folder(self.root / VIDEOS)
        return self.root / VIDEOS

    def _folder(self, kind: str) -> Path:
        assert kind in KINDS, f"{kind!r} is not a kind of artifact"
        return self.root / kind

    def _create(self) -> None:
        make_folder(self.root)
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise EnvironmentLacks(
                f"{self.root} cannot be written.",
                why="Permission denied.",
                fix="Choose a folder that you may write with --workspace.",
            )
        if not self.exists(self.root):
            self._refuse_foreign()
            self._refuse_orphans()
        with self._settings_lock:
            remove_stale_temporaries(self.root)
            if not self.exists(self.root):
                self._store(None)
            self.settings()  # in here, for another command may forget what it had stored

    def _refuse_foreign(self) -> None:
        ours = {WORKSPACE, *KINDS, VIDEOS, TRACKING, REPORT}  # by now somebody may have made it
        for path in sorted(self.root.iterdir()):
            if path.name not in ours and not path.name.startswith("."):
                raise UsageError(
                    f"{self.root} is not a workspace: it holds {path.name!r}.",
                    fix="Choose an empty or a new folder with --workspace.",
                )

    def _refuse_orphans(self) -> None:
        """Artifacts without a workspace.json would be joined by others of other settings."""
        found = any(complete_folders(self._folder(kind)) for kind in KINDS)
        if found and not self.exists(self.root):  # looked for again: somebody may have made both
            raise ArtifactDamaged(
                f"{self.root} holds artifacts but has lost its {WORKSPACE}.",
                why="It said which recipe, preset, seed and --set made them.",
                fix=_PUT_BACK,
            )

    def _check(self) -> None:
        if not self.root.exists():
            raise InputMissing(
                f"There is no workspace at {self.root}.",
                fix=f"Choose another one with --workspace, or make it: wm {STAGES[0].name}",
            )
        self.settings()

    def _store(self, settings: Mapping[str, Any] | None) -> None:
        write_file(self.root / WORKSPACE, document_of(settings))

    def _missing(self, what: str, kind: str) -> InputMissing:
        existing = [path.name for path in complete_folders(self._folder(kind))]
        shown = ", ".join(f"{kind}/{name}" for name in existing)
        return InputMissing(
            what,
            why=f"It has {shown}." if shown else "",
            fix=f"Make one: wm {stage_writing(kind).name}",
        )


def _parse_id(name: str) -> tuple[str, int]:
    match = _ID.fullmatch(name)
    if match and match[1] in KINDS:
        return match[1], int(match[2])
    near = difflib.get_close_matches(name.partition("/")[0], KINDS, n=1, cutoff=0.4)
    raise UsageError(
        f"{name!r} is not the id of an artifact.",
        why=f"Kinds are {', '.join(KINDS)}.",
        fix=f"Write it like {near[0] if near else KINDS[0]}/0001.",
    )
