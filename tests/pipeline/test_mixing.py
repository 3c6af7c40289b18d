"""What belongs together is checked field by field: each refusal shows both sides, and exit code 5.

Worlds, actions, pictures, models. Manifests are forged where the same settings cannot make one:
the environment's package may change what an action is under the same id.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from command_line import STAGES, copied, digests, snapshot

from stages.agents import AgentFiles, check_actions
from stages.contracts import ActionSpec
from stages.errors import InputsMismatch
from wm_cli.app import run

pytestmark = pytest.mark.pipeline

WORLD = {
    "env": ("ALE/Breakout-v5", "CarRacing-v3 there, ALE/Breakout-v5 here"),
    "repeat": ("5", "4 there, 5 here"),
    "crop": ("[0,96,0,96]", "[0, 84, 0, 96] there, [0, 96, 0, 96] here"),
    "size": ("32", "64 there, 32 here"),
    "max_frames": ("7", "0 there, 7 here"),
}
OTHER = {"kind": "box", "size": 4, "low": [-1, 0, 0, 0], "high": [1, 1, 2, 1]}


@pytest.fixture
def workspace(micro_workspace, tmp_path) -> Path:
    """A finished workspace of one's own; unchanged files are those of the original."""
    return copied(micro_workspace, tmp_path / "workspace", copy=os.link)


@pytest.fixture
def said(capfd):
    """Runs a command in this process, compares its exit code, and gives what it says, unbroken."""

    def command(*words: object, code: int = 5) -> str:
        assert run([str(word) for word in words]) == code, capfd.readouterr().err
        return " ".join(capfd.readouterr().err.split())

    return command


def forged(folder: Path, change) -> None:
    """Change a manifest and make its digests right."""
    path = folder / "manifest.json"
    found = json.loads(path.read_bytes())
    change(found)
    path.unlink()  # it may be that of the original, too
    path.write_bytes(json.dumps(found).encode())
    (folder / "manifest.sha256").unlink()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


def doubled(workspace: Path, kind: str, change) -> str:
    """A second artifact like the first, but for its manifest."""
    shutil.copytree(workspace / kind / "0001", workspace / kind / "0002", copy_function=os.link)
    forged(workspace / kind / "0002", change)
    return f"{kind}/0002"


def with_actions(found):
    found["summary"]["actions"] = OTHER


def by_another(found):
    for parent in found["parents"]:
        if parent["kind"] == "vision":
            parent |= {"id": "vision/0007", "payload_digest": "7" * 64}


@pytest.mark.parametrize("field", WORLD)
@pytest.mark.parametrize("stage", [*STAGES[1:], "rollout"])
def test_a_stage_refuses_the_inputs_of_another_world(stage, field, micro_workspace, said):
    before = snapshot(micro_workspace)
    value, sides = WORLD[field]
    words = ["--set", f"world.{field}={value}"]
    words += ["--set", "world.engine=gymnasium"] if field == "env" else []
    words += ["--set", "rollout.policy=control/0001"] if stage == "rollout" else []
    assert f"world.{field}: {sides}" in said(stage, "-w", micro_workspace, *words)
    assert snapshot(micro_workspace) == before


@pytest.mark.parametrize(
    ("stage", "kind"), [("sample-latents", "rollouts"), ("train-memory", "latents")]
)
def test_recordings_of_other_actions_are_not_joined(stage, kind, workspace, said):
    second = doubled(workspace, kind, with_actions)
    told = said(stage, "-w", workspace, "--from", f"{kind}/0001", "--from", second)
    assert f"actions.size: 4 in {second}, 3 in {kind}/0001" in told
    assert f"[1, 1, 2, 1] in {second}, [1.0, 1.0, 1.0] in {kind}/0001" in told


def test_a_memory_does_not_go_on_with_other_actions(workspace, said):
    forged(workspace / "memory/0001", with_actions)
    told = said("train-memory", "-w", workspace, "--from", "memory/0001", "--force")
    assert "actions.size: 4 in memory/0001, 3 in latents/0001" in told


@pytest.mark.parametrize(
    ("stage", "name", "words"),
    [
        ("train-control", "memory/0001", ("--force",)),
        ("evaluate", "control/0001", ("--force", "--workers", "1")),
        ("rollout", "control/0001",
         ("--set", "rollout.policy=control/0001", "--workers", "1")),
    ],
)  # fmt: skip
def test_an_agent_is_not_driven_where_an_action_is_something_else(
    stage, name, words, workspace, said
):
    forged(workspace / name, with_actions)
    before = digests(workspace)
    told = said(stage, "-w", workspace, *words)
    assert f"{name} was trained with other actions" in told
    for side in ("size: 4 there, 3 here", "[1, 1, 2, 1] there, [1.0, 1.0, 1.0] here"):
        assert f"actions.{side}" in told or side in told
    assert digests(workspace) == before
    assert not list(workspace.glob("*/.partial-*")), "nothing is left to go on with"


