"""A process that kills itself before its n-th I/O call, or half-way through its n-th write.

For every n of every nano stage. To die after a call is to die before the next one.
"""

import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from command_line import KINDS, MADE_BY
from failing_calls import DyingCalls, QuickCalls

from torture.ledger import Tally
from torture.processes import SLOW, Forked, forked
from torture.scenes import (
    LostError,
    Scene,
    check_finished,
    check_intact,
    nano_copy,
    run_inline,
)

LANES = 2
NUM_QUICK = 12
ENUMERATED = True  # the cases come to an end
BEFORE, HALF = "kill -9 before the n-th I/O call", "kill -9 half-way through the n-th write"


@dataclass(frozen=True)
class Case:
    """A stage that dies at its call number `at`."""

    index: int
    kind: str
    at: int
    half: bool

    @property
    def stage(self) -> str:
        return MADE_BY[self.kind]


def prepare(scene: Scene) -> None:
    """Make the reference."""
    scene.nano.stat()


def cases(scene: Scene) -> Iterator[Case]:
    """Every call of every stage, in an order without pattern."""
    found = [
        (kind, number, half)
        for kind in KINDS
        for number, name in enumerate(scene.calls(kind), start=1)
        for half in ((False, True) if name == "write" else (False,))
    ]
    random.Random(scene.seed).shuffle(found)
    return (Case(index, *one) for index, one in enumerate(found))


def attempt(scene: Scene, case: Case, folder: Path, tally: Tally) -> None:
    root = nano_copy(scene, folder / "workspace", before=case.kind)
    tally.inject(HALF if case.half else BEFORE, case.stage)
    check_died(dying(root, case.kind, case.at, half=case.half, log=folder / "log"))
    check_intact(root, scene.nano)
    process = forked(lambda: _run(root, case.kind, QuickCalls()), log=folder / "again")
    code = process.wait(SLOW)
    if code:
        raise LostError(f"the same command failed: {(folder / 'again').read_text()[-1500:]}")
    check_finished(root, case.kind, scene.nano)


def dying(root: Path, kind: str, at: int, *, half: bool = False, log: Path) -> Forked:
    """A child that runs the stage of this kind and kills itself at its call number `at`."""
    return forked(lambda: _run(root, kind, DyingCalls(at=at, half=half)), log=log)


def check_died(process: Forked) -> None:
    """Wait for it; the calls of a stage are always the same ones, so it must die."""
    code = process.wait(SLOW)
    if code != -signal.SIGKILL:
        raise LostError(f"it did not kill itself, but ended with {code}")


def _run(root: Path, kind: str, calls: QuickCalls) -> int:
    from stages.artifacts.disk import replaced

    with replaced(calls):
        run_inline(root, kind)
    return 0
