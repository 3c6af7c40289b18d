"""The whole debug pipeline through the command line, on the real CarRacing and Breakout."""

import csv
import itertools
import json
import math
import statistics

import h5py
import numpy as np
import pytest
from command_line import KINDS, STAGES, copied, digests, manifest, snapshot, wm

pytestmark = pytest.mark.pipeline


@pytest.fixture(params=["debug_workspace", "breakout_workspace"])
def finished(request):
    """Both worlds in turn."""
    return request.getfixturevalue(request.param)


def test_every_stage_makes_one_whole_artifact(finished):
    assert sorted(digests(finished)) == sorted(f"{kind}/0001" for kind in KINDS)
    report = wm("verify", "-w", finished, "--json").report
    assert [row["state"] for row in report["tables"][0]["rows"]] == ["ok"] * 6
    assert not list(finished.rglob(".partial-*")) + list(finished.rglob(".tmp-*"))


def test_again_everything_is_up_to_date_and_nothing_is_written(finished):
    before = snapshot(finished)
    again = wm("run", "-w", finished, "--json").report
    assert again["up_to_date"] is True
    rows = again["tables"][0]["rows"]
    assert [(row["stage"], row["state"]) for row in rows] == [(s, "up to date") for s in STAGES]
    for stage in STAGES:
        assert wm(stage, "-w", finished, "--json").report["up_to_date"] is True
    status = wm("status", "-w", finished, "--json").report
    assert {row["state"] for row in status["tables"][0]["rows"]} == {"fresh"}
    assert snapshot(finished) == before


def test_parents_are_named_by_what_they_hold(finished):
    held = digests(finished)
    searched = manifest(finished, "control/0001")["config"]["control"]["components"]
    expected = {
        "rollouts": set(),
        "vision": {"rollouts"},
        "latents": {"rollouts", "vision"},
        "memory": {"latents", "vision"},
        "control": {"vision", "memory", *(["latents"] if searched else [])},
        "evaluations": {"control", "vision", "memory"},
    }
    for kind, kinds in expected.items():
        parents = manifest(finished, f"{kind}/0001")["parents"]
        assert {parent["kind"] for parent in parents} == kinds
        assert all(held[parent["id"]] == parent["payload_digest"] for parent in parents)


def test_models_have_the_published_numbers_of_parameters(debug_workspace):
    found = {
        kind: manifest(debug_workspace, f"{kind}/0001")["summary"]["parameters"]
        for kind in ("vision", "memory", "control")
    }
    assert found == {"vision": 4_348_547, "memory": 422_368, "control": 867}


def test_breakout_has_choices_and_one_hot_actions(breakout_workspace):
    actions = manifest(breakout_workspace, "rollouts/0001")["summary"]["actions"]
    assert (actions["kind"], actions["size"]) == ("choice", 4)
    with h5py.File(breakout_workspace / "rollouts/0001/shard-00000.h5") as shard:
        chosen = shard["actions"][:]
    with h5py.File(breakout_workspace / "latents/0001/shard-00000.h5") as shard:
        seen = shard["actions"][:]
    assert seen.shape == (len(chosen), 4)
    assert all(list(row) == [float(k == choice) for k in range(4)]
               for row, choice in zip(seen, chosen, strict=True))  # fmt: skip
    assert len(set(chosen.tolist())) > 1


def test_latents_belong_to_the_recorded_frames(finished):
    """Every episode has T actions and T + 1 latents, and the actions that were recorded."""
    for path in sorted((finished / "rollouts/0001").glob("*.h5")):
        with h5py.File(path) as recorded, h5py.File(finished / "latents/0001" / path.name) as drawn:
            for name in ("seeds", "observation_offsets", "step_offsets", "rewards"):
                assert np.array_equal(recorded[name][:], drawn[name][:])
            assert len(drawn["mu"]) == len(recorded["observations"])
            steps = np.diff(recorded["step_offsets"][:])
            assert np.array_equal(np.diff(recorded["observation_offsets"][:]), steps + 1)


