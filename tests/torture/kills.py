"""Kills at random moments: of a command, of its workers, of all at once; many in every run.

A case is the journey of one stage: started, killed, started again with another number of workers,
until it is through. Most moments are drawn over the time in which it works; some lie in its
imports and some in its commit.
"""

import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from command_line import KINDS, MADE_BY, clear_session, copied

from torture.ledger import Tally
from torture.processes import (
    SLOW,
    Process,
    killed,
    launch,
    session_ends,
    wait_while,
    workers_of,
)
from torture.scenes import WITH_WORKERS, LostError, Scene, check_finished, check_intact

NUM_QUICK = 3
ENUMERATED = False
LANES = 1  # a stage has both cores for itself: moments are moments of its own work
MAX_DEATHS = 5  # of the command, per journey
MAX_CHANGES = 12  # of the names in its unfinished work, that are waited for
MAX_WORKERS_KILLED = 2  # per command: a task that costs three workers is given up, as it should
REAL = 0.25  # share of commands in a fresh interpreter; the others are forked
COMMAND, WORKER, ALL = "kill -9 of the command", "kill -9 of a worker", "kill -9 of all at once"


@dataclass(frozen=True)
class Case:
    """One stage, killed again and again."""

    index: int
    kind: str

    @property
    def stage(self) -> str:
        return MADE_BY[self.kind]


@dataclass(frozen=True)
class Pace:
    """How long an undisturbed command takes, in seconds."""

    before: float  # until its partial is there
    work: float  # from then on


GUESSED = Pace(before=0.5, work=2.0)  # when it has to be quick
_paces: dict[str, Pace] = {}  # by kind


def prepare(scene: Scene) -> None:
    """Make the reference."""
    scene.micro.stat()


def cases(scene: Scene) -> Iterator[Case]:
    """Stages in turn, for ever; when it has to be quick those whose commands are quick."""
    kinds = ("rollouts", "latents", "evaluations") if scene.quick else KINDS
    return (Case(index, kinds[index % len(kinds)]) for index in itertools.count())


def attempt(scene: Scene, case: Case, folder: Path, tally: Tally) -> None:
    rng = random.Random(f"{scene.seed} kills {case.index}")
    if case.kind not in _paces:
        _paces[case.kind] = GUESSED if scene.quick else _pace(scene, case.kind, folder)
    root = copied(scene.micro, folder / "workspace", before=case.kind)
    for deaths in itertools.count():
        workers, real = rng.choice((1, 2, 2, 3)), rng.random() < REAL
        process = _started(root, case.kind, folder / f"log-{deaths}", workers=workers, real=real)
        tally.note("commands really started" if real else "commands forked")
        try:
            limit = 2 if scene.quick else rng.randint(2, MAX_DEATHS)
            died = deaths < limit and _harmed(process, root, case, rng, tally, quick=scene.quick)
            code = process.wait(SLOW)
            if not session_ends(process):
                raise LostError(f"processes outlived their command: {workers_of(process)}")
        finally:
            clear_session(process)
        if not died:
            break
        check_intact(root, scene.micro)
    if code != 0:
        raise LostError(f"exit code {code}: {(folder / f'log-{deaths}').read_text()[-1500:]}")
    check_finished(root, case.kind, scene.micro)


def _started(root: Path, kind: str, log: Path, *, workers: int, real: bool) -> Process:
    words = (MADE_BY[kind], "-w", root, "--workers", workers, "--checkpoint-seconds", 0)
    return launch(*words, log=log, real=real)


def _pace(scene: Scene, kind: str, folder: Path) -> Pace:
    """Time an undisturbed command; what it makes is compared, too."""
    root = copied(scene.micro, folder / "undisturbed", before=kind)
    begun = time.monotonic()
    process = _started(root, kind, folder / "undisturbed.log", workers=2, real=False)
    try:
        wait_while(lambda: process.poll() is None and not _partials(root, kind), seconds=SLOW)
        seen = time.monotonic()
        code = process.wait(SLOW)
    finally:
        clear_session(process)
    if code != 0:
        raise LostError(f"exit code {code}: {(folder / 'undisturbed.log').read_text()[-1500:]}")
    check_finished(root, kind, scene.micro)
    return Pace(before=seen - begun, work=time.monotonic() - seen)


