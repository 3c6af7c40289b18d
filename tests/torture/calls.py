"""The n-th I/O call fails, for every n of every nano stage: once, or from then on.

EIO for every call, ENOSPC for those that need room, EACCES for those that name a path. The stage
is refused with an error that names the path and what to do, or passes over it; then the same
command goes on.
"""

import errno
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from command_line import KINDS, MADE_BY
from failing_calls import FailingCalls, QuickCalls

from torture.ledger import Tally
from torture.scenes import (
    LostError,
    Scene,
    check_finished,
    check_intact,
    check_no_temporaries,
    nano_copy,
    run_inline,
)

LANES = 2
NUM_QUICK = 24
ENUMERATED = True  # the cases come to an end
ROOM = frozenset({"create", "write", "open_end", "make_folder"})
NAMED = frozenset(
    {"create", "open_end", "open_folder", "make_folder", "rename", "remove", "read", "open_read"}
)
SHOWN = {
    "create": "open",
    "open_end": "open",
    "open_folder": "open",
    "open_read": "open",
    "sync": "fsync",
    "make_folder": "mkdir",
}
CAN_FAIL = {errno.EIO: None, errno.ENOSPC: ROOM, errno.EACCES: NAMED}  # None: every call
ROUNDS = (  # error, and whether it lasts; the first ones matter most: time may end before the last
    (errno.EIO, False),
    (errno.ENOSPC, True),
    (errno.ENOSPC, False),
    (errno.EIO, True),
    (errno.EACCES, False),
    (errno.EACCES, True),
)


@dataclass(frozen=True)
class Case:
    """A stage whose call number `at`, of those that can fail so, fails."""

    index: int
    kind: str
    at: int
    code: int  # errno
    lasting: bool  # and all after it

    @property
    def stage(self) -> str:
        return MADE_BY[self.kind]


def prepare(scene: Scene) -> None:
    """Make the reference."""
    scene.nano.stat()


def cases(scene: Scene) -> Iterator[Case]:
    """Every call of every stage, one kind of failure after the other."""
    index = 0
    for code, lasting in ROUNDS:
        only = CAN_FAIL[code]
        counts = {
            kind: sum(only is None or name in only for name in scene.calls(kind)) for kind in KINDS
        }
        places = [(kind, at) for kind in KINDS for at in range(1, counts[kind] + 1)]
        random.Random(f"{scene.seed} {index}").shuffle(places)
        for kind, at in places:
            yield Case(index, kind, at, code, lasting)
            index += 1


def attempt(scene: Scene, case: Case, folder: Path, tally: Tally) -> None:
    from stages.artifacts.disk import replaced
    from stages.errors import StageError

    root = nano_copy(scene, folder / "workspace", before=case.kind)
    error = OSError(case.code, os.strerror(case.code))
    calls = FailingCalls(error, at=case.at, lasting=case.lasting, only=CAN_FAIL[case.code] or ())
    refusal: StageError | None = None
    try:
        with replaced(calls):
            run_inline(root, case.kind)
    except StageError as caught:
        refusal = caught
    finally:
        _count(case, calls, tally)
    with replaced(QuickCalls()):
        if refusal is None:
            tally.note("failed calls that a stage passed over")
            check_finished(root, case.kind, scene.nano)
            return
        tally.note("refused")
        _check_refusal(refusal, root)
        check_intact(root, scene.nano)
        if not case.lasting:
            check_no_temporaries(root)
        run_inline(root, case.kind)
        check_finished(root, case.kind, scene.nano)


def _count(case: Case, calls: FailingCalls, tally: Tally) -> None:
    if calls.count < case.at:
        raise LostError(f"the stage made {calls.count} calls only; the reference made more")
    name = calls.names[case.at - 1]
    often = "and all later ones fail" if case.lasting else "fails"
    tally.inject(f"the n-th {SHOWN.get(name, name)} {often}", case.stage)
    tally.note(f"of {errno.errorcode[case.code]}")


def _check_refusal(refusal: Exception, root: Path) -> None:
    """It names what could not be read or written, and what to do."""
    what, fix = getattr(refusal, "what", ""), getattr(refusal, "fix", "")
    if str(root.parent) not in what and not any(kind in what for kind in KINDS):
        raise LostError(f"an error without its path: {refusal!r}")
    if not fix:
        raise LostError(f"an error without what to do: {refusal!r}")
