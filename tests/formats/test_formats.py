"""Artifacts of every format version stay readable: opened, verified, and driven for one frame."""

import json
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import KINDS, digests, settings, wm

from stages.agents import packed_agent, trained_agent
from stages.artifacts.agent_folder import load_agent
from stages.artifacts.episodes import EpisodeSet
from stages.artifacts.latents import LatentSet
from stages.artifacts.workspace import Workspace
from stages.contracts import ActionSpec
from stages.trials import load_pilot

HERE = Path(__file__).parent


@pytest.fixture(scope="module", params=["v1"])
def kept(request, tmp_path_factory) -> Path:
    """The kept workspace of one version, unpacked."""
    root = tmp_path_factory.mktemp(request.param) / "workspace"
    shutil.copytree(HERE / request.param, root)
    for packed in root.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    return root


def test_every_kind_is_there_and_verifies(kept):
    workspace = Workspace.open(kept)
    for kind in KINDS:
        (artifact,) = workspace.artifacts(kind)
        assert artifact.manifest.kind == kind
        assert artifact.manifest.files
        assert artifact.verify() == []


def test_the_commands_read_it(kept):
    report = wm("verify", "-w", kept, "--json").report
    assert [row["state"] for row in report["tables"][0]["rows"]] == ["ok"] * 6
    shown = wm("status", "-w", kept, "--json").report["tables"][1]["rows"]
    assert {row["artifact"] for row in shown} == digests(kept).keys()


def test_one_frame_gives_the_action_that_was_written_down(kept):
    workspace = Workspace.open(kept)
    expected = json.loads((kept / "expected.json").read_bytes())
    rollouts = workspace.get("rollouts/0001")
    files, parameters = trained_agent(workspace, workspace.get("control/0001"))
    spec = rollouts.manifest.summary["actions"]
    actions = ActionSpec(spec["kind"], spec["size"], tuple(spec["low"]), tuple(spec["high"]))
    pilot = load_pilot(files, parameters[None], actions)
    pilot.reset([0])
    episode = EpisodeSet.of([rollouts]).episode(0)
    action = pilot.act(episode.observations[:1], np.ones(1, dtype=bool))
    np.testing.assert_allclose(action[0], expected["action"], atol=1e-4)

    latents = LatentSet.of([workspace.get("latents/0001")]).episode(0)
    np.testing.assert_allclose(latents.mu[0], expected["latent"], atol=2e-3)
    assert len(latents.mu) == len(episode.observations) == len(episode.actions) + 1
    assert latents.seed == episode.seed


def test_a_packed_agent_gives_the_action_that_was_written_down(kept, tmp_path):
    """It was packed from the kept workspace: the same action but for the rounding to float16."""
    folder = tmp_path / "thin"
    shutil.copytree(HERE / "agents-v1" / "thin", folder)
    packed = folder / "vision.safetensors.xz"
    packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
    packed.unlink()
    agent = load_agent(folder)
    assert agent.verify() == []
    assert agent.manifest.summary["evaluation"]["weights"] == "float32"
    workspace = Workspace.open(kept)
    rollouts = workspace.get("rollouts/0001")
    spec = rollouts.manifest.summary["actions"]
    actions = ActionSpec(spec["kind"], spec["size"], tuple(spec["low"]), tuple(spec["high"]))
    files, parameters = packed_agent(agent)
    pilot = load_pilot(files, parameters[None], actions)
    pilot.reset([0])
    frames = EpisodeSet.of([rollouts]).episode(0).observations[:1]
    expected = json.loads((kept / "expected.json").read_bytes())["action"]
    action = pilot.act(frames, np.ones(1, dtype=bool))
    np.testing.assert_allclose(action[0], expected, atol=2e-3)


def test_a_stage_goes_on_from_it(kept, tmp_path):
    root = tmp_path / "workspace"
    shutil.copytree(kept, root)
    report = wm("train-memory", "-w", root, "--set", "memory.steps=2", "--json").report
    assert report["artifact"] == "memory/0002"


# The command and the settings of each, and a number that only the kept work has. The training was
# begun where `auto` means bfloat16, which is said here for the machines where it does not.
UNFINISHED = {
    "rollouts": ("rollout", ["rollout.episodes=6"], {}),
    "memory": (
        "train-memory",
        ["memory.steps=6", "memory.precision=bfloat16"],
        {"metrics.jsonl": ("0.5648", "0.5649")},
    ),
    "control": ("train-control", ["control.generations=4"], {"search.jsonl": ("64}", "65}")}),
    "evaluations": ("evaluate", ["evaluate.episodes=6"], {"task-00000.json": ("9.4294", "9.4295")}),
}


@pytest.mark.parametrize("kind", UNFINISHED)
def test_unfinished_work_is_gone_on_with(kind, kept, tmp_path):
    """What was done is kept and not done again, though its writer put no digests beside it."""
    root = tmp_path / "workspace"
    shutil.copytree(kept, root)
    begun = HERE / f"unfinished-{kept.parent.name[:2]}" / kind
    shutil.copytree(begun, root / kind, dirs_exist_ok=True)
    (partial,) = root.glob(f"{kind}/.partial-*")
    for packed in partial.glob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    verb, keys, marks = UNFINISHED[kind]
    for name, (old, new) in marks.items():
        text = (partial / name).read_text()
        assert old in text
        (partial / name).write_text(text.replace(old, new, 1))
    files = {path.name: path.stat().st_ino for path in partial.iterdir()}

    finished = wm(verb, "-w", root, *settings(*keys), "--workers", "1", "--json")
    assert "Resuming" in finished.said
    assert not partial.exists()
    made = root / finished.report["artifact"]
    for path in made.glob("*.h5"):
        assert (path.stat().st_ino == files.get(path.name)) == (path.name in files)
    for name, (_, new) in marks.items():
        found = made / name if (made / name).exists() else made / "episodes.csv"
        assert new in found.read_text(), name
    assert wm("verify", "-w", root).code == 0
