"""A stage that is killed or interrupted half-way and run again makes what it would have made.

Each stage runs in a copy of a finished workspace that holds its inputs alone; what it makes there
is compared with what the run that nobody stopped had made.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import (
    KINDS,
    MADE_BY,
    clear_session,
    copied,
    manifest,
    payload,
    session_members,
    settings,
    start_wm,
    wait_until,
    wm,
)

pytestmark = pytest.mark.pipeline


def files(folder: Path, pattern: str) -> int:
    return len(list(folder.glob(pattern)))


def lines(folder: Path, name: str) -> int:
    """Whole lines of a log; 0 while it is not there."""
    try:
        return (folder / name).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


# How much of a kind's work lies in its partial folder, as a share of all of it (MICRO).
DONE: dict[str, Callable[[Path], float]] = {
    "rollouts": lambda folder: files(folder, "shard-*.h5") / 8,
    "vision": lambda folder: lines(folder, "metrics.jsonl") / 5,
    "latents": lambda folder: files(folder, "shard-*.h5") / 8,
    "memory": lambda folder: lines(folder, "metrics.jsonl") / 15,
    "control": lambda folder: lines(folder, "search.jsonl") / 11,  # 8 generations, 3 selections
    "evaluations": lambda folder: files(folder, "task-*.json") / 6,
}


def stop_half_way(
    root: Path, kind: str, log: Path, stop: Callable[[int], None]
) -> tuple[int, Path]:
    """Start the stage, stop it when half of its work is on disk; its exit code and partial.

    When this returns no process of its session is left.
    """
    words = (MADE_BY[kind], "-w", root, "--workers", 2, "--checkpoint-seconds", 0)
    process = start_wm(*words, log=log)
    try:
        folder = None

        def half_done() -> bool:
            nonlocal folder
            assert process.poll() is None, f"ended before it could be stopped:\n{log.read_text()}"
            folder = folder or next((root / kind).glob(".partial-*"), None)
            return folder is not None and DONE[kind](folder) >= 0.5

        wait_until(half_done, seconds=120)
        stop(process.pid)
        code = process.wait(timeout=60)
        wait_until(lambda: not session_members(process.pid), seconds=10)
    finally:
        clear_session(process)
    assert folder is not None
    assert folder.is_dir(), "the partial is gone: the stage had finished before it was stopped"
    assert not list((root / kind).glob("[0-9]*")), "something half-made looks whole"
    return code, folder


def kill(leader: int) -> None:
    """kill -9 of the command alone: its workers have to notice by themselves."""
    os.kill(leader, signal.SIGKILL)


def kill_all(leader: int) -> None:
    os.killpg(leader, signal.SIGKILL)


def press_ctrl_c(leader: int) -> None:
    """What a terminal does: every process of the group receives it."""
    os.killpg(leader, signal.SIGINT)


def goes_on_to_the_same(root: Path, kind: str, reference: Path) -> None:
    """The same command finishes, resuming, and its payload is that of the undisturbed run."""
    done = wm(MADE_BY[kind], "-w", root, "--workers", 2, "--checkpoint-seconds", 0)
    assert "Resuming" in done.said
    name = f"{kind}/0001"
    assert payload(root, name) == payload(reference, name)
    found, expected = manifest(root, name), manifest(reference, name)
    for key in ("payload_digest", "fingerprint", "files", "summary", "seeds", "config"):
        assert found[key] == expected[key], key
    assert found["provenance"]["threads"] == expected["provenance"]["threads"]
    assert not list((root / kind).glob(".partial-*"))
    assert not list(root.rglob(".tmp-*"))


@pytest.mark.parametrize("kind", KINDS)
def test_killed_half_way_and_run_again(kind, micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "killed", before=kind)
    code, folder = stop_half_way(root, kind, tmp_path / "log", kill)
    assert code == -signal.SIGKILL
    kept = {path.name: path.read_bytes() for path in folder.glob("shard-*.h5")}
    goes_on_to_the_same(root, kind, micro_workspace)
    finished = payload(root, f"{kind}/0001")
    assert all(finished[name] == content for name, content in kept.items())


def test_killed_with_all_its_workers_and_run_again(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "killed", before="control")
    code, _ = stop_half_way(root, "control", tmp_path / "log", kill_all)
    assert code == -signal.SIGKILL
    goes_on_to_the_same(root, "control", micro_workspace)


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_half_way_and_run_again(kind, micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "interrupted", before=kind)
    code, _ = stop_half_way(root, kind, tmp_path / "log", press_ctrl_c)
    assert code == 130
    assert "same command" in " ".join((tmp_path / "log").read_text().split())
    status = wm("status", "-w", root, "--json").report
    states = {row["stage"]: row["state"] for row in status["tables"][0]["rows"]}
    assert states[MADE_BY[kind]] == "partial"
    goes_on_to_the_same(root, kind, micro_workspace)


def test_killed_in_the_final_of_a_warm_search_and_run_again(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "killed")
    plain = settings("control.components=0", "control.starts=1")
    wm("train-control", "-w", root, *plain)
    reference = copied(root, tmp_path / "reference")
    raced = settings("control.finalists=2", "control.episodes=[4]", "control.generations=3")
    words = ("train-control", "--from", "control/0002", *plain, *raced, "--workers", 2)
    process = start_wm(*words, "-w", root, log=tmp_path / "log")
    try:

        def in_a_final() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            found = list((root / "control").glob(".partial-*/pending.jsonl"))
            return bool(found) and b", final" in found[0].read_bytes()

        wait_until(in_a_final, seconds=120)
        kill(process.pid)
        process.wait(timeout=60)
    finally:
        clear_session(process)
    assert "begun with other settings" in wm("doctor", "-w", root).said  # the --set were its own
    wm(*words, "-w", root)
    wm(*words, "-w", reference)
    assert payload(root, "control/0003") == payload(reference, "control/0003")


def test_killed_before_its_first_checkpoint_training_begins_at_its_start_again(
    micro_workspace, tmp_path
):
    root = copied(micro_workspace, tmp_path / "killed")
    reference = copied(micro_workspace, tmp_path / "reference")
    words = ("train-memory", "--from", "memory/0001", "--set", "memory.steps=40")
    process = start_wm(*words, "-w", root, log=tmp_path / "log")
    try:
        wait_until(lambda: any((root / "memory").glob(".partial-*/state.json")), seconds=120)
        kill(process.pid)
        process.wait(timeout=60)
    finally:
        clear_session(process)
    wm(*words, "-w", root)
    wm(*words, "-w", reference)
    assert payload(root, "memory/0002") == payload(reference, "memory/0002")