def _harmed(
    process: Process, root: Path, case: Case, rng: random.Random, tally: Tally, *, quick: bool
) -> bool:
    """Kill workers of this command, and then perhaps itself; whether it died of that."""
    num_workers_killed = 0
    while _aimed(process, root, case, rng, quick=quick):
        whom = rng.choices((COMMAND, WORKER, ALL), (5, 4 * (case.kind in WITH_WORKERS), 2))[0]
        victims = workers_of(process) if whom == WORKER else [process.pid]
        if whom == WORKER and not victims:
            whom, victims = COMMAND, [process.pid]
        moment = _moment(root, case.kind)
        if whom == WORKER:
            if not killed(rng.choice(victims)):
                continue
            tally.inject(whom, case.stage)
            tally.note(f"kills {moment}")
            num_workers_killed += 1
            if num_workers_killed == MAX_WORKERS_KILLED:
                return False
            continue
        kill = os.killpg if whom == ALL else os.kill
        kill(process.pid, signal.SIGKILL)
        if process.wait(SLOW) != -signal.SIGKILL:  # it was through just before
            return False
        tally.inject(whom, case.stage)
        tally.note(f"kills {_moment(root, case.kind)}")
        return True
    return False


def _aimed(process: Process, root: Path, case: Case, rng: random.Random, *, quick: bool) -> bool:
    """Wait for a random moment; False when the command ended before it came.

    By the clock: anywhere, or while it works. By what it does: after so many changes of its
    unfinished work, or once it has begun to commit; so also a slow machine is hit at work.
    """
    pace, kind = _paces[case.kind], case.kind
    weights = (0, 0, 3, 1) if quick else (2, 3, 5, 2)
    aim = rng.choices(("anywhere", "work", "changes", "commit"), weights)[0]

    def alive() -> bool:
        return process.poll() is None

    delay = 0.0
    if aim == "anywhere":
        delay = rng.uniform(0, pace.before + pace.work)
    elif aim == "work":
        wait_while(lambda: alive() and not _partials(root, kind), seconds=SLOW)
        delay = rng.uniform(0, pace.work)
    elif aim == "changes":
        wanted, seen = rng.randint(1, MAX_CHANGES), {_look(root, kind)}
        wait_while(lambda: alive() and not _grown(seen, root, kind, wanted), seconds=SLOW)
        delay = rng.uniform(0, 0.1)
    else:
        wait_while(lambda: alive() and not _commits(root, kind), seconds=SLOW)
    end = time.monotonic() + delay
    wait_while(lambda: alive() and time.monotonic() < end, seconds=SLOW)
    return alive()


def _grown(seen: set[frozenset[str]], root: Path, kind: str, wanted: int) -> bool:
    """Whether the unfinished work has looked differently so many times since `seen` began."""
    seen.add(_look(root, kind))
    return len(seen) > wanted


def _look(root: Path, kind: str) -> frozenset[str]:
    return frozenset(path.name for path in root.glob(f"{kind}/.partial-*/*"))


def _partials(root: Path, kind: str) -> list[Path]:
    return [*root.glob(f"{kind}/.partial-*")]


def _commits(root: Path, kind: str) -> list[Path]:
    return [*root.glob(f"{kind}/.partial-*/manifest.sha256")]


def _moment(root: Path, kind: str) -> str:
    """Where in its work the stage is, by what lies on the disk."""
    if list(root.glob(f"{kind}/[0-9]*")):
        return "after the commit"
    if _commits(root, kind):
        return "in the commit"
    if any(path.is_file() for path in root.glob(f"{kind}/.partial-*/*")):
        return "at work"
    return "before the work"
