"""What bad input gets through the command line: its exit code, a clear sentence, nothing lost."""

import hashlib
import json
import os
import sys

import numpy as np
import pytest
from command_line import (
    MADE_BY,
    STAGES,
    copied,
    digests,
    manifest,
    settings,
    snapshot,
    wm,
)
from safetensors.numpy import load_file

pytestmark = pytest.mark.pipeline


@pytest.fixture
def workspace(micro_workspace, tmp_path):
    """A finished workspace of one's own."""
    return copied(micro_workspace, tmp_path / "workspace")


@pytest.mark.parametrize(
    ("stage", "maker"),
    [
        ("train-vision", "wm rollout"),
        ("sample-latents", "wm rollout"),
        ("train-memory", "wm sample-latents"),
        ("train-control", "wm train-vision"),
        ("evaluate", "wm train-control"),
    ],
)
def test_a_missing_input_names_the_command_that_makes_it(stage, maker, tmp_path):
    root = tmp_path / "workspace"
    done = wm(stage, "-w", root, "--preset", "debug", code=3)
    assert maker in done.said
    assert not digests(root)


def test_a_named_artifact_that_does_not_exist(workspace):
    done = wm("train-memory", "-w", workspace, "--from", "latents/0009", "--force", code=3)
    assert "latents/0009" in done.said
    assert "latents/0001" in done.said, "it tells which there are"


def test_a_memory_of_another_vision_is_refused_with_both_sides(workspace):
    wm("train-vision", "-w", workspace, "--set", "vision.steps=3")
    before = digests(workspace)
    done = wm("train-control", "-w", workspace, code=5)
    for side in ("vision/0001", "vision/0002"):
        assert side in done.said
        assert before[side][:12] in done.said
    assert digests(workspace) == before
    status = wm("status", "-w", workspace, "--json", "--set", "vision.steps=3").report
    states = {row["stage"]: row["state"] for row in status["tables"][0]["rows"]}
    assert states["train-vision"] == "fresh"
    assert states["sample-latents"] == states["train-memory"] == "stale"


def test_models_that_are_named_bring_the_latents_they_learnt_from(workspace):
    wm("train-vision", "-w", workspace, "--set", "vision.steps=3")
    wm("sample-latents", "-w", workspace)
    done = wm("train-control", "-w", workspace, "--from", "vision/0001", "--from", "memory/0001")
    assert "up to date" in done.said
    own = ("--from", "latents/0002")
    refused = wm("train-control", "-w", workspace, "--from", "vision/0001", *own, code=5)
    assert "latents/0002" in refused.said


def test_pictures_of_another_size_are_refused_with_both_sides(workspace):
    before = digests(workspace)
    done = wm("train-vision", "-w", workspace, "--set", "world.size=32", code=5)
    assert "world.size: 64 there, 32 here" in done.said
    assert digests(workspace) == before


def damage_by_cutting(path):
    path.write_bytes(path.read_bytes()[:-100])


def damage_by_one_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_by_emptying(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "reader", "damage"),
    [
        ("rollouts/0001/shard-00002.h5", "train-vision", damage_by_cutting),
        ("rollouts/0001/shard-00002.h5", "train-vision", damage_by_one_bit),
        ("vision/0001/weights.safetensors", "sample-latents", damage_by_one_bit),
        ("latents/0001/shard-00002.h5", "train-memory", damage_by_one_bit),
        ("memory/0001/weights.safetensors", "train-control", damage_by_emptying),
        ("control/0001/weights.safetensors", "evaluate", damage_by_cutting),
    ],
)
def test_an_altered_file_is_named_and_never_used(name, reader, damage, workspace):
    before = digests(workspace)
    damage(workspace / name)
    done = wm(reader, "-w", workspace, "--force", code=4)
    assert name in done.said
    assert f"wm {MADE_BY[name.split('/')[0]]}" in done.said, "it tells how to make it again"
    assert digests(workspace) == before
    report = wm("verify", "-w", workspace, "--json", code=4).report
    damaged = [row["artifact"] for row in report["tables"][0]["rows"] if row["state"] == "damaged"]
    assert damaged == [name.rpartition("/")[0]]


