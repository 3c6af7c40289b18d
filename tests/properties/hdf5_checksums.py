"""Checksums of HDF5 metadata, so that forged metadata reaches the library's deeper readers.

Every block of metadata of the newer file formats ends with a checksum of all before it: lookup3 of
Bob Jenkins (HDF5 file format specification, version 3, appendix "Checksum").
"""

import struct
from collections.abc import Iterator

Block = tuple[int, int]  # where it begins, and its bytes before the checksum
# Signature -> bytes before the checksum, as far as they are always the same in our files.
SIGNATURES = {
    b"EAHD": 68,
    b"EAIB": 322,
    b"FRHP": 142,
    b"BTHD": 34,
    b"FSHD": 78,
    b"BTLF": 0,
    b"OCHK": 0,
}
SUPERBLOCK = 44
LONGEST = 512  # of those that are not
_MASK = 0xFFFFFFFF


def checksummed_blocks(content: bytes) -> list[Block]:
    """The blocks of a valid file, found by trying: a signature, and a checksum that fits."""
    headers = [(start, _header_length(content, start)) for start in _places(content, b"OHDR")]
    blocks = [(0, SUPERBLOCK), *headers]
    for signature, known in SIGNATURES.items():
        for start in _places(content, signature):
            lengths = [known] if known else range(8, LONGEST)
            blocks += [(start, n) for n in lengths if _fits(content, start, n)][:1]
    return sorted(block for block in blocks if _fits(content, *block))


def _places(content: bytes, signature: bytes) -> Iterator[int]:
    start = content.find(signature)
    while start >= 0:
        yield start
        start = content.find(signature, start + 4)


def _header_length(content: bytes, start: int) -> int:
    """Of an object header of version 2 (specification, IV.A.1.b)."""
    flags = content[start + 5]
    before = 6 + 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
    width = 1 << (flags & 3)
    field = content[start + before : start + before + width]
    return before + width + int.from_bytes(field, "little")


def _fits(content: bytes, start: int, length: int) -> bool:
    stored = content[start + length : start + length + 4]
    return stored == struct.pack("<I", lookup3(content[start : start + length]))


def with_checksums(content: bytes, blocks: list[Block]) -> bytes:
    """The content with the checksum of every block made right."""
    mended = bytearray(content)
    for start, length in blocks:
        struct.pack_into("<I", mended, start + length, lookup3(mended[start : start + length]))
    return bytes(mended)


def lookup3(key: bytes) -> int:
    """hashlittle of lookup3.c, with 0 as its first value."""
    a = b = c = (0xDEADBEEF + len(key)) & _MASK
    rest = memoryview(bytes(key))
    while len(rest) > 12:
        x, y, z = struct.unpack_from("<III", rest)
        a, b, c = _mix((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)
        rest = rest[12:]
    if not len(rest):
        return c
    x, y, z = struct.unpack("<III", bytes(rest).ljust(12, b"\0"))
    return _final((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)


def _rotated(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits in ((4, 6, 8), (16, 19, 4)):
        a = ((a - c) & _MASK) ^ _rotated(c, bits[0])
        c = (c + b) & _MASK
        b = ((b - a) & _MASK) ^ _rotated(a, bits[1])
        a = (a + c) & _MASK
        c = ((c - b) & _MASK) ^ _rotated(b, bits[2])
        b = (b + a) & _MASK
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = ((c ^ b) - _rotated(b, 14)) & _MASK
    a = ((a ^ c) - _rotated(c, 11)) & _MASK
    b = ((b ^ a) - _rotated(a, 25)) & _MASK
    c = ((c ^ b) - _rotated(b, 16)) & _MASK
    a = ((a ^ c) - _rotated(c, 4)) & _MASK
    b = ((b ^ a) - _rotated(a, 14)) & _MASK
    return ((c ^ b) - _rotated(b, 24)) & _MASK
