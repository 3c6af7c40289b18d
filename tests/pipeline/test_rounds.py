"""Rounds of `wm run`: what each of them reads, makes and uses, beside the same done by hand."""

import itertools
import shutil

import h5py
import pytest
from command_line import KINDS, STAGES, digests, manifest, settings, snapshot, wm
from round_samples import FIRST, parents, rows

from stages import stage_named
from stages.pipeline import sections
from stages.rounds import config_in
from stages.settings.recipes import load_recipe
from stages.settings.resolve import resolve

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def three(two_rounds, tmp_path_factory):
    """A third round after them; what the command said of it."""
    root = tmp_path_factory.mktemp("rounds") / "three"
    shutil.copytree(two_rounds, root)
    return root, wm("run", "-w", root, "--rounds", 3, "--workers", 1, "--json").report


def recorded(root, number):
    """Seeds of a recording, from its shards."""
    shards = sorted((root / f"rollouts/{number:04d}").glob("*.h5"))
    found = []
    for path in shards:
        with h5py.File(path) as shard:
            found += shard["seeds"][:].tolist()
    return found


def test_every_round_makes_one_artifact_of_each_kind(two_rounds):
    assert sorted(digests(two_rounds)) == sorted(f"{kind}/000{n}" for kind in KINDS for n in (1, 2))
    wm("verify", "-w", two_rounds)


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


def test_rounds_are_the_stages_run_by_hand(two_rounds, tmp_path):
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
    assert digests(root) == digests(two_rounds)
    for name in digests(two_rounds):
        for key in ("fingerprint", "seeds", "summary"):
            found, expected = manifest(root, name)[key], manifest(two_rounds, name)[key]
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


def test_a_recording_of_the_first_tracks_is_fingerprinted_as_it_always_was(two_rounds):
    """What recordings of 0.1.0 before these settings say stays what is called for."""
    first, second = (manifest(two_rounds, f"rollouts/000{n}")["config"]["rollout"] for n in (1, 2))
    assert not {"first_episode", "epsilon"} & set(first)
    assert (second["first_episode"], second["epsilon"]) == (8, 0.4)


def test_what_a_controller_does_otherwise_is_asked_of_one_alone(two_rounds):
    said = wm("rollout", "-w", two_rounds, "--set", "rollout.epsilon=0.4", code=2).said
    assert "'brownian' is random by itself" in " ".join(said.split())
    assert "rounds.epsilon" in said
    said = wm("rollout", "-w", two_rounds, "--set", "rollout.epsilon=1.2", code=2).said
    assert "1.2 is more than 1" in " ".join(said.split())


def test_two_workspaces_of_two_rounds_are_equal_and_a_third_makes_only_itself(two_rounds, three):
    root, report = three
    assert digests(two_rounds).items() < digests(root).items()
    states = [(row["stage"], row["round"], row["state"]) for row in rows(report, "Pipeline")]
    assert states == [
        (stage, number, "made" if number == 3 else "up to date")
        for number in (1, 2, 3)
        for stage in STAGES
    ]


@pytest.mark.parametrize("words", [("--rounds", 2), (), ("--rounds", 1)])
def test_again_everything_is_up_to_date_and_nothing_is_written(words, two_rounds):
    before = snapshot(two_rounds)
    again = wm("run", "-w", two_rounds, *words, "--json").report
    assert again["up_to_date"] is True
    assert again["artifact"] == f"evaluations/000{1 if 1 in words else 2}"
    assert snapshot(two_rounds) == before


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


def test_settings_that_change_round_1_leave_no_later_one_to_compare(two_rounds):
    before = snapshot(two_rounds)
    changed = wm("status", "-w", two_rounds, "--set", "vision.steps=11", "--json").report
    stages = rows(changed, "Stages")
    assert [row["state"] for row in stages] == ["fresh"] + ["stale"] * 5
    assert [row["artifact"] for row in stages] == [f"{kind}/0001" for kind in KINDS]
    assert stages[1]["because"] == "vision.steps: 10 -> 11"
    later = wm("status", "-w", two_rounds, "--set", "rounds.vision_steps=5", "--json").report
    found = {(row["stage"], row["round"]): row for row in rows(later, "Stages")}
    assert {row["state"] for key, row in found.items() if key[1] == 1} == {"fresh"}
    assert found["rollout", 2]["state"] == "fresh"
    assert found["train-vision", 2]["because"] == "vision.steps: 4 -> 5"
    assert snapshot(two_rounds) == before
