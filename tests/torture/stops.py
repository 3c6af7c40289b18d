"""Processes that are stopped for ever or for a while, and each worker in turn killed."""

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from command_line import MADE_BY, clear_session, copied, session_members

from torture.ledger import Tally
from torture.processes import (
    SLOW,
    Process,
    forked_wm,
    killed,
    session_ends,
    wait_while,
    workers_of,
)
from torture.scenes import WITH_WORKERS, LostError, Scene, check_finished

LANES = 1
NUM_QUICK = 2
ENUMERATED = False
STALL_SECONDS = 8  # a worker without a sign of life for so long is replaced
PAUSE = 3.0  # seconds for which a command or all of it is stopped
STOP, KILL = "SIGSTOP of a worker, for ever", "kill -9 of each worker in turn"
PAUSE_COMMAND, PAUSE_ALL = "SIGSTOP of the command for a while", "SIGSTOP of all for a while"
DEEDS = (STOP, KILL, PAUSE_ALL, PAUSE_COMMAND)


@dataclass(frozen=True)
class Case:
    """One stage with workers, and what is done to it."""

    index: int
    kind: str
    deed: str
    which: int  # of its two workers

    @property
    def stage(self) -> str:
        return MADE_BY[self.kind]


def prepare(scene: Scene) -> None:
    """Make the reference."""
    scene.micro.stat()


def cases(scene: Scene) -> Iterator[Case]:
    """Every deed to every worker of every stage that has some; then again, at other moments."""
    found = [(kind, deed, which) for which in (0, 1) for deed in DEEDS for kind in WITH_WORKERS]
    if scene.quick:
        found = [("rollouts", STOP, 0), ("evaluations", KILL, 0)]
    return (Case(index, *found[index % len(found)]) for index in count())


def attempt(scene: Scene, case: Case, folder: Path, tally: Tally) -> None:
    rng = random.Random(f"{scene.seed} stops {case.index}")
    root = copied(scene.micro, folder / "workspace", before=case.kind)
    words = [case.stage, "-w", root, "--workers", 2, "--stall-seconds", STALL_SECONDS]
    process = forked_wm(*words, log=folder / "log")
    try:
        hit = _done_to(process, root, case, rng)
        code = process.wait(SLOW)
        if not session_ends(process):
            raise LostError(f"processes outlived their command: {workers_of(process)}")
    finally:
        clear_session(process)
    said = " ".join((folder / "log").read_text().split())
    if hit:
        tally.inject(case.deed, case.stage)
    if "no sign of life" in said:
        tally.note("workers replaced because they gave no sign of life")
    if code != 0:
        raise LostError(f"exit code {code}: {said[-1500:]}")
    check_finished(root, case.kind, scene.micro)


def _done_to(process: Process, root: Path, case: Case, rng: random.Random) -> bool:
    """Do the deed at a random moment soon after the first task; False when it was too late."""

    def alive() -> bool:
        return process.poll() is None

    def few() -> bool:
        return alive() and len(workers_of(process)) < 2

    wait_while(few, seconds=SLOW, pause=0.05)
    wait_while(lambda: alive() and not _begun(root, case.kind), seconds=SLOW)
    time.sleep(rng.uniform(0, 0.6))
    if not alive():
        return False
    if case.deed in (PAUSE_COMMAND, PAUSE_ALL):
        _pause(process, whole=case.deed == PAUSE_ALL)
        return True
    workers = workers_of(process)
    if len(workers) < 2:
        return False
    if case.deed == STOP:
        os.kill(workers[case.which], signal.SIGSTOP)
        return True
    num_killed = 0
    for worker in workers[case.which :] + workers[: case.which]:
        num_killed += killed(worker)
        time.sleep(rng.uniform(0, 1))
    return num_killed > 0


def _begun(root: Path, kind: str) -> bool:
    """Whether a task is done: workers are at work and no more at their imports."""
    made = (path.name for path in root.glob(f"{kind}/.partial-*/*"))
    return any(name.startswith(("shard-", "task-", "pending", "search")) for name in made)


def _pause(process: Process, *, whole: bool) -> None:
    victims = session_members(process.pid) if whole else [process.pid]
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in victims:
            os.kill(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(PAUSE)
