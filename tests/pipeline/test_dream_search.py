"""Searches in M's dream and against the oracle, through the command line."""

import json
import shutil

import numpy as np
import pytest
from command_line import clear_session, copied, manifest, payload, start_wm, wait_until, wm

from stages.artifacts.weights import unpack_tensors
from stages.contracts import NO_WORLD, WorldSpec
from stages.control.config import Config
from stages.execution.cores import available_cores
from stages.gathered import dream_limit, whole_limit

pytestmark = pytest.mark.pipeline

DREAM = ("--in", "dream", "--set", "control.generations=3", "--set", "control.max_steps=[40]")


def log_of(root, name):
    return [json.loads(line) for line in (root / name / "search.jsonl").read_text().splitlines()]


def test_a_search_against_the_oracle_is_the_search_in_the_world(micro_workspace, tmp_path):
    """Seed for seed: what the dream's contract costs is nothing."""
    root = copied(micro_workspace, tmp_path / "workspace")
    made = wm("train-control", "-w", root, "--in", "oracle", "--workers", 2, "--json").report
    assert made["artifact"] == "control/0002"
    assert payload(root, "control/0002") == payload(root, "control/0001")
    found, expected = (manifest(root, f"control/000{n}") for n in (2, 1))
    assert found["summary"].pop("place") == "oracle"
    assert found["summary"] == expected["summary"]
    assert found["config"]["control"].pop("place") == "oracle"
    assert found["config"] == expected["config"], "what the world does not use decides nothing"


@pytest.fixture(scope="module")
def dreamt(doom_workspace, tmp_path_factory):
    """Doom's debug run with a controller that was trained in the dream."""
    root = copied(doom_workspace, tmp_path_factory.mktemp("dream") / "workspace")
    wm("train-control", "-w", root, *DREAM, "--workers", 2)
    return root


