"""HDF5 as this project uses it: immutable shards, built in memory, opened without trust.

The library is never given a file to write, because it crashes on a full disk, and it opens only
what an allow-list describes, because files may be hostile. It is loaded on first use.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, product
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.manifest import newer_format
from stages.errors import ArtifactDamaged, InputMissing

if TYPE_CHECKING:
    import h5py

_VERSIONS = ("v110", "v110")  # file format bounds: read by every HDF5 since 1.10
_DEFLATE = 1
_PLAIN_FILTERS = frozenset((_DEFLATE, 2, 3))  # and shuffle, fletcher32; others load plugins
_MAX_RATIO = 1100  # deflate packs at most 1032 : 1
_MAX_CHUNK = 64 * 2**20  # bytes
_SMALL_CHUNK = 2**20  # bytes; what a stored chunk of this size can unpack to does no harm
_OVERHEAD = 1.01, 1024  # by how much deflate may lengthen what it cannot pack: factor, bytes
_HEAP = b"GCOL\x01\x00\x00\x00"  # how a collection of texts begins
_OBJECT = 16  # bytes before every text in it, and before the first
_INDEX, _SIZE = struct.Struct("<H"), struct.Struct("<Q")
_INDEXED = 8  # bytes of a chunk in the index at least
_numbers = count()  # of files that are built in memory
_MAX_MEMBERS = 1000  # of a group
_MIN_PLAUSIBLE = 2**20  # bytes that a data set of any file may have


@dataclass(frozen=True)
class Column:
    """One data set of a layout: rows along the first axis."""

    axes: tuple[str, ...]  # a name for every axis
    dtypes: tuple[str, ...]  # numpy types that it may have
    optional_axes: int = 0  # how many of the last axes may be absent
    packed: bool = False  # gzip-1 with shuffle; otherwise stored as it is, with fletcher32
    chunk_rows: int = 1024  # rows that are stored and read together


@dataclass(frozen=True)
class Layout:
    """Everything that a file of one format may hold."""

    format: str
    version: int
    columns: Mapping[str, Column]
    groups: Mapping[str, Column] = field(default_factory=dict)  # its members are all like this
    attributes: tuple[str, ...] = ()  # texts at the root, besides format and version

    def column(self, name: str) -> Column:
        """The description of a data set, such as "rewards" or "facts/off_road"; else KeyError."""
        group, slash, _ = name.partition("/")
        return self.groups[group] if slash else self.columns[name]


class ImageWriter:
    """Builds a file in memory, rows after rows; equal rows give equal bytes in every process."""

    def __init__(self, layout: Layout, *, attributes: Mapping[str, str]) -> None:
        assert set(attributes) == set(layout.attributes), f"attributes of {layout.format}"
        self._layout = layout
        self._file = _empty_file()
        self._file.attrs["format"] = layout.format
        self._file.attrs["version"] = layout.version
        for name in layout.attributes:
            self._file.attrs[name] = attributes[name]
        self._pending: dict[str, NDArray[Any]] = {}  # rows that do not fill a chunk yet

    def append(self, name: str, rows: NDArray[Any]) -> None:
        """Add rows to a data set; the first ones decide its shape and type."""
        column = self._layout.column(name)
        if name not in self._file:
            self._make(name, column, rows)
        assert rows.shape[1:] == self._file[name].shape[1:], f"{name}: rows {rows.shape}"
        assert rows.dtype == self._file[name].dtype, f"{name}: {rows.dtype}"
        waiting = np.concatenate([self._pending[name], rows])
        whole = len(waiting) - len(waiting) % column.chunk_rows  # so that none is packed twice
        self._store(name, waiting[:whole])
        self._pending[name] = waiting[whole:].copy()

    def image(self) -> bytes:
        """Finish, and give the content of the file. Nothing can be added afterwards."""
        for name, rows in self._pending.items():
            self._store(name, rows)
        self._file.flush()
        content = bytes(self._file.id.get_file_image())
        self._file.close()
        return content

    def _make(self, name: str, column: Column, rows: NDArray[Any]) -> None:
        assert _fits(column, rows), f"{name}: {rows.dtype} {rows.shape}"
        tail = rows.shape[1:]
        packing: dict[str, Any] = (
            {"compression": "gzip", "compression_opts": 1, "shuffle": True}
            if column.packed
            else {"fletcher32": True}
        )
        data = self._file.create_dataset(
            name,
            shape=(0, *tail),
            maxshape=(None, *tail),
            chunks=(column.chunk_rows, *tail),
            dtype=rows.dtype,
            track_times=False,
            **packing,
        )
        for axis, label in enumerate(column.axes[: rows.ndim]):
            data.dims[axis].label = label
        self._pending[name] = rows[:0]

    def _store(self, name: str, rows: NDArray[Any]) -> None:
        data = self._file[name]
        start = len(data)
        data.resize(start + len(rows), axis=0)
        data[start:] = rows


def _empty_file() -> "h5py.File":
    import h5py

    # The library refuses a name that is open, as it is where a writer was given up half-way.
    name = f"image-{next(_numbers)}"
    return h5py.File(name, "w", driver="core", backing_store=False, libver=_VERSIONS)


def _fits(column: Column, data: Any) -> bool:
    """Whether an array or data set has the number of axes and the type of its column."""
    least = len(column.axes) - column.optional_axes
    return least <= data.ndim <= len(column.axes) and str(data.dtype) in column.dtypes


def open_file(path: Path, layout: Layout, *, known: bool = False) -> "h5py.File":
    """Open a shard for reading after comparing all that it holds with its layout.

    One that is `known`, because this process has compared it before, is only opened.

    Raises:
        InputMissing: there is no such file.
        ArtifactDamaged: it is not HDF5, not of this format, of a newer version, or holds links,
            objects, filters or sizes that this project never writes.
    """
    import h5py

    if not path.exists():
        raise InputMissing(f"{path} is not there.")
    with reading(path):
        if not known:
            check_heaps(path)
        file = h5py.File(path, "r", locking=False)
        try:
            if not known:
                _check_root(file, layout, path)
                _check_members(file, layout, path)
        except BaseException:
            file.close()
            raise
    return file


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say which file is damaged when the library fails inside this block."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, zlib.error) as error:
        raise ArtifactDamaged(f"{path} cannot be read as HDF5.", why=f"{error}.") from error


def check_heaps(path: Path) -> None:
    """Refuse a heap of texts in which the library would go round for ever.

    It steps from object to object by their sizes, and free space of no bytes leads nowhere
    (H5HG__cache_heap_deserialize of HDF5 2.0; file format specification, III.E). Heaps that lie
    in each other would be walked again and again: no file has room for more texts than heads.
    """
    if not path.stat().st_size:
        return
    num_steps = 0
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        start = content.find(_HEAP)
        while 0 <= start <= len(content) - _OBJECT:
            (size,) = _SIZE.unpack_from(content, start + 8)
            place, end = start + _OBJECT, min(start + size, len(content))
            while place + _OBJECT <= end:
                (index,) = _INDEX.unpack_from(content, place)
                (size,) = _SIZE.unpack_from(content, place + 8)
                step = _OBJECT + (size + 7) // 8 * 8 if index else size
                place, num_steps = place + step, num_steps + 1
                if step < _OBJECT or num_steps > len(content) // _OBJECT:
                    raise _refused(path, "texts", "its heaps of texts lead nowhere")
            start = content.find(_HEAP, start + 1)


def _check_root(file: "h5py.File", layout: Layout, path: Path) -> None:
    found = file.attrs.get("format")
    if not isinstance(found, str) or found != layout.format:
        raise ArtifactDamaged(f"{path} is not a {layout.format} file.", why=f"It says {found!r}.")
    version = file.attrs.get("version")
    if not isinstance(version, np.integer) or version < 1:
        raise ArtifactDamaged(f"{path} has the format version {version!r}.")
    if version > layout.version:
        raise newer_format(str(path), int(version), layout.version)
    for name in layout.attributes:
        if not isinstance(file.attrs.get(name), str):
            raise ArtifactDamaged(f"{path} does not say its {name}.")


def _check_members(file: "h5py.File", layout: Layout, path: Path) -> None:
    _refuse_links(file, path)
    for name in file:
        if name in layout.groups:
            _check_group(file, name, layout, path)
        elif name in layout.columns:
            _check_data(file[name], layout.columns[name], path)
        else:
            raise _refused(path, name, "no such name belongs to this format")
    missing = sorted(set(layout.columns) - set(file))
    if missing:
        raise ArtifactDamaged(f"{path} lacks {', '.join(missing)}.")


def _check_group(file: "h5py.File", name: str, layout: Layout, path: Path) -> None:
    import h5py

    group = file[name]
    if not isinstance(group, h5py.Group):
        raise _refused(path, name, "it must be a group")
    _refuse_links(group, path)
    for member in group:
        _check_data(group[member], layout.groups[name], path)


def _refuse_links(group: "h5py.Group", path: Path) -> None:
    import h5py

    if len(group) > _MAX_MEMBERS:
        raise _refused(path, group.name, f"it has {len(group)} members")
    for name in group:
        if not isinstance(name, str):  # the library gives what is no UTF-8 as bytes
            raise _refused(path, repr(name), "its name is no text")
        if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise _refused(path, name, "it is a link to another place")


def _check_data(data: Any, column: Column, path: Path) -> None:
    import h5py

    if not isinstance(data, h5py.Dataset):
        raise _refused(path, str(data.name), "it must be a data set")
    if data.dtype.hasobject or not _fits(column, data):
        raise _refused(path, data.name, f"its type is {data.dtype} {data.shape}")
    plist = data.id.get_create_plist()
    if plist.get_layout() != h5py.h5d.CHUNKED:  # not virtual, not stored in another file
        raise _refused(path, data.name, "it is not stored in chunks")
    filters = sorted(plist.get_filter(i)[0] for i in range(plist.get_nfilters()))
    if not set(filters) <= _PLAIN_FILTERS or len(set(filters)) < len(filters):
        raise _refused(path, data.name, f"it needs the filters {filters}")
    _check_size(data, path)
    _check_chunks(data, path, packed=_DEFLATE in filters)


def _check_size(data: "h5py.Dataset", path: Path) -> None:
    plausible = max(_MAX_RATIO * path.stat().st_size, _MIN_PLAUSIBLE)
    size = prod(data.shape) * data.dtype.itemsize
    if size > plausible or prod(data.chunks) * data.dtype.itemsize > _MAX_CHUNK:
        raise _refused(path, data.name, f"its shape {data.shape} cannot be in a file of this size")


def _check_chunks(data: "h5py.Dataset", path: Path, *, packed: bool) -> None:
    """All chunks are there, and none unpacks to more than its size: the library would not stop.

    Each is looked up by its place, never in the order of the index: that may name any number.
    """
    whole = prod(data.chunks) * data.dtype.itemsize
    starts = [range(0, rows, each) for rows, each in zip(data.shape, data.chunks, strict=True)]
    if prod(map(len, starts)) * _INDEXED > path.stat().st_size:
        raise _refused(path, data.name, "its chunks cannot be in a file of this size")
    buffer = bytearray(int(_OVERHEAD[0] * whole + _OVERHEAD[1]))
    for place in product(*starts):
        try:
            mask, stored = data.id.read_direct_chunk(place, out=buffer)
            fits = len(stored) > 0  # the library crashes on one of no bytes
            if packed and not mask and whole > _SMALL_CHUNK:
                fits = len(zlib.decompressobj().decompress(stored, whole + 1)) <= whole
        except (OSError, RuntimeError, ValueError, zlib.error) as error:
            raise _refused(path, data.name, f"its chunk at {place}: {error}") from error
        if not fits:
            raise _refused(path, data.name, f"its chunk at {place} has another size than told")


def _refused(path: Path, name: str, why: str) -> ArtifactDamaged:
    return ArtifactDamaged(f"{path} holds {name!r}, which is refused.", why=f"{why}.".capitalize())