def drawn_seeds(workspace) -> dict[str, set[int]]:
    """Seeds of every purpose, as the manifests and shards tell them."""
    control = manifest(workspace, "control/0001")["seeds"]
    shards = [h5py.File(path) for path in (workspace / "rollouts/0001").glob("*.h5")]
    return {
        "rollout": set(
            itertools.chain.from_iterable(shard["seeds"][:].tolist() for shard in shards)
        ),
        "evaluation": set(manifest(workspace, "evaluations/0001")["seeds"]["seeds"]),
    } | {
        purpose: set(range(told["first"], told["first"] + told["count"]))
        for purpose, told in control.items()
    }


def test_held_out_seeds_are_disjoint_from_all_that_was_trained_on(finished):
    seeds = drawn_seeds(finished)
    assert set(seeds) == {"rollout", "evaluation", "search", "selection"}
    for one, other in itertools.combinations(seeds, 2):
        assert not seeds[one] & seeds[other], (one, other)
    recorded = manifest(finished, "rollouts/0001")["summary"]["episodes"]
    assert len(seeds["rollout"]) == recorded


def test_the_scores_are_those_of_the_table_of_episodes(finished):
    with (finished / "evaluations/0001/episodes.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = json.loads((finished / "evaluations/0001/scores.json").read_bytes())
    summary = manifest(finished, "evaluations/0001")["summary"]
    assert summary["scores"] == scores
    assert list(scores) == ["agent", "random"]
    for who, found in scores.items():
        returns = [float(row["total_reward"]) for row in rows if row["who"] == who]
        spread = statistics.stdev(returns)
        assert found["episodes"] == len(returns) >= 2
        assert found["mean"] == pytest.approx(statistics.fmean(returns), abs=1e-9)
        assert found["std"] == pytest.approx(spread, abs=1e-9)
        assert found["stderr"] == pytest.approx(spread / math.sqrt(len(returns)), abs=1e-9)
        assert found["median"] == pytest.approx(statistics.median(returns), abs=1e-9)
        assert (found["min"], found["max"]) == (min(returns), max(returns))
        assert found["min"] <= found["ci95_low"] <= found["mean"] <= found["ci95_high"]
        assert found["ci95_high"] <= found["max"]
    agent, random = ([row["seed"] for row in rows if row["who"] == who] for who in scores)
    assert set(random) <= set(agent), "the random policy drives the agent's tracks"
    assert summary["engine"] == "gymnasium"
    assert (summary["mean"], summary["stderr"]) == (
        scores["agent"]["mean"],
        scores["agent"]["stderr"],
    )


def test_car_racing_scores_name_the_rule_of_a_lap(debug_workspace):
    summary = manifest(debug_workspace, "evaluations/0001")["summary"]
    assert summary["lap_rule"].startswith("every-tile (gymnasium 1.")
    assert {"share_900", "share_laps_finished"} <= summary["scores"]["agent"].keys()


def test_the_reward_of_a_recorded_episode_is_that_of_its_tiles(debug_workspace):
    """Sum of rewards = 1000 * tiles / tiles of the track - 0.1 * frames (sheet, section 14)."""
    spec = manifest(debug_workspace, "rollouts/0001")["config"]["world"]
    checked = 0
    for path in (debug_workspace / "rollouts/0001").glob("*.h5"):
        with h5py.File(path) as shard:
            offsets = shard["step_offsets"][:]
            for start, stop in itertools.pairwise(offsets):
                tiles = shard["facts/num_tiles"][stop - 1]
                total = shard["facts/track_tiles"][stop - 1]
                expected = 1000 * tiles / total - 0.1 * spec["repeat"] * (stop - start)
                found = shard["rewards"][start:stop].sum()
                if not shard["terminations"][stop - 1]:
                    assert found == pytest.approx(expected, abs=1e-6)
                    checked += 1
    assert checked >= 10


def test_recorded_videos_leave_the_evaluation_as_it_is(debug_workspace, tmp_path):
    root = copied(debug_workspace, tmp_path / "workspace")
    before = digests(root)
    report = wm("evaluate", "-w", root, "--record", 1, "--json").report
    assert report["up_to_date"] is True
    assert digests(root) == before
    (video,) = (root / "videos").iterdir()
    assert video.suffix == ".mp4"
    assert video.read_bytes()[4:8] == b"ftyp"
    av = pytest.importorskip("av")
    with av.open(str(video)) as film:
        assert film.streams.video[0].average_rate == 50 / 4, "50 frames a second, 4 per action"
