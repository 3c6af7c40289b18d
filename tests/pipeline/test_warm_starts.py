"""A stage may start from an artifact of its own kind: what that brings, and when it is refused."""

import json

import numpy as np
import pytest
from command_line import copied, digests, manifest, settings, wm
from safetensors.numpy import load_file

pytestmark = pytest.mark.pipeline
STILL = 1e-12  # a rate at which nothing moves


@pytest.fixture
def workspace(micro_workspace, tmp_path):
    """A finished workspace of one's own."""
    return copied(micro_workspace, tmp_path / "workspace")


def weights(workspace, name):
    return load_file(workspace / name / "weights.safetensors")


def log(workspace, name):
    lines = (workspace / name / "search.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("stage", "start", "still"),
    [
        ("train-vision", "vision/0001", ("vision.steps=1", f"vision.learning_rate={STILL}")),
        ("train-memory", "memory/0001", ("memory.steps=0",)),
    ],
)
def test_training_begins_at_the_weights_of_the_start(stage, start, still, workspace):
    kind = start.partition("/")[0]
    wm(stage, "-w", workspace, "--from", start, *settings(*still))
    wm(stage, "-w", workspace, *settings(*still))
    first, warm, cold = (weights(workspace, f"{kind}/000{number}") for number in (1, 2, 3))
    assert all(np.allclose(warm[name], first[name], atol=1e-6) for name in first)
    assert any(not np.allclose(cold[name], first[name], atol=1e-3) for name in first)
    parents = [parent["id"] for parent in manifest(workspace, f"{kind}/0002")["parents"]]
    assert start in parents
    assert start not in [p["id"] for p in manifest(workspace, f"{kind}/0003")["parents"]]


def test_a_search_begins_at_the_weights_of_the_start_and_scores_them(workspace):
    plain = ("control.components=0", "control.starts=1")
    wm("train-control", "-w", workspace, *settings(*plain))
    still = (*plain, f"control.sigma={STILL}", f"control.sigma_end={STILL}")
    wm("train-control", "-w", workspace, "--from", "control/0002", *settings(*still))
    first, warm = weights(workspace, "control/0002"), weights(workspace, "control/0003")
    assert all(np.allclose(warm[name], first[name], atol=1e-6) for name in first)
    assert log(workspace, "control/0003")[0]["generation"] == 0, "the start itself is scored"
    earlier, later = (manifest(workspace, f"control/000{number}") for number in (2, 3))
    for purpose, seeds in later["seeds"].items():
        used = earlier["seeds"][purpose]
        assert seeds["first"] == used["first"] + used["count"], "its tracks are new ones"
        assert seeds["before"] == used["count"]
    assert later["summary"]["frames_before"] == earlier["summary"]["frames"] > 0


def test_the_controller_goes_on_on_models_that_learnt_from_its_own_drives(workspace, tmp_path):
    """The paper's iterative training (section 5): record with C, train V and M on, search on."""
    plain = settings("control.components=0", "control.starts=1")
    wm("train-control", "-w", workspace, *plain)
    wm("rollout", "-w", workspace, "--set", "rollout.policy=control/0002")
    both = ("--from", "rollouts/0001", "--from", "rollouts/0002")
    wm("train-vision", "-w", workspace, *both, "--from", "vision/0001")
    wm("sample-latents", "-w", workspace, *both)
    wm("train-memory", "-w", workspace, "--from", "memory/0001")
    done = wm("train-control", "-w", workspace, "--from", "control/0002", *plain)
    assert "control/0003" in done.said
    parents = [parent["id"] for parent in manifest(workspace, "control/0003")["parents"]]
    assert parents == ["vision/0002", "memory/0002", "control/0002"]
    wm("evaluate", "-w", workspace)
    wm("verify", "-w", workspace)
    wm("export", "agent", tmp_path / "packed", "-w", workspace)
    packed = json.loads((tmp_path / "packed" / "manifest.json").read_bytes())
    assert [one["id"] for one in packed["parents"]] == [
        "control/0003",
        "vision/0002",
        "memory/0002",
    ]
    wm("evaluate", "-w", workspace, "--agent", tmp_path / "packed")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ("train-vision", "--from", "vision/0001", "--set", "vision.latent_size=4"),
            5,
            "latent_size: 8 there, 4 here",
        ),
        (
            ("train-memory", "--from", "memory/0001", "--set", "memory.hidden_size=8"),
            5,
            "hidden_size: 16 there, 8 here",
        ),
        (
            ("train-control", "--from", "control/0001", "--set", "control.hidden=3",
             "--set", "control.components=0"),
            5,
            "hidden: 0 there, 3 here",
        ),
        (("train-control", "--from", "control/0001", "--force"), 2, "control.components=0"),
        (
            ("train-control", "--set", "control.random_start=true", "--set",
             "world.engine=envpool"),
            2,
            "control.random_start=false",
        ),
        (("train-control", "--set", "control.finalists=1"), 2, "2 to 3"),
        (("sample-latents", "--from", "latents/0001"), 2, "does not read latents"),
        (
            ("train-vision", "--from", "vision/0001", "--from", "vision/0001"),
            2,
            "Give `--from vision/...` once",
        ),
    ],
)  # fmt: skip
def test_a_start_that_does_not_fit_is_refused(words, code, said, workspace):
    before = digests(workspace)
    done = wm(words[0], "-w", workspace, *words[1:], code=code)
    assert said in done.said
    assert digests(workspace) == before


