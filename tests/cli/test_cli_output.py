"""What reaches stdout and stderr, in a pipe, on a terminal, and when nobody reads."""

import json
import os
import pty
import subprocess
import sys
import unicodedata

import pytest
from cli_process import ROOT, TINY, environment

HEAVY = ("torch", "gymnasium", "h5py", "cma", "envpool", "ale_py", "pygame")


def control_characters(text: str) -> set[str]:
    return {c for c in text if unicodedata.category(c) == "Cc"} - {"\n"}


def on_terminal(*words: str, **extra: str) -> str:
    """What `wm` writes to a terminal of 80 columns, stdout and stderr together."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "wm_cli", *words],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment(TERM="xterm", COLUMNS="80", **extra),
    )
    os.close(follower)
    received = b""
    while chunk := _read(leader):
        received += chunk
    os.close(leader)
    process.wait(timeout=60)
    return received.decode().replace("\r\n", "\n")


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 65536)
    except OSError:  # the last writer has gone
        return b""


def test_help_loads_nothing_heavy_and_blas_is_single_threaded():
    script = (
        "import sys, os; from wm_cli.app import run; run(['--help']); run(['rollout', '--help']);"
        f"sys.stderr.write(repr([m for m in {HEAVY} if m in sys.modules]));"
        "sys.stderr.write(os.environ['OPENBLAS_NUM_THREADS'])"
    )
    told = subprocess.run(
        [sys.executable, "-c", script],
        env={k: v for k, v in environment().items() if k != "OPENBLAS_NUM_THREADS"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stderr == "[]1"


@pytest.mark.pipeline
def test_status_of_a_finished_workspace_loads_nothing_heavy(micro_workspace):
    look_lightly(micro_workspace)


def test_status_loads_nothing_heavy(recorded):
    look_lightly(recorded)


def look_lightly(workspace):
    script = (
        f"import sys; from wm_cli.app import run; code = run(['status', '-w', {str(workspace)!r}]);"
        f"sys.stderr.write(repr([code, [m for m in {HEAVY} if m in sys.modules]]))"
    )
    told = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stderr.endswith("[0, []]")


@pytest.mark.parametrize(
    "words",
    [
        ("rollout", *TINY),
        ("status",),
        ("show", "rollouts/0001"),
        ("verify",),
        ("config",),
        ("clean", "--yes"),
    ],
)
def test_json_is_one_object_alone_on_stdout(wm, recorded, words):
    answer = wm(*words, "-w", recorded, "--json")
    assert answer.returncode == 0
    document = json.loads(answer.stdout)
    assert document["command"] == words[0]
    assert document["exit_code"] == 0
    rows = [row for table in document["tables"] for row in table["rows"]]
    assert all(isinstance(row, dict) for row in rows), "rows are objects with named cells"
    assert rows or words[0] in {"rollout", "clean"}


def test_json_of_a_stage_is_alone_on_stdout_whatever_others_print(tmp_path):
    """A stage whose libraries and children print at every level: the report stays alone."""
    script = (
        "import os, sys, stages.rollout as verb\n"
        "from stages.events import Advanced, Noted, Report\n"
        "def run(workspace, config, job, *, progress):\n"
        "    progress.emit(Noted('a note'))\n"
        "    progress.emit(Advanced(1, 1, 'episodes'))\n"
        "    sys.stdout.write('pygame says hello\\n')\n"
        "    os.write(1, b'C says hello\\n')\n"
        "    os.system('echo a child says hello')\n"
        "    return Report('rollout', 'rollouts/0001', summary={'mean': float('nan')})\n"
        "verb.run = run\n"
        "from wm_cli.__main__ import main\n"
        "main()\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, "rollout", "-w", str(tmp_path / "w"), "--json"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    document = json.loads(answer.stdout)
    assert document["artifact"] == "rollouts/0001"
    assert document["summary"]["mean"] is None, "NaN is not JSON"
    for said in ("a note", "1/1 episodes", "pygame says", "C says", "a child says"):
        assert said in answer.stderr


def test_errors_leave_stdout_empty_under_json(wm, tmp_path):
    answer = wm("train-vision", "-w", tmp_path / "new", "--json")
    assert answer.returncode == 3
    assert answer.stdout == ""


@pytest.mark.parametrize(
    "words", [("--help",), ("rollout", "--help"), ("status",), ("config",), ("rollot",)]
)
def test_a_pipe_gets_no_control_characters_and_80_columns_of_tables(wm, words):
    answer = wm(*words)
    assert control_characters(answer.stdout + answer.stderr) == set()
    drawn = [line for line in answer.stdout.splitlines() if "─" in line]
    assert all(len(line) <= 80 for line in drawn)


@pytest.mark.parametrize("words", [("status",), ("show", "rollouts/0001"), ("verify",)])
def test_a_terminal_of_80_columns_cuts_no_id_no_path_and_no_command(recorded, words):
    told = on_terminal(*words, "-w", str(recorded), NO_COLOR="1")
    assert control_characters(told) == set()
    for line in told.splitlines():
        pasted = str(recorded) in line or "Make it again: " in line
        assert len(line) <= 80 or pasted, line
    assert told.count(str(recorded)) == told.replace("\n", "").count(str(recorded)), "none is cut"
    assert "rollouts/0001" in told


def test_a_pipe_gets_a_line_per_row_without_blanks_at_its_end(wm, recorded):
    told = wm("show", "rollouts/0001", "-w", recorded).stdout.splitlines()
    manifest = json.loads((recorded / "rollouts/0001/manifest.json").read_text())
    assert all(line == line.rstrip() for line in told)
    for name, number in manifest["summary"].items():
        if isinstance(number, int):
            assert f"{name} {number:,}" in [" ".join(line.split()) for line in told]
    [again] = [line for line in told if line.startswith("Make it again: ")]
    assert again.endswith(" --force")


def test_columns_that_are_asked_for_hold_in_a_pipe_too(wm, recorded):
    wide, narrow = (wm("status", "-w", recorded, **c).stdout for c in ({}, {"COLUMNS": "60"}))
    drawn = [line for line in narrow.splitlines() if "─" in line]
    assert all(len(line) <= 60 for line in drawn)
    assert narrow.count("\n") > wide.count("\n")


def test_no_color_on_a_terminal(recorded):
    words = ("verify", "-w", str(recorded))
    assert control_characters(on_terminal(*words, NO_COLOR="1")) == set()
    assert "\x1b[" in on_terminal(*words), "else there is a live bar"


@pytest.mark.parametrize("words", [("rollout", "--help"), ("rollot",)])
def test_no_color_in_help_and_errors(words):
    assert control_characters(on_terminal(*words, NO_COLOR="1")) == set()
    assert "\x1b[" in on_terminal(*words)


def test_an_error_on_a_terminal_is_one_panel_with_its_exit_code(tmp_path):
    told = on_terminal("train-vision", "-w", str(tmp_path / "new"), NO_COLOR="1")
    assert told.startswith("╭─ wm train-vision ─")
    assert "exit code 3" in told
    assert told.count("╭") == 1


def test_hostile_text_cannot_move_the_cursor(wm, tmp_path):
    answer = wm("status", "-w", f"{tmp_path}/\x1b[2Jgone\x07")
    assert answer.returncode == 0
    assert control_characters(answer.stdout + answer.stderr) == set()
    assert r"\x1b[2Jgone\x07" in answer.stdout


@pytest.mark.parametrize("words", [("config",), ("config", "--json"), ("status",)])
def test_a_reader_that_leaves_is_no_error(words, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "wm_cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(WM_WORKSPACE=str(tmp_path / "none")),
        text=True,
    )
    process.stdout.close()  # before anything is written
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 0


def test_closed_streams_do_not_matter(recorded):
    shell = f"exec {sys.executable} -m wm_cli verify -w {recorded} >&- 2>&- <&-"
    assert subprocess.run(shell, shell=True, env=environment(), check=False).returncode == 0


def test_a_defect_is_one_sentence_and_debug_shows_where(tmp_path):
    script = (
        "import stages.rollout as verb\n"
        "def run(*given, progress): raise KeyError('tiles')\n"
        "verb.run = run\n"
        "from wm_cli.__main__ import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, "rollout", "-w", str(tmp_path / "w")]
    short, long = (
        subprocess.run(
            [*command, *more], env=environment(), capture_output=True, text=True, check=False
        )
        for more in ([], ["--debug"])
    )
    assert (short.returncode, long.returncode) == (1, 1)
    assert "a defect in wm: KeyError: 'tiles'" in short.stderr
    assert "--debug" in short.stderr
    assert "Traceback" not in short.stderr
    assert "Traceback" in long.stderr


def test_an_expected_error_has_its_traceback_under_debug(wm, tmp_path):
    answer = wm("train-vision", "-w", tmp_path / "new", "--debug")
    assert answer.returncode == 3
    assert "Traceback" in answer.stderr
    assert "wm rollout" in answer.stderr


def test_version_is_one_line(wm):
    answer = wm("--version")
    assert answer.returncode == 0
    assert answer.stdout.startswith("wm ")
    assert answer.stdout.count("\n") == 1


def test_it_runs_from_any_folder(tmp_path):
    assert not list(tmp_path.iterdir())
    answer = subprocess.run(
        [sys.executable, "-m", "wm_cli", "status", "--json"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(answer.stdout)["path"] == str(tmp_path / "data/workspaces/default")
    assert not list(tmp_path.iterdir()), "status writes nothing"
