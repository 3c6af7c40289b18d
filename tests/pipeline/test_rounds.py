"""Rounds of `wm run`: what each of them reads, makes and uses, beside the same done by hand."""

import itertools
import json
import os
import shutil

import h5py
import pytest
from command_line import (
    KINDS,
    MICRO,
    STAGES,
    clear_session,
    copied,
    digests,
    manifest,
    session_members,
    settings,
    snapshot,
    start_wm,
    wait_until,
    wm,
)

from stages import stage_named
from stages.pipeline import sections
from stages.rounds import config_in
from stages.settings.recipes import load_recipe
from stages.settings.resolve import resolve

pytestmark = pytest.mark.pipeline

PLAIN = ("control.components=0", "control.starts=1", "control.sigma_end=0.02")
LATER = (
    "rounds.episodes=4",
    "rounds.epsilon=0.4",
    "rounds.vision_steps=4",
    "rounds.memory_steps=20",
    "rounds.memory_rate=1e-4",
    "rounds.generations=2",
)
SETTINGS = settings(*MICRO, *PLAIN, *LATER)
FIRST = ("--preset", "debug", "--seed", 7, *SETTINGS)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two rounds in one go."""
    root = tmp_path_factory.mktemp("rounds") / "two"
    wm("run", "-w", root, *FIRST, "--rounds", 2, "--workers", 2)
    return root


@pytest.fixture(scope="module")
def three(two, tmp_path_factory):
    """A third round after them; what the command said of it."""
    root = tmp_path_factory.mktemp("rounds") / "three"
    shutil.copytree(two, root)
    return root, wm("run", "-w", root, "--rounds", 3, "--workers", 1, "--json").report


def parents(root, name):
    return [parent["id"] for parent in manifest(root, name)["parents"]]


def recorded(root, number):
    """Seeds of a recording, from its shards."""
    shards = sorted((root / f"rollouts/{number:04d}").glob("*.h5"))
    found = []
    for path in shards:
        with h5py.File(path) as shard:
            found += shard["seeds"][:].tolist()
    return found


def rows(report, title):
    (table,) = [table for table in report["tables"] if table["title"] == title]
    return table["rows"]


def test_every_round_makes_one_artifact_of_each_kind(two):
    assert sorted(digests(two)) == sorted(f"{kind}/000{n}" for kind in KINDS for n in (1, 2))
    wm("verify", "-w", two)


def test_a_round_reads_what_the_newest_controller_drove_and_all_that_was_recorded(three):
    root, _ = three
    assert parents(root, "rollouts/0001") == []
    for before, now in ((1, 2), (2, 3)):
        all_rollouts = [f"rollouts/000{n}" for n in range(1, now + 1)]
        expected = {
            "rollouts": [f"{kind}/000{before}" for kind in ("control", "vision", "memory")],
            "vision": [*all_rollouts, f"vision/000{before}"],
            "latents": [*all_rollouts, f"vision/000{now}"],
            "memory": [f"latents/000{now}", f"vision/000{now}", f"memory/000{before}"],
            "control": [f"vision/000{now}", f"memory/000{now}", f"control/000{before}"],
            "evaluations": [f"{kind}/000{now}" for kind in ("control", "vision", "memory")],
        }
        assert {kind: parents(root, f"{kind}/000{now}") for kind in KINDS} == expected


def test_rounds_are_the_stages_run_by_hand(two, tmp_path):
    """The oracle: the commands of docs/recipes.md, with --from and --set, in a workspace alike."""
    root = tmp_path / "hand"
    wm("run", "-w", root, *FIRST, "--workers", 1)
    drive = ("rollout.policy=control/0001", "rollout.first_episode=8", "rollout.episodes=4",
             "rollout.gymnasium_episodes=1", "rollout.epsilon=0.4")  # fmt: skip
    wm("rollout", "-w", root, *settings(*drive))
    both = ("--from", "rollouts/0001", "--from", "rollouts/0002")
    wm("train-vision", "-w", root, *both, "--from", "vision/0001", "--set", "vision.steps=4")
    wm("sample-latents", "-w", root, *both)
    learn = settings("memory.steps=20", "memory.learning_rate=1e-4")
    wm("train-memory", "-w", root, "--from", "memory/0001", *learn)
    search = settings("control.generations=2", "control.sigma=0.02")
    wm("train-control", "-w", root, "--from", "control/0001", *search)
    wm("evaluate", "-w", root)
    assert digests(root) == digests(two)
    for name in digests(two):
        for key in ("fingerprint", "seeds", "summary"):
            found, expected = manifest(root, name)[key], manifest(two, name)[key]
            if name == "rollouts/0002" and key == "summary":
                assert found.pop("policy") == expected.pop("policy") == "control/0001"
            assert found == expected, (name, key)
    again = wm("run", "-w", root, "--rounds", 2, "--json").report
    assert again["up_to_date"] is True
    wm("rollout", "-w", root, *settings(*drive[:-1]))
    assert digests(root)["rollouts/0003"] != digests(root)["rollouts/0002"], "nobody strayed"


def test_no_round_uses_the_tracks_of_another_or_of_another_purpose(three):
    root, _ = three
    used = {f"rollout {n}": set(recorded(root, n)) for n in (1, 2, 3)}
    assert [len(seeds) for seeds in used.values()] == [8, 4, 4]
    for number in (1, 2, 3):
        for purpose, told in manifest(root, f"control/000{number}")["seeds"].items():
            seeds = range(told["first"], told["first"] + told["count"])
            used[f"{purpose} {number}"] = set(seeds)
    evaluated = [manifest(root, f"evaluations/000{n}")["seeds"]["seeds"] for n in (1, 2, 3)]
    assert evaluated[0] == evaluated[1] == evaluated[2]
    used["evaluation"] = set(evaluated[0])
    assert all(used.values())
    for one, other in itertools.combinations(used, 2):
        assert not used[one] & used[other], (one, other)


def test_a_recording_of_the_first_tracks_is_fingerprinted_as_it_always_was(two):
    """What recordings of 0.1.0 before these settings say stays what is called for."""
    first, second = (manifest(two, f"rollouts/000{n}")["config"]["rollout"] for n in (1, 2))
    assert not {"first_episode", "epsilon"} & set(first)
    assert (second["first_episode"], second["epsilon"]) == (8, 0.4)


def test_what_a_controller_does_otherwise_is_asked_of_one_alone(two):
    said = wm("rollout", "-w", two, "--set", "rollout.epsilon=0.4", code=2).said
    assert "'brownian' is random by itself" in " ".join(said.split())
    assert "rounds.epsilon" in said
    said = wm("rollout", "-w", two, "--set", "rollout.epsilon=1.2", code=2).said
    assert "1.2 is more than 1" in " ".join(said.split())


def test_two_workspaces_of_two_rounds_are_equal_and_a_third_makes_only_itself(two, three):
    root, report = three
    assert digests(two).items() < digests(root).items()
    states = [(row["stage"], row["round"], row["state"]) for row in rows(report, "Pipeline")]
    assert states == [
        (stage, number, "made" if number == 3 else "up to date")
        for number in (1, 2, 3)
        for stage in STAGES
    ]


@pytest.mark.parametrize("words", [("--rounds", 2), (), ("--rounds", 1)])
def test_again_everything_is_up_to_date_and_nothing_is_written(words, two):
    before = snapshot(two)
    again = wm("run", "-w", two, *words, "--json").report
    assert again["up_to_date"] is True
    assert again["artifact"] == f"evaluations/000{1 if 1 in words else 2}"
    assert snapshot(two) == before


def test_status_shows_rounds_and_calls_none_of_them_stale(three):
    root, _ = three
    report = wm("status", "-w", root, "--json").report
    assert report["up_to_date"] is True
    stages = rows(report, "Stages")
    assert {row["state"] for row in stages} == {"fresh"}
    assert [row["round"] for row in stages] == [1] * 6 + [2] * 6 + [3] * 6
    shown = {row["artifact"]: row["round"] for row in rows(report, "Artifacts")}
    assert shown == {f"{kind}/000{n}": n for kind in KINDS for n in (1, 2, 3)}


def test_the_table_of_rounds_tells_what_the_manifests_tell(three):
    root, report = three
    table = rows(report, "Rounds")
    assert rows(wm("status", "-w", root, "--json").report, "Rounds") == table
    assert len(table) == 3
    total = 0
    for number, row in enumerate(table, 1):
        control, vision, memory, evaluation = (
            manifest(root, f"{kind}/000{number}")["summary"]
            for kind in ("control", "vision", "memory", "evaluations")
        )
        total += sum(
            len(h5py.File(path)["observations"])
            for path in (root / f"rollouts/000{number}").glob("*.h5")
        )
        assert row == {
            "round": number,
            "frames": total,
            "V_error": vision["reconstruction"],
            "M_nll": memory["nll"],
            "selected": control["selected_score"],
            "score": evaluation["mean"],
            "stderr": evaluation["stderr"],
        }


def test_a_later_search_goes_on_as_the_first_one_ended():
    """What begins easy, wide or several times does so in round 1 alone."""
    words = {"control.sigma": 0.3, "control.sigma_end": 0.07, "control.max_steps": [5, 12],
             "control.episodes": [1, 2], "control.starts": 2}  # fmt: skip
    made = [{"control": "control/0001"}, {}]

    def told(**changed: object) -> dict[str, object]:
        recipe = load_recipe("carracing")
        found = resolve(sections(recipe.family), recipe, overrides={**words, **changed})
        config = config_in(stage_named("train-control"), found.sections, made)
        return {name: getattr(config, name) for name in ("sigma", "sigma_end", "generations")} | {
            "rest": (config.max_steps, config.episodes, config.starts)
        }

    ended = {"sigma": 0.07, "sigma_end": 0.07, "generations": 14, "rest": ((12,), (2,), 1)}
    assert told() == ended
    assert told(**{"rounds.sigma": 0.1}) == {**ended, "sigma": 0.1}
    adapted = {"control.sigma_end": 0.0, "rounds.generations": 0, "control.generations": 9}
    assert told(**adapted) == {**ended, "sigma": 0.3, "sigma_end": 0.0, "generations": 9}


@pytest.mark.parametrize(
    ("episodes", "foreign", "later", "expected"),
    [
        (480, 0, 64, [(64, 0, 480), (64, 0, 544), (64, 0, 608)]),
        (10_000, 1000, 64, [(64, 6, 10_000), (64, 6, 10_064), (64, 6, 10_128)]),
        (8, 20, 0, [(8, 8, 8), (8, 8, 16), (8, 8, 24)]),
    ],
)
def test_recordings_follow_each_other_and_keep_the_shares_of_engines(
    episodes, foreign, later, expected
):
    recipe = load_recipe("carracing")
    words = {"rollout.episodes": episodes, "rollout.gymnasium_episodes": foreign,
             "rounds.episodes": later}  # fmt: skip
    found = resolve(sections(recipe.family), recipe, overrides=words).sections
    made = [{"control": "control/0001"}]
    for number, wanted in enumerate(expected, 2):
        made.append({})
        config = config_in(stage_named("rollout"), found, made)
        assert config.policy == f"control/000{number - 1}"
        assert (config.episodes, config.gymnasium_episodes, config.first_episode) == wanted
        made[-1]["control"] = f"control/000{number}"


def test_settings_that_change_round_1_leave_no_later_one_to_compare(two):
    before = snapshot(two)
    changed = wm("status", "-w", two, "--set", "vision.steps=11", "--json").report
    stages = rows(changed, "Stages")
    assert [row["state"] for row in stages] == ["fresh"] + ["stale"] * 5
    assert [row["artifact"] for row in stages] == [f"{kind}/0001" for kind in KINDS]
    assert stages[1]["because"] == "vision.steps: 10 -> 11"
    later = wm("status", "-w", two, "--set", "rounds.vision_steps=5", "--json").report
    found = {(row["stage"], row["round"]): row for row in rows(later, "Stages")}
    assert {row["state"] for key, row in found.items() if key[1] == 1} == {"fresh"}
    assert found["rollout", 2]["state"] == "fresh"
    assert found["train-vision", 2]["because"] == "vision.steps: 4 -> 5"
    assert snapshot(two) == before


# --------------------------------------------------------------------------- stopped and resumed

DONE = {
    "rollouts": "shard-*.h5",
    "vision": "metrics.jsonl",
    "latents": "shard-*.h5",
    "memory": "metrics.jsonl",
    "control": "search.jsonl",
    "evaluations": "task-*.json",
}


@pytest.mark.parametrize(
    ("kind", "stop"), [("rollouts", "kill"), ("vision", "int"), ("control", "kill")]
)
def test_stopped_inside_a_later_round_and_run_again(kind, stop, two, tmp_path):
    """Everything of round 2 from this stage on is made anew, with a stop in the middle."""
    root = copied(two, tmp_path / "stopped")
    for later in KINDS[KINDS.index(kind) :]:
        shutil.rmtree(root / later / "0002")
    words = ("run", "-w", root, "--rounds", 2, "--workers", 2, "--checkpoint-seconds", 0)
    process = start_wm(*words, log=tmp_path / "log")
    try:
        wait_until(lambda: list((root / kind).glob(f".partial-*/{DONE[kind]}")), seconds=120)
        for pid in session_members(process.pid):
            if stop == "kill" or pid == process.pid:
                os.kill(pid, 9 if stop == "kill" else 2)
        process.wait(timeout=60)
        wait_until(lambda: not session_members(process.pid), seconds=20)
    finally:
        clear_session(process)
    if stop == "int":
        assert process.returncode == 130
    assert not (root / kind / "0002").exists()
    state = {
        (row["stage"], row["round"]): row["state"]
        for row in rows(wm("status", "-w", root, "--json").report, "Stages")
    }
    assert state[STAGES[KINDS.index(kind)], 2] == "partial"
    assert state[STAGES[KINDS.index(kind)], 1] == "fresh"
    assert "The same command goes on with it" in wm("doctor", "-w", root).said
    done = wm("run", "-w", root, "--workers", 2)  # those that were begun, by themselves
    assert "Resuming" in done.said
    assert digests(root) == digests(two)


def test_stopped_between_two_rounds_the_same_command_goes_on(two, tmp_path):
    root = copied(two, tmp_path / "between")
    for kind in KINDS:
        shutil.rmtree(root / kind / "0002")
    assert wm("run", "-w", root, "--json").report["artifact"] == "evaluations/0001"
    assert wm("run", "-w", root, "--rounds", 2, "--json").report["artifact"] == "evaluations/0002"
    assert digests(root) == digests(two)


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rounds", 0), "--rounds"),
        (("--rounds", -1), "--rounds"),
        (("--rounds", "many"), "--rounds"),
        (("--rounds", 2, "--set", "control.components=4"), "--set control.components=0"),
        (("--set", "rounds.num_rounds=2", "--set", "control.components=4"), "components=0"),
        (("--set", "rounds.episodes=-1"), "rounds.episodes"),
        (("--rounds", 2, "--force"), "--force"),
        (("--rounds", 2, "--from", "vision/0001"), "--from"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(words, said, tmp_path):
    root = tmp_path / "workspace"
    refused = wm("run", "-w", root, "--preset", "debug", *words, code=2)
    assert said in refused.said
    assert not list(root.glob("*/*"))
    assert not (root / "workspace.json").exists(), "nothing of it is kept"


def test_one_round_may_move_along_components(micro_workspace):
    assert wm("run", "-w", micro_workspace, "--rounds", 1, "--json").report["up_to_date"] is True
    refused = wm("run", "-w", micro_workspace, "--rounds", 2, code=2)
    assert "principal components" in refused.said


def test_the_number_of_rounds_may_be_a_setting(two):
    report = wm("status", "-w", two, "--set", "rounds.num_rounds=3", "--json").report
    last = [(row["stage"], row["state"]) for row in rows(report, "Stages") if row["round"] == 3]
    assert last == [(stage, "missing") for stage in STAGES]
    assert report["up_to_date"] is False


def test_a_damaged_artifact_of_a_round_comes_back_by_running_again(two, tmp_path):
    root = copied(two, tmp_path / "damaged")
    (root / "memory/0002/weights.safetensors").write_bytes(b"")
    refused = wm("run", "-w", root, code=4)
    assert f"remove {root / 'memory/0002'}" in refused.said
    shutil.rmtree(root / "memory/0002")
    wm("run", "-w", root)
    assert digests(root) == digests(two)


# --------------------------------------------------------------------------------- in the dream


def test_rounds_in_the_dream(tmp_path):
    """V and M learn from what the dreamt controller did in the world; both returns are told."""
    root = tmp_path / "dream"
    dream = settings("control.place=dream", "control.dream_steps=15", "memory.reward_head=true",
                     "memory.end_head=true")  # fmt: skip
    words = ("run", "-w", root, *FIRST, *dream, "--rounds", 2, "--workers", 2)
    report = wm(*words, "--json").report
    assert parents(root, "control/0002") == [
        "vision/0002", "memory/0002", "latents/0002", "control/0001",
    ]  # fmt: skip
    for number, row in enumerate(rows(report, "Rounds"), 1):
        log = (root / f"control/000{number}/search.jsonl").read_text().splitlines()
        scored = [record for line in log if "dreamt" in (record := json.loads(line))]
        best = max(scored, key=lambda record: sum(record["selection"]))
        assert row["dreamt"] == pytest.approx(sum(best["dreamt"]) / len(best["dreamt"]))
        assert row["selected"] == pytest.approx(sum(best["selection"]) / len(best["selection"]))
    assert wm(*words, "--json").report["up_to_date"] is True
