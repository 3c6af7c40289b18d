"""`wm status`, `verify`, `config` and `doctor` against workspaces that are odd in known ways."""

import json
import shutil
from pathlib import Path

import pytest

STAGES = ["rollout", "train-vision", "sample-latents", "train-memory", "train-control", "evaluate"]


@pytest.fixture
def workspace(recorded: Path, tmp_path: Path) -> Path:
    """A copy of the recorded workspace, to be changed."""
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


def table(answer, title):
    tables = {one["title"]: one["rows"] for one in json.loads(answer.stdout)["tables"]}
    return tables[title]


def states(answer):
    return {row["stage"]: row["state"] for row in table(answer, "Stages")}


@pytest.mark.parametrize("made", [False, True])
def test_status_of_nothing_is_all_missing_and_writes_nothing(wm, tmp_path, made):
    root = tmp_path / "empty"
    if made:
        root.mkdir()
    answer = wm("status", "-w", root, "--json")
    assert answer.returncode == 0
    assert states(answer) == dict.fromkeys(STAGES, "missing")
    assert root.exists() == made
    assert not made or not list(root.iterdir())


@pytest.mark.parametrize("command", ["status", "verify"])
def test_a_foreign_folder_is_refused_and_left_alone(wm, tmp_path, command):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "home.txt").write_text("dear all")
    answer = wm(command, "-w", tmp_path / "letters")
    assert answer.returncode == 2
    assert "letters is not a workspace" in answer.stderr
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["home.txt"]


def test_status_of_a_file_is_refused(wm, tmp_path):
    (tmp_path / "file").write_text("")
    assert wm("status", "-w", tmp_path / "file").returncode == 2


def test_status_tells_fresh_from_stale_and_why(wm, workspace):
    before = {path: path.stat().st_mtime_ns for path in workspace.rglob("*")}
    answer = wm("status", "-w", workspace, "--json")
    assert states(answer) == {**dict.fromkeys(STAGES, "missing"), "rollout": "fresh"}
    [row] = table(answer, "Artifacts")
    folder = workspace / "rollouts" / "0001"
    files = [*folder.glob("*.h5"), folder / "metrics.jsonl"]
    assert row["artifact"] == "rollouts/0001"
    assert row["bytes"] == sum(path.stat().st_size for path in files)
    changed = wm("status", "-w", workspace, "--json", "--set", "rollout.max_steps=4")
    [row] = [row for row in table(changed, "Stages") if row["stage"] == "rollout"]
    assert row["state"] == "stale"
    assert "rollout.max_steps: 3 -> 4" in row["because"]
    assert before == {path: path.stat().st_mtime_ns for path in workspace.rglob("*")}


def test_status_shows_sizes_for_people(wm, workspace):
    num_bytes = sum(p.stat().st_size for p in (workspace / "rollouts" / "0001").glob("*.h5"))
    assert 1000 < num_bytes < 999_000
    assert f"{num_bytes / 1000:.3g} kB" in wm("status", "-w", workspace).stdout


def test_status_survives_a_damaged_manifest_and_a_cut_file(wm, workspace):
    shard = workspace / "rollouts" / "0001" / "shard-00000.h5"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    cut = wm("status", "-w", workspace, "--json")
    assert (cut.returncode, states(cut)["rollout"]) == (0, "damaged")
    shard.write_bytes(whole)
    manifest = workspace / "rollouts" / "0001" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    broken = wm("status", "-w", workspace, "--json")
    assert broken.returncode == 0
    assert states(broken)["rollout"] == "damaged"
    assert "wm rollout --force" in table(broken, "Stages")[0]["because"]


def test_status_and_doctor_show_unfinished_work(wm, workspace):
    key = json.loads((workspace / "rollouts/0001/manifest.json").read_bytes())["fingerprint"]
    partial = workspace / "rollouts" / f".partial-{key[:16]}"
    (workspace / "rollouts" / "0001").rename(partial)
    assert states(wm("status", "-w", workspace, "--json"))["rollout"] == "partial"
    [finished] = table(wm("doctor", "-w", workspace, "--json"), "Left by a crash")
    assert finished["leftover"] == f"rollouts/{partial.name}"
    assert finished["what"] == "finished work"
    assert finished["fix"] == f"wm rollout -w {workspace}"
    (partial / "manifest.json").unlink()
    answer = wm("doctor", "-w", workspace, "--json")
    [unfinished] = table(answer, "Left by a crash")
    assert unfinished["what"] == "unfinished work"
    assert unfinished["bytes"] == sum(path.stat().st_size for path in partial.iterdir())
    found = table(answer, "Examination")
    [summary] = [row for row in found if row["what"] == "left by a crash"]
    assert summary["fix"] is None, "the table says how to go on with it"
    assert unfinished["fix"] == f"wm rollout -w {workspace}"
    (workspace / "rollouts" / ".tmp-999999999-x").write_bytes(b"x")
    shutil.rmtree(partial)
    found = table(wm("doctor", "-w", workspace, "--json"), "Examination")
    [summary] = [row for row in found if row["what"] == "left by a crash"]
    assert summary["fix"] == f"wm clean -w {workspace}"


