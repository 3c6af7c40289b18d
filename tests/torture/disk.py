"""A disk that is really full, at several moments of every stage; and its unprivileged stand-in.

Full are a small tmpfs, in a mount namespace of the lane that vanishes with it (as root, or where
user namespaces are allowed), and one without room for another name. The stand-in is a limit on the
size of files, RLIMIT_FSIZE. The command must live to the end and leave with exit code 6, its
temporary files gone; with more room the same command goes on.
"""

import ctypes
import errno
import os
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from command_line import KINDS, MADE_BY, clear_session, copied

from torture.ledger import Tally
from torture.processes import SLOW, Forked, forked_wm, session_ends
from torture.scenes import (
    LostError,
    Scene,
    check_finished,
    check_intact,
    check_no_temporaries,
)

LANES = 1
NUM_QUICK = 2
ENUMERATED = True  # the cases come to an end
SHARES = (0.0, 0.12, 0.3, 0.5, 0.7, 0.85, 0.97)  # of what the stage needs, there is so much room
EXTRA_NAMES = (1, 4, 9)  # files and folders that a stage may still make
SIZES = (30, 2000, 0.5, 0.999)  # bytes that a file may have, or share of the largest one
ROOMY = 1 << 30  # bytes
MANY = 100_000  # names
FULL, NO_NAMES, LIMIT = "full disk", "no room for another name", "file size limit"
DISK_FULL = 6  # exit code
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # linux/sched.h
MS_REMOUNT, MS_REC, MS_PRIVATE = 32, 16384, 1 << 18  # linux/mount.h


@dataclass(frozen=True)
class Case:
    """A stage that runs out of room."""

    index: int
    kind: str
    how: str
    room: float

    @property
    def stage(self) -> str:
        return MADE_BY[self.kind]


def prepare(scene: Scene) -> None:
    """Make the reference."""
    scene.micro.stat()


def cases(scene: Scene) -> Iterator[Case]:
    """Every kind of lack at every stage, in an order without pattern."""
    rooms = [(FULL, r) for r in SHARES] + [(NO_NAMES, r) for r in EXTRA_NAMES]
    rooms += [(LIMIT, r) for r in SIZES]
    found = [(kind, how, room) for kind in KINDS for how, room in rooms]
    random.Random(scene.seed).shuffle(found)
    if scene.quick:
        found = [("latents", FULL, 0.5), ("evaluations", LIMIT, 30)]
    return (Case(index, *one) for index, one in enumerate(found))


def attempt(scene: Scene, case: Case, folder: Path, tally: Tally) -> None:
    if case.how == LIMIT:
        _limited(scene, case, folder, tally)
    elif in_own_namespace():
        _filled(scene, case, folder, tally)
    else:
        tally.note("skipped: no mounts allowed here")


def _filled(scene: Scene, case: Case, folder: Path, tally: Tally) -> None:
    """On a tmpfs that is too small for the stage."""
    inputs, needed = _needs(scene, case.kind, folder)
    size, names = ROOMY, MANY
    if case.how == FULL:
        size = inputs.bytes + int(case.room * (needed.bytes - inputs.bytes))
    else:
        names = inputs.names + int(case.room)
    with mounted(folder / "disk", size=size, names=names) as disk:
        root = copied(scene.micro, disk / "workspace", before=case.kind)
        finish = _until_full(scene, case, root, folder / "log", tally, f"{size} bytes")
        mount(disk, size=ROOMY, names=MANY, again=True)
        finish()


def _limited(scene: Scene, case: Case, folder: Path, tally: Tally) -> None:
    """Under a limit on the size of files."""
    root = copied(scene.micro, folder / "workspace", before=case.kind)
    largest = max(path.stat().st_size for path in (scene.micro / case.kind / "0001").iterdir())
    limit = int(case.room * largest if case.room < 1 else case.room)

    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    finish = _until_full(
        scene, case, root, folder / "log", tally, f"{limit} bytes", before=set_limit
    )
    finish()