def test_finalists_drive_twice_and_the_others_once(workspace):
    plain = ("control.components=0", "control.starts=1", "control.generations=2")
    wm("train-control", "-w", workspace, *settings(*plain))
    wm("train-control", "-w", workspace, *settings(*plain, "control.finalists=2"))
    alone, raced = (log(workspace, f"control/000{number}")[0] for number in (2, 3))
    assert alone["asked"] == raced["asked"]
    assert raced["frames"] == pytest.approx(1.5 * alone["frames"], rel=0.1)
    before, after = np.array(alone["fitness"]), np.array(raced["fitness"])
    best = set(np.argsort(-before, kind="stable")[:2])
    assert set(np.flatnonzero(before != after)) == best
    assert before.mean() == pytest.approx(after.mean()), "the final moves no level"
    seeds = manifest(workspace, "control/0003")["seeds"]["search"]["count"]
    assert seeds == 2 * manifest(workspace, "control/0002")["seeds"]["search"]["count"]


def test_weights_of_another_vision_are_no_start(workspace):
    """V trained anew has the same sizes, and its latents mean something else."""
    wm("train-control", "-w", workspace, *settings("control.components=0", "control.starts=1"))
    wm("train-vision", "-w", workspace, "--set", "vision.steps=3")
    wm("sample-latents", "-w", workspace)
    before = digests(workspace)
    memory = wm("train-memory", "-w", workspace, "--from", "memory/0001", code=5)
    assert "belongs to vision/0001" in memory.said
    assert "wm train-vision --from vision/0001" in memory.said
    wm("train-memory", "-w", workspace)
    own = ("--from", "control/0002", "--set", "control.components=0")
    control = wm("train-control", "-w", workspace, *own, code=5)
    assert "vision/0002 is another vision" in control.said
    assert digests(workspace).items() > before.items()


def test_a_damaged_one_is_made_again_from_the_same_start(workspace):
    wm("train-memory", "-w", workspace, "--from", "memory/0001", "--set", "memory.steps=1")
    (workspace / "memory/0002/weights.safetensors").write_bytes(b"")
    said = wm("train-control", "-w", workspace, code=4).said
    assert "wm train-memory --force --from memory/0001" in said


def test_candidates_may_begin_anywhere_and_the_mean_vector_does_not(workspace):
    still = (
        "control.components=0",
        "control.starts=1",
        "control.generations=1",
        "control.max_steps=[40]",
        f"control.sigma={STILL}",
        f"control.sigma_end={STILL}",
    )
    wm("train-control", "-w", workspace, *settings(*still))
    wm("train-control", "-w", workspace, *settings(*still, "control.random_start=true"))
    (plain, scored), (anywhere, again) = (log(workspace, f"control/000{n}") for n in (2, 3))
    assert plain["asked"] == anywhere["asked"]
    assert plain["fitness"] != anywhere["fitness"]
    assert scored["selection"] == pytest.approx(again["selection"])
