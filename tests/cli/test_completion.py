"""Completion in a real bash: what Tab offers and types, how fast, and that errors stay silent."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import pytest
from cli_process import environment

from stages import STAGES
from stages.events import Silent
from stages.pipeline import Request, prepare
from stages.settings.recipes import available, load_recipe

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="there is no bash")
# As bash does it: words broken at COMP_WORDBREAKS, then the function that `complete` was given.
ASK = r"""
source "$SCRIPT"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"
_wm_completion wm
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    """A PATH on which `wm` is this checkout's."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "wm").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wm_cli "$@"\n')
    (folder / "wm").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="module")
def script(path, tmp_path_factory) -> str:
    """What `wm --show-completion` prints for the shell that calls it."""
    file = tmp_path_factory.mktemp("script") / "wm.bash"
    call = [BASH, "--norc", "-c", f"wm --show-completion > {file}; true"]
    subprocess.run(call, env=environment(PATH=path), check=True)
    return str(file)


@pytest.fixture
def offers(path, script, tmp_path):
    """What bash is offered for the words of a line, the last of which is being typed."""

    def ask(*words: str, code: int = 0, **extra: str) -> list[str]:
        done = subprocess.run(
            [BASH, "--norc", "--noprofile", "-c", ASK, "bash", *words],
            env=environment(PATH=path, SCRIPT=script, **extra),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (code, ""), done
        return done.stdout.split()

    return ask


def test_commands_in_the_pipelines_order_without_hidden_ones(offers):
    found = offers("wm", "")
    names = [stage.name for stage in STAGES]
    assert [name for name in found if name in names] == names
    assert {"run", "show", "status", "verify"} <= set(found)
    assert "train-vae" not in found
    assert offers("wm", "train-m") == ["train-memory"]


def test_recipes_that_are_shipped_and_files(offers, tmp_path):
    (tmp_path / "small.toml").write_text('extends = "carracing"\n')
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "other.toml").write_text('extends = "doom"\n')
    assert set(offers("wm", "run", "--recipe", "")) == {*available(), "small.toml"}
    assert offers("wm", "run", "--recipe", "doo") == ["doom"]
    assert offers("wm", "run", "--recipe", "deep/") == ["deep/other.toml"]


def test_presets_of_the_recipe_that_is_meant(offers, tmp_path):
    (tmp_path / "small.toml").write_text('extends = "carracing"\n[presets.tiny.vision]\nsteps=2\n')
    assert offers("wm", "run", "--preset", "") == list(load_recipe("carracing").presets)
    doom = offers("wm", "run", "--recipe", "doom", "--preset", "")
    assert doom == list(load_recipe("doom").presets)
    assert offers("wm", "run", "--recipe", "small.toml", "--preset", "t") == ["tiny"]
    assert offers("wm", "config", "--preset", "=", "qu") == ["quick"]


def test_presets_of_the_workspaces_own_recipe(offers, tmp_path):
    recipe = tmp_path / "small.toml"
    recipe.write_text('extends = "carracing"\n[presets.tiny.vision]\nsteps=2\n')
    request = Request(recipe=str(recipe), preset="debug")
    prepare(tmp_path / "w", request, progress=Silent())
    recipe.unlink()
    assert offers("wm", "run", "-w", "w", "--preset", "t") == ["tiny"]


def test_ids_of_the_workspace_that_is_meant(offers, recorded, tmp_path):
    shutil.copytree(recorded, tmp_path / "w")
    shutil.copytree(recorded / "rollouts" / "0001", tmp_path / "w" / "rollouts" / "0002")
    bare = tmp_path / "w" / "rollouts" / "0003"
    bare.mkdir()  # no manifest: no artifact
    both = ["rollouts/0001", "rollouts/0002"]
    assert offers("wm", "show", "-w", "w", "") == both
    assert offers("wm", "verify", "-w", "w", "rollouts/0001", "roll") == both
    assert offers("wm", "verify", "roll", WM_WORKSPACE=str(tmp_path / "w")) == both
    assert offers("wm", "train-vision", "-w", "w", "--from", "") == both
    assert offers("wm", "train-memory", "-w", "w", "--from", "") == [], "it reads no rollouts"
    assert offers("wm", "show", "") == [], "the default workspace is not there"


def test_settings_and_their_values(offers):
    assert offers("wm", "run", "--set", "vision.la") == [
        "vision.latent_size=",
        "vision.latent_size=32",
    ]
    assert offers("wm", "run", "--set", "vision.l") == [
        "vision.latent_size=",
        "vision.learning_rate=",
        "vision.log_every=",
    ]
    assert offers("wm", "run", "--set", "rollout.policy", "=", "hold") == ["hold", "hold-long"]
    assert offers("wm", "run", "--set", "world.engine", "=", "gymnasium-") == ["gymnasium-fast"]
    assert offers("wm", "run", "--set", "control.random_start", "=") == ["true", "false"]
    with_value = offers("wm", "run", "--set", "memory.hidden_size")
    assert with_value == ["memory.hidden_size=", "memory.hidden_size=256"]


def test_choices_of_other_options(offers):
    assert offers("wm", "train-vision", "--device", "c") == ["cpu", "cuda"]
    assert offers("wm", "play", "dr") == ["dream"]
    assert offers("wm", "run", "--track", "") == ["tensorboard"]
    assert "train-vision" in offers("wm", "bench", "")


@pytest.mark.parametrize(
    "words",
    [
        ("wm", "run", "--recipe", "missing.toml", "--preset", ""),
        ("wm", "run", "-w", "/proc/self/mem", "--from", ""),
        ("wm", "verify", "-w", "broken", ""),
        ("wm", "run", "--set", "=", "="),
        ("wm", "run", "--rounds", "many", "--preset", "\x1b["),
    ],
)
def test_a_line_that_is_wrong_is_no_error(offers, tmp_path, words):
    (tmp_path / "broken" / "rollouts").mkdir(parents=True)
    (tmp_path / "broken" / "workspace.json").write_text("{")
    assert offers(*words) == []


def test_nothing_heavy_is_loaded(tmp_path):
    script = (
        "import sys, os, atexit\n"
        "atexit.register(lambda: sys.stderr.write(repr([m for m in ('torch', 'gymnasium', 'h5py',"
        " 'cma', 'rich') if m in sys.modules])))\n"
        "from wm_cli.app import run; run([])\n"
    )
    asked = {"_WM_COMPLETE": "complete_bash", "COMP_WORDS": "wm\nshow\n", "COMP_CWORD": "2"}
    told = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(**asked),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stderr == "[]"


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("wm train-v\t", "wm train-vision "),
        ("wm rollout --preset deb\t", "wm rollout --preset debug "),
        ("wm config --set world.engine=gymnasium-f\t", "world.engine=gymnasium-fast "),
        ("wm show -w w roll\t", "wm show -w w rollouts/0001 "),
        ("wm verify -w pla\t", "wm verify -w places/"),
        ("wm run --set vision.ste\t7", "wm run --set vision.steps=7"),
    ],
)
def test_tab_is_pressed_in_a_real_bash(path, script, recorded, tmp_path, typed, line):
    (tmp_path / "w").symlink_to(recorded)
    (tmp_path / "places").mkdir()
    leader, follower = pty.openpty()
    shell = subprocess.Popen(
        [BASH, "--norc", "--noprofile", "-i"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=tmp_path,
        env=environment(PATH=path, TERM="dumb", PS1="ready> ", INPUTRC="/dev/null"),
        start_new_session=True,
    )
    os.close(follower)
    try:
        os.write(leader, f"source {script}; echo 'so''urced'\n".encode())
        _read_until(leader, "sourced\r\n")
        os.write(leader, typed.encode())
        said = _read_until(leader, line)
        assert line in said
    finally:
        shell.kill()
        shell.wait()
        os.close(leader)


def _read_until(handle: int, wanted: str, seconds: float = 20) -> str:
    """What the terminal shows, without what rings and moves the cursor."""
    said, end = "", time.monotonic() + seconds
    while wanted not in said and time.monotonic() < end:
        if select.select([handle], [], [], 0.2)[0]:
            said += os.read(handle, 65536).decode(errors="replace")
            said = re.sub(r"\x07|\x1b\[[?0-9;]*[a-zA-Z]", "", said)
    return said


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_answered_in_their_own_way(shell, tmp_path):
    """By the protocol of typer's scripts; the shells themselves need not be there."""
    asked = {"_WM_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "wm run --preset qu"}
    asked["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    told = subprocess.run(
        [sys.executable, "-m", "wm_cli"],
        env=environment(**asked),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stderr == ""
    assert "quick" in told.stdout
