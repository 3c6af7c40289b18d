"""Episodes in NumPy archives, one per file: read in pieces and without trust, and written.

docs/own-data.md has the layout. Nothing is unpickled, and no array is unpacked whole before its
header was looked at.
"""

import errno
import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from stages.artifacts.canonical import readable_json
from stages.artifacts.disk import digest_file, explained, read_file
from stages.artifacts.episodes import EpisodeRecord
from stages.artifacts.foreign import (
    BLOCK,
    BLOCK_BYTES,
    ForeignEpisode,
    Shrink,
    actions_column,
    aligned,
    check_finite,
    check_frames,
    flags_column,
    numbers_column,
)
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
# Names that earlier world models gave them, too.
NAMES = {
    "observations": ("observations", "obs"),
    "actions": ("actions", "action"),
    "rewards": ("rewards", "reward"),
    "terminations": ("terminations", "terminals", "dones", "done"),
    "truncations": ("truncations",),
    "seed": ("seed",),
}
AFTER = "terminals"  # a layout of this name has frames that were drawn after their action
MAX_COLUMN = 2**28  # bytes of any column but the frames
MAX_TOLD = 100_000  # bytes of dataset.json
_BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, TypeError, KeyError,
    RuntimeError, OverflowError, SyntaxError,
)  # fmt: skip
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENDS = listed(NUMBER)
_RULES = {
    "format": one_of(FORMAT),
    "format_version": SIZE,
    "actions": exactly(
        {"kind": one_of("box", "choice"), "size": SIZE, "low": _ENDS, "high": _ENDS}
    ),
}


class Archive:
    """One file: the headers of its arrays, and the arrays themselves, in pieces."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        with _reading(path), zipfile.ZipFile(path) as file:
            members = [one for one in file.infolist() if one.filename.endswith(".npy")]
            self._members = {one.filename.removesuffix(".npy"): one for one in members}
        self.keys = {
            wanted: self._key(wanted, names)
            for wanted, names in NAMES.items()
            if any(name in self._members for name in names)
        }

    def _key(self, wanted: str, names: Sequence[str]) -> str:
        found = [name for name in names if name in self._members]
        if len(found) > 1:
            raise UsageError(
                f"{self.name} holds {' and '.join(found)}.",
                why=f"Each of them stands for {wanted}.",
                fix="Leave one of them out.",
            )
        return found[0]

    def header(self, wanted: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of an array, before anything of it is unpacked."""
        with self._opened(wanted) as (_, shape, dtype):
            return shape, dtype

    def column(self, wanted: str) -> NDArray[Any]:
        """A whole array that is not the frames."""
        with self._opened(wanted) as (file, shape, dtype):
            size = prod(shape) * dtype.itemsize
            if size > MAX_COLUMN:
                raise ArtifactDamaged(
                    f"{self.name} is refused.", why=f"Its {wanted} would take {size:,} bytes."
                )
            content = file.read(size)
            if len(content) != size:
                raise self._short(wanted)
            return np.frombuffer(content, dtype=dtype).reshape(shape)

    def pieces(self, wanted: str) -> Iterator[NDArray[Any]]:
        """The rows of an array, a few at a time."""
        with self._opened(wanted) as (file, shape, dtype):
            row = prod(shape[1:]) * dtype.itemsize
            most = min(BLOCK, max(1, BLOCK_BYTES // max(row, 1)))
            for start in range(0, shape[0], most):
                rows = min(most, shape[0] - start)
                content = file.read(rows * row)
                if len(content) != rows * row:
                    raise self._short(wanted)
                yield np.frombuffer(content, dtype=dtype).reshape(rows, *shape[1:])

    @contextmanager
    def _opened(self, wanted: str) -> Iterator[tuple[Any, tuple[int, ...], np.dtype[Any]]]:
        if wanted not in self.keys:
            held = ", ".join(sorted(self._members)) or "nothing"
            raise UsageError(
                f"{self.name} has no {wanted}.",
                why=f"It holds {held}.",
                fix="docs/own-data.md tells the layout.",
            )
        member = self._members[self.keys[wanted]]
        with _reading(self.path), zipfile.ZipFile(self.path) as archive, archive.open(member) as f:
            version = npy.read_magic(f)
            read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
            if version not in read:
                raise ValueError(f"an array of the format {version}")
            shape, fortran, dtype = read[version](f)
            if member.compress_type not in _PLAIN or min(shape, default=0) < 0:
                raise ValueError(f"{wanted} of the shape {shape}, packed as {member.compress_type}")
            if dtype.hasobject:
                raise ArtifactDamaged(
                    f"{self.name} is refused: its {wanted} are Python objects.",
                    why="To read them would run code of the file.",
                    fix="Write plain arrays: np.savez refuses objects with allow_pickle=False.",
                )
            if prod(shape) * dtype.itemsize > member.file_size:
                raise self._short(wanted)
            if fortran and len(shape) > 1:
                raise UsageError(
                    f"The {wanted} of {self.name} lie column by column in the file.",
                    fix="Write np.ascontiguousarray of them.",
                )
            yield f, shape, dtype

    def _short(self, wanted: str) -> ArtifactDamaged:
        return ArtifactDamaged(
            f"{self.name} is cut short.", why=f"Its {wanted} are larger than what the file holds."
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        with explained("read", path), _sought():
            yield
    except _BROKEN as error:
        raise ArtifactDamaged(
            f"{path.name} cannot be read as a NumPy archive.", why=f"{error}."
        ) from error


@contextmanager
def _sought() -> Iterator[None]:
    """Say that it is the file's fault when it names a place before its own start."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise ValueError("it names a place outside of itself") from error
        raise


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
