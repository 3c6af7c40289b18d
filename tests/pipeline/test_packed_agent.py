"""`wm export agent`, `wm evaluate --agent`: an agent that leaves its workspace drives as before."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import MICRO, copied, digests, manifest, payload, settings, snapshot, wm
from safetensors.numpy import load_file, save_file

from stages.agents import packed_agent
from stages.artifacts.agent_folder import load_agent
from stages.errors import ArtifactDamaged

pytestmark = pytest.mark.pipeline

SHORT = settings(*(key for key in MICRO if key.startswith("evaluate.")))
FILES = {"vision.safetensors", "memory.safetensors", "control.safetensors"}


def told(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_bytes())


def seal(folder: Path, found: dict) -> None:
    """Write a manifest with both of its digests brought up to date, as a forger would."""
    for entry in found["files"]:
        content = (folder / entry["name"]).read_bytes()
        entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    lines = [f"{one['name']} {one['bytes']} {one['sha256']}\n" for one in found["files"]]
    found["payload_digest"] = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    content = json.dumps(found).encode()
    (folder / "manifest.json").write_bytes(content)
    line = f"{hashlib.sha256(content).hexdigest()}  manifest.json\n"
    (folder / "manifest.sha256").write_text(line)


def with_weights(workspace: Path, kind: str, change) -> None:
    """Change the weights of an artifact, and its digest wherever a manifest names it."""
    folder = workspace / kind / "0001"
    tensors = load_file(folder / "weights.safetensors")
    save_file({n: change(v) for n, v in tensors.items()}, folder / "weights.safetensors")
    before, found = told(folder)["payload_digest"], told(folder)
    seal(folder, found)
    for path in workspace.glob("*/0001/manifest.json"):
        child = told(path.parent)
        for parent in child["parents"]:
            if parent["payload_digest"] == before:
                parent["payload_digest"] = found["payload_digest"]
        seal(path.parent, child)


@pytest.fixture(scope="module")
def packed(micro_workspace, tmp_path_factory) -> Path:
    """The agent of the finished workspace."""
    folder = tmp_path_factory.mktemp("agents") / "car"
    wm("export", "agent", folder, "-w", micro_workspace)
    return folder


@pytest.fixture(scope="module")
def scored(packed, tmp_path_factory) -> Path:
    """A new workspace in which that agent was scored, and nothing else was ever made."""
    root = tmp_path_factory.mktemp("scored") / "workspace"
    wm("evaluate", "--agent", packed, "-w", root, *SHORT)
    return root


@pytest.fixture
def agent(packed, tmp_path) -> Path:
    """A copy of the agent, to be changed."""
    return Path(shutil.copytree(packed, tmp_path / "agents" / "car"))


def test_v_and_m_are_rounded_to_float16_and_c_is_not(packed, micro_workspace):
    assert {path.name for path in packed.iterdir()} == {*FILES, "manifest.json", "manifest.sha256"}
    for kind, wanted in (("vision", np.float16), ("memory", np.float16), ("control", np.float32)):
        exact = load_file(micro_workspace / kind / "0001" / "weights.safetensors")
        found = load_file(packed / f"{kind}.safetensors")
        assert found.keys() == exact.keys()
        for name, values in exact.items():
            assert found[name].dtype == wanted
            np.testing.assert_array_equal(found[name], values.astype(wanted))


def test_the_manifest_tells_where_the_agent_comes_from(packed, micro_workspace):
    found, held = told(packed), digests(micro_workspace)
    assert [(one["id"], one["payload_digest"]) for one in found["parents"]] == [
        (name, held[name]) for name in ("control/0001", "vision/0001", "memory/0001")
    ]
    control = manifest(micro_workspace, "control/0001")
    for key in ("family", "recipe", "preset", "seeds"):
        assert found[key] == control[key]
    assert found["kind"] == "agents"
    assert found["config"] == {"world": control["config"]["world"], "seed": 7}
    summary = found["summary"]
    for key in ("pilot", "generations", "frames", "engine"):
        assert summary[key] == control["summary"][key]
    assert summary["engines"] == manifest(micro_workspace, "vision/0001")["summary"]["engines"]
    scores = manifest(micro_workspace, "evaluations/0001")["summary"]
    assert summary["evaluation"] == {
        "weights": "float32",
        "payload_digest": held["evaluations/0001"],
        "max_steps": 12,
        **{key: scores[key] for key in ("mean", "stderr", "episodes", "engine")},
    }


def test_packing_again_gives_the_same_bytes(packed, micro_workspace, tmp_path):
    wm("export", "agent", tmp_path / "again", "-w", micro_workspace, "--from", "control/0001")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (packed / name).read_bytes()
    one, other = told(tmp_path / "again"), told(packed)
    assert one.pop("provenance") and other.pop("provenance")
    assert one == other


def test_an_agent_that_is_there_is_never_lost(agent, micro_workspace, tmp_path):
    before = snapshot(agent)
    again = wm("export", "agent", agent, "-w", micro_workspace, "--json").report
    assert again["up_to_date"] is True
    assert snapshot(agent) == before
    other = copied(micro_workspace, tmp_path / "other", before="evaluations")
    refused = wm("export", "agent", agent, "-w", other, code=2)
    assert "--force" in refused.said
    assert snapshot(agent) == before
    wm("export", "agent", agent, "-w", other, "--force")
    assert told(agent)["summary"]["evaluation"] is None
    (agent / "vision.safetensors").write_bytes(b"cut")
    assert "--force" in wm("export", "agent", agent, "-w", other, code=4).said
    wm("export", "agent", agent, "-w", other, "--force")
    assert (agent / "vision.safetensors").stat().st_size > 8_000_000


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("agent", "{workspace}/agents/mine"), 2),
        (("agent", "{folder}"), 2),
        (("agent", "{folder}/new", "--from", "vision/0001"), 2),
        (("agent", "{folder}/new", "--from", "control/9"), 3),
        (("agent", "{folder}/new", "-w", "{folder}/none"), 3),
        (("wheel", "{folder}/new"), 2),
    ],
)
def test_what_cannot_be_packed_is_refused_and_nothing_is_made(
    words, code, micro_workspace, tmp_path
):
    before = snapshot(micro_workspace)
    line = [word.format(workspace=micro_workspace, folder=tmp_path) for word in words]
    place = () if "-w" in line else ("-w", micro_workspace)
    wm("export", *line, *place, code=code)
    assert snapshot(micro_workspace) == before
    assert not list(tmp_path.iterdir())


def test_weights_beyond_float16_are_not_packed(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "workspace")
    with_weights(root, "memory", lambda values: values + np.float32(70_000))
    assert "float16" in wm("export", "agent", tmp_path / "agent", "-w", root, code=8).said
    assert [path.name for path in tmp_path.iterdir()] == ["workspace"]


def test_it_scores_as_a_workspace_whose_weights_were_rounded(scored, micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "rounded", before="evaluations")
    for kind in ("vision", "memory"):
        with_weights(root, kind, lambda values: values.astype(np.float16).astype(np.float32))
    wm("evaluate", "-w", root)
    assert payload(scored, "evaluations/0001") == payload(root, "evaluations/0001")
    one, other = (manifest(place, "evaluations/0001") for place in (scored, root))
    for key in ("summary", "seeds", "config", "payload_digest"):
        assert one[key] == other[key], key


def test_its_evaluation_names_it_and_is_not_made_twice(scored, packed):
    found = manifest(scored, "evaluations/0001")
    assert found["parents"] == [
        {"id": "agents/car", "kind": "agents", "payload_digest": told(packed)["payload_digest"]}
    ]
    assert (found["recipe"], found["preset"]) == ("carracing", "debug")
    before = snapshot(scored)
    again = wm("evaluate", "--agent", packed, "-w", scored, *SHORT, "--json").report
    assert (again["up_to_date"], again["artifact"]) == (True, "evaluations/0001")
    status = wm("status", "-w", scored, "--json").report
    stages, artifacts = (table["rows"] for table in status["tables"])
    assert [row["state"] for row in stages] == ["missing"] * 5 + ["fresh"]
    assert stages[-1]["because"] == "agent car"
    assert [row["parents"] for row in artifacts] == ["agent car"]
    rows = wm("verify", "-w", scored, "--json").report["tables"][0]["rows"]
    assert [row["state"] for row in rows] == ["ok"]
    assert snapshot(scored) == before
    assert "train-control" in wm("evaluate", "-w", scored, code=3).said, "it has no controller"


def test_a_visitor_leaves_the_workspaces_own_evaluation_fresh(packed, micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "workspace")
    assert wm("evaluate", "--agent", packed, "-w", root, "--json").report["artifact"][-1] == "2"
    rows = wm("status", "-w", root, "--json").report["tables"][0]["rows"]
    assert (rows[-1]["artifact"], rows[-1]["state"]) == ("evaluations/0001", "fresh")
    assert wm("run", "-w", root, "--json").report["up_to_date"] is True
    shutil.rmtree(root / "evaluations" / "0001")
    rows = wm("status", "-w", root, "--json").report["tables"][0]["rows"]
    assert (rows[-1]["artifact"], rows[-1]["state"]) == (None, "missing")


def test_episodes_that_were_cut_are_announced(scored, packed, tmp_path):
    def last_row(*words):
        table = wm("evaluate", "--agent", packed, "--json", *words).report["tables"][0]
        return table["rows"][-1]

    with (scored / "evaluations/0001/episodes.csv").open() as file:
        episodes = list(csv.DictReader(file))
    assert {row["num_steps"] for row in episodes} == {"12"}
    assert last_row("-w", scored, *SHORT) == {
        "what": "episodes cut at 12 actions", "agent": 4, "random": 2,
    }  # fmt: skip
    whole = settings("evaluate.max_steps=0", "evaluate.random_episodes=0")
    row = last_row("-w", tmp_path / "whole", "--episodes", 1, *whole)
    assert row["what"] == "mean_frames", "to its end: nothing is announced"
    assert row["agent"] > 12 * 4


def test_a_new_workspace_takes_the_agents_world(agent, tmp_path):
    found = told(agent)
    found["config"]["world"] |= {"repeat": 8, "max_frames": 50}
    seal(agent, found)
    root = tmp_path / "workspace"
    report = wm("evaluate", "--agent", agent, "-w", root, *SHORT, "--json").report
    assert report["tables"][0]["rows"][-1]["what"] == "episodes cut at 7 actions"
    assert manifest(root, "evaluations/0001")["config"]["world"]["repeat"] == 8
    again = wm("evaluate", "--agent", agent, "-w", root, "--json").report
    assert again["up_to_date"] is True, "the workspace has kept the world"


@pytest.mark.parametrize(
    ("words", "sides"),
    [
        (("--set", "world.repeat=5"), "world.repeat: 4 there, 5 here"),
        (("--set", "world.crop=[0,96,0,96]"), "[0, 84, 0, 96] there, [0, 96, 0, 96] here"),
        (("--recipe", "breakout"), "world.env: CarRacing-v3 there, ALE/Breakout-v5 here"),
    ],
)
def test_another_world_is_refused_with_both_sides(words, sides, packed, tmp_path):
    done = wm("evaluate", "--agent", packed, "-w", tmp_path / "workspace", *words, code=5)
    assert sides in done.said
    assert not digests(tmp_path / "workspace")
    wm("rollout", "-w", tmp_path / "own", "--preset", "debug", "--episodes", 1, *words)
    before = snapshot(tmp_path / "own")
    assert sides in wm("evaluate", "--agent", packed, "-w", tmp_path / "own", code=5).said
    assert snapshot(tmp_path / "own") == before


def test_a_folder_without_a_whole_agent_is_refused_before_anything_is_made(
    agent, micro_workspace, tmp_path
):
    root = tmp_path / "workspace"
    vision = micro_workspace / "vision" / "0001"
    for folder, code in ((tmp_path / "none", 3), (tmp_path, 3), (micro_workspace, 5), (vision, 5)):
        wm("evaluate", "--agent", folder, "-w", root, code=code)
    done = wm("evaluate", "--agent", agent, "--from", "control/0001", "-w", root, code=2)
    assert "--from" in done.said
    found = told(agent) | {"recipe": "../../secret.toml"}
    (agent / "manifest.json").write_text(json.dumps(found))
    wm("evaluate", "--agent", agent, "-w", root, code=4)
    seal(agent, found)
    assert "--recipe" in wm("evaluate", "--agent", agent, "-w", root, code=2).said
    assert not root.exists()
    (agent / "memory.safetensors").write_bytes(b"not what it was")
    wm("evaluate", "--agent", agent, "-w", root, "--recipe", "carracing", code=4)
    assert not digests(root)


def put(*place):
    *path, key, value = place

    def change(summary):
        for name in path:
            summary = summary[name]
        summary[key] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("shapes", None),
        put("shapes", "vision", "latent_size", 10**12),
        put("shapes", "vision", "latent_size", True),
        put("shapes", "memory", None),
        put("shapes", "memory", "hidden_size", 10**9),
        put("shapes", "memory", "num_mixtures", 10**9),
        put("shapes", "memory", "end_head", "yes"),
        put("shapes", "control", "num_inputs", 25),
        put("shapes", "control", "hidden", 10**9),
        put("pilot", "features", "everything"),
        put("pilot", {}),
        put("engine", 3),
    ],
)
def test_a_manifest_that_belies_its_files_is_refused_before_it_is_believed(change, agent):
    found = told(agent)
    change(found["summary"])
    seal(agent, found)
    with pytest.raises(ArtifactDamaged, match="agents/car"):
        packed_agent(load_agent(agent))


def test_an_agent_that_sees_z_alone_has_no_memory(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "workspace")
    words = settings("control.features=z", "control.generations=1")
    wm("train-control", "-w", root, *words)
    wm("export", "agent", tmp_path / "agent", "-w", root)
    found = told(tmp_path / "agent")
    assert [one["kind"] for one in found["parents"]] == ["control", "vision"]
    assert found["summary"]["shapes"]["memory"] is None
    assert not (tmp_path / "agent" / "memory.safetensors").exists()
    new = tmp_path / "new"
    report = wm("evaluate", "--agent", tmp_path / "agent", "-w", new, "--record", 1, *SHORT,
                "--json").report  # fmt: skip
    assert report["artifact"] == "evaluations/0001"
    assert len(list((new / "videos").glob("*.mp4"))) == 1
