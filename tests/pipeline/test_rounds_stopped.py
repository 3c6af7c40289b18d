"""Rounds of `wm run` that are stopped, damaged, refused, or dreamt."""

import json
import os
import shutil

import pytest
from command_line import (
    KINDS,
    STAGES,
    clear_session,
    copied,
    digests,
    session_members,
    settings,
    start_wm,
    wait_until,
    wm,
)
from round_samples import FIRST, parents, rows

pytestmark = pytest.mark.pipeline


@pytest.mark.parametrize(
    ("kind", "begun", "stop"),
    [
        ("rollouts", "shard-*.h5", "kill"),
        ("vision", "metrics.jsonl", "int"),
        ("control", "search.jsonl", "kill"),
    ],
)
def test_stopped_inside_a_later_round_and_run_again(kind, begun, stop, two_rounds, tmp_path):
    """Everything of round 2 from this stage on is made anew, with a stop in the middle."""
    root = copied(two_rounds, tmp_path / "stopped")
    for later in KINDS[KINDS.index(kind) :]:
        shutil.rmtree(root / later / "0002")
    words = ("run", "-w", root, "--rounds", 2, "--workers", 2, "--checkpoint-seconds", 0)
    process = start_wm(*words, log=tmp_path / "log")
    try:
        wait_until(lambda: list((root / kind).glob(f".partial-*/{begun}")), seconds=120)
        for pid in session_members(process.pid):
            if stop == "kill" or pid == process.pid:
                os.kill(pid, 9 if stop == "kill" else 2)
        process.wait(timeout=60)
        wait_until(lambda: not session_members(process.pid), seconds=20)
    finally:
        clear_session(process)
    if stop == "int":
        assert process.returncode == 130
    assert not (root / kind / "0002").exists()
    state = {
        (row["stage"], row["round"]): row["state"]
        for row in rows(wm("status", "-w", root, "--json").report, "Stages")
    }
    assert state[STAGES[KINDS.index(kind)], 2] == "partial"
    assert state[STAGES[KINDS.index(kind)], 1] == "fresh"
    assert "The same command goes on with it" in wm("doctor", "-w", root).said
    done = wm("run", "-w", root, "--workers", 2)  # those that were begun, by themselves
    assert "Resuming" in done.said
    assert digests(root) == digests(two_rounds)


def test_stopped_between_two_rounds_the_same_command_goes_on(two_rounds, tmp_path):
    root = copied(two_rounds, tmp_path / "between")
    for kind in KINDS:
        shutil.rmtree(root / kind / "0002")
    assert wm("run", "-w", root, "--json").report["artifact"] == "evaluations/0001"
    assert wm("run", "-w", root, "--rounds", 2, "--json").report["artifact"] == "evaluations/0002"
    assert digests(root) == digests(two_rounds)


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rounds", 0), "--rounds"),
        (("--rounds", -1), "--rounds"),
        (("--rounds", "many"), "--rounds"),
        (("--rounds", 2, "--set", "control.components=4"), "--set control.components=0"),
        (("--set", "rounds.num_rounds=2", "--set", "control.components=4"), "components=0"),
        (("--set", "rounds.episodes=-1"), "rounds.episodes"),
        (("--rounds", 2, "--force"), "--force"),
        (("--rounds", 2, "--from", "vision/0001"), "--from"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(words, said, tmp_path):
    root = tmp_path / "workspace"
    refused = wm("run", "-w", root, "--preset", "debug", *words, code=2)
    assert said in refused.said
    assert not list(root.glob("*/*"))
    assert not (root / "workspace.json").exists(), "nothing of it is kept"


def test_one_round_may_move_along_components(micro_workspace):
    assert wm("run", "-w", micro_workspace, "--rounds", 1, "--json").report["up_to_date"] is True
    refused = wm("run", "-w", micro_workspace, "--rounds", 2, code=2)
    assert "principal components" in refused.said


def test_the_number_of_rounds_may_be_a_setting(two_rounds):
    report = wm("status", "-w", two_rounds, "--set", "rounds.num_rounds=3", "--json").report
    last = [(row["stage"], row["state"]) for row in rows(report, "Stages") if row["round"] == 3]
    assert last == [(stage, "missing") for stage in STAGES]
    assert report["up_to_date"] is False


def test_a_damaged_artifact_of_a_round_comes_back_by_running_again(two_rounds, tmp_path):
    root = copied(two_rounds, tmp_path / "damaged")
    (root / "memory/0002/weights.safetensors").write_bytes(b"")
    refused = wm("run", "-w", root, code=4)
    assert f"remove {root / 'memory/0002'}" in refused.said
    shutil.rmtree(root / "memory/0002")
    wm("run", "-w", root)
    assert digests(root) == digests(two_rounds)


# --------------------------------------------------------------------------------- in the dream


def test_rounds_in_the_dream(tmp_path):
    """V and M learn from what the dreamt controller did in the world; both returns are told."""
    root = tmp_path / "dream"
    dream = settings("control.place=dream", "control.dream_steps=15", "memory.reward_head=true",
                     "memory.end_head=true")  # fmt: skip
    words = ("run", "-w", root, *FIRST, *dream, "--rounds", 2, "--workers", 2)
    report = wm(*words, "--json").report
    assert parents(root, "control/0002") == [
        "vision/0002", "memory/0002", "latents/0002", "control/0001",
    ]  # fmt: skip
    for number, row in enumerate(rows(report, "Rounds"), 1):
        log = (root / f"control/000{number}/search.jsonl").read_text().splitlines()
        scored = [record for line in log if "dreamt" in (record := json.loads(line))]
        best = max(scored, key=lambda record: sum(record["selection"]))
        assert row["dreamt"] == pytest.approx(sum(best["dreamt"]) / len(best["dreamt"]))
        assert row["selected"] == pytest.approx(sum(best["selection"]) / len(best["selection"]))
    assert wm(*words, "--json").report["up_to_date"] is True
