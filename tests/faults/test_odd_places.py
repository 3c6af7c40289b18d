"""Workspaces in places that people really have, and clocks that are wrong."""

import os
import shlex
import time

import pytest
from command_line import copied, digests, wm

pytestmark = pytest.mark.pipeline

PLACES = {
    "spaces and quotes": 'my runs/it\'s "first" $HOME',
    "other scripts": "Läufe/世界模型 🏎",
    "an option": "-w",
    "markup": "[bold]run[/bold]",
    "deep": "/".join(["d" * 200] * 15),
    "long name": "n" * 255,
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_stage_with_workers_works_there(place, micro_workspace, tmp_path):
    root = tmp_path / place
    root.parent.mkdir(parents=True, exist_ok=True)
    copied(micro_workspace, root, before="evaluations")
    made = wm("evaluate", f"--workspace={place}", "--workers", 2, "--json", cwd=tmp_path)
    assert made.report["artifact"] == "evaluations/0001"
    assert digests(root) == digests(micro_workspace)
    (root / "vision/0001/weights.safetensors").write_bytes(b"short")
    told = wm("verify", f"--workspace={place}", cwd=tmp_path, code=4)
    assert "vision/0001/weights.safetensors is damaged" in told.said


def test_through_a_link(micro_workspace, tmp_path):
    """A workspace on another disk; and its folder of a kind, too."""
    away = copied(micro_workspace, tmp_path / "disk" / "run", before="evaluations")
    (tmp_path / "elsewhere").mkdir()
    (away / "evaluations").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(away)
    wm("evaluate", "-w", tmp_path / "link", "--workers", 2)
    assert digests(tmp_path / "link") == digests(micro_workspace)
    assert (tmp_path / "elsewhere/0001/manifest.json").exists()


def test_a_hint_can_be_pasted(micro_workspace, tmp_path):
    """What `wm doctor` says to run runs, though the path has spaces and quotes."""
    root = copied(micro_workspace, tmp_path / PLACES["spaces and quotes"])
    (root / "rollouts" / ".tmp-0123456789-shard").write_bytes(b"x")
    report = wm("doctor", "-w", root, "--json").report
    rows = [row for table in report["tables"] for row in table["rows"]]
    [fix] = {row["fix"] for row in rows if "clean" in str(row.get("fix"))}
    program, *words = shlex.split(fix)
    assert program == "wm"
    assert words[-1] == str(root)
    assert wm(*words, "--yes").code == 0


@pytest.mark.parametrize("hours", [-24 * 365 * 30, 24 * 365 * 10])
def test_times_of_files_decide_nothing(hours, micro_workspace, tmp_path):
    """`touch`, a clock that was wrong, a copy that kept no times: all is still up to date."""
    root = copied(micro_workspace, tmp_path / "workspace")
    moment = time.time() + 3600 * hours
    for path in [*root.rglob("*"), root]:
        os.utime(path, (moment, moment))
    report = wm("status", "-w", root, "--json").report
    assert {row["state"] for row in report["tables"][0]["rows"]} == {"fresh"}
    assert "up to date" in wm("run", "-w", root).said
    assert digests(root) == digests(micro_workspace)


@pytest.mark.parametrize("home", ["", "/nowhere/at/all"])
def test_without_a_home(home, micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "workspace", before="evaluations")
    wm("evaluate", "-w", root, "--workers", 2, HOME=home)
    assert digests(root) == digests(micro_workspace)
