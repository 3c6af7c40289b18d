"""Ctrl-C and SIGTERM, sent to a real process at a moment that it announces."""

import os
import signal
import subprocess
import sys
import time

import pytest
from cli_process import TINY, environment

STAGE = """
import sys, time
import stages.rollout as verb
from stages.events import Noted

def run(workspace, config, job, *, progress):
    progress.emit(Noted("ready"))
    polls = "{polls}" == "True"
    for _ in range(3000):
        time.sleep(0.01)
        if polls:
            progress.poll()
    raise SystemExit("nobody stopped me")

verb.run = run
from wm_cli.__main__ import main
main()
"""


def start(tmp_path, *, polls: bool = True, **extra: str) -> subprocess.Popen[str]:
    """A stage that announces itself; it looks at signals when `polls`."""
    process = subprocess.Popen(
        [sys.executable, "-c", STAGE.format(polls=polls), "rollout", "-w", str(tmp_path / "w")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**extra),
        text=True,
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


def test_sigterm_leaves_with_143(tmp_path):
    process = start(tmp_path)
    process.send_signal(signal.SIGTERM)
    code, err = end(process)
    assert code == 143
    assert "same command" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_stops_at_once(tmp_path, number, code):
    process = start(tmp_path, polls=False)
    process.send_signal(number)
    assert "finishing the step" in process.stderr.readline()
    time.sleep(0.1)
    assert process.poll() is None, "one signal waits for a safe point"
    process.send_signal(number)
    found, err = end(process)
    assert found == code
    assert "same command" in err


def test_ctrl_c_during_imports(tmp_path):
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
    process = subprocess.Popen(
        [sys.executable, "-c", "from wm_cli.__main__ import main; main()", "status"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(PYTHONPATH=str(tmp_path)),
        text=True,
    )
    assert process.stderr.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    code, err = end(process)
    assert code == 130
    assert "same command" in err


def test_it_notices_that_xvfb_run_died(tmp_path):
    """xvfb-run does not pass SIGTERM on; the orphan must end by itself."""
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys; subprocess.run(sys.argv[1:])",
            *(sys.executable, "-c", STAGE.format(polls=True), "rollout", "-w", str(tmp_path / "w")),
        ],
        stderr=subprocess.PIPE,
        env=environment(XAUTHORITY="/tmp/xvfb-run.Ab12/Xauthority"),
        text=True,
    )
    assert parent.stderr.readline() == "ready\n"
    parent.kill()
    told = parent.stderr.read()  # until the orphan has closed it
    parent.stderr.close()
    parent.wait(timeout=20)
    assert "xvfb-run ended" in told


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