def _until_full(
    scene: Scene,
    case: Case,
    root: Path,
    log: Path,
    tally: Tally,
    room: str,
    *,
    before: Callable[[], None] = lambda: None,
) -> Callable[[], None]:
    """Run the stage into the lack and look at what is left; what finishes it is returned."""
    code, said = _ended(root, case.kind, log, before=before)
    if code == 0:
        tally.note("times that the room was enough")
        return lambda: check_finished(root, case.kind, scene.micro)
    tally.inject(case.how, case.stage)
    if code != DISK_FULL:
        raise LostError(f"exit code {code} with room for {room}: {said[-1500:]}")
    if "Traceback" in said:
        raise LostError(f"a traceback: {said[-1500:]}")
    check_no_temporaries(root)
    check_intact(root, scene.micro)

    def finish() -> None:
        code, said = _ended(root, case.kind, log)
        if code != 0:
            raise LostError(f"exit code {code} with room again: {said[-1500:]}")
        check_finished(root, case.kind, scene.micro)

    return finish


def _ended(
    root: Path, kind: str, log: Path, *, before: Callable[[], None] = lambda: None
) -> tuple[int, str]:
    """Exit code and output of the stage; a pipe takes the output, which no limit holds for."""
    reading, writing = os.pipe()
    try:
        process = _start(root, kind, writing, before)
        os.close(writing)
        try:
            code = process.wait(SLOW)
            if not session_ends(process):
                raise LostError("workers outlived their command")
        finally:
            clear_session(process)
        os.set_blocking(reading, False)
        said = os.read(reading, 1 << 16).decode(errors="replace")
    finally:
        os.close(reading)
    log.write_text(said)
    return code, said


def _start(root: Path, kind: str, output: int, before: Callable[[], None]) -> Forked:
    words = (MADE_BY[kind], "-w", root, "--workers", 2, "--checkpoint-seconds", 0)
    return forked_wm(*words, log=output, before=before)


@dataclass(frozen=True)
class Need:
    """What lies on a disk."""

    bytes: int
    names: int


_needed: dict[str, tuple[Need, Need]] = {}


def _needs(scene: Scene, kind: str, folder: Path) -> tuple[Need, Need]:
    """What the inputs of a stage take, and the most that is there while it runs undisturbed."""
    if kind not in _needed:
        with mounted(folder / "measured", size=ROOMY, names=MANY) as disk:
            root = copied(scene.micro, disk / "workspace", before=kind)
            inputs = most = _used(disk)
            process = _start(root, kind, os.open(os.devnull, os.O_WRONLY), lambda: None)
            try:
                while process.poll() is None:
                    now = _used(disk)
                    most = Need(max(most.bytes, now.bytes), max(most.names, now.names))
                    time.sleep(0.001)
            finally:
                clear_session(process)
            check_finished(root, kind, scene.micro)
            _needed[kind] = inputs, most
    return _needed[kind]


def _used(disk: Path) -> Need:
    status = os.statvfs(disk)
    return Need(
        (status.f_blocks - status.f_bfree) * status.f_frsize, status.f_files - status.f_ffree
    )


# ------------------------------------------------------------------------------------------ mounts


@lru_cache
def in_own_namespace() -> bool:
    """Enter namespaces in which this process may mount; whether that was allowed."""
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if library.unshare(CLONE_NEWNS | CLONE_NEWUSER) == 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    elif library.unshare(CLONE_NEWNS) != 0:
        return False
    return library.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0


@contextmanager
def mounted(place: Path, *, size: int, names: int) -> Iterator[Path]:
    """A tmpfs of this size at a new folder; where something was lost a copy of it stays."""
    place.mkdir()
    mount(place, size=size, names=names)
    try:
        yield place
    except BaseException:
        shutil.copytree(place, place.with_name("kept"), symlinks=True)
        raise
    finally:
        ctypes.CDLL(None).umount2(os.fsencode(place), 2)  # MNT_DETACH


def mount(place: Path, *, size: int, names: int, again: bool = False) -> None:
    """Mount a tmpfs, or change the size of the one that is there."""
    library = ctypes.CDLL(None, use_errno=True)
    pages = -(-size // 4096)
    options = f"size={4096 * max(1, pages)},nr_inodes={names}".encode()
    flags = MS_REMOUNT if again else 0
    if library.mount(b"torture", os.fsencode(place), b"tmpfs", flags, options) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot mount a tmpfs: {errno.errorcode.get(code, code)}")
