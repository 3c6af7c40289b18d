"""`wm evaluate --memory`: the tables of a memory, and what it answers when there is none."""

import json
import lzma
import shutil
from pathlib import Path

import pytest
from command_line import copied, manifest, snapshot

from wm_cli.app import run

FORMATS = Path(__file__).parent.parent / "formats"


@pytest.fixture
def old(tmp_path) -> Path:
    """The kept workspace of version 1, whose memory has no horizon.json."""
    root = tmp_path / "old"
    shutil.copytree(FORMATS / "v1", root)
    for packed in root.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    return root


@pytest.mark.pipeline
def test_the_table_is_what_the_artifact_holds(micro_workspace, capsys):
    before = snapshot(micro_workspace)
    assert run(["evaluate", "--memory", "-w", str(micro_workspace), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    kept = json.loads((micro_workspace / "memory/0001/horizon.json").read_bytes())
    rows = report["tables"][0]["rows"]
    assert [row["steps"] for row in rows] == [row["steps"] for row in kept["horizon"]]
    for row, told in zip(rows, kept["horizon"], strict=True):
        assert row["nats"] == pytest.approx(told["nll"], abs=5e-4)
        assert row["error"] == pytest.approx(told["error"], abs=5e-4)
    assert report["summary"]["memory"] == "memory/0001"
    told = manifest(micro_workspace, "memory/0001")["summary"]["useful_steps"]
    assert report["summary"]["useful_steps"] == kept["useful_steps"] == told
    assert snapshot(micro_workspace) == before


@pytest.mark.pipeline
def test_it_fits_a_terminal_of_eighty_columns(micro_workspace, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["evaluate", "--memory", "-w", str(micro_workspace)]) == 0
    shown = capsys.readouterr().out
    assert "nats held" in shown and "no end head" in shown
    table = shown[shown.index("Dreams from") : shown.index("What becomes")].splitlines()
    first = next(line for line in table if line.strip().startswith("1 "))
    assert len(first.split()) == 9, "every cell in one line"
    assert all(len(line) <= 80 for line in table)


@pytest.mark.pipeline
def test_a_damaged_file_is_named_with_its_remedy(micro_workspace, tmp_path, capsys):
    root = copied(micro_workspace, tmp_path / "damaged", before="control")
    (root / "memory/0001/horizon.json").write_text("{}")
    assert run(["evaluate", "--memory", "-w", str(root)]) == 4
    told = capsys.readouterr().err
    assert "horizon.json" in told and "wm train-memory --force" in told


def test_a_memory_of_an_earlier_version_is_measured_on_the_spot(old, capsys):
    before = snapshot(old)
    assert run(["evaluate", "--memory", "-w", str(old), "--json"]) == 0
    told = capsys.readouterr()
    assert "measured now" in told.err
    rows = json.loads(told.out)["tables"][0]["rows"]
    assert rows[0]["steps"] == 1 and rows[0]["starts"] > 0
    assert snapshot(old) == before


@pytest.mark.parametrize(
    "words",
    [
        ["--episodes", "3"],
        ["--record", "1"],
        ["--agent", "somewhere"],
        ["--force"],
        ["--seed", "1"],
        ["--set", "memory.steps=1"],
        ["--from", "latents/0001"],
        ["--from", "memory/0001", "--from", "memory/0001"],
    ],
)
def test_it_scores_no_agent(words, old, capsys):
    before = snapshot(old)
    assert run(["evaluate", "--memory", "-w", str(old), *words]) == 2
    assert "wm evaluate --memory" in capsys.readouterr().err
    assert snapshot(old) == before


def test_without_a_memory_it_says_which_command_makes_one(recorded, capsys):
    assert run(["evaluate", "--memory", "-w", str(recorded)]) == 3
    assert "wm train-memory" in capsys.readouterr().err
    assert run(["evaluate", "--memory", "-w", str(recorded), "--from", "memory/0007"]) == 3
