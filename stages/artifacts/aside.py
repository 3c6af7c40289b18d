"""A folder outside of workspaces that is there whole or not at all, in place of an earlier one."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from stages.artifacts.disk import (
    is_alive,
    make_folder,
    remove_folder,
    rename_folder,
    sync_folder,
)


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into a folder aside, and give that the name `folder` (absolute).

    Where that is a link, the folder that it leads to is replaced, and the link stays.
    """
    folder = folder.resolve()
    make_folder(folder.parent)
    for stale in _left_behind(folder):
        if stale.suffix == ".old" and not folder.exists():
            rename_folder(stale, folder)  # the writer died between its two renames
        else:
            remove_folder(stale)
    aside = folder.with_name(f".tmp-{os.getpid()}-{folder.name}")
    try:
        make_folder(aside)
        fill(aside)
        sync_folder(aside)
        _publish(aside, folder)
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to tell
            remove_folder(aside)
        raise


def _publish(aside: Path, folder: Path) -> None:
    """Give the finished folder its name.

    A death between the two renames leaves none there: the next writer puts the old one back.
    """
    if not folder.exists():
        rename_folder(aside, folder)
        return
    old = aside.with_name(f"{aside.name}.old")
    try:
        rename_folder(folder, old)
        rename_folder(aside, folder)
    except BaseException:
        if old.exists() and not folder.exists():
            rename_folder(old, folder)
        raise
    remove_folder(old)


def _left_behind(folder: Path) -> Iterator[Path]:
    """What earlier writers of this very folder left when they died."""
    ours = re.compile(rf"\.tmp-(\d+)-{re.escape(folder.name)}(\.old)?")
    for path in sorted(folder.parent.iterdir()):
        match = ours.fullmatch(path.name)
        if match and (int(match[1]) == os.getpid() or not is_alive(int(match[1]))):
            yield path
