"""What later commands inherit, what they may change, and what makes another artifact."""

import json

import pytest
from command_line import (
    MICRO,
    copied,
    digests,
    manifest,
    payload,
    settings,
    snapshot,
    wm,
)

pytestmark = pytest.mark.pipeline


@pytest.fixture
def workspace(micro_workspace, tmp_path):
    """A finished workspace of one's own."""
    return copied(micro_workspace, tmp_path / "workspace")


def values(*words) -> dict[str, tuple[str, str]]:
    """Key -> (value, who chose it), as `wm config` tells."""
    rows = wm("config", *words, "--json").report["tables"][0]["rows"]
    return {row["key"]: (row["value"], row["origin"]) for row in rows}


def test_later_commands_inherit_recipe_preset_seed_and_keys(micro_workspace):
    summary = wm("status", "-w", micro_workspace, "--json").report["summary"]
    assert summary == {"recipe": "carracing", "preset": "debug", "seed": 7}
    found = {key: value for key, (value, _) in values("-w", micro_workspace).items()}
    for word in MICRO:
        key, _, value = word.partition("=")
        assert found[key] == value
    assert found["vision.learning_rate"] == "0.001", "the preset's"
    assert found["memory.window"] == "0", "the default"
    for kind in ("rollouts", "vision", "memory", "control"):
        made = manifest(micro_workspace, f"{kind}/0001")
        assert (made["recipe"], made["preset"], made["config"]["seed"]) == ("carracing", "debug", 7)


def test_an_option_holds_for_its_own_command_alone(workspace):
    done = wm("rollout", "-w", workspace, "--seed", 8, "--episodes", 2)
    assert "seed 7 -> 8" in done.said
    made = manifest(workspace, "rollouts/0002")
    assert made["config"]["seed"] == 8
    assert made["config"]["rollout"]["episodes"] == 2
    found = values("-w", workspace)
    assert (found["seed"][0], found["rollout.episodes"][0]) == ("7", "8")
    assert wm("rollout", "-w", workspace, "--json").report["up_to_date"] is True


def test_another_recipe_is_refused_and_nothing_changes(micro_workspace):
    before = snapshot(micro_workspace)
    for command in ("run", "rollout", "config"):
        done = wm(command, "-w", micro_workspace, "--recipe", "breakout", code=5)
        assert "carracing" in done.said
        assert "breakout" in done.said
    assert wm("status", "-w", micro_workspace, "--recipe", "carracing", "--json").report
    assert snapshot(micro_workspace) == before


RECIPE = """
name = "mine"
extends = "carracing"
description = "carracing with shorter episodes"

[world]
repeat = 8

[presets.debug.rollout]
episodes = 2
gymnasium_episodes = 0
max_steps = 10
"""


def test_a_recipe_file_of_ones_own_works_anywhere_and_is_kept(tmp_path):
    file = tmp_path / "elsewhere" / "my recipe.toml"
    file.parent.mkdir()
    file.write_text(RECIPE)
    root = tmp_path / "workspace"
    wm("rollout", "-w", root, "--recipe", "elsewhere/my recipe.toml", "--preset", "debug",
       cwd=tmp_path)  # fmt: skip
    made = manifest(root, "rollouts/0001")
    assert (made["recipe"], made["family"]) == ("mine", "world-models")
    assert made["config"]["world"]["repeat"] == 8
    assert made["config"]["world"]["crop"] == [0, 84, 0, 96], "what it extends still holds"
    assert made["summary"]["episodes"] == 2
    file.write_text(RECIPE.replace("episodes = 2", "episodes = 3"))
    wm("rollout", "-w", root, "--recipe", file)  # the file was edited, and is followed
    assert manifest(root, "rollouts/0002")["summary"]["episodes"] == 3
    file.unlink()
    assert wm("rollout", "-w", root, "--json").report["artifact"] == "rollouts/0002"


