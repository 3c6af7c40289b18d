"""A stage that is stopped through the programs that start it: nobody survives, and it resumes.

xvfb-run, make, tmux and timeout are the real ones, and what is stopped is a real stage. Survivors
are looked for by a mark in their environment, which they keep whoever adopts them.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import (
    MARK,
    ROOT,
    clear_marked,
    command,
    copied,
    default_signals,
    environment,
    marked,
    payload,
    start_marked,
    wait_until,
    wm,
)

pytestmark = pytest.mark.pipeline

WORKER = "stages.execution.worker"  # in the command line of a worker
LONG = ("--workers", 2, "--set", "rollout.episodes=400")
SECONDS = 8.0  # in which everything has ended, also on a machine that others use

# Opens a terminal and starts a command in it; the terminal closes when this process dies.
TERMINAL = """
import os, pty, sys
pid, leader = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
while os.read(leader, 65536):
    pass
"""
# Leaves the exit code of a command in a file, though the terminal closes. The outer shell, which
# leads the session, dies of that; only then does the kernel tell the others.
TOLD = (
    *("sh", "-c", '"$@"; true', "sh"),
    *("sh", "-c", 'trap : HUP INT TERM; file=$1; shift; "$@"; echo $? > "$file"', "sh"),
)


class Run:
    """One program started in a copy of the micro workspace."""

    def __init__(self, reference: Path, folder: Path) -> None:
        self.mark = f"{os.getpid()}-{folder.name}"
        self.reference = reference
        self.log, self.told = folder / "log", folder / "told"
        self.root = folder / "workspace"
        self.kind = ""
        self.process: subprocess.Popen[str] | None = None

    def stage(self, kind: str, *more: object) -> list[str]:
        """The words of the command that makes this kind, in a workspace without it."""
        self.kind = kind
        copied(self.reference, self.root, before=kind)
        stage = {"rollouts": "rollout", "memory": "train-memory"}[kind]
        return command(stage, "-w", self.root, *more)

    def start(self, *words: object, **extra: str) -> None:
        self.process = start_marked(*words, mark=self.mark, log=self.log, **extra)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the stage has come so far."""

        def holds() -> bool:
            assert self.alive(" -m wm_cli "), f"it ended too early:\n{self.said}"
            return condition()

        wait_until(lambda: self.alive(" -m wm_cli "), seconds=60)
        wait_until(holds, seconds=120)

    def until_workers_work(self) -> None:
        """They exist; what they have made so far does not matter."""
        self.until(lambda: len(self.alive(WORKER)) == 2)

    def until_half_done(self) -> None:
        """A shard is there, or some steps of training are."""
        shards, metrics = ".partial-*/shard-*.h5", ".partial-*/metrics.jsonl"
        if self.kind == "rollouts":
            self.until(lambda: any(self.folder.glob(shards)))
        else:
            self.until(lambda: any(b"\n" in f.read_bytes() for f in self.folder.glob(metrics)))

    def alive(self, part: str) -> list[int]:
        """Marked processes in whose command line this occurs."""
        return [pid for pid, words in marked(self.mark).items() if part in words]

    @property
    def folder(self) -> Path:
        return self.root / self.kind

    @property
    def said(self) -> str:
        return " ".join(self.log.read_text().split())

    def nobody_survives(self) -> None:
        wait_until(lambda: not marked(self.mark), seconds=SECONDS)
        assert not list(self.folder.glob("[0-9]*")), "it had finished before it was stopped"

    def end(self, number: int, *, group: bool) -> int:
        """Send the signal to the program alone or to all; its exit code."""
        send = os.killpg if group else os.kill
        send(self.process.pid, number)
        return self.process.wait(timeout=30)

    def goes_on_to_the_same(self) -> None:
        """The same command finishes; what it makes is what the undisturbed run made."""
        stage = {"rollouts": "rollout", "memory": "train-memory"}[self.kind]
        assert "Resuming" in wm(stage, "-w", self.root, "--workers", 2).said
        name = f"{self.kind}/0001"
        assert payload(self.root, name) == payload(self.reference, name)


@pytest.fixture
def run(micro_workspace: Path, tmp_path: Path) -> Iterator[Run]:
    started = Run(micro_workspace, tmp_path)
    yield started
    clear_marked(started.mark)
    if started.process is not None:
        started.process.wait(timeout=30)


def needs(program: str) -> pytest.MarkDecorator:
    missing = shutil.which(program) is None
    return pytest.mark.skipif(missing, reason=f"{program} is not installed")


def make(words: list[str]) -> list[str]:
    """`make rollout` that runs this command; the Makefile's own environment is not set up."""
    python, *_ = words
    place = words.index("-w")
    return [
        *("make", "-o", ".venv/.ready", "rollout", f"WM={python} -m wm_cli"),
        f"OPTIONS={' '.join(words[place:])}",
    ]


