"""What unfinished work remembers of its run in `state.json`: math threads, device, its start."""

from pathlib import Path
from typing import Any

from stages.artifacts.disk import read_file
from stages.artifacts.manifest import MANIFEST_LIMIT
from stages.artifacts.plain import TEXT, THREADS, listed, one_of, optional, parse_record

STATE = "state.json"
STARTS = "from"  # ids that --from named
_RECORDED = {
    "device": optional(one_of("cpu", "cuda", "mps")),
    "threads": optional(THREADS),
    STARTS: optional(listed(TEXT)),
}


def recorded_in(folder: Path) -> dict[str, Any]:
    """The state that a partial in this folder remembers; {} without one."""
    try:
        content = read_file(folder / STATE, limit=MANIFEST_LIMIT)
    except FileNotFoundError:
        return {}
    return remembered(content, folder / STATE)


def remembered(content: bytes, path: Path) -> dict[str, Any]:
    """The state that this content of a file tells."""
    found = parse_record(content, source=str(path), rules=_RECORDED)
    return {name: value for name, value in found.items() if value is not None}
