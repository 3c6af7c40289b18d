"""Reports of imported episodes: no world, no actions, and how it is done again."""

import json
import shlex
import shutil

import numpy as np
import pages
import pytest
from command_line import MICRO, manifest, settings

from stages.artifacts.video import Film
from wm_cli.app import run

pytestmark = pytest.mark.pipeline
SHORT = (*MICRO, "control.dream_steps=12", "memory.reward_head=true")


def reported(root, *words, code=0):
    """The page of a workspace."""
    target = root.parent / f"{root.name}.html"
    assert run(["report", "-w", str(root), "--out", str(target), *words]) == code
    page = pages.read(target.read_bytes())
    assert pages.faults(page) == []
    return page


@pytest.fixture(scope="module")
def dreamt(tmp_path_factory):
    """Imported episodes of no environment, and C that was found in their dream."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "mine").mkdir()
    for number in range(8):
        random = np.random.default_rng(number)
        np.savez(
            folder / "mine" / f"{number}.npz",
            observations=random.integers(0, 256, (31, 64, 64, 3), dtype=np.uint8),
            actions=random.normal(size=(30, 2)),
            rewards=random.normal(size=30),
        )
    root = str(folder / "w")
    data = str(folder / "mine")
    asked = ["--preset", "debug", *map(str, settings(*SHORT))]
    assert run(["import", "npz", data, "-w", root, "--crop", "0,60,0,64", *asked]) == 0
    assert run(["run", "-w", root]) == 0
    return folder / "w"


@pytest.fixture(scope="module")
def page(dreamt):
    return reported(dreamt)


def test_what_was_dreamt_is_not_called_the_world(dreamt, page):
    summary = manifest(dreamt, "control/0001")["summary"]
    told = page.section("control").text
    assert "in the world" not in told
    assert "the world is beside" not in told
    assert "Mean vector in the dream" in told
    assert "selected mean vector, in the dream" in told
    assert "frames of the world0" in told
    assert f"dreamt frames{summary['dreamt_frames']:,}" in told
    lines = (dreamt / "control/0001/search.jsonl").read_text().splitlines()
    scores = [r["dreamt"] for line in lines if (r := json.loads(line)).get("selection")]
    assert f"in the dream {np.mean(scores[-1]):.4g}" in told
    header = page.all("header")[0].text
    assert "in the dream alone" in header and "not evaluated yet" not in header


def test_dreams_cost_no_frames_of_the_world_in_a_comparison(dreamt, tmp_path):
    other = shutil.copytree(dreamt, tmp_path / "other")
    target = tmp_path / "both.html"
    assert run(["report", str(dreamt), str(other), "--out", str(target)]) == 0
    both = pages.read(target.read_bytes())
    told = both.section("search").text
    assert "Mean vector by frames of the world" not in told
    assert "Population mean" in told
    names = both.rows().index(next(row for row in both.rows() if row[0] == "workspace"))
    place = both.rows()[names].index("selected")
    assert [row[place] for row in both.rows()[names + 1 : names + 3]] == ["–", "–"]


def test_an_import_comes_first_and_the_rest_follows_in_a_new_folder(dreamt, page, tmp_path):
    whole, each = (node.text.splitlines() for node in page.all("pre"))
    assert len(whole) == 2
    assert whole[0].startswith("wm import npz PATH -w DIR --recipe imported --preset debug")
    assert "--crop 0,60,0,64" in whole[0]
    assert whole[1] == "wm run -w DIR"
    made = [line for line in each if not line.startswith("#")]
    assert made[0].startswith(f"wm import npz PATH -w {dreamt}")
    assert "mine" in next(line for line in each if line.startswith("# rollouts/0001"))
    stand_ins = {"PATH": str(dreamt.parent / "mine"), "DIR": str(tmp_path / "new")}
    first = [stand_ins.get(word, word) for word in shlex.split(whole[0])[1:]]
    assert run(first) == 0
    new = manifest(tmp_path / "new", "rollouts/0001")
    assert new["fingerprint"] == manifest(dreamt, "rollouts/0001")["fingerprint"]
    for line in made:  # each of them says that this very artifact is there
        words = [stand_ins.get(word, word) for word in shlex.split(line)[1:]]
        assert run([*words, "--json"]) == 0
    assert not (dreamt / "rollouts/0002").exists()


def test_films_have_no_chart_of_actions_and_go_to_vision(tmp_path, capsys):
    film = Film(frames_per_second=20, scale=1, quality=20)
    for grey in range(40):
        film.add(np.full((64, 64, 3), 5 * grey, np.uint8))
    place = str(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").write_bytes(film.content())
    root = tmp_path / "w"
    assert run(["import", "video", place, "-w", str(root), "--cut", "10"]) == 0
    capsys.readouterr()
    page = reported(root, "--no-videos")
    told = page.section("data").text
    assert "Lengths" in told and "Actions" not in told
    whole = page.all("pre")[0].text.splitlines()
    assert whole[0].startswith("wm import video PATH -w DIR") and "--cut 10" in whole[0]
    assert whole[1] == "wm train-vision -w DIR"


def test_a_name_does_not_leave_its_comment(tmp_path):
    """What stands in the block of commands is pasted into shells."""
    folder = tmp_path / "mine\ntouch owned #"
    folder.mkdir()
    frames = np.zeros((31, 64, 64, 3), dtype=np.uint8)
    actions = np.arange(30) % 40
    for number in range(2):
        np.savez(folder / f"{number}.npz", observations=frames, actions=actions)
    root = tmp_path / "w"
    assert run(["import", "npz", str(folder), "-w", str(root), "--recipe", "imported"]) == 0
    page = reported(root)
    lines = [line for node in page.all("pre") for line in node.text.splitlines()]
    assert any("touch owned" in line for line in lines)
    assert all(line.startswith(("wm ", "# ")) for line in lines), lines
    told = {node.text for node in page.all("text")}  # thirty choices: some have no bar of their own
    assert "choice 23" in told and "6 others" in told and "choice 24" not in told
