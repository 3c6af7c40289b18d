"""An M of other heads than the paper's, from training to a packed agent.

Its latent numbers are drawn in blocks, which share one choice of component each, and there are
hidden units before the heads.
"""

import json

import pytest
from command_line import copied, manifest, payload, settings, wm
from safetensors.numpy import load_file
from test_mixing import forged

pytestmark = pytest.mark.pipeline

HEADS = ("joint_mixture=true", "head_hidden=40", "num_blocks=4", "block_hidden=10")
JOINT = settings(*(f"memory.{head}" for head in HEADS))
SHORT = settings("evaluate.episodes=2", "evaluate.random_episodes=1", "evaluate.max_steps=60")


@pytest.fixture(scope="module")
def joint(doom_workspace, tmp_path_factory):
    """Doom's debug run with a second M, of other heads, and a C of its dreams."""
    root = copied(doom_workspace, tmp_path_factory.mktemp("joint") / "workspace")
    wm("train-memory", "-w", root, *JOINT)
    dream = ("--set", "control.generations=3", "--set", "control.max_steps=[40]")
    wm("train-control", "-w", root, "--in", "dream", *dream, "--workers", 2)
    return root


def test_its_head_chooses_once_per_block(joint):
    shape = manifest(joint, "memory/0002")["summary"]["shape"]
    assert shape["joint_mixture"] is True
    found = load_file(joint / "memory/0002/weights.safetensors")
    rows = (4 + 2 * shape["latent_size"]) * shape["num_mixtures"]
    assert found["head.weight"].shape == (rows, 40)
    assert found["after.weight"].shape == (rows, 10)
    assert found["blocks.weight"].shape == (4 * 10, 40)
    assert found["before.weight"].shape == (4 * 10, shape["latent_size"])
    assert found["end_head.weight"].shape == (1, 40)
    width = shape["hidden_size"] + shape["latent_size"] + shape["action_size"]
    assert found["wide.weight"].shape == (40, width)
    held_out = [
        json.loads((joint / f"memory/000{n}/metrics.jsonl").read_text().splitlines()[-1])
        for n in (1, 2)
    ]
    one, other = (told["memory/held_out/nll"] for told in held_out)
    assert other == pytest.approx(one, abs=0.2), "both tell nats per dimension"


def test_its_c_learns_in_its_dreams_and_leaves_as_an_agent(joint, tmp_path):
    parents = [parent["id"] for parent in manifest(joint, "control/0002")["parents"]]
    assert "memory/0002" in parents
    wm("evaluate", "-w", joint, *SHORT)
    wm("export", "agent", tmp_path / "agent", "-w", joint)
    packed = json.loads((tmp_path / "agent/manifest.json").read_text())
    assert packed["summary"]["shapes"]["memory"]["joint_mixture"] is True
    assert packed["summary"]["shapes"]["memory"]["head_hidden"] == 40
    assert packed["summary"]["shapes"]["memory"]["num_blocks"] == 4
    again = tmp_path / "again"
    wm("evaluate", "--agent", tmp_path / "agent", "-w", again, "--preset", "debug", *SHORT)
    newest = sorted(one.name for one in (joint / "evaluations").glob("0*"))[-1]
    here, there = (
        manifest(root, name)["summary"]["scores"]["agent"]
        for root, name in ((joint, f"evaluations/{newest}"), (again, "evaluations/0001"))
    )
    assert there["episodes"] == here["episodes"] > 0
    assert there["mean"] == pytest.approx(here["mean"], rel=0.2), "rounded to float16, it plays on"


def test_a_memory_that_does_not_say_so_has_the_papers_heads(micro_workspace, tmp_path):
    """Artifacts of earlier versions know of no joint mixture, hidden units or blocks."""
    root = copied(micro_workspace, tmp_path / "workspace")

    def earlier(found):
        assert found["summary"]["shape"].pop("joint_mixture") is False
        assert found["summary"]["shape"].pop("head_hidden") == 0
        assert found["summary"]["shape"].pop("num_blocks") == 0
        assert found["summary"]["shape"].pop("block_hidden") == 0
        later = {"joint_mixture", "head_hidden", "num_blocks", "block_hidden"}
        assert not later & set(found["config"]["memory"])

    forged(root / "memory/0001", earlier)
    wm("train-memory", "-w", root, "--from", "memory/0001")
    shape = manifest(root, "memory/0002")["summary"]["shape"]
    heads = (shape["joint_mixture"], shape["head_hidden"], shape["num_blocks"])
    assert heads == (False, 0, 0)
    assert payload(root, "memory/0002") != payload(root, "memory/0001")
    said = wm("train-memory", "-w", root, *JOINT, "--from", "memory/0001", code=5).said
    assert "joint_mixture: False there, True here" in " ".join(said.split())
    assert "head_hidden: 0 there, 40 here" in " ".join(said.split())
    assert "num_blocks: 0 there, 4 here" in " ".join(said.split())


def test_blocks_that_do_not_fit_are_refused_before_any_work(joint):
    for keys, message in (
        (("memory.joint_mixture=false",), "needs a joint mixture"),
        (("memory.num_blocks=7",), "does not divide vision.latent_size = 64"),
    ):
        said = wm("train-memory", "-w", joint, *JOINT, *settings(*keys), code=2).said
        assert message in " ".join(said.split())
