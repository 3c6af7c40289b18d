"""`wm doctor` and `wm clean` after a real rollout was killed: asked, refused, interrupted, done."""

import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_process import TINY, environment

from stages.artifacts.workspace import Workspace
from stages.inspection.leftovers import leftovers

MORE = ("--set", "rollout.episodes=6")
PATIENCE = 60  # seconds

# `wm` whose removals are slow, or fail where a path holds a word.
ODD = """
import time
from stages.artifacts.disk import SystemCalls

real = SystemCalls.remove

def remove(self, path):
    if {word!r} and {word!r} in str(path):
        raise PermissionError(1, "Operation not permitted")
    real(self, path)
    if {seconds}:
        print("removed", flush=True)
        time.sleep({seconds})

SystemCalls.remove = remove
from wm_cli.__main__ import main
main()
"""


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def start(*words, script=None, **options):
    command = ["-m", "wm_cli"] if script is None else ["-c", script]
    return subprocess.Popen(
        [sys.executable, *command, *map(str, words)],
        env=environment(),
        text=True,
        start_new_session=True,
        **options,
    )


def start_rollout(root):
    """A rollout that has just written its first shards, with work left for some seconds."""
    process = start("rollout", "-w", root, *TINY, *MORE, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(root.glob("rollouts/.partial-*/shard-*.h5"))) > 1)
    return process


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A workspace with a rollout that was killed with all its workers. Copy it."""
    root = tmp_path_factory.mktemp("killed") / "workspace"
    process = start_rollout(root)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return root


@pytest.fixture
def workspace(killed, tmp_path):
    """A copy of it, with a path that a shell would split."""
    return Path(shutil.copytree(killed, tmp_path / "my work"))


def partial_in(root):
    [path] = root.glob("rollouts/.partial-*")
    return path


def table(answer, title):
    tables = {one["title"]: one["rows"] for one in json.loads(answer.stdout)["tables"]}
    return {row["leftover"]: row for row in tables.get(title, ())}


def left(root):
    """Name -> what it is; `wm doctor` shows the same."""
    workspace = Workspace.open(root)
    return {one.name(workspace): one.what for one in leftovers(workspace)}


def pasted(line, *words):
    """Run a line that `wm` printed in a shell, as somebody who pastes it."""
    assert line.startswith("wm ")
    command = f"{shlex.quote(sys.executable)} -m wm_cli {line[3:]} {shlex.join(words)}"
    return subprocess.run(
        ["bash", "-c", command],
        env=environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def content(root):
    """Everything in a workspace; locks, which are rewritten, apart."""
    files = {path for path in root.rglob("*") if path.is_file() and path.name != ".lock"}
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_doctor_tells_sizes_and_the_command_that_goes_on(wm, workspace):
    partial = partial_in(workspace)
    rows = table(wm("doctor", "-w", workspace, "--json"), "Left by a crash")
    assert {name: row["what"] for name, row in rows.items()} == left(workspace)
    work, lock = rows[f"rollouts/{partial.name}"], rows["rollouts/.lock"]
    assert work["bytes"] == sum(path.stat().st_size for path in partial.iterdir())
    kept = [*partial.glob("shard-*.h5"), *partial.glob("metrics.jsonl")]
    assert work["files"] == len(kept) > 1
    assert 0 <= work["age_seconds"] < 600
    assert lock["what"] == "stale lock" and "which was killed" in lock["because"]
    times = {path.name: path.stat().st_mtime_ns for path in partial.glob("shard-*.h5")}
    answer = pasted(work["fix"])
    assert answer.returncode == 0, answer.stderr
    made = workspace / "rollouts" / "0001"
    assert {name: (made / name).stat().st_mtime_ns for name in times} == times, "it went on"
    assert left(workspace) == {}


def test_without_a_terminal_nothing_goes_until_it_is_allowed(wm, workspace):
    before = content(workspace)
    answer = wm("clean", "-w", workspace, "--json")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert partial_in(workspace).name in answer.stderr, "it is shown what would go"
    assert content(workspace) == before
    [fix] = [line.strip() for line in answer.stderr.splitlines() if "--yes" in line]
    done = pasted(fix.partition(": ")[2], "--json")
    assert done.returncode == 0
    rows = table(done, "Leftovers")
    assert {row["state"] for row in rows.values()} == {"removed"} and len(rows) == 2
    freed = sum(len(text) for name, text in before.items() if ".partial-" in name)
    assert (
        json.loads(done.stdout)["summary"]["freed_bytes"] == freed + rows["rollouts/.lock"]["bytes"]
    )
    assert set(content(workspace)) == {"workspace.json"}


def test_after_it_status_doctor_and_the_same_command_work(wm, workspace):
    assert wm("clean", "-w", workspace, "--yes").returncode == 0
    status = json.loads(wm("status", "-w", workspace, "--json").stdout)
    assert status["tables"][0]["rows"][0]["state"] == "missing"
    doctor = json.loads(wm("doctor", "-w", workspace, "--json").stdout)
    assert [one["title"] for one in doctor["tables"]] == ["Examination"]
    again = wm("clean", "-w", workspace)
    assert again.returncode == 0, "with nothing to remove nobody needs to be asked"
    assert "nothing to remove" in again.stdout
    assert wm("rollout", "-w", workspace, "--json").returncode == 0
    assert len(list((workspace / "rollouts" / "0001").glob("*.h5"))) == 6


def at_terminal(root, answer, *words):
    """Run `wm clean` at a terminal and type `answer` when it asks; exit code and what was shown."""
    child, terminal = pty.fork()
    if child == 0:
        command = [sys.executable, "-m", "wm_cli", "clean", "-w", str(root), *words]
        os.execvpe(command[0], command, environment(TERM="dumb"))
    shown = b""
    while b"[y/N] " not in shown:
        shown += os.read(terminal, 4096)
    os.write(terminal, answer)
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # the child is gone
            break
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode()


@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"\n", 0), (b"n\n", 0), (b"yesterday\n", 0), (b"\x04", 0), (b"\x03", 130)],
    ids=["enter", "no", "something else", "end of input", "Ctrl-C"],
)
def test_anything_but_yes_keeps_everything(workspace, answer, code):
    before = content(workspace)
    found, shown = at_terminal(workspace, answer)
    assert found == code, shown
    assert "Remove these 2 things (" in shown
    assert "othing was removed" in shown and "Traceback" not in shown
    assert content(workspace) == before
    assert (workspace / "rollouts" / ".lock").stat().st_size > 0


@pytest.mark.parametrize("answer", [b"y\n", b"YES\n"])
def test_yes_removes_what_was_shown(workspace, answer):
    name = partial_in(workspace).name
    code, shown = at_terminal(workspace, answer)
    assert code == 0, shown
    assert name in shown.partition("[y/N]")[0]
    assert set(content(workspace)) == {"workspace.json"}


def test_a_live_run_is_left_alone(wm, tmp_path):
    root = tmp_path / "live"
    process = start_rollout(root)
    try:
        os.killpg(process.pid, signal.SIGSTOP)  # so that it does not end too soon
        assert list(root.glob("rollouts/.partial-*"))
        answer = wm("clean", "-w", root, "--yes", "--json")
        assert left(root) == {}
        os.killpg(process.pid, signal.SIGCONT)
        assert process.wait(timeout=PATIENCE) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert answer.returncode == 0
    told = json.loads(answer.stdout)
    assert told["tables"] == [] and f"process {process.pid}" in " ".join(told["notes"])
    assert wm("verify", "-w", root).returncode == 0


def test_what_resists_is_told_with_its_path_and_exit_code_6(wm, workspace, tmp_path):
    (workspace / ".tmp-4194304999-x").write_bytes(b"x")  # no process has such a number
    shard = min(partial_in(workspace).glob("shard-*.h5")).name
    words = ("clean", "-w", workspace, "--yes", "--json")
    odd = start(*words, script=ODD.format(word=shard, seconds=0), stdout=subprocess.PIPE)
    out, _ = odd.communicate(timeout=PATIENCE)
    assert odd.returncode == 6
    rows = {row["what"]: row for row in json.loads(out)["tables"][0]["rows"]}
    assert rows["temporary file"]["state"] == rows["stale lock"]["state"] == "removed"
    assert rows["unfinished work"]["state"] == "failed"
    assert shard in rows["unfinished work"]["because"]
    assert list(workspace.glob("rollouts/.partial-*")) == [], "nobody goes on with half of it"
    assert list(left(workspace).values()) == ["half-removed work"]
    assert wm("clean", "-w", workspace, "--yes").returncode == 0
    assert left(workspace) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_the_middle_nothing_is_gone_on_with_and_clean_ends_it(wm, workspace, number):
    words = ("clean", "-w", workspace, "--yes")
    process = start(
        *words,
        script=ODD.format(word="", seconds=0.3),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        while "removed" not in process.stderr.readline():  # stdout is the report's alone
            assert process.poll() is None
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == {2: 130, 15: 143, 9: -9}[number]
    assert number == signal.SIGKILL or "Stopped: 1 of 2 things were removed." in err
    assert list(workspace.glob("rollouts/.partial-*")) == []
    assert "half-removed work" in left(workspace).values()
    assert wm("clean", "-w", workspace, "--yes").returncode == 0
    assert set(content(workspace)) == {"workspace.json"}


def test_it_cleans_workspaces_alone(wm, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / ".tmp-4194304999-x").write_text("x")
    assert wm("clean", "-w", tmp_path / "letters", "--yes").returncode == 2
    assert wm("clean", "-w", tmp_path / "none", "--yes").returncode == 3
    stray = wm("clean", tmp_path / "letters")
    assert stray.returncode == 2
    assert (tmp_path / "letters" / ".tmp-4194304999-x").exists()
