"""`wm report A B C`: workspaces that differ in the seed are one group; the rest is arithmetic."""

import csv
import hashlib
import json
import shutil

import numpy as np
import pages
import pytest
from command_line import copied
from scipy import stats

from wm_cli.app import run

pytestmark = pytest.mark.pipeline


def rewritten(root, *, seed=None, shift=0.0, overrides=()):
    """A copy that says it had another seed or other settings, and whose returns are shifted."""
    path = root / "workspace.json"
    document = json.loads(path.read_bytes())
    settings = document["settings"]
    settings["seed"] = settings["seed"] if seed is None else seed
    settings["overrides"] += list(overrides)
    document.pop("settings_sha256")  # as files of earlier versions
    path.write_text(json.dumps(document))
    folder = root / "evaluations/0001"
    with (folder / "episodes.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    for row in rows:
        row["total_reward"] = str(float(row["total_reward"]) + shift)
    with (folder / "episodes.csv").open("w") as opened:
        writer = csv.DictWriter(opened, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    _seal(folder, "episodes.csv")
    return [float(row["total_reward"]) for row in rows if row["who"] == "agent"]


def _seal(folder, name):
    """Digests of a folder one of whose files was rewritten."""
    told = json.loads((folder / "manifest.json").read_bytes())
    content = (folder / name).read_bytes()
    for entry in told["files"]:
        if entry["name"] == name:
            entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    lines = sorted(f"{e['name']} {e['bytes']} {e['sha256']}\n" for e in told["files"])
    told["payload_digest"] = hashlib.sha256("".join(lines).encode()).hexdigest()
    content = json.dumps(told).encode()
    (folder / "manifest.json").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


@pytest.fixture(scope="module")
def compared(micro_workspace, tmp_path_factory):
    """Three seeds of one experiment and one of another; their returns, and the page."""
    folder = tmp_path_factory.mktemp("compared")
    changes = {
        "first": {"seed": 1},
        "second": {"seed": 2, "shift": 40.0},
        "third": {"seed": 3, "shift": -7.5},
        "other": {"overrides": ["memory.hidden_size=17"]},
    }
    returns = {
        name: rewritten(copied(micro_workspace, folder / name), **change)
        for name, change in changes.items()
    }
    target = folder / "all.html"
    places = [str(folder / name) for name in changes]
    assert run(["report", *places, "--out", str(target)]) == 0
    return returns, pages.read(target.read_bytes()), target


def test_the_page_stands_alone(compared):
    _, page, target = compared
    assert pages.faults(page) == []
    assert target.stat().st_size < 1_000_000


def test_seeds_of_an_experiment_are_one_group_and_another_is_another(compared):
    returns, page, _ = compared
    groups = [row for row in page.rows() if len(row) == 8 and row[1].isdigit()][:2]
    ours, other = groups
    assert ours[1:4] == ["3", "3", str(sum(len(returns[n]) for n in ("first", "second", "third")))]
    assert other[1:4] == ["1", "1", str(len(returns["other"]))]
    assert "memory.hidden_size=17" in page.all("pre")[0].text.splitlines()[3]


def test_mean_and_interquartile_mean_are_those_of_the_episodes(compared):
    returns, page, _ = compared
    ours = next(row for row in page.rows() if row[1:3] == ["3", "3"])
    runs = [returns[name] for name in ("first", "second", "third")]
    assert float(ours[4]) == pytest.approx(np.mean([np.mean(run) for run in runs]), rel=1e-3)
    expected = stats.trim_mean(np.concatenate(runs), 0.25)
    assert float(ours[6]) == pytest.approx(expected, rel=1e-3)
    for value, cell in ((ours[4], ours[5]), (ours[6], ours[7])):
        low, high = (float(word) for word in cell.split(" to "))
        assert low < float(value) < high
    low, high = (float(word) for word in ours[5].split(" to "))
    averages = [np.mean(run) for run in runs]
    assert high - low > 0.5 * np.ptp(averages), "runs so far apart leave much open"


def test_a_mean_over_workspaces_is_drawn_among_them(compared, micro_workspace):
    _, page, _ = compared
    lines = (micro_workspace / "control/0001/search.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    sigma = [record["sigma"] for record in records if "sigma" in record][-1]
    told = page.section("search").text
    assert f"3 workspaces {sigma:.4g}" in told, "equal searches have an equal mean"


def test_what_one_of_them_lacks_is_left_out_and_damage_is_told(micro_workspace, tmp_path, capsys):
    half = copied(micro_workspace, tmp_path / "half", before="control")
    (half / "vision/0001/metrics.jsonl").write_text("{}")
    target = tmp_path / "two.html"
    assert run(["report", str(micro_workspace), str(half), "--out", str(target)]) == 4
    page = pages.read(target.read_bytes())
    assert pages.faults(page) == []
    assert "vision/0001/metrics.jsonl" in page.all("header")[0].text
    assert "vision/0001/metrics.jsonl" in capsys.readouterr().out
    group = next(row for row in page.rows() if len(row) == 8 and row[1].isdigit())
    assert group[1:3] == ["2", "1"]


def test_several_are_compared_in_the_current_folder(micro_workspace, tmp_path, monkeypatch):
    other = copied(micro_workspace, tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    assert run(["report", str(micro_workspace), str(other)]) == 0
    assert (tmp_path / "comparison.html").exists()


def test_folders_of_one_name_and_settings_told_late_are_told_apart(micro_workspace, tmp_path):
    """Rows of the charts: no label is there twice."""
    places = [tmp_path / name / "a-workspace-with-a-long-name" for name in ("old", "new")]
    for size, place in enumerate(places):
        place.parent.mkdir()
        rewritten(copied(micro_workspace, place), overrides=[f"memory.hidden_size={20 + size}"])
    target = tmp_path / "two.html"
    assert run(["report", *map(str, places), "--out", str(target)]) == 0
    page = pages.read(target.read_bytes())
    drawn = [node.attributes.get("aria-label") for node in page.all("svg")]
    for begin in ("Workspaces by mean return. ", "Episodes by return. "):
        (told,) = [
            label.removeprefix(begin) for label in drawn if label and label.startswith(begin)
        ]
        first, second = (row.partition(": ")[0] for row in told.split(". ") if ": " in row)
        assert first != second
    table = [row[0] for row in page.rows() if len(row) == 8 and row[2] == "7"]
    assert table == list(map(str, places))


def data_set(folder, seed):
    """Two short episodes as files."""
    folder.mkdir()
    for number in range(2):
        random = np.random.default_rng([seed, number])
        shown = random.integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
        np.savez(folder / f"{number}.npz", observations=shown, actions=np.arange(8) % 2)
    return str(folder)


def test_imports_of_other_data_are_no_seeds_of_each_other(tmp_path):
    """Settings say nothing of the data: those of two folders would be averaged as two seeds."""
    mine, other = data_set(tmp_path / "mine", 0), data_set(tmp_path / "other", 1)
    (tmp_path / "moved").mkdir()
    moved = shutil.copytree(mine, tmp_path / "moved" / "as-it-was")
    whole, part = (), ("--crop", "0,60,0,64")
    made = (("a", mine, 0, whole), ("b", other, 0, whole), ("c", str(moved), 1, whole))
    for name, data, seed, crop in (*made, ("d", mine, 2, part)):
        words = ["import", "npz", data, "-w", str(tmp_path / name), "--seed", str(seed), *crop]
        assert run([*words, "--preset", "debug"]) == 0
    copied(tmp_path / "a", tmp_path / "e")

    def compared_with(*names):
        target = tmp_path / "all.html"
        assert run(["report", *(str(tmp_path / name) for name in names), "--out", str(target)]) == 0
        page = pages.read(target.read_bytes())
        assert pages.faults(page) == []
        groups = [int(row[1]) for row in page.rows() if len(row) == 8 and row[1].isdigit()]
        return groups, page.all("header")[0].text

    groups, told = compared_with("a", "b", "c", "d")
    assert groups == [2, 1, 1], "a and c are seeds of each other"
    assert "imported debug (2)" not in told, "names of two groups are told apart"
    assert "same seed" not in told
    groups, told = compared_with("c", "a", "e")
    assert groups == [3]
    assert "a, e of imported debug have the same seed, 0." in told
