"""Two `wm` in one place: one of them does the work, and the other says who does."""

import json
import os
import re
import signal

import pytest
from command_line import (
    clear_session,
    copied,
    digests,
    manifest,
    session_members,
    settings,
    start_wm,
    wait_until,
    wm,
)

pytestmark = pytest.mark.pipeline
SLOW = settings("rollout.episodes=40", "rollout.max_steps=200", "rollout.task_episodes=1")


def test_first_commands_of_the_same_second_do_not_mix_their_settings(tmp_path):
    """Each asks for another seed; whoever binds the workspace, everything in it has that seed."""
    root = tmp_path / "w"
    words = ("rollout", "-w", root, "--preset", "debug", "--workers", 1)
    words += tuple(settings("rollout.episodes=2", "rollout.max_steps=8"))
    processes = [
        start_wm(*words, "--seed", seed, log=tmp_path / f"log-{seed}") for seed in range(1, 5)
    ]
    try:
        codes = [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            clear_session(process)
    said = {seed: (tmp_path / f"log-{seed}").read_text() for seed in range(1, 5)}
    assert set(codes) <= {0, 7} and 0 in codes, said
    stored = json.loads((root / "workspace.json").read_bytes())["settings"]["seed"]
    assert codes[stored - 1] == 0 or "Another run holds rollout" in said[stored]
    for name in digests(root):
        seed = manifest(root, name)["config"]["seed"]
        assert codes[seed - 1] == 0
    for seed, code in enumerate(codes, start=1):
        if seed != stored:  # it says that the seed is for this command only
            assert f"seed {stored} -> {seed}" in " ".join(said[seed].split()), said[seed]
        if code == 7:
            assert "Another run holds rollout" in said[seed]
    assert wm("verify", "-w", root).code == 0
    assert not [*root.rglob(".tmp-*"), *root.rglob(".partial-*")]


@pytest.fixture
def working(tmp_path):
    """A rollout in progress, and where."""
    root = tmp_path / "w"
    process = start_wm(
        "rollout", "-w", root, "--preset", "debug", "--workers", 1, *SLOW, log=tmp_path / "log"
    )
    try:
        wait_until(lambda: list(root.glob("rollouts/.partial-*/shard-*.h5")), seconds=180)
        yield root, process
    finally:
        clear_session(process)


def test_the_second_run_is_told_who_and_since_when_and_readers_are_not_blocked(working):
    root, process = working
    done = wm("rollout", "-w", root, code=7)
    assert re.search(rf"process {process.pid} on \S+ since \d{{4}}-\d\d-\d\dT\d\d:\d\d", done.said)
    assert wm("verify", "-w", root).code == 0
    states = {
        row["stage"]: row for row in wm("status", "-w", root, "--json").report["tables"][0]["rows"]
    }
    assert states["rollout"]["state"] == "running"
    assert process.poll() is None


def test_what_a_dead_run_held_is_free_at_once_and_doctor_tells_who_it_was(working):
    root, process = working
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    wait_until(lambda: not session_members(process.pid), seconds=10)
    assert f"process {process.pid}" in wm("doctor", "-w", root).said
    again = wm("rollout", "-w", root, "--workers", 2)
    assert "Resuming" in again.said
    assert f"process {process.pid}" not in wm("doctor", "-w", root).said


def test_different_stages_run_together(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "w")
    processes = [
        start_wm(stage, "-w", root, "--force", "--workers", 1, log=tmp_path / stage)
        for stage in ("train-vision", "rollout", "evaluate")
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            clear_session(process)
    for kind in ("vision", "rollouts", "evaluations"):
        first, second = (manifest(root, f"{kind}/000{n}")["payload_digest"] for n in (1, 2))
        assert first == second