def test_a_workspace_keeps_its_copy_of_a_shipped_recipe(tmp_path):
    root = tmp_path / "workspace"
    wm("rollout", "-w", root, "--preset", "debug", "--set", "rollout.policy=no-such", code=2)
    wm("rollout", "-w", root, "--preset", "debug", *settings("rollout.episodes=1",
       "rollout.max_steps=2"))  # fmt: skip
    record = json.loads((root / "workspace.json").read_text())
    record["settings"]["recipe"]["presets"]["debug"]["evaluate"]["episodes"] = 77
    del record["settings_sha256"]  # as earlier versions wrote it
    (root / "workspace.json").write_text(json.dumps(record))
    assert values("-w", root, "--recipe", "carracing")["evaluate.episodes"][0] == "77"
    done = wm("config", "-w", root, "--recipe", "carracing")
    assert "own copy" in " ".join(done.err.split())


def test_force_makes_another_one_that_is_equal(workspace):
    before = digests(workspace)
    report = wm("sample-latents", "-w", workspace, "--force", "--json").report
    assert (report["artifact"], report["up_to_date"]) == ("latents/0002", False)
    after = digests(workspace)
    assert after == before | {"latents/0002": before["latents/0001"]}
    assert wm("run", "-w", workspace, "--json").report["up_to_date"] is True, "equal inputs"


def test_a_changed_key_makes_its_stage_and_what_follows_anew(workspace):
    words = settings("control.generations=2")
    report = wm("run", "-w", workspace, *words, "--json").report
    states = {row["stage"]: row["state"] for row in report["tables"][0]["rows"]}
    assert states == {
        "rollout": "up to date",
        "train-vision": "up to date",
        "sample-latents": "up to date",
        "train-memory": "up to date",
        "train-control": "made",
        "evaluate": "made",
    }
    control, evaluation = (manifest(workspace, f"{k}/0002") for k in ("control", "evaluations"))
    parents = {parent["kind"]: parent for parent in evaluation["parents"]}
    assert parents["control"]["payload_digest"] == control["payload_digest"]
    back = wm("run", "-w", workspace, "--json").report
    assert back["up_to_date"] is True
    assert back["artifact"] == "evaluations/0001"


def test_a_controller_drives_the_next_rollout(workspace):
    report = wm("rollout", "-w", workspace, "--set", "rollout.policy=control/0001", "--json").report
    assert report["artifact"] == "rollouts/0002"
    made = manifest(workspace, "rollouts/0002")
    assert [parent["id"] for parent in made["parents"]] == [
        "control/0001",
        "vision/0001",
        "memory/0001",
    ]
    assert payload(workspace, "rollouts/0002") != payload(workspace, "rollouts/0001")
    wm("train-vision", "-w", workspace, "--from", "rollouts/0001", "--from", "rollouts/0002",
       *settings("vision.steps=3"))  # fmt: skip
    parents = manifest(workspace, "vision/0002")["parents"]
    assert [parent["id"] for parent in parents] == ["rollouts/0001", "rollouts/0002"]
    assert manifest(workspace, "vision/0002")["summary"]["train_episodes"] >= 9


def test_a_rollout_does_not_depend_on_the_number_of_workers(tmp_path):
    words = ["--preset", "debug", "--seed", 3, *settings("rollout.max_steps=20")]
    for workers in (1, 4):
        wm("rollout", "-w", tmp_path / str(workers), "--workers", workers, *words)
    one, four = (tmp_path / str(workers) for workers in (1, 4))
    assert digests(one) == digests(four)
    assert payload(one, "rollouts/0001") == payload(four, "rollouts/0001")
    assert len([name for name in payload(one, "rollouts/0001") if name.endswith(".h5")]) == 3


@pytest.mark.parametrize("stage", ["sample-latents", "train-control", "evaluate"])
def test_other_stages_do_not_depend_on_the_number_of_workers(stage, micro_workspace, tmp_path):
    kind = {"sample-latents": "latents", "train-control": "control", "evaluate": "evaluations"}[
        stage
    ]
    root = copied(micro_workspace, tmp_path / "workspace", before=kind)
    wm(stage, "-w", root, "--workers", 1)
    assert payload(root, f"{kind}/0001") == payload(micro_workspace, f"{kind}/0001")
