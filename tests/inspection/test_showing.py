"""`wm show`: what it tells of an artifact is what the files say, and its command makes it again."""

import json
import shlex
import shutil

import numpy as np
import pytest
from command_line import copied
from command_line import wm as wm_process

from stages.inspection.showing import show
from wm_cli.app import run
from wm_cli.render import json_text

pytestmark = pytest.mark.pipeline
KINDS = ("rollouts", "vision", "latents", "memory", "control", "evaluations")


def tables(report):
    return {table["title"].partition(" unlike")[0]: table["rows"] for table in report["tables"]}


def command(report):
    [line] = [note for note in report["notes"] if note.startswith("Make it again: ")]
    return shlex.split(line.removeprefix("Make it again: wm "))


def report_of(name, root, code=0):
    """What `wm show --json` prints."""
    report = json.loads(json_text(show(root, str(name))))
    assert report["exit_code"] == code
    return report


@pytest.fixture
def report(capsys):
    """Run `wm` in this process and read what it prints with --json."""

    def answered(*words):
        assert run([*map(str, words), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return answered


@pytest.fixture(scope="module")
def shown(micro_workspace):
    """Report of every artifact of the micro workspace, by kind."""
    return {kind: report_of(f"{kind}/1", micro_workspace) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_it_tells_what_manifest_and_folder_say(shown, micro_workspace, kind):
    folder = micro_workspace / kind / "0001"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    report, found = shown[kind], tables(shown[kind])
    assert report["exit_code"] == 0
    assert report["path"] == str(folder)
    told = report["summary"]
    assert (told["artifact"], told["state"]) == (f"{kind}/0001", "complete")
    assert (told["recipe"], told["preset"]) == ("carracing", "debug")
    payload = [path for path in folder.iterdir() if not path.name.startswith("manifest")]
    assert told["bytes"] == sum(path.stat().st_size for path in payload)
    assert sum(row["bytes"] for row in found["Files"]) == told["bytes"]
    assert told["took_seconds"] == manifest["provenance"]["seconds_of_last_run"]
    numbers = {row["number"]: row["value"] for row in found["Numbers"]}
    for name, value in manifest["summary"].items():
        if type(value) in (int, float, bool):
            assert numbers[name] == value
    made_from = [row["artifact"] for row in found.get("Made from", [])]
    assert made_from == [parent["id"] for parent in manifest["parents"]]
    pictures = {row["path"] for row in found.get("To look at", [])}
    assert {str(path) for path in payload if path.suffix in (".png", ".csv")} <= pictures
    versions = {row["package"]: row["version"] for row in found["Made with"]}
    assert versions["torch"] == manifest["provenance"]["packages"]["torch"]


def test_children_are_those_that_name_it_as_a_parent(shown, micro_workspace):
    for kind in KINDS:
        children = [
            f"{other}/0001"
            for other in KINDS
            for parent in json.loads((micro_workspace / other / "0001/manifest.json").read_bytes())[
                "parents"
            ]
            if parent["kind"] == kind
        ]
        rows = tables(shown[kind]).get("What was made from it", [])
        assert [row["artifact"] for row in rows] == children


def test_settings_unlike_the_recipe_are_those_that_were_set(shown):
    rows = {row["key"]: row for row in tables(shown["vision"])["Settings"]}
    assert rows["vision.latent_size"] == {
        "key": "vision.latent_size",
        "value": "8",
        "recipe_has": "32",
    }
    given = {"vision.latent_size", "vision.steps", "vision.batch_size"}
    given |= {"vision.held_out_frames", "vision.log_every"}
    assert set(rows) <= given


@pytest.mark.parametrize("kind", KINDS)
def test_its_command_makes_it_again(shown, report, kind):
    """The stage itself says so: what the command calls for is there already."""
    words = command(shown[kind])
    assert words.pop() == "--force"
    again = report(*words)
    assert (again["artifact"], again["up_to_date"]) == (f"{kind}/0001", True)


def test_its_command_holds_also_where_the_workspace_was_told_otherwise(
    micro_workspace, report, tmp_path
):
    """Another seed, preset and settings for one command alone: the command says them."""
    root = copied(micro_workspace, tmp_path / "w")
    odd = ("--seed", 11, "--set", "rollout.episodes=2", "--set", "rollout.max_steps=5")
    made = report("rollout", "-w", root, *odd)
    words = command(report_of(made["artifact"], root))
    assert {"--seed", "11", "rollout.episodes=2", "rollout.max_steps=5"} <= set(words)
    again = report(*words[:-1])
    assert (again["artifact"], again["up_to_date"]) == ("rollouts/0002", True)
    forced = report(*words)["artifact"]
    digests = [
        json.loads((root / one / "manifest.json").read_bytes())["payload_digest"]
        for one in ("rollouts/0002", forced)
    ]
    assert forced == "rollouts/0003"
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    "told",
    [
        ("--crop", "0,64,8,72", "--seed", "7"),
        ("--set", "world.env=CarRacing-v3", "--set", "world.repeat=4"),
    ],
)
@pytest.mark.parametrize("first", [True, False], ids=["as-the-first", "later"])
def test_the_command_of_an_import_imports_it_again(report, tmp_path, told, first):
    """Its data are placed by hand: where they lie is not kept."""
    root, folder = tmp_path / "w", tmp_path / "my data"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        frames = random.integers(0, 256, (9, 72, 80, 3), dtype=np.uint8)
        actions = random.uniform(0, 1, (8, 3)).astype(np.float32)
        np.savez(folder / f"{number}.npz", observations=frames, actions=actions)
    if not first:
        report("import", "npz", folder, "-w", root)
    made = report("import", "npz", folder, "-w", root, *told)["artifact"]
    shown = report_of(made, root)
    assert "PATH stands for where my data lies." in shown["notes"]
    assert not any("settings have changed" in note for note in shown["notes"])
    words = [str(folder) if word == "PATH" else word for word in command(shown)]
    assert words.pop() == "--force"
    again = report(*words)
    assert (again["artifact"], again["up_to_date"]) == (made, True)
    forced = report(*words, "--force")["artifact"]
    digests = {
        json.loads((root / one / "manifest.json").read_bytes())["payload_digest"]
        for one in (made, forced)
    }
    assert forced != made
    assert len(digests) == 1
    (root / made / "shard-00000.h5").write_bytes(b"")
    [damage] = tables(report_of(made, root, code=4))["Damage"]
    assert "wm import FORMAT PATH --force" in damage["fix"]


@pytest.mark.parametrize("name", ["reconstructions.png", "weights.safetensors"])
def test_a_damaged_file_is_told_and_the_rest_is_shown(micro_workspace, tmp_path, name):
    root = copied(micro_workspace, tmp_path / "w")
    content = bytearray((root / "vision/0001" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (root / "vision/0001" / name).write_bytes(content)
    report = report_of("vision/0001", root, 4)
    assert report["summary"]["state"] == "damaged"
    [fault] = tables(report)["Damage"]
    assert name in fault["because"]
    assert "wm train-vision --force" in fault["fix"]
    assert {row["number"] for row in tables(report)["Numbers"]} >= {"kl", "reconstruction"}


def test_a_damaged_manifest_is_told_and_what_it_says_is_shown(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "w")
    manifest = root / "vision" / "0001" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    report = report_of("vision/0001", root, 4)
    assert "manifest" in tables(report)["Damage"][0]["because"]
    assert tables(report)["Numbers"]
    assert report["notes"] == [], "no command is told that rests on a doubtful manifest"
    manifest.write_text("{")
    report = report_of("vision/0001", root, 4)
    assert set(tables(report)) == {"Damage"}
    manifest.unlink()
    report = report_of("vision/0001", root, 4)
    assert "manifest.json is missing" in tables(report)["Damage"][0]["because"]


@pytest.mark.parametrize(
    ("name", "code", "answer"),
    [
        ("vison/0001", 2, "Did you mean vision/0001?"),
        ("vision/7", 3, "Did you mean vision/0001?"),
        ("nothing", 2, "Ids are written like"),
        ("{root}", 2, "wm status -w"),
        ("{root}/vision", 3, "There is no agent"),
    ],
)
def test_what_is_not_there_is_answered_with_the_nearest(
    micro_workspace, capsys, name, code, answer
):
    words = ["show", name.format(root=micro_workspace), "-w", str(micro_workspace)]
    assert run(words) == code
    said = capsys.readouterr()
    assert answer in said.err
    assert said.out == ""


def test_folders_of_artifacts_and_of_agents(micro_workspace, tmp_path):
    by_path = report_of(micro_workspace / "memory" / "0001", tmp_path)
    assert by_path["summary"]["artifact"] == "memory/0001"
    agent = tmp_path / "mine"
    assert run(["export", "agent", str(agent), "-w", str(micro_workspace)]) == 0
    report = report_of(agent, tmp_path)
    assert report["summary"]["artifact"] == "agents/mine"
    assert report["summary"]["bytes"] == sum(p.stat().st_size for p in agent.glob("*.safetensors"))
    (agent / "control.safetensors").unlink()
    damage = tables(report_of(agent, tmp_path, 4))["Damage"]
    assert "control.safetensors" in damage[0]["because"]


def test_it_reads_and_never_writes(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "w")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    done = wm_process("show", "control/0001", "-w", root)
    assert "Make it again: wm train-control" in done.out
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_an_artifact_whose_parents_are_gone(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "w")
    shutil.rmtree(root / "latents" / "0001")
    report = report_of("memory/0001", root)
    assert "latents/0001 (gone)" in {row["artifact"] for row in tables(report)["Made from"]}
    assert any("cannot be made again" in note for note in report["notes"])