def test_a_manifest_of_a_newer_format_is_refused(workspace):
    folder = workspace / "vision/0001"
    content = json.loads((folder / "manifest.json").read_bytes()) | {"format_version": 99}
    written = json.dumps(content).encode()
    (folder / "manifest.json").write_bytes(written)
    digest = hashlib.sha256(written).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")
    done = wm("sample-latents", "-w", workspace, "--force", code=4)
    assert "vision/0001" in done.said
    assert "version 99" in done.said


def test_an_altered_manifest_is_refused(workspace):
    path = workspace / "memory/0001/manifest.json"
    path.write_text(path.read_text().replace('"hidden_size": 16', '"hidden_size": 17', 1))
    done = wm("train-control", "-w", workspace, "--force", code=4)
    assert "memory/0001" in done.said


def test_a_workspace_of_a_newer_format_is_refused(workspace):
    path = workspace / "workspace.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
    done = wm("rollout", "-w", workspace, code=4)
    assert "version 2" in done.said


@pytest.mark.parametrize(
    ("env", "near"), [("CarRacing-v9", "CarRacing-v3"), ("CarRasing-v3", "CarRacing-v3")]
)
def test_an_unknown_environment_is_answered_with_the_nearest(env, near, tmp_path):
    done = wm("rollout", "-w", tmp_path / "w", "--set", f"world.env={env}", code=2)
    assert env in done.said
    assert near in done.said
    assert not digests(tmp_path / "w")


HIDING = """
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in {packages!r}:
            return PathFinder.find_spec(name, path, target)

import sys
sys.meta_path[:] = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.mark.parametrize(
    ("package", "words", "fix"),
    [
        ("envpool", ["--set", "world.engine=envpool"], 'pip install "wm-pixels[fast]"'),
        ("ale_py", ["--recipe", "breakout"], "pip install ale-py"),
    ],
)
def test_a_missing_package_is_answered_with_the_command_that_installs_it(
    package, words, fix, tmp_path
):
    (tmp_path / "sitecustomize.py").write_text(HIDING.format(packages={package}))
    path = os.pathsep.join([str(tmp_path), *sys.path])
    words = ["rollout", "-w", tmp_path / "w", "--preset", "debug", *words]
    done = wm(*words, code=6, PYTHONPATH=path)
    assert fix in done.said
    assert not digests(tmp_path / "w")


def test_a_workspace_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = wm("rollout", "-w", tmp_path / "file" / "workspace", "--preset", "debug", code=6)
    assert str(tmp_path / "file") in done.said
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_workspace_that_must_not_be_written(workspace):
    workspace.chmod(0o555)
    try:
        done = wm("rollout", "-w", workspace, "--force", code=6)
    finally:
        workspace.chmod(0o755)
    assert "--workspace" in done.said


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    before = snapshot(tmp_path)
    done = wm("rollout", "-w", tmp_path, "--preset", "debug", code=2)
    assert "thesis.tex" in done.said
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("workers", ["0", "-3", "many"])
def test_a_wrong_number_of_workers_is_refused(workers, tmp_path):
    done = wm("rollout", "-w", tmp_path / "w", "--workers", workers, code=2)
    assert "--workers" in done.said
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_made_from_a_wrong_key(stage, tmp_path):
    done = wm(stage, "-w", tmp_path / "w", "--set", "vision.learningrate=1", code=2)
    assert "vision.learning_rate" in done.said
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(("kind", "section"), [("vision", "vision"), ("memory", "memory")])
def test_an_absurd_learning_rate_stops_and_keeps_the_last_good_state(kind, section, workspace):
    before = digests(workspace)
    absurd = settings(f"{section}.learning_rate=1e30", f"{section}.steps=60")
    words = (MADE_BY[kind], "-w", workspace, "--checkpoint-seconds", 0, *absurd)
    done = wm(*words, code=8)
    assert f"{section} step" in done.said, "it tells where"
    assert "last good state is kept" in done.said
    assert f"--set {section}.learning_rate=1e+29" in done.said, "it tells what to try"
    assert digests(workspace) == before
    (partial,) = (workspace / kind).glob(".partial-*")
    for path in partial.glob("step-*.safetensors"):
        assert all(np.isfinite(array).all() for array in load_file(path).values())
    wm("verify", "-w", workspace)
    sane = settings(f"{section}.learning_rate=1e-4", f"{section}.steps=3")
    wm(MADE_BY[kind], "-w", workspace, *sane)
    assert manifest(workspace, f"{kind}/0002")["config"][section]["steps"] == 3
