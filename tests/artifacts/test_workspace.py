import json
import pickle
import shutil

import pytest
from artifact_samples import (
    certificate,
    commit,
    identity,
    new_workspace,
    run_python,
    sample_files,
)

from stages.artifacts.manifest import ParentRef
from stages.artifacts.workspace import Workspace
from stages.errors import (
    ArtifactDamaged,
    EnvironmentLacks,
    InputMissing,
    InputsMismatch,
    StageError,
    UsageError,
)

RECIPE = {
    "name": "carracing",
    "family": "world-models",
    "description": "drive",
    "default_preset": "quick",
    "tables": {"world": {"env": "CarRacing-v3"}},
    "presets": {"quick": {"memory": {"steps": 4}}},
    "authors": {"world.env": "carracing"},
}
SETTINGS = {
    "recipe": RECIPE,
    "preset": "quick",
    "seed": 3,
    "overrides": ["memory.learning_rate=1e-3"],
    "engine": "gymnasium",
}


def test_settings_are_inherited(tmp_path):
    assert not Workspace.exists(tmp_path / "workspace")
    workspace = new_workspace(tmp_path)
    assert workspace.settings() is None
    settings = SETTINGS
    with workspace.settings_lock:
        workspace.store_settings(settings)
    assert new_workspace(tmp_path).settings() == settings
    assert Workspace.exists(workspace.root)


def test_artifacts_are_numbered_in_order_and_found(tmp_path):
    workspace = new_workspace(tmp_path)
    one, two = commit(workspace, number=1), commit(workspace, number=2)
    again = commit(workspace, number=1)
    assert [one.id, two.id, again.id] == ["rollouts/0001", "rollouts/0002", "rollouts/0003"]
    assert workspace.artifacts("rollouts") == [one, two, again]
    assert workspace.newest("rollouts") == again
    assert workspace.get("rollouts/0002") == workspace.get("rollouts/2") == two
    assert workspace.matching("rollouts", identity(number=2)) == two
    assert workspace.matching("rollouts", identity(number=1)) == again
    assert workspace.matching("rollouts", identity(number=9)) is None
    assert workspace.partials("rollouts") == []
    assert one.manifest.payload_digest == again.manifest.payload_digest  # same files
    assert (one.path / "metrics.jsonl").read_bytes() == sample_files()["metrics.jsonl"]


def test_a_workspace_may_be_moved_and_read_only_by_copy(tmp_path):
    artifact = commit(new_workspace(tmp_path))
    moved = shutil.move(tmp_path / "workspace", tmp_path / "Übung (kopie) 2")
    found = Workspace.open(moved).get("rollouts/1")
    assert found.manifest == artifact.manifest
    assert found.file("weights.safetensors").is_relative_to(moved)


def test_parents_are_found_by_content_whatever_their_number(tmp_path):
    workspace = new_workspace(tmp_path)
    vision = commit(workspace, "vision", files={"weights": b"v"})
    memory = commit(workspace, "memory", files={"weights": b"m"}, parents=[vision.reference()])
    reference = memory.manifest.parents[0]
    assert workspace.resolve(reference) == vision
    vision.path.rename(vision.path.with_name("0007"))
    assert workspace.resolve(reference).id == "vision/0007"
    missing = ParentRef("vision/0001", "vision", "0" * 64)
    assert workspace.holding("vision", missing.payload_digest) is None
    with pytest.raises(InputMissing) as caught:
        workspace.resolve(missing)
    assert "vision/0001" in caught.value.what and "wm train-vision" in caught.value.fix


def test_a_missing_artifact_names_what_exists_and_the_command(tmp_path):
    workspace = new_workspace(tmp_path)
    commit(workspace, "vision", files={"weights": b"v"})
    with pytest.raises(InputMissing) as caught:
        workspace.get("vision/4")
    assert "vision/4" in caught.value.what
    assert "vision/0001" in caught.value.why
    assert "wm train-vision" in caught.value.fix
    with pytest.raises(InputMissing):
        workspace.get("memory/0001")
    assert workspace.newest("memory") is None


@pytest.mark.parametrize("name", ["", "vision", "vision/", "visoin/1", "../vision/1", "vision/-1",
                                  "vision/0001/weights", "vision/../1", "/vision/1"])  # fmt: skip
def test_what_is_not_an_id_is_a_usage_error(tmp_path, name):
    with pytest.raises(UsageError) as caught:
        new_workspace(tmp_path).get(name)
    assert "vision" in caught.value.why


