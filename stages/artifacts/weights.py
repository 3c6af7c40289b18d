"""Named arrays as safetensors: weights, optimiser moments, anything that must not execute code.

The file is written here, because the library orders metadata differently from process to process;
it is read and checked by the library. Format: https://github.com/huggingface/safetensors
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.disk import read_file
from stages.artifacts.plain import parse_json
from stages.errors import ArtifactDamaged, InputMissing, NumbersBad

Tensors = dict[str, NDArray[Any]]
_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_TYPES = {code: name for name, code in _CODES.items()}
_PREFIX = struct.Struct("<Q")  # length of the header that follows
_HEADER_LIMIT = 16 * 2**20  # bytes
_FILE_LIMIT = 4 * 2**30  # bytes


def pack_tensors(
    tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Content of a safetensors file; equal arrays and metadata give equal bytes."""
    header: dict[str, Any] = {"__metadata__": dict(sorted((metadata or {}).items()))}
    parts: list[bytes] = []
    end = 0
    for name in _by_alignment(tensors):
        array = tensors[name]
        part = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
        header[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [end, end + len(part)],
        }
        end += len(part)
        parts.append(part)
    return b"".join([_header_bytes(header), *parts])


def _by_alignment(tensors: Mapping[str, NDArray[Any]]) -> list[str]:
    """Names, those with the largest elements first, so that every array starts aligned."""
    return sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))


def _header_bytes(header: Mapping[str, Any]) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    padded = text + b" " * (-len(text) % 8)
    return _PREFIX.pack(len(padded)) + padded


def unpack_tensors(source: bytes | Path) -> tuple[Tensors, dict[str, str]]:
    """Arrays and metadata of a safetensors file, given as its content or its path.

    Raises:
        InputMissing: there is no such file.
        ArtifactDamaged: it is cut, contradicts itself, or holds a type without numpy counterpart.
    """
    from safetensors import SafetensorError, deserialize

    shown = str(source) if isinstance(source, Path) else "The content"
    content = _content(source) if isinstance(source, Path) else source
    metadata = _metadata(content, shown)
    try:
        found = deserialize(content)  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError, OverflowError) as error:
        raise ArtifactDamaged(
            f"{shown} is not a whole safetensors file.", why=f"{error}."
        ) from error
    return {name: _array(name, view, shown) for name, view in sorted(found)}, metadata


def _content(path: Path) -> bytes:
    try:
        return read_file(path, limit=_FILE_LIMIT)
    except FileNotFoundError as error:
        raise InputMissing(f"{path} is not there.") from error


def _metadata(content: bytes, shown: str) -> dict[str, str]:
    """The texts beside the arrays; a header with duplicate names is refused on the way."""
    if len(content) < _PREFIX.size:
        raise ArtifactDamaged(f"{shown} is not a whole safetensors file.", why="It has no header.")
    (length,) = _PREFIX.unpack_from(content)
    if length > min(_HEADER_LIMIT, len(content) - _PREFIX.size):
        raise ArtifactDamaged(f"{shown} is not a whole safetensors file.", why="Its header is cut.")
    header = parse_json(content[_PREFIX.size : _PREFIX.size + length], source=f"{shown}: header")
    found = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(found, dict) or not all(type(text) is str for text in found.values()):
        raise ArtifactDamaged(f"{shown} has no plain metadata.")
    return found


def _array(name: str, view: Mapping[str, Any], shown: str) -> NDArray[Any]:
    if view["dtype"] not in _TYPES:
        raise ArtifactDamaged(f"{shown} holds {name!r} of the type {view['dtype']}.")
    dtype = np.dtype(_TYPES[view["dtype"]]).newbyteorder("<")
    array = np.frombuffer(view["data"], dtype=dtype).reshape(view["shape"])
    return array.astype(dtype.newbyteorder("="))  # a copy that may be written


def check_shapes(
    found: Mapping[str, NDArray[Any]],
    expected: Mapping[str, tuple[int, ...]],
    *,
    source: str = "The weights",
) -> None:
    """Refuse arrays that are not exactly those of a model; ArtifactDamaged names the first few."""
    faults = [f"{name} is missing" for name in sorted(set(expected) - set(found))]
    faults += [f"{name} is unknown" for name in sorted(set(found) - set(expected))]
    faults += [
        f"{name} has shape {found[name].shape}, not {tuple(expected[name])}"
        for name in sorted(set(expected) & set(found))
        if found[name].shape != tuple(expected[name])
    ]
    if faults:
        raise ArtifactDamaged(
            f"{source} are not those of this model: {'; '.join(faults[:4])}.",
            why=f"{len(faults)} of {len(expected)} arrays differ.",
        )


def check_finite(tensors: Mapping[str, NDArray[Any]], *, source: str) -> None:
    """Refuse weights of which one is NaN or infinite: whatever they are used for would be, too."""
    for name, array in tensors.items():
        bad = ~np.isfinite(array)
        if bad.any():
            raise NumbersBad(
                f"{name} in {source} holds {array[bad][0]}.",
                why=f"{int(bad.sum())} of its {array.size} numbers are NaN or infinite.",
                fix="Nothing can be made of this artifact: make it again, with a smaller "
                "learning rate.",
            )
