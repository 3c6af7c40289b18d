"""Signals, sent to a real process at a moment that it announces, and streams nobody reads."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_process import TINY, environment
from command_line import default_signals

STAGE = """
import os, sys, time
import stages.rollout as verb
from stages.events import Noted, Report

def run(workspace, config, job, *, progress):
    progress.emit(Noted("ready"))
    {body}

verb.run = run
from wm_cli.__main__ import main
main()
"""
POLLS = """
    for _ in range(3000):
        time.sleep(0.01)
        progress.poll()
    raise SystemExit("nobody stopped me")
"""
NEVER_POLLS = """
    for _ in range(300):
        time.sleep(0.1)
    raise SystemExit("nobody stopped me")
"""
SOON = 1.2  # seconds after which a second signal is a second request
# Before a command: these signals are ignored, as nohup or a script's background does.
NOHUP = ("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
BACKGROUND = ("sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh")
FULL = Path("/dev/full")


def words(tmp_path, body: str = POLLS) -> list[str]:
    script = STAGE.format(body=body.strip())
    return [sys.executable, "-c", script, "rollout", "-w", str(tmp_path / "w")]


def start(tmp_path, body: str = POLLS, *, before=(), **options) -> subprocess.Popen[str]:
    """A stage that announces itself."""
    with default_signals():
        process = subprocess.Popen(
            [*before, *words(tmp_path, body)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **{"env": environment(), **options},
        )
    assert process.stderr.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=20)
    assert out == ""
    assert "Traceback" not in err
    return process.returncode, err


def test_the_first_ctrl_c_stops_at_a_safe_point(tmp_path):
    process = start(tmp_path)
    process.send_signal(signal.SIGINT)
    code, err = end(process)
    assert code == 130
    assert "press Ctrl-C again to stop at once" in err
    assert "same command" in err


@pytest.mark.parametrize(
    ("number", "why"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "the terminal was closed")]
)
def test_sigterm_and_sighup_leave_with_143(tmp_path, number, why):
    process = start(tmp_path)
    process.send_signal(number)
    code, err = end(process)
    assert code == 143
    assert why in err
    assert "same command" in err


def test_sighup_is_ignored_under_nohup_and_sigint_is_obeyed_in_the_background(tmp_path):
    process = start(tmp_path, before=BACKGROUND)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    code, err = end(process)
    assert code == 130
    assert "terminal" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_without_a_safe_point_it_stops_within_seconds(tmp_path, number, code):
    process = start(tmp_path, NEVER_POLLS)
    process.send_signal(number)
    asked = time.monotonic()
    found, err = end(process)
    assert found == code
    assert 1 < time.monotonic() - asked < 8
    assert "same command" in err


def test_an_import_is_not_waited_for_either(tmp_path):
    """Modules may catch everything; compiled ones abort the process when one is raised in them."""
    (tmp_path / "stubborn.py").write_text(
        "import time\n"
        "for _ in range(300):\n"
        "    try: time.sleep(0.1)\n"
        "    except BaseException: pass\n"
    )
    process = start(tmp_path, "import stubborn", env=environment(PYTHONPATH=str(tmp_path)))
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    code, err = end(process)
    assert code == 143
    assert time.monotonic() - asked < 8
    assert "same command" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_stops_at_once(tmp_path, number, code):
    process = start(tmp_path, NEVER_POLLS)
    process.send_signal(number)
    assert "finishing the step" in process.stderr.readline()
    time.sleep(SOON)
    assert process.poll() is None, "one signal waits for a safe point"
    process.send_signal(number)
    found, err = end(process)
    assert found == code
    assert "same command" in err


def test_what_comes_right_after_the_first_signal_is_the_same_request(tmp_path):
    """`timeout`, and make in a group that is told, send SIGTERM twice."""
    body = """
    start = time.monotonic()
    while time.monotonic() < start + 1.5:
        time.sleep(0.01)
    progress.emit(Noted("finished the step"))
    progress.poll()
