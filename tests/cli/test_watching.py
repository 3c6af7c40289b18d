"""Looking at a stage that runs, from other processes; and what it shows itself, by pipe and pty."""

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from cli_process import environment
from command_line import default_signals, wait_until
from rich.console import Console

from stages.artifacts.lock import StageLock
from stages.artifacts.workspace import Workspace
from stages.inspection.running import remark, running
from wm_cli.watching import block, json_line, picture

# A stage of the real machinery (lock, partial, commit) whose work is to wait.
STAGE = """
import sys, time
from pathlib import Path
import stages.rollout as verb
from stages.artifacts.producing import Outcome, produce
from stages.events import Advanced, Doing

def run(workspace, config, job, *, progress):
    def build(partial):
        progress.emit(Doing("reading a very long list of things that no terminal can show", 3, 7))
        for done in range(3):
            time.sleep(0.2)
            progress.emit(Advanced(done, 40, "episodes", "mean return 12.5"))
        Path(sys.argv[3]).with_name("there").touch()
        while not Path(sys.argv[3]).with_name("go").exists():
            time.sleep(0.02)
            progress.poll()
        progress.emit(Advanced(40, 40, "episodes", "mean return 12.5"))
        partial.write("shard-00000.h5", b"x")
        return Outcome(payload=["shard-00000.h5"], summary={"episodes": 1})
    return produce(workspace, verb.plan(workspace, config, job), job, build, progress=progress)

verb.run = run
from wm_cli.__main__ import main
main()
"""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
WATCH = ("status", "--watch", "--every", "0.3")


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "wm_cli", *map(str, words)]


@contextlib.contextmanager
def stage_in(root: Path, **options):
    """A stage that runs until `go` is there beside its workspace, or it is ended."""
    root.parent.mkdir(exist_ok=True, parents=True)
    with default_signals():
        process = subprocess.Popen(
            [sys.executable, "-c", STAGE, "rollout", "-w", str(root)],
            env=environment(),
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
    try:
        wait_until(root.with_name("there").exists)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "place" / "w"


def looks(root: Path, condition, *, seconds=60.0):
    """Objects of `--watch --json` until one fits."""
    with subprocess.Popen(
        command(*WATCH, "--json", "-w", root), stdout=subprocess.PIPE, env=environment(), text=True
    ) as watcher:
        end = time.monotonic() + seconds
        for line in watcher.stdout:
            found = json.loads(line)
            if condition(found["running"]):
                watcher.send_signal(signal.SIGINT)
                assert watcher.wait(timeout=20) == 0, "Ctrl-C is how one leaves"
                return found["running"]
            assert time.monotonic() < end, found
    raise AssertionError("the watcher ended by itself")


def everything(root: Path) -> dict[str, tuple]:
    """Name, content and times of all that lies in a folder."""
    return {
        str(path): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in sorted(root.rglob("*"))
    }


def test_a_running_stage_a_killed_one_and_a_finished_one(root):
    with stage_in(root) as process:
        told = looks(root, lambda found: found and found[0]["memory_bytes"] and found[0]["done"])
        (one,) = told
        assert one["stage"] == "rollout" and one["state"] == "running"
        assert one["process"] == process.pid
        assert (one["done"], one["total"], one["unit"]) == (2, 40, "episodes")
        assert one["latest"] == "mean return 12.5"
        assert 2 < one["per_second"] < 6, "two episodes in 0.4 s and some overhead"
        assert one["left_seconds"] <= 38 / one["per_second"]
        resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        assert one["memory_bytes"] == pytest.approx(resident * 4096, rel=0.2)
        (table,) = [table for table in status(root)["tables"] if table["title"] == "Running"]
        assert table["rows"][0]["progress"] == "2/40 episodes"
        process.kill()
        process.wait()
        shown = {one["title"]: one["rows"] for one in status(root)["tables"]}
        assert "Running" not in shown, "it has just died"
        assert shown["Stages"][0]["state"] == "partial"
        before = everything(root)
        (one,) = looks(root, lambda found: found and found[0]["state"] == "killed")
        assert everything(root) == before, "looking changes nothing"
    root.with_name("go").touch()
    with stage_in(root) as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert looks(root, lambda found: not found) == []
    names = sorted(path.name for path in (root / "rollouts" / "0001").iterdir())
    assert names == ["manifest.json", "manifest.sha256", "shard-00000.h5"]
    assert (root / "rollouts" / ".lock").read_bytes() == b""


def run(*words) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), env=environment(), capture_output=True, text=True, check=True, timeout=60
    )