def test_a_packed_agent_is_not_driven_where_an_action_is_something_else(workspace, tmp_path, said):
    agent = tmp_path / "agent"
    said("export", "agent", agent, "-w", workspace, code=0)
    forged(agent, with_actions)
    told = said("evaluate", "--agent", agent, "-w", workspace, "--workers", "1")
    assert "agents/agent was trained with other actions" in told
    assert "actions.size: 4 there, 3 here" in told


def test_an_agent_of_an_earlier_version_is_held_to_the_number_of_its_actions():
    files = AgentFiles("", "", {}, None, "", None, None, name="control/0003", actions={"size": 3})
    check_actions(files, ActionSpec("box", 3, (0.0,) * 3, (9.0,) * 3))
    with pytest.raises(InputsMismatch, match=r"actions.size: 3 there, 5 here") as caught:
        check_actions(files, ActionSpec("choice", 5))
    assert "control/0003" in caught.value.what


def test_pictures_of_an_engine_that_v_never_saw(workspace, said):
    def elsewhere(found):
        found["summary"]["engines"] = ["envpool"]

    forged(workspace / "rollouts/0001", elsewhere)
    for words in (
        ("sample-latents", "--force"),
        ("train-control", "--set", "world.engine=envpool"),
        ("rollout", "--set", "world.engine=envpool", "--set", "rollout.policy=control/0001"),
    ):
        told = said(words[0], "-w", workspace, *words[1:])
        assert "envpool" in told
        assert "vision/0001" in told
        assert "trained on pictures of gymnasium" in told


def test_latents_of_different_visions_are_not_joined(workspace, said):
    second = doubled(workspace, "latents", by_another)
    told = said("train-memory", "-w", workspace, "--from", "latents/0001", "--from", second)
    vision = digests(workspace)["vision/0001"][:12]
    assert f"latents/0001 by vision/0001 (payload {vision})" in told
    assert f"{second} by vision/0007 (payload {'7' * 12})" in told


@pytest.mark.parametrize("kind", ["memory", "latents"])
def test_a_search_refuses_what_another_vision_made(kind, workspace, said):
    forged(workspace / kind / "0001", by_another)
    told = said("train-control", "-w", workspace, "--force", "--from", f"{kind}/0001")
    vision = digests(workspace)["vision/0001"][:12]
    assert f"{kind}/0001 was made from another vision than vision/0001" in told
    assert f"vision/0007 (payload {'7' * 12}); here it is vision/0001 (payload {vision})" in told


@pytest.mark.parametrize("kind", ["memory", "control"])
def test_a_start_of_another_vision_is_refused(kind, workspace, said):
    forged(workspace / kind / "0001", by_another)
    if kind == "control":
        words = ("train-control", "--set", "control.components=0")
    else:
        words = ("train-memory",)
    told = said(*words, "-w", workspace, "--from", f"{kind}/0001")
    vision = digests(workspace)["vision/0001"][:12]
    assert f"{kind}/0001 cannot be the start: it belongs to vision/0007" in told
    assert f"payload {vision}, not {'7' * 12}" in told


@pytest.mark.parametrize(
    ("kind", "place", "words", "sides"),
    [
        ("vision", ("shape", "latent_size"), ("train-vision",), "latent_size: 9 there, 8 here"),
        ("memory", ("shape", "end_head"), ("train-memory",), "end_head: True there, False here"),
        ("memory", ("shape", "num_mixtures"), ("train-memory",), "num_mixtures: 9 there, 5 here"),
        ("memory", ("shape", "joint_mixture"), ("train-memory",), "joint_mixture: True there, F"),
        ("control", ("pilot", "latent"), ("train-control",), "latent: sample there, mean here"),
        ("control", ("shape", "num_inputs"), ("train-control",), "num_inputs: 9 there, 24 here"),
    ],
)
def test_a_start_of_another_shape_is_refused(kind, place, words, sides, workspace, said):
    def change(found):
        old = found["summary"][place[0]][place[1]]
        new = (not old) if isinstance(old, bool) else "sample" if isinstance(old, str) else 9
        found["summary"][place[0]][place[1]] = new

    forged(workspace / kind / "0001", change)
    extra = ("--set", "control.components=0") if kind == "control" else ()
    told = said(*words, "-w", workspace, "--from", f"{kind}/0001", "--force", *extra)
    assert f"{kind}/0001 cannot be the start" in told
    assert sides in told


def test_status_shows_both_sides(micro_workspace, capfd):
    assert run(["status", "-w", str(micro_workspace), "--set", "rollout.policy=control/0001",
                "--set", "world.repeat=5"]) == 0  # fmt: skip
    assert "world.repeat: 4 there, 5 here" in " ".join(capfd.readouterr().out.split())


def test_models_of_the_same_content_are_walked_through_once(workspace, said):
    """A start that has itself among its forebears is refused, not looked for without an end."""

    def own_child(found):
        own = {"id": "vision/0001", "kind": "vision", "payload_digest": found["payload_digest"]}
        found["parents"].append(own)

    forged(workspace / "vision/0001", own_child)
    forged(workspace / "memory/0001", by_another)
    told = said("train-memory", "-w", workspace, "--from", "memory/0001")
    assert "vision/0001 is another vision" in told