def test_candidates_dream_and_the_mean_vector_plays(dreamt):
    records = log_of(dreamt, "control/0002")
    fitness = np.array([r["fitness"] for r in records if "fitness" in r])
    assert fitness.shape == (3, 8)
    assert ((fitness >= 1) & (fitness <= 40)).all(), "every step that is survived earns 1"
    (score,) = [r for r in records if "selection" in r]
    assert len(score["selection"]) == len(score["dreamt"]) == 2
    summary = manifest(dreamt, "control/0002")["summary"]
    assert (summary["place"], summary["temperature"]) == ("dream", 1.15)
    assert summary["frames"] == score["frames"] == sum(score["selection"])
    assert summary["dreamt_frames"] == fitness.sum()
    lines = (dreamt / "control/0002/metrics.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    assert {"control/selection/mean", "control/selection/dreamt"} <= told[-1].keys()
    kinds = [parent["kind"] for parent in manifest(dreamt, "control/0002")["parents"]]
    assert kinds == ["vision", "memory", "latents"]


def test_workers_and_tasks_change_nothing(dreamt, doom_workspace, tmp_path):
    root = copied(doom_workspace, tmp_path / "workspace")
    wm("train-control", "-w", root, *DREAM, "--workers", 1)
    assert payload(root, "control/0002") == payload(dreamt, "control/0002")


def test_temperature_makes_another_dream_and_another_artifact(dreamt, tmp_path):
    root = copied(dreamt, tmp_path / "workspace")
    hot = ("--set", "control.temperature=1.5", "--set", "control.dream_end=sampled")
    made = wm("train-control", "-w", root, *DREAM, *hot, "--json").report
    assert made["artifact"] == "control/0003"
    assert log_of(root, "control/0003")[0]["asked"] == log_of(root, "control/0002")[0]["asked"]
    again = wm("train-control", "-w", root, *DREAM, "--json").report
    assert (again["artifact"], again["up_to_date"]) == ("control/0002", True)


def test_candidates_may_begin_anywhere_and_the_mean_vector_does_not(dreamt, tmp_path):
    root = copied(dreamt, tmp_path / "workspace")
    anywhere = ("--set", "control.dream_starts=anywhere", "--set", "control.dream_steps=7")
    wm("train-control", "-w", root, *DREAM, *anywhere, "--workers", 2)
    records = log_of(root, "control/0003")
    assert records[0]["asked"] == log_of(root, "control/0002")[0]["asked"]
    assert all(0 < value <= 7 for r in records for value in r.get("fitness", ()))
    (score,) = [r for r in records if "dreamt" in r]
    assert max(score["dreamt"]) > 7, "a whole episode, as the one in the game beside it"
    again = copied(root, tmp_path / "again", before="control")
    wm("train-control", "-w", again, *DREAM, *anywhere, "--workers", 1)
    assert payload(again, "control/0001") == payload(root, "control/0003")


def test_what_was_learnt_in_the_dream_is_evaluated_in_the_game(dreamt, tmp_path):
    root = copied(dreamt, tmp_path / "workspace")
    report = wm("evaluate", "-w", root, "--from", "control/0002", "--json").report
    assert report["artifact"] == "evaluations/0002"
    assert 1 <= report["summary"]["mean"] <= 200


def test_a_memory_that_foresees_no_reward_cannot_be_dreamt_in(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "workspace")
    endless = wm("train-control", "-w", root, "--in", "dream", "--set", "world.env=none", code=2)
    assert "control.dream_steps" in endless.said
    steps = ("--set", "control.dream_steps=20")
    refused = wm("train-control", "-w", root, "--in", "dream", *steps, code=5)
    assert "does not foresee rewards" in refused.said
    assert "wm train-memory --set memory.reward_head=true" in refused.said
    assert not list((root / "control").glob(".partial-*"))


def test_carracing_is_dreamt_with_a_reward_head(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "workspace", before="control")
    heads = ("--set", "memory.reward_head=true", "--set", "memory.end_head=true")
    wm("train-memory", "-w", root, *heads)
    steps = ("--set", "control.dream_steps=20")
    wm("train-control", "-w", root, "--in", "dream", *steps)
    fitness = log_of(root, "control/0001")[0]["fitness"]
    assert len(set(fitness)) > 1, "foreseen rewards differ"


def test_how_long_a_dream_lasts():
    """Pieces are cut; a whole dream lasts as long as the episode in the world beside it."""
    race, doom = WorldSpec(repeat=4), WorldSpec(env="VizdoomTakeCover-v1", max_frames=2100)
    for world, actions in ((race, 250), (doom, 2100)):
        for config in (Config(place="dream"), Config(place="dream", dream_starts="anywhere")):
            assert dream_limit(config, world) == whole_limit(config, world) == actions
        pieces = Config(place="dream", dream_starts="anywhere", dream_steps=100)
        assert (dream_limit(pieces, world), whole_limit(pieces, world)) == (100, actions)
        shorter = Config(place="dream", dream_steps=100)
        assert dream_limit(shorter, world) == whole_limit(shorter, world) == 100
    nobody = WorldSpec(env=NO_WORLD)
    assert dream_limit(pieces, nobody) == whole_limit(pieces, nobody) == 100
    assert whole_limit(Config(place="dream"), nobody) == 0


CLIMB = (
    *("--in", "dream", "--set", "control.method=ppo", "--set", "control.dream_end=expected"),
    *("--set", "control.dream_starts=anywhere", "--set", "control.dream_steps=30"),
    *("--set", "control.generations=6", "--set", "control.select_every=2"),
)


def test_c_climbs_in_the_dream_and_goes_on_where_it_was_stopped(dreamt, tmp_path):
    root = copied(dreamt, tmp_path / "workspace")
    stopped = copied(root, tmp_path / "stopped", before="control")
    wm("train-control", "-w", root, *CLIMB, "--workers", 2)
    records = log_of(root, "control/0003")
    assert [r["generation"] for r in records if "fitness" in r] == [1, 2, 3, 4, 5, 6]
    scored = [r for r in records if "selection" in r]
    assert [r["generation"] for r in scored] == [2, 4, 6]
    assert all(0 < value <= 30 for r in records for value in r.get("fitness", ()))
    summary = manifest(root, "control/0003")["summary"]
    assert (summary["method"], summary["place"], summary["searched"]) == ("ppo", "dream", 1088)
    assert summary["frames"] == sum(r["frames"] for r in scored)
    told = manifest(root, "control/0003")["provenance"]
    assert (told["device"], told["threads"]) == ("cpu", available_cores())
    wm("report", "-w", root)
    page = (root / "report.html").read_text()
    assert "its noise included" in page and ">Noise<" in page and ">Step size<" in page
    process = start_wm("train-control", "-w", stopped, *CLIMB, log=tmp_path / "log")
    try:
        wait_until(lambda: list(stopped.glob("control/.partial-*/000003.ascent*")), seconds=120)
        process.kill()
        process.wait(timeout=60)
    finally:
        clear_session(process)
    (partial,) = stopped.glob("control/.partial-*")
    newest = max(partial.glob("*.ascent.safetensors"))
    shutil.copy(newest, partial / "old-000003.ascent.safetensors")  # nobody's
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")  # and the newest state has rotted
    wm("train-control", "-w", stopped, *CLIMB, "--workers", 1)
    assert payload(stopped, "control/0001") == payload(root, "control/0003")


def test_a_climb_goes_on_from_another_controller(dreamt, tmp_path):
    root = copied(dreamt, tmp_path / "workspace")
    still = ("--set", "control.learning_rate=1e-30", "--set", "control.generations=1")
    wm("train-control", "-w", root, *CLIMB, *still, "--from", "control/0002")
    first, second = (
        unpack_tensors(root / f"control/000{n}" / "weights.safetensors")[0] for n in (2, 3)
    )
    np.testing.assert_allclose(second["layer0.weight"], first["layer0.weight"], rtol=1e-3)
    assert manifest(root, "control/0003")["seeds"]["search"]["before"] > 0


def test_a_climb_is_in_the_dream_alone(dreamt, tmp_path):
    root = copied(dreamt, tmp_path / "workspace")
    climb = ("--set", "control.method=ppo")
    refused = wm("train-control", "-w", root, "--in", "world", *climb, code=2)
    assert "learns in the dream" in refused.said and "control.method=cma-es" in refused.said
    shutil.rmtree(root / "vision")
    refused = wm("run", "-w", root, "--set", "control.place=world", *climb, code=2)
    assert "control.place=dream" in refused.said, "before anything is trained"
    assert not (root / "vision").exists()
    both = ("--set", "control.components=10")
    refused = wm("train-control", "-w", root, "--in", "dream", *climb, *both, code=2)
    assert "components" in refused.said