def test_a_numbered_folder_without_manifest_is_no_artifact_and_keeps_its_number(tmp_path):
    workspace = new_workspace(tmp_path)
    first = commit(workspace)
    stranger = first.path.with_name("0005")
    stranger.mkdir()
    assert workspace.artifacts("rollouts") == [first]
    assert commit(workspace, number=2).id == "rollouts/0006"
    assert list(stranger.iterdir()) == []


def test_a_damaged_manifest_does_not_hide_the_others(tmp_path):
    workspace = new_workspace(tmp_path)
    one, two = commit(workspace, number=1), commit(workspace, number=2)
    manifest = two.path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"debug", b"paper"))
    good, damaged = workspace.scan("rollouts")
    assert good == [one]
    assert [error.exit_code for error in damaged] == [4]
    assert "rollouts/0002" in damaged[0].what and "wm rollout --force" in damaged[0].fix
    with pytest.raises(ArtifactDamaged, match="rollouts/0002"):  # never the older one in silence
        workspace.newest("rollouts")


def test_a_partial_is_found_again_with_what_it_held(tmp_path):
    workspace = new_workspace(tmp_path)
    with workspace.lock("memory"):
        partial = workspace.begin("memory", identity("memory"))
        partial.write("checkpoint-00000010.safetensors", b"ten")
        partial.record({"threads": 2})
        partial.record({"device": "cpu"})
        partial.append("metrics.jsonl", '{"step": 1}')
        with (partial.path / "metrics.jsonl").open("ab") as file:
            file.write(b'{"st')  # a death in the middle of a line
        (partial.path / ".tmp-1-metrics.jsonl").touch()
    again = Workspace.open(workspace.root)
    with again.lock("memory"):
        found = again.begin("memory", identity("memory"))
        assert found.path == partial.path == again.partials("memory")[0]
        assert found.recorded() == {"threads": 2, "device": "cpu"}
        assert found.names() == ["checkpoint-00000010.safetensors", "metrics.jsonl"]
        assert found.names(".safetensors") == ["checkpoint-00000010.safetensors"]
        assert found.read("checkpoint-00000010.safetensors") == b"ten"
        assert found.read("absent") is None and not found.has("absent")
        assert found.lines("metrics.jsonl") == ['{"step": 1}']
        found.keep_lines("metrics.jsonl", found.lines("metrics.jsonl"))
        found.append("metrics.jsonl", '{"step": 2}')
        assert found.read("metrics.jsonl") == b'{"step": 1}\n{"step": 2}\n'
        assert again.begin("memory", identity("memory", 2)).names() == []
        found.remove("checkpoint-00000010.safetensors")
        found.discard()
    assert [path.name for path in again.partials("memory")] == [
        f".partial-{identity('memory', 2)[:16]}"
    ]


def test_only_the_payload_is_kept(tmp_path):
    workspace = new_workspace(tmp_path)
    with workspace.lock("memory"):
        partial = workspace.begin("memory", identity("memory"))
        for name in ("weights.safetensors", "checkpoint-1.safetensors"):
            partial.write(name, b"x")
        partial.record({"threads": 1})
        artifact = partial.commit(certificate("memory"), payload=["weights.safetensors"])
    assert sorted(path.name for path in artifact.path.iterdir()) == [
        "manifest.json",
        "manifest.sha256",
        "weights.safetensors",
    ]
    assert artifact.names() == ["weights.safetensors"]
    document = json.loads((artifact.path / "manifest.json").read_bytes())
    assert document["format"] == "wm-artifact" and document["format_version"] == 1


def test_work_without_the_lock_is_a_mistake_of_the_programmer(tmp_path):
    with pytest.raises(AssertionError):
        new_workspace(tmp_path).begin("memory", identity("memory"))


def test_an_artifact_can_be_sent_to_a_worker(tmp_path):
    artifact = commit(new_workspace(tmp_path))
    sent = pickle.loads(pickle.dumps(artifact))
    assert sent == artifact and sent.file("metrics.jsonl").is_file()


@pytest.mark.parametrize("create", [True, False])
def test_what_is_not_a_workspace_is_refused_and_left_alone(tmp_path, create):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="not a workspace"):
        Workspace.open(tmp_path, create=create)
    with pytest.raises(StageError):
        Workspace.open(tmp_path / "thesis.tex", create=create)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("with_work", [False, True], ids=["empty", "with work"])
