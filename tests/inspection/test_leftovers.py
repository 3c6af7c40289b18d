"""What a crash left is found, with its size, and with the command that goes on with it."""

import os
import shlex
import time

import pytest
from command_line import copied
from leftover_samples import begin, cut_commit, found_in, total_bytes

from stages import stage_named
from stages.events import Silent
from stages.inspection.leftovers import advice, leftovers
from stages.pipeline import Request, prepare, verb

CHANGES = (
    "world.engine=gymnasium",
    "rollout.episodes=2",
    "rollout.max_steps=3",
    "rollout.gymnasium_episodes=0",
)


def test_unfinished_work_is_measured(workspace, dead):
    path = begin(workspace)
    (path / f".tmp-{dead}-shard-00003.h5").write_bytes(b"x" * 500)
    for entry in [*path.iterdir(), path]:
        os.utime(entry, (0, time.time() - 3600))
    os.utime(path / "shard-00001.h5", (0, time.time() - 1800))
    [one] = leftovers(workspace)
    assert (one.what, one.path) == ("unfinished work", path)
    assert one.size.files == 3, "shards, not the state, the digests and the temporary"
    assert one.size.bytes == total_bytes(path) > 12_500
    assert 1800 <= one.age < 1900, "of what was written last"


def test_finished_work_that_has_rotted_is_no_more_than_unfinished(workspace):
    path = cut_commit(workspace)
    shard = path / "shard-00001.h5"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    assert found_in(workspace) == {f"rollouts/{path.name}": "unfinished work"}


@pytest.fixture
def settled(workspace):
    """The same workspace, with settings; and the fingerprint of its rollout."""
    prepared = prepare(
        workspace.root, Request(preset="debug", overrides=CHANGES), progress=Silent()
    )
    stage = stage_named("rollout")
    plan = verb(stage).plan(prepared.workspace, prepared.config(stage), prepared.job)
    return prepared.workspace, plan.fingerprint


def test_the_command_that_goes_on_is_told_apart_from_one_that_would_not(settled):
    workspace, key = settled
    mine, other = begin(workspace, key=key), begin(workspace)
    told = advice(workspace, leftovers(workspace))
    root = str(workspace.root)
    assert told[mine][0] == "The same command goes on with it."
    assert shlex.split(told[mine][1]) == ["wm", "rollout", "-w", root]
    assert "other settings or inputs" in told[other][0]
    assert "one with the same options goes on with it" in told[other][0]
    assert told[other][1] == "", "to remove it is no advice: somebody may want it"


def test_advice_survives_damaged_settings_and_states(settled):
    workspace, key = settled
    path = begin(workspace, key=key)
    for content in (b"{", b"[1]", b'{"from": 3}', b'{"from": ["../../etc"]}', b"\xff"):
        (path / "state.json").write_bytes(content)
        assert advice(workspace, leftovers(workspace))[path][1].startswith("wm ")
    (workspace.root / "workspace.json").write_bytes(b"{")
    because, fix = advice(workspace, leftovers(workspace))[path]
    assert "cannot be read" in because and fix == ""


@pytest.mark.pipeline
def test_work_that_started_from_an_artifact_is_found_again_by_its_name(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "warm")
    prepared = prepare(root, Request(parents=("vision/0001",)), progress=Silent())
    stage = stage_named("train-vision")
    plan = verb(stage).plan(prepared.workspace, prepared.config(stage), prepared.job)
    path = begin(prepared.workspace, "vision", key=plan.fingerprint, starts=["vision/0001"])
    because, fix = advice(prepared.workspace, leftovers(prepared.workspace))[path]
    assert because == "The same command goes on with it."
    assert fix == f"wm train-vision -w {root} --from vision/0001"