def status(root: Path) -> dict:
    return json.loads(run("status", "--json", "-w", root).stdout)


@pytest.mark.parametrize(
    ("host", "alive", "silent", "state"),
    [
        ("", True, 3600, "running"),
        ("", False, 0, "killed"),
        ("-other", False, 0, "running"),
        ("-other", True, 0, "running"),
        ("-other", False, -10, "running"),  # its clock is ahead
        ("-other", False, 60, "silent"),
        ("-other", False, -60, "silent"),
    ],
)
def test_only_a_process_of_this_machine_is_known_to_be_dead(tmp_path, host, alive, silent, state):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    workspace = Workspace.open(tmp_path / "w", create=True)
    lock = workspace.lock("vision")
    with lock:
        lock.tell({"done": 3, "total": 9, "unit": "steps"})
        note = json.loads(lock.path.read_bytes())
        note["host"] += host
        note["told_at"] = time.time() - silent
        note["process"] = os.getpid() if alive else dead.pid
        lock.path.write_text(json.dumps(note))
        (one,) = running(workspace)
        assert one.state == state
        told = remark(one)
        assert ("killed" in told) == (state == "killed")
        assert ("not heard of for" in told) == (silent > 5)
        del note["told_at"], note["told"]  # as an earlier version of wm left it
        lock.path.write_text(json.dumps(note))
        assert [one.state for one in running(workspace)] == ["running"] * (not host and alive)


def test_watching_takes_no_lock(tmp_path, monkeypatch):
    lock = StageLock(tmp_path / ".lock", "rollout")
    with lock:
        lock.tell({"done": 3})
        monkeypatch.setattr(fcntl, "flock", None)  # whoever tried to lock would fail
        note = StageLock(tmp_path / ".lock", "rollout").note()
    assert note.process == os.getpid() and note.told == {"done": 3}
    assert StageLock(tmp_path / ".lock", "rollout").note() is None, "an orderly end says nothing"
    lock.tell({"done": 4})
    assert (tmp_path / ".lock").read_bytes() == b"", "who does not hold the lock tells nothing"


def test_a_note_that_is_being_rewritten_is_read_whole(tmp_path):
    with StageLock(tmp_path / ".lock", "rollout") as lock:
        for number in range(300):
            lock.tell({"latest": "x" * (number * 7 % 1500), "done": number})
            note = StageLock(tmp_path / ".lock", "rollout").note()
            assert (note.told["done"], len(note.told["latest"])) == (number, number * 7 % 1500)
        lock.tell({"latest": "x" * 5000})  # does not fit, and is not told
        assert StageLock(tmp_path / ".lock", "rollout").note().told["done"] == 299


