"""Workers that freeze, die or die again and again: the stage ends, and what it makes is the same.

The faults are injected from outside into a real command, by the process ids of its workers.
"""

import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from command_line import (
    MADE_BY,
    clear_session,
    copied,
    manifest,
    payload,
    session_members,
    start_wm,
    wait_until,
    wm,
)

from stages.contracts import Resources
from stages.events import Silent
from stages.execution import handle
from stages.execution.channel import Channel
from stages.execution.worker import BEAT
from stages.pipeline import Request, prepare, run_stage

pytestmark = pytest.mark.pipeline

PIECES = {
    "rollouts": "shard-*.h5",
    "latents": "shard-*.h5",
    "control": "search.jsonl",
    "evaluations": "task-*.json",
}


def workers(leader: int) -> list[int]:
    """The worker processes of a command."""
    found = []
    for pid in session_members(leader):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if b"stages.execution.worker" in words:
            found.append(pid)
    return sorted(found)


def has_loaded(pid: int, library: bytes) -> bool:
    try:
        return library in Path(f"/proc/{pid}/maps").read_bytes()
    except OSError:
        return False


def pieces(root: Path, kind: str) -> int:
    return len(list((root / kind).glob(f".partial-*/{PIECES[kind]}")))


class Run:
    """A stage in a process of its own, on which faults are injected."""

    def __init__(self, root: Path, kind: str, log: Path, *words: object) -> None:
        self.root, self.kind, self.log = root, kind, log
        self.process = start_wm(MADE_BY[kind], "-w", root, *words, log=log)

    @property
    def said(self) -> str:
        """What it wrote so far, on one line."""
        return " ".join(self.log.read_text().replace("│", " ").split())

    def wait_until(self, condition: Callable[[], bool]) -> None:
        def met() -> bool:
            assert self.process.poll() is None, f"it ended too early:\n{self.said}"
            return condition()

        wait_until(met, seconds=300, pause=0.02)

    def wait_for_pieces(self, count: int) -> None:
        self.wait_until(lambda: pieces(self.root, self.kind) >= count)

    def workers(self) -> list[int]:
        return workers(self.process.pid)

    def end(self, code: int) -> None:
        """Wait for its end; nothing that it started is left."""
        assert self.process.wait(timeout=600) == code, self.said
        wait_until(lambda: not session_members(self.process.pid), seconds=10)


@pytest.fixture
def start(micro_workspace, tmp_path):
    """Start a stage in a copy of the finished workspace that holds its inputs alone."""
    started = []

    def begin(kind: str, *words: object) -> Run:
        root = copied(micro_workspace, tmp_path / "faulty", before=kind)
        started.append(Run(root, kind, tmp_path / "log", *words))
        return started[0]

    yield begin
    for run in started:
        clear_session(run.process)


def same(root: Path, kind: str, reference: Path) -> None:
    name = f"{kind}/0001"
    assert payload(root, name) == payload(reference, name)
    assert manifest(root, name)["fingerprint"] == manifest(reference, name)["fingerprint"]
    assert not list((root / kind).glob(".partial-*"))
    assert not list(root.rglob(".tmp-*"))


@pytest.mark.parametrize("kind", ["rollouts", "control"])
def test_a_frozen_worker_is_replaced_and_changes_nothing(kind, start, micro_workspace):
    run = start(kind, "--workers", 2, "--stall-seconds", 5)
    run.wait_for_pieces(1)
    frozen = run.workers()[0]
    os.kill(frozen, signal.SIGSTOP)
    run.end(0)
    assert "gave no sign of life for 5 s; the task runs again." in run.said
    same(run.root, kind, micro_workspace)


@pytest.mark.parametrize("kind", ["rollouts", "control"])
def test_workers_that_are_killed_one_after_the_other_change_nothing(kind, start, micro_workspace):
    run = start(kind, "--workers", 2)
    run.wait_for_pieces(1)
    for _ in range(4):  # the oldest each time: no task loses more than two
        run.wait_until(lambda: len(run.workers()) == 2)
        oldest = run.workers()[0]
        os.kill(oldest, signal.SIGKILL)
        run.wait_until(lambda gone=oldest: gone not in run.workers())
    run.end(0)
    lost = re.findall(r"The worker of task \S+ \(.*?seeds? .*?\) was killed by SIGKILL", run.said)
    assert lost
    same(run.root, kind, micro_workspace)


def test_a_task_that_always_loses_its_worker_ends_the_stage_with_seed_and_log(
    start, micro_workspace
):
    """Three segmentation faults in a row: what was finished is kept, the same command goes on."""
    run = start("rollouts", "--workers", 1)
    run.wait_for_pieces(1)
    killed: set[int] = set()

    def has_ended() -> bool:
        for pid in set(run.workers()) - killed:
            if has_loaded(pid, b"numpy"):  # then it has the task
                os.kill(pid, signal.SIGSEGV)
                killed.add(pid)
        return run.process.poll() is not None

    wait_until(has_ended, seconds=300, pause=0.02)
    run.end(6)
    folder = next((run.root / "rollouts").glob(".partial-*"))
    kept = {path.name: path.read_bytes() for path in folder.glob("shard-*.h5")}
    told = re.search(r"Task (\S+) \(seed (\d+)\) was given up: it cost 3 workers", run.said)
    assert told, run.said
    reference = micro_workspace / "rollouts" / "0001"
    with h5py.File(reference / told[1]) as shard:
        assert shard["seeds"][:].tolist() == [int(told[2])]
    assert len(killed) >= 3
    assert "was killed by SIGSEGV" in run.said
    assert "Fatal Python error: Segmentation fault" in run.said
    assert kept
    assert all((reference / name).read_bytes() == content for name, content in kept.items())
    assert "Resuming" in wm("rollout", "-w", run.root).said
    same(run.root, "rollouts", micro_workspace)


@pytest.mark.parametrize(
    ("kind", "fewest"),
    [
        ("rollouts", 100),
        ("latents", 4),
        ("control", 50),
        ("evaluations", 30),
    ],
)
def test_work_gives_signs_of_life_as_it_goes_on(
    kind, fewest, micro_workspace, tmp_path, monkeypatch
):
    """Counted where they arrive, with the pause between them cut to nothing."""
    root = copied(micro_workspace, tmp_path / "copy", before=kind)
    heard: Counter[str] = Counter()
    receive = Channel.receive

    def counting(channel: Channel) -> list[tuple[str, object]]:
        messages = receive(channel)
        heard.update(word for word, _ in messages)
        return messages

    monkeypatch.setattr(Channel, "receive", counting)
    monkeypatch.setattr(handle, "BEAT_SECONDS", 0.0)
    request = Request(resources=Resources(workers=2))
    run_stage(prepare(root, request, progress=Silent()), MADE_BY[kind], progress=Silent())
    assert heard[BEAT] >= fewest
    same(root, kind, micro_workspace)