"""
    process = start(tmp_path, body)
    process.send_signal(signal.SIGTERM)
    assert "finishing the step" in process.stderr.readline()
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGHUP)
    code, err = end(process)
    assert code == 143
    assert "finished the step" in err


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_signal_during_imports(tmp_path, number, expected):
    """The process is stopped inside the import of the pipeline, before any command began."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer':\n"
        "            import time; sys.stderr.write('importing\\n'); sys.stderr.flush()\n"
        "            time.sleep(30)\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    with default_signals():
        process = subprocess.Popen(
            [sys.executable, "-c", "from wm_cli.__main__ import main; main()", "status"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(PYTHONPATH=str(tmp_path)),
            text=True,
        )
    assert process.stderr.readline() == "importing\n"
    process.send_signal(number)
    code, err = end(process)
    assert code == expected
    assert "same command" in err


def test_it_notices_that_xvfb_run_died(tmp_path):
    """xvfb-run does not pass SIGTERM on; the orphan must end by itself, also below make."""
    script = tmp_path / "xvfb-run"
    script.write_text('#!/bin/sh\nsh -c \'"$@"; true\' sh "$@"; true\n')
    script.chmod(0o755)
    parent = subprocess.Popen(
        [script, *words(tmp_path)],
        stderr=subprocess.PIPE,
        env=environment(XAUTHORITY=str(tmp_path / "Xauthority")),
        text=True,
    )
    assert parent.stderr.readline() == "ready\n"
    parent.kill()
    told = parent.stderr.read()  # until the orphan has closed it
    parent.stderr.close()
    parent.wait(timeout=20)
    assert "xvfb-run ended" in told


TALKS = """
    for _ in range(300):
        progress.emit(Noted("I say something " * 50))
    (workspace.root / "done").touch()
    return Report("rollout")
"""


def test_a_full_disk_below_the_log_does_not_stop_the_work(tmp_path):
    with FULL.open("w") as full:
        done = subprocess.run(words(tmp_path, TALKS), stderr=full, env=environment(), check=False)
    assert done.returncode == 0
    assert (tmp_path / "w" / "done").exists()


def test_a_report_that_cannot_be_written_is_told(tmp_path):
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wm_cli", "config", "-w", str(tmp_path / "w")],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
            check=False,
        )
    assert done.returncode == 6
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_terminal_that_is_gone_does_not_stop_the_work(tmp_path, term):
    """As under nohup: every write fails from then on, also those of a live bar."""
    body = """
    from stages.events import Advanced
    while not (workspace.root / "closed").exists():
        progress.emit(Advanced(1, 99, "steps"))
        time.sleep(0.05)
    for done in range(99):
        progress.emit(Advanced(done, 99, "steps"))
        time.sleep(0.01)
    return Report("rollout", "rollouts/0001", notes=("a note",))
"""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*NOHUP, *words(tmp_path, body)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment(TERM=term),
    )
    os.close(follower)
    assert b"ready" in os.read(leader, 65536)
    os.close(leader)
    (tmp_path / "w" / "closed").touch()
    assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_terminal_that_takes_nothing_does_not_keep_it_from_stopping(tmp_path, term):
    """As after Ctrl-S, or with a pager that pauses."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        words(tmp_path, TALKS),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment(TERM=term),
    )
    os.close(follower)
    assert b"ready" in os.read(leader, 65536)  # and nothing more: what it says fills the terminal
    time.sleep(1)
    assert process.poll() is None, "a reader that pauses is waited for"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=15) == 143
    os.close(leader)


def test_a_real_rollout_is_interrupted_and_the_same_command_finishes_it(wm, tmp_path):
    command = ["rollout", "-w", str(tmp_path / "w"), *TINY, "--set", "rollout.episodes=12"]
    process = subprocess.Popen(
        [sys.executable, "-m", "wm_cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
        start_new_session=True,
    )
    shards = tmp_path / "w" / "rollouts"
    deadline = time.monotonic() + 60
    while not list(shards.glob(".partial-*/shard-*.h5")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, _ = end(process)
    assert code == 130
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no worker survives
    kept = {path: path.stat().st_mtime_ns for path in shards.glob(".partial-*/shard-*.h5")}
    assert 0 < len(kept) < 12
    again = wm(*command)
    assert again.returncode == 0
    final = shards / "0001"
    assert len(list(final.glob("*.h5"))) == 12
    assert {(final / path.name).stat().st_mtime_ns for path in kept} == set(kept.values())
