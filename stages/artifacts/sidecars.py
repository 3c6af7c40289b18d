"""What a file of unfinished work must hold: digests beside it, written before the file itself.

`.digest-<name>` lists every content that may be found under the name: the one that is being written
and, until that has arrived, the one before. So a file that matches none of them has rotted, however
often and wherever its writer was killed. The digests of a log are those of its beginnings, a line
for each: the longest beginning that matches is good, and what follows it was cut or has rotted.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from stages.artifacts.disk import (
    append_line,
    digest_bytes,
    digest_file,
    plain_size,
    read_file,
    remove_file,
    write_file,
)

SIDECAR = ".digest-"
LOG = ".jsonl"  # how the names of logs end: the only files that grow
_LIMIT = 256 * 2**20  # bytes; a line per line of a log
_LINE = re.compile(r"([0-9a-f]{64}) (\d{1,18})")

Content = tuple[str, int]  # sha256 and number of bytes


def put(path: Path, content: bytes) -> None:
    """Write a file of unfinished work whole, its digest first; workers call this, too."""
    found = content_of(path)
    before = [found] if found is not None and found in promised(path) else []
    promise(path, [*before, _described(content)])
    write_file(path, content)


def take_away(path: Path) -> None:
    """Remove a file, if it is there, and then what was promised of it."""
    remove_file(path)
    remove_file(sidecar(path))


def sidecar(path: Path) -> Path:
    """Where the digests of a file lie."""
    return path.with_name(SIDECAR + path.name)


def promise(path: Path, contents: Iterable[Content]) -> None:
    """Say what a file may hold from now on."""
    write_file(sidecar(path), "".join(f"{_line(one)}\n" for one in contents).encode())


def promised(path: Path) -> list[Content]:
    """What a file may hold; [] when nobody said so, or when the digests themselves have rotted."""
    try:
        text = read_file(sidecar(path), limit=_LIMIT).decode(errors="replace")
    except FileNotFoundError:
        return []
    matches = [_LINE.fullmatch(line) for line in text.splitlines()]
    return [(match[1], int(match[2])) for match in matches if match]


def content_of(path: Path) -> Content | None:
    """What a file holds; None when there is no such file."""
    try:
        size = plain_size(path)
    except FileNotFoundError:
        return None
    return digest_file(path), size


def is_promised(content: bytes, contents: Sequence[Content]) -> bool:
    """Whether these bytes are what a file may hold."""
    return _described(content) in contents


def longest_promised(content: bytes, contents: Sequence[Content]) -> bytes | None:
    """The longest beginning of a log that was promised; None when there is none."""
    digest, end, longest = hashlib.sha256(), 0, None
    for wanted, size in sorted(contents, key=lambda one: one[1]):
        if size > len(content):
            break
        digest.update(content[end:size])
        end = size
        if digest.hexdigest() == wanted:
            longest = size
    return None if longest is None else content[:longest]


class GrowingLog:
    """A log that lines are added to, with the digest of all that it holds so far."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        self._digest, self._size = hashlib.sha256(content), len(content)

    @property
    def held(self) -> Content:
        """What it holds."""
        return self._digest.hexdigest(), self._size

    def append(self, line: str, *, sealed: bool) -> None:
        """Add one line; with `sealed` its digest is on the device before it."""
        added = f"{line}\n".encode()
        longer, size = self._digest.copy(), self._size + len(added)
        longer.update(added)
        if sealed and not self._size:
            promise(self.path, [self.held])  # a death may leave the name alone
        if sealed:
            append_line(sidecar(self.path), _line((longer.hexdigest(), size)))
        append_line(self.path, line)
        self._digest, self._size = longer, size

    def seal(self) -> None:
        """Promise all that it holds."""
        append_line(sidecar(self.path), _line(self.held))


def _described(content: bytes) -> Content:
    return digest_bytes(content), len(content)


def _line(content: Content) -> str:
    return f"{content[0]} {content[1]}"
