"""Runs the cases of a slice side by side in forked processes, each until its time is up."""

import contextlib
import json
import os
import selectors
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from torture.ledger import Tally
from torture.processes import forked
from torture.scenes import LostError, Scene

PATIENCE = 20.0  # seconds that a lane gets to clean up after itself
HANGING = 1800.0  # seconds after which a case is given up: nothing may hang


class Case(Protocol):
    """One thing to do to one stage; the same index and seed give the same case again."""

    index: int


class Slice(Protocol):
    """A module of this package."""

    LANES: int  # cases that run at once
    NUM_QUICK: int  # cases that stand for all when it has to be quick
    ENUMERATED: bool  # whether the cases come to an end

    def prepare(self, scene: Scene) -> None: ...

    def cases(self, scene: Scene) -> Iterable[Case]: ...

    def attempt(self, scene: Scene, case: Any, folder: Path, tally: Tally) -> None: ...


@dataclass
class Found:
    """What came back about one case."""

    case: str
    index: int
    tally: dict[str, Any]
    kept: str = ""
    lane: int = 0


@dataclass
class Lane:
    """One forked process and what it has said so far."""

    process: Any
    pipe: int
    text: bytes = b""
    begun: dict[str, Any] = field(default_factory=dict)


def run(
    one: Slice, scene: Scene, cases: Callable[[], Iterable[Case]], *, end: float, keep: Path
) -> Iterator[Found]:
    """Results as they come. Lanes take no new case after the moment `end`."""
    lanes: list[Lane] = []
    try:
        for number in range(one.LANES):
            lanes += [_start(one, scene, cases, number, end, keep)]
        yield from _results(lanes)
    finally:
        _end(lanes)


def _start(
    one: Slice,
    scene: Scene,
    cases: Callable[[], Iterable[Case]],
    number: int,
    end: float,
    keep: Path,
) -> Lane:
    reading, writing = os.pipe()
    log = scene.folder / f"lane-{number}.log"

    def work() -> int:
        os.close(reading)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.signal(signal.SIGINT, lambda *_: None)  # the torturer says when to stop
        signal.signal(signal.SIGALRM, _give_up)
        mine = islice(cases(), number, None, one.LANES)
        with contextlib.suppress(KeyboardInterrupt):
            for case in mine:
                if time.monotonic() > end:
                    break
                _say(writing, {"begin": repr(case), "index": case.index})
                _say(writing, {**_attempted(one, scene, case, keep), "lane": number})
            _say(writing, {"done": True})
        return 0

    process = forked(work, log=log)
    os.close(writing)
    return Lane(process, reading)


def _attempted(one: Slice, scene: Scene, case: Case, keep: Path) -> dict[str, Any]:
    """Do one case; where something was lost, its folder is kept."""
    folder = scene.folder / f"{one.__name__.rpartition('.')[2]}-{case.index}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tally, kept = Tally(), ""
    signal.setitimer(signal.ITIMER_REAL, HANGING)
    try:
        one.attempt(scene, case, folder, tally)
    except LostError as lost:
        tally.lost = str(lost)
    except Exception:  # noqa: BLE001  a defect of wm is what is looked for
        tally.lost = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if tally.lost:
            kept = str(_kept(folder, keep))
        shutil.rmtree(folder, ignore_errors=True)
    if tally.lost and not tally.faults:
        tally.inject("nothing: the undisturbed run itself", getattr(case, "stage", "workspace"))
    return {"case": repr(case), "index": case.index, "tally": tally.packed(), "kept": kept}


def _give_up(number: int, frame: object) -> None:
    raise LostError(f"it hangs: nothing came of it for {HANGING:.0f} s")


def _kept(folder: Path, keep: Path) -> Path:
    target = keep / f"{time.strftime('%Y%m%d-%H%M%S')}-{folder.name}"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, target, symlinks=True)
    return target


def _say(pipe: int, message: dict[str, Any]) -> None:
    rest = memoryview(json.dumps(message).encode() + b"\n")
    while rest:
        rest = rest[os.write(pipe, rest) :]


def _results(lanes: list[Lane]) -> Iterator[Found]:
    with selectors.DefaultSelector() as waiting:
        for lane in lanes:
            waiting.register(lane.pipe, selectors.EVENT_READ, lane)
        while waiting.get_map():
            for key, _ in waiting.select():
                content = os.read(key.fd, 1 << 16)
                yield from _heard(key.data, content)
                if not content:
                    waiting.unregister(key.fd)


def _heard(lane: Lane, content: bytes) -> Iterator[Found]:
    lane.text += content
    *lines, lane.text = lane.text.split(b"\n")
    for line in lines:
        message = json.loads(line)
        lane.begun = message if "begin" in message else {}
        if "tally" in message:
            yield Found(**message)
        if "done" in message:
            lane.begun = {}
    if not content and lane.begun:
        tally = Tally(lost=f"its lane died: {lane.process.wait(10)}")
        tally.inject("the torturer itself died", "workspace")
        yield Found(lane.begun["begin"], lane.begun["index"], tally.packed())


def _end(lanes: list[Lane]) -> None:
    """Ask lanes that still work to clean up, then end them."""
    for lane in lanes:
        if lane.process.poll() is None:
            os.kill(lane.process.pid, signal.SIGTERM)
    for lane in lanes:
        try:
            lane.process.wait(PATIENCE)
        except TimeoutError:
            os.killpg(lane.process.pid, signal.SIGKILL)
            lane.process.wait(PATIENCE)
        os.close(lane.pipe)