@pytest.mark.parametrize("name", ["per_second", "left_seconds", "memory_bytes", "done", "workers"])
@pytest.mark.parametrize(
    "number",
    ["1e-310", "5e-324", "1e308", "-1", "NaN", "Infinity", "1e999", "9" * 400, "0", "1e-9"],
)
def test_no_number_of_a_note_ends_the_watcher(tmp_path, name, number):
    workspace = Workspace.open(tmp_path / "w", create=True)
    lock = workspace.lock("vision")
    with lock:
        lock.tell({"done": 3, "total": 9, "unit": "steps", name: 0.7757})  # as no process number
        note = lock.path.read_text()
        assert note.count('": 0.7757') == 1
        lock.path.write_text(note.replace('": 0.7757', f'": {number}'))
        assert json.loads(json_line(workspace))["running"][0]["total"] == 9
        assert "train-vision" in block(workspace).plain
        screen = Console(width=60, file=io.StringIO())
        screen.print(picture(workspace))
        assert "train-vision" in screen.file.getvalue()


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["lines", "json"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_what_ends_a_watcher_says_how(root, number, code, words):
    Workspace.open(root, create=True)
    with (
        default_signals(),
        subprocess.Popen(
            command(*WATCH, *words, "-w", root),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
        ) as watcher,
    ):
        assert watcher.stdout.readline()
        watcher.send_signal(number)
        _, said = watcher.communicate(timeout=20)
    assert (watcher.returncode, said) == (code, "")


def test_a_watcher_whose_reader_leaves_ends(root):
    root.with_name("go").parent.mkdir(parents=True)
    root.with_name("go").touch()
    with stage_in(root) as process:
        process.communicate(timeout=60)
    done = subprocess.run(
        f"{' '.join(command(*WATCH, '-w', root))} | head -n 2",
        shell=True,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Nothing runs in this workspace." in done.stdout
    assert not CONTROL.search(done.stdout + done.stderr)


def test_pipes_and_files_get_lines_without_control_characters(root):
    """A line every ten seconds, also where nothing happens."""
    told = r"mean return 12.5, the last \d\d s ago, [\d.]+ MB\n"
    quiet = re.compile(r"rollout: 2/40 episodes, \d.*/s, .* left, " + told)
    with stage_in(root) as process:
        lines = []
        while not (lines and quiet.fullmatch(lines[-1])):
            assert len(lines) < 3, "where starting took so long, the first line told of news"
            lines.append(process.stderr.readline())
        root.with_name("go").touch()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    said = "".join(lines) + err
    assert not CONTROL.search(out + said)
    assert re.match(r"rollout: 40/40 episodes, .*took", said.splitlines()[-1])
    assert "rollouts/0001" in out


def on_terminal(words, *, columns=80, lasts=3.0, then=None, **extra) -> str:
    """What a command writes to a terminal of so many columns."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with default_signals():
        process = subprocess.Popen(
            words,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environment(TERM="xterm", **extra),
            start_new_session=True,
        )
    os.close(follower)
    said, end = b"", None
    while process.poll() is None or select.select([leader], [], [], 0.2)[0]:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                said += os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            end = end or time.monotonic() + lasts
        if end and time.monotonic() > end and then is not None:
            then(process)
            then = None
    assert process.wait(timeout=60) == 0, said
    os.close(leader)
    return said.decode()


def widest(said: str) -> int:
    return max(len(line) for line in re.split(r"[\r\n]+", ESCAPE.sub("", said)))


@pytest.mark.parametrize("columns", [80, 50])
def test_a_bar_fits_the_terminal(root, columns):
    root.parent.mkdir(parents=True)
    words = [sys.executable, "-c", STAGE, "rollout", "-w", str(root), "--json"]
    said = on_terminal(words, columns=columns, then=lambda _: root.with_name("go").touch())
    bars, _, report = said.partition('{\r\n "command"')
    assert report
    assert "\x1b[" in bars and "episodes" in bars
    assert "mean return 12.5" in bars
    if columns == 80:
        assert " MB" in bars and "2/40" in bars and " left" in bars
    assert widest(bars) <= columns


def test_no_color_on_a_terminal_means_plain_lines(root):
    root.parent.mkdir(parents=True)
    words = [sys.executable, "-c", STAGE, "rollout", "-w", str(root)]
    said = on_terminal(words, then=lambda _: root.with_name("go").touch(), NO_COLOR="1")
    assert "\x1b" not in said
    assert "rollout: 40/40 episodes" in said


@pytest.mark.parametrize("columns", [80, 50])
def test_watching_on_a_terminal_draws_in_one_place(root, columns):
    def leave(process):
        process.send_signal(signal.SIGINT)

    with stage_in(root):
        said = on_terminal(command(*WATCH, "-w", root), columns=columns, then=leave)
    assert "\x1b[1A" in said or "\x1b[2K" in said, "it is drawn over"
    assert "2/40 episodes" in said and "mean return 12.5" in said
    assert widest(said) <= columns
