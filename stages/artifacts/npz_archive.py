"""One NumPy archive (.npz) as somebody else wrote it: headers first, then arrays in pieces.

Nothing is unpickled, and no array is unpacked whole before its header was looked at.
"""

import errno
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from stages.artifacts.disk import explained
from stages.artifacts.foreign import BLOCK, BLOCK_BYTES
from stages.errors import ArtifactDamaged, UsageError

# Names that earlier world models gave them, too.
NAMES = {
    "observations": ("observations", "obs"),
    "actions": ("actions", "action"),
    "rewards": ("rewards", "reward"),
    "terminations": ("terminations", "terminals", "dones", "done"),
    "truncations": ("truncations",),
    "seed": ("seed",),
}
MAX_COLUMN = 2**28  # bytes of any column but the frames
_BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, TypeError, KeyError,
    RuntimeError, OverflowError, SyntaxError,
)  # fmt: skip
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


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