def test_a_workspace_that_is_made_while_another_command_looks_is_one(
    tmp_path, monkeypatch, with_work
):
    """Two first commands of the same second: the other one finishes right after our look."""
    look, others = Workspace.exists, iter([tmp_path / "workspace"])

    def exists(root):
        there = look(root)
        if root in others:
            made = new_workspace(root.parent)
            if with_work:
                commit(made, "rollouts")
        return there

    monkeypatch.setattr(Workspace, "exists", staticmethod(exists))
    assert new_workspace(tmp_path).settings() is None
    assert list(others) == [], "it was made meanwhile"


def test_a_workspace_that_is_forgotten_while_another_command_looks_has_no_settings(
    tmp_path, monkeypatch
):
    workspace, look = new_workspace(tmp_path), Workspace.exists

    def exists(root):
        there = look(root)
        with workspace.settings_lock:
            if look(root):
                workspace.forget()
        return there

    monkeypatch.setattr(Workspace, "exists", staticmethod(exists))
    assert Workspace.stored(workspace.root) is None
    assert Workspace.stored(tmp_path / "absent") is None
    with pytest.raises(UsageError, match="not a workspace"):
        workspace.settings()


def test_a_missing_workspace_names_the_first_command(tmp_path):
    with pytest.raises(InputMissing) as caught:
        Workspace.open(tmp_path / "absent")
    assert "wm rollout" in caught.value.fix
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"format": "wm-workspace", "format_version": 2}', "version 2"),
        ('{"format": "other", "format_version": 1}', "wm-workspace"),
        ('{"format": "wm-workspace", "format_version": 1, "settings": 3}', "settings"),
        ("{", "JSON"),
    ],
)
def test_a_damaged_or_newer_workspace_file_is_refused(tmp_path, content, expected):
    workspace = new_workspace(tmp_path)
    (workspace.root / "workspace.json").write_text(content)
    with pytest.raises(ArtifactDamaged, match=expected):
        Workspace.open(workspace.root, create=True).settings()


def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence(tmp_path):
    script = """
import os, sys
from pathlib import Path
from stages.artifacts.workspace import Workspace
from stages.errors import EnvironmentLacks
root = Path(sys.argv[1])
root.mkdir(mode=0o500)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for place in (root, root / "below"):
    try:
        Workspace.open(place, create=True)
    except EnvironmentLacks as error:
        print(error.exit_code, error.what, error.why)
"""
    lines = run_python(script, tmp_path / "locked").splitlines()
    assert len(lines) == 2
    assert all("6 " in line and "Permission denied" in line for line in lines)


def test_a_file_in_place_of_a_folder_is_reported(tmp_path):
    workspace = new_workspace(tmp_path)
    (workspace.root / "rollouts").touch()
    assert workspace.artifacts("rollouts") == []
    with pytest.raises(EnvironmentLacks, match="rollouts"), workspace.lock("rollouts"):
        pass


def test_videos_have_a_folder_that_is_no_artifact(tmp_path):
    workspace = new_workspace(tmp_path)
    (workspace.videos() / "0001.mp4").touch()
    assert new_workspace(tmp_path).videos().name == "videos"


def test_work_does_not_begin_under_settings_that_another_command_has_stored(tmp_path):
    """A first command that was refused forgot its own; a third one came with others."""
    workspace = new_workspace(tmp_path)
    mine = dict(SETTINGS)
    workspace.work_with(mine)
    for change in ({"seed": 5}, {"preset": "paper"}, {"overrides": ["vision.steps=3"]}):
        with workspace.settings_lock:
            workspace.store_settings({**mine, **change})
        with workspace.lock("rollouts"), pytest.raises(InputsMismatch) as refusal:
            workspace.begin("rollouts", identity())
        ((name, value),) = change.items()
        assert f"{name}: {value} now, {mine[name]} here" in refusal.value.why
        assert workspace.partials("rollouts") == []
    with workspace.settings_lock:
        workspace.forget()
    with workspace.lock("rollouts"):
        workspace.begin("rollouts", identity())
    assert workspace.settings() == mine, "stored again"


def test_a_key_of_the_settings_file_that_nobody_knows_is_damage(tmp_path):
    """A flipped bit in the name of the digest must not make it one of an earlier version."""
    workspace = new_workspace(tmp_path)
    with workspace.settings_lock:
        workspace.store_settings(dict(SETTINGS))
    path = workspace.root / "workspace.json"
    path.write_bytes(path.read_bytes().replace(b"settings_sha256", b"settings_sha257"))
    with pytest.raises(ArtifactDamaged, match="not what was written") as refusal:
        workspace.settings()
    assert "settings_sha257" in refusal.value.why