@needs("xvfb-run")
def test_sigterm_of_xvfb_run_alone(run):
    """xvfb-run dies and tells nobody: neither wm and its workers nor its X server."""
    run.start("xvfb-run", "-a", *run.stage("rollouts", *LONG))
    run.until_workers_work()
    assert run.alive("Xvfb")
    run.end(signal.SIGTERM, group=False)
    run.nobody_survives()
    assert "Stopped because xvfb-run ended; progress is saved." in run.said


@needs("xvfb-run")
def test_make_below_xvfb_run_without_its_display(run):
    """The X server dies first, which nobody minds; then xvfb-run, whose child is make, not wm."""
    run.start("xvfb-run", "-a", *make(run.stage("rollouts", *LONG)))
    run.until_workers_work()
    for pid in run.alive("Xvfb"):
        os.kill(pid, signal.SIGKILL)
    run.until_half_done()
    run.end(signal.SIGTERM, group=False)
    run.nobody_survives()
    assert list(run.folder.glob(".partial-*/shard-*.h5"))
    assert "Stopped because xvfb-run ended; progress is saved." in run.said
    assert "Error 143" in run.said


@pytest.mark.parametrize(
    ("number", "group", "code"), [(signal.SIGTERM, False, 143), (signal.SIGINT, True, 130)]
)
def test_make_is_stopped(run, number, group, code):
    run.start(*make(run.stage("rollouts", *LONG)))
    run.until_workers_work()
    assert run.end(number, group=group) != 0
    run.nobody_survives()
    assert f"Error {code}" in run.said
    assert "progress is saved" in run.said


def test_a_scheduler_that_tells_twice_and_kills_after_five_seconds(run):
    """`timeout` tells its child and then the whole group, which is no second request."""
    words = run.stage("memory", "--checkpoint-seconds", 3600)
    run.start("timeout", "--kill-after=5", 600, *words)
    run.until_half_done()
    assert run.end(signal.SIGTERM, group=False) == 143, run.said
    run.nobody_survives()
    assert list(run.folder.glob(".partial-*/step-*")), run.said
    run.goes_on_to_the_same()


def test_a_closed_terminal_stops_training_at_a_checkpoint(run):
    """SIGHUP, and from then on everything that is written to the terminal fails."""
    words = run.stage("memory", "--checkpoint-seconds", 3600)
    run.start(sys.executable, "-c", TERMINAL, *TOLD, run.told, *words, TERM="xterm", NO_COLOR="")
    run.until_half_done()
    run.end(signal.SIGKILL, group=False)
    run.nobody_survives()
    assert run.told.read_text() == "143\n"
    assert list(run.folder.glob(".partial-*/step-*"))


@needs("tmux")
@pytest.mark.parametrize("how", ["Ctrl-C", "kill-session"])
def test_tmux(run, how):
    tmux = ("tmux", "-L", run.mark, "-f", "/dev/null")
    words = run.stage("rollouts", *LONG)
    extra = {MARK: run.mark, "TERM": "xterm"}
    new = [*tmux, "new-session", "-d", "-s", "one", *TOLD, str(run.told), *words]
    with default_signals():
        subprocess.run(new, env=environment(**extra), cwd=ROOT, check=True)
    run.log.touch()
    run.until_workers_work()
    if how == "Ctrl-C":
        subprocess.run([*tmux, "send-keys", "-t", "one", "C-c"], env=environment(), check=True)
    else:
        subprocess.run([*tmux, "kill-session"], env=environment(), check=True)
    run.nobody_survives()
    assert run.told.read_text() == ("130\n" if how == "Ctrl-C" else "143\n")


def test_a_reader_that_leaves_does_not_stop_the_work(run):
    """`wm rollout 2>&1 | head -1`"""
    bash = 'exec > "$1"; shift; ("$@"; echo $? > "$0") 2>&1 | head -n 1'
    words = run.stage("rollouts", "--workers", 2)
    run.start("bash", "-c", bash, run.told, "/dev/null", *words)
    assert run.process.wait(timeout=120) == 0
    wait_until(lambda: not marked(run.mark), seconds=SECONDS)
    assert run.told.read_text() == "0\n"
    assert payload(run.root, "rollouts/0001") == payload(run.reference, "rollouts/0001")


def test_stopped_and_continued(run):
    """As Ctrl-Z and `fg` do; nothing that has a deadline takes the pause for its own."""
    run.start(*run.stage("rollouts", "--workers", 2))
    run.until_half_done()
    os.killpg(run.process.pid, signal.SIGSTOP)
    time.sleep(2)
    before = sorted(run.folder.glob(".partial-*/*"))
    time.sleep(1)
    assert run.process.poll() is None
    assert sorted(run.folder.glob(".partial-*/*")) == before, "a stopped run works on"
    os.killpg(run.process.pid, signal.SIGCONT)
    assert run.process.wait(timeout=120) == 0
    assert payload(run.root, "rollouts/0001") == payload(run.reference, "rollouts/0001")
    assert "warning" not in run.said, "no worker was lost over it"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_workers_that_are_stopped_do_not_survive(run, number, code):
    run.start(*run.stage("rollouts", *LONG))
    run.until_half_done()
    workers = run.alive(WORKER)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    assert run.end(number, group=False) == code
    run.nobody_survives()
