"""Numbered folders: which are artifacts, and how these are called. Loads nothing heavy."""

import re
from pathlib import Path

from stages.artifacts.disk import explained

MANIFEST = "manifest.json"  # written last: a folder that has it is complete
_NUMBER = re.compile(r"\d{4,9}")


def artifact_id(kind: str, number: int) -> str:
    """The id of an artifact, such as "vision/0001"."""
    return f"{kind}/{number:04d}"


def bare_folders(folder: Path) -> list[Path]:
    """Numbered folders without a manifest: no artifacts, though somebody may miss one."""
    return [path for path in _numbered(folder) if not (path / MANIFEST).exists()]


def complete_folders(folder: Path) -> list[Path]:
    """The artifacts in a kind's folder, by number; one without a manifest is none."""
    return [path for path in _numbered(folder) if (path / MANIFEST).exists()]


def next_number(folder: Path) -> int:
    """The number after the highest in use, by an artifact or by anything else."""
    taken = _numbered(folder)
    return int(taken[-1].name) + 1 if taken else 1


def _numbered(folder: Path) -> list[Path]:
    with explained("list", folder):
        entries = list(folder.iterdir()) if folder.is_dir() else []
    found = [path for path in entries if _NUMBER.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name))