def test_status_names_who_holds_a_stage(wm, workspace):
    from stages.artifacts.workspace import Workspace

    with Workspace.open(workspace).lock("rollouts"):
        answer = wm("status", "-w", workspace, "--json")
    assert states(answer)["rollout"] == "running"
    assert "process" in table(answer, "Stages")[0]["because"]
    assert states(wm("status", "-w", workspace, "--json"))["rollout"] == "fresh"


def test_verify_reads_every_byte(wm, workspace):
    assert wm("verify", "-w", workspace).returncode == 0
    shard = workspace / "rollouts" / "0001" / "shard-00001.h5"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1  # same size, one bit
    shard.write_bytes(content)
    for words in ((), ("rollouts/1",)):
        answer = wm("verify", *words, "-w", workspace, "--json")
        assert answer.returncode == 4
        [row] = table(answer, "Artifacts")
        assert row["state"] == "damaged"
        assert "shard-00001.h5" in row["because"]
        assert "wm rollout --force" in row["fix"]
    assert states(wm("status", "-w", workspace, "--json"))["rollout"] == "fresh", "status is quick"


def test_verify_finds_a_missing_file_and_a_damaged_manifest(wm, workspace):
    (workspace / "rollouts" / "0001" / "shard-00000.h5").unlink()
    assert wm("verify", "-w", workspace).returncode == 4
    (workspace / "rollouts" / "0001" / "manifest.json").write_text("{}")
    for words in ((), ("rollouts/0001",)):
        answer = wm("verify", *words, "-w", workspace, "--json")
        assert answer.returncode == 4
        assert table(answer, "Artifacts")[0]["artifact"] == "rollouts/0001"


def test_verify_names_what_did_not_come_with_an_artifact(wm, workspace):
    strange = workspace / "rollouts" / "0001" / "shard-00099.h5"
    strange.write_bytes(b"from somewhere else")
    result = wm("verify", "-w", workspace, "--json")
    rows = {row["artifact"]: row for row in table(result, "Artifacts")}
    assert (result.returncode, rows["rollouts/0001"]["state"]) == (0, "ok")
    told = "shard-00099.h5 did not come with it; nothing reads that."
    assert rows["rollouts/0001"]["because"] == told
    assert states(wm("status", "-w", workspace, "--json"))["rollout"] == "fresh"
    assert told in " ".join(wm("verify", "-w", workspace).stdout.split())


def test_verify_of_what_does_not_exist(wm, workspace, tmp_path):
    assert wm("verify", "rollouts/9", "-w", workspace).returncode == 3
    assert wm("verify", "-w", tmp_path / "none").returncode == 3


def test_config_tells_the_origin_of_every_value(wm, recorded, tmp_path):
    words = ("--preset", "debug", "--set", "memory.hidden_size=8", "--seed", "5", "--json")
    rows = {
        row["key"]: row for row in table(wm("config", "-w", tmp_path / "none", *words), "Settings")
    }
    origins = {key: (row["value"], row["origin"]) for key, row in rows.items()}
    assert origins["seed"] == ("5", "--seed")
    assert origins["memory.hidden_size"] == ("8", "--set")
    assert origins["world.env"] == ("CarRacing-v3", "recipe carracing")
    assert origins["rollout.episodes"][1] == "preset debug"
    assert all(row["meaning"] for row in rows.values())
    stored = {r["key"]: r for r in table(wm("config", "-w", recorded, "--json"), "Settings")}
    assert (stored["rollout.max_steps"]["value"], stored["rollout.max_steps"]["origin"]) == (
        "3",
        "workspace",
    )


def test_doctor_is_content_here(wm, tmp_path):
    answer = wm("doctor", "-w", tmp_path / "none", "--json")
    rows = {row["what"]: row for row in table(answer, "Examination")}
    assert answer.returncode == 0
    assert {"Python", "torch", "Box2D", "cores", "disk", "C compiler", "HDF5"} <= set(rows)
    assert all(row["fix"] for row in rows.values() if row["state"] != "ok")
    assert not (tmp_path / "none").exists()


def test_doctor_finds_both_box2d_and_a_package_that_does_not_import(wm, tmp_path):
    twin = tmp_path / "site" / "box2d_py-2.3.8.dist-info"
    twin.mkdir(parents=True)
    (twin / "METADATA").write_text("Metadata-Version: 2.1\nName: box2d-py\nVersion: 2.3.8\n")
    (tmp_path / "site" / "cma.py").write_text("raise ImportError('libm.so is gone')")
    answer = wm("doctor", "--json", PYTHONPATH=str(tmp_path / "site"))
    rows = {row["what"]: row for row in table(answer, "Examination")}
    assert answer.returncode == 6
    assert rows["Box2D"]["state"] == "warning"
    assert "pip install --force-reinstall Box2D==2.3.10" in rows["Box2D"]["fix"]
    assert rows["cma"]["state"] == "missing"
    assert "libm.so is gone" in rows["cma"]["found"]
