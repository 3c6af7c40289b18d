"""Episodes in NumPy archives, one per file: read in pieces and without trust, and written.

docs/own-data.md has the layout. Nothing is unpickled, and no array is unpacked whole before its
header was looked at.
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.canonical import readable_json
from stages.artifacts.disk import digest_file, explained, read_file
from stages.artifacts.episodes import EpisodeRecord
from stages.artifacts.foreign import (
    ForeignEpisode,
    Shrink,
    actions_column,
    aligned,
    check_finite,
    check_frames,
    flags_column,
    numbers_column,
)
from stages.artifacts.npz_archive import Archive
from stages.artifacts.plain import (
    MAX_SIZE,
    NUMBER,
    SIZE,
    exactly,
    listed,
    one_of,
    parse_record,
)
from stages.contracts import ActionSpec
from stages.errors import ArtifactDamaged, InputMissing, UsageError

TOLD = "dataset.json"  # beside the files: what an action is
FORMAT, VERSION = "wm-npz", 1
AFTER = "terminals"  # a layout of this name has frames that were drawn after their action
MOST = float(np.finfo(np.float32).max)
MAX_TOLD = 100_000  # bytes of dataset.json
_ENDS = listed(NUMBER)
_RULES = {
    "format": one_of(FORMAT),
    "format_version": SIZE,
    "actions": exactly(
        {"kind": one_of("box", "choice"), "size": SIZE, "low": _ENDS, "high": _ENDS}
    ),
}


class NpzData:
    """A folder of archives, in the order of their names."""

    frames_per_second: float | None = None

    def __init__(self, place: Path, poll: Callable[[], None]) -> None:
        with explained("read", place):
            if not place.exists():
                raise InputMissing(f"There is nothing at {place}.", fix="Name a folder of .npz.")
            folder = place if place.is_dir() else place.parent
            self._paths = sorted(folder.glob("*.npz")) if place.is_dir() else [place]
        if not self._paths:
            raise InputMissing(
                f"There is no .npz file in {place}.", why="Each of them is one episode."
            )
        self.name, self.num_items = place.name, len(self._paths)
        self._told = _told(folder / TOLD)
        digests = hashlib.sha256()
        for path in (*([folder / TOLD] if self._told else []), *self._paths):
            poll()
            digests.update(f"{digest_file(path)}\n".encode())
        self.content = digests.hexdigest()
        self._poll = poll
        held = self._held()
        self.lacks = tuple(one for one in ("rewards", "terminations") if one not in held)

    def _held(self) -> set[str]:
        """The columns that every file holds.

        Raises:
            UsageError: one of them holds others: what it lacks would be zeros, without a word.
        """
        first = set(Archive(self._paths[0]).keys) - {"seed"}
        for path in self._paths[1:]:
            self._poll()
            odd = sorted(first ^ (set(Archive(path).keys) - {"seed"}))
            if odd:
                has = f"{path.name} has {odd[0]}, and {self._paths[0].name} has not"
                if odd[0] in first:
                    has = f"{self._paths[0].name} has {odd[0]}, and {path.name} has not"
                raise UsageError(
                    f"The files of {self.name} hold different columns: {has}.",
                    why="All episodes of a data set tell the same.",
                    fix="Mend the file, or import the others from a folder of their own.",
                )
        return first

    @property
    def tells_actions(self) -> bool:
        """Whether dataset.json tells them."""
        return self._told is not None

    def seeds(self) -> list[int | None]:
        """The seed that each file tells."""
        return [_seed(Archive(path)) for path in self._paths]

    def actions(self) -> ActionSpec:
        """What dataset.json tells; else as many choices, or such bounds, as occur in all files."""
        if self._told is not None:
            return self._told
        low: Any = None
        high: Any = None
        for path in self._paths:
            self._poll()
            archive = Archive(path)
            found = _taken_actions(archive)
            if not len(found):
                continue
            least, most = found.min(axis=0), found.max(axis=0)
            if low is not None and (low.dtype, low.shape) != (least.dtype, least.shape):
                raise UsageError(
                    f"The actions of {archive.name} are others than those before it.",
                    why=f"They are {found.dtype} {list(found.shape)}.",
                )
            low = least if low is None else np.minimum(low, least)
            high = most if high is None else np.maximum(high, most)
        if low is None:
            raise UsageError(f"No episode of {self.name} has an action.")
        if low.ndim == 0:
            if not 0 <= high < MAX_SIZE:
                raise UsageError(f"The actions of {self.name} go up to {high}: no such choices.")
            return ActionSpec("choice", int(high) + 1)
        bounds = [tuple(float(each) for each in side) for side in (low, high)]
        return ActionSpec("box", len(low), *bounds)

    def episodes(self, shrink: Shrink) -> Iterator[tuple[int, Callable[[], ForeignEpisode | None]]]:
        """Number and reader of every file."""
        for number, path in enumerate(self._paths):
            yield number, partial(_episode, path, shrink)


def _taken_actions(archive: Archive) -> NDArray[Any]:
    """The actions that are imported: fillers before the first frame or behind the last are not.

    Raises:
        NumbersBad: one of them is not finite.
    """
    found = {"actions": actions_column(archive.column("actions"), archive.name)}
    shape, dtype = archive.header("observations")
    check_frames(shape, dtype, archive.name)
    taken = aligned(found, shape[0], after=_is_after(archive), source=archive.name)
    check_finite(taken["actions"], archive.name)
    return taken["actions"]


def _is_after(archive: Archive) -> bool:
    """Whether its frames were drawn after their actions."""
    return archive.keys.get("terminations") == AFTER


def _seed(archive: Archive) -> int | None:
    if "seed" not in archive.keys:
        return None
    found = archive.column("seed")
    if found.dtype.kind not in "iu" or found.size != 1:
        raise UsageError(f"The seed of {archive.name} is {found.dtype} {list(found.shape)}.")
    return int(found.reshape(()))


def _episode(path: Path, shrink: Shrink) -> ForeignEpisode | None:
    archive = Archive(path)
    shape, dtype = archive.header("observations")
    check_frames(shape, dtype, archive.name)
    actions = actions_column(archive.column("actions"), archive.name)
    num_steps, name = len(actions), archive.name
    columns: dict[str, NDArray[Any]] = {"actions": actions}
    if num_steps:
        if "rewards" in archive.keys:
            found = archive.column("rewards")
            columns["rewards"] = numbers_column("rewards", found, num_steps, name)
        for one in ("terminations", "truncations"):
            if one in archive.keys:
                columns[one] = flags_column(one, archive.column(one), num_steps, name)
    columns = aligned(columns, shape[0], after=_is_after(archive), source=name)
    steps = len(columns["actions"])
    if steps == 0:
        return None
    frames = [shrink(piece, name) for piece in archive.pieces("observations")]
    return ForeignEpisode(
        name=name,
        observations=np.concatenate(frames),
        actions=columns["actions"],
        rewards=columns.get("rewards", np.zeros(steps)),
        terminations=columns.get("terminations", np.zeros(steps, dtype=np.bool_)),
        truncations=columns.get("truncations", np.zeros(steps, dtype=np.bool_)),
    )


def _told(path: Path) -> ActionSpec | None:
    if not path.exists():
        return None
    told = parse_record(read_file(path, limit=MAX_TOLD), source=path.name, rules=_RULES)
    if told["format_version"] > VERSION:
        raise ArtifactDamaged(f"{path.name} is of a newer format than this version of wm reads.")
    spec = ActionSpec(**{**told["actions"], **_bounds(told["actions"])})
    sizes = {len(spec.low), len(spec.high)}
    if sizes != {spec.size if spec.kind == "box" else 0}:
        raise ArtifactDamaged(f"{path.name} tells bounds that are not those of an action.")
    for low, high in zip(spec.low, spec.high, strict=True):
        if not -MOST <= low <= high <= MOST:
            raise ArtifactDamaged(
                f"{path.name} tells the bounds {low:g} to {high:g}.",
                why="The lower one comes first, and both are float32.",
            )
    return spec


def _bounds(actions: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    return {side: tuple(float(each) for each in actions[side]) for side in ("low", "high")}


# -------------------------------------------------------------------------------------- writing


def told_image(spec: ActionSpec) -> bytes:
    """Content of dataset.json."""
    actions = {
        "kind": spec.kind,
        "size": spec.size,
        "low": list(spec.low),
        "high": list(spec.high),
    }
    return readable_json({"format": FORMAT, "format_version": VERSION, "actions": actions})


def archive_image(record: EpisodeRecord) -> bytes:
    """Content of the file of one episode."""
    content = io.BytesIO()
    np.savez_compressed(
        content,
        allow_pickle=False,
        observations=record.observations,
        actions=record.actions,
        rewards=record.rewards,
        terminations=record.terminations,
        truncations=record.truncations,
        seed=np.int64(record.seed),
    )
    return content.getvalue()
