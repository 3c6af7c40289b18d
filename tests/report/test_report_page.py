"""`wm report` of whole, half-done, damaged and hostile workspaces, read as a browser would."""

import csv
import hashlib
import json
import os
import shutil
import stat

import numpy as np
import pages
import pytest
from command_line import copied, manifest, snapshot

from stages.report.films import chosen
from stages.report.gathering import Episode
from wm_cli.app import run

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def made(micro_workspace, tmp_path_factory):
    """The report of the micro workspace, and its page."""
    target = tmp_path_factory.mktemp("report") / "micro.html"
    before = snapshot(micro_workspace)
    assert run(["report", "-w", str(micro_workspace), "--out", str(target)]) == 0
    assert snapshot(micro_workspace) == before, "it only reads"
    return target, pages.read(target.read_bytes())


def test_the_page_stands_alone_and_every_picture_has_words(made):
    target, page = made
    assert pages.faults(page) == []
    assert target.stat().st_size < 6_000_000
    ids = [node.attributes["id"] for node in page.all("section")]
    linked = [node.attributes["href"].removeprefix("#") for node in page.all("a")]
    assert linked == ids, "the contents name every part"
    assert page.all("html")[0].attributes["lang"] == "en"
    names = {
        node.attributes.get("name"): node.attributes.get("content") for node in page.all("meta")
    }
    assert "width=device-width" in names["viewport"] and names["color-scheme"] == "light dark"
    assert "prefers-color-scheme: dark" in page.all("style")[0].text


def test_its_numbers_are_those_of_the_artifacts(made, micro_workspace):
    _, page = made
    with (micro_workspace / "evaluations/0001/episodes.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    returns = np.array([float(r["total_reward"]) for r in rows if r["who"] == "agent"])
    row = next(r for r in page.rows() if r[:2] == ["evaluations/0001", "control/0001"])
    shown = [float(cell) for cell in row[2:4] + row[7:10]]
    expected = [len(returns), returns.mean(), np.median(returns), returns.min(), returns.max()]
    assert shown == pytest.approx(expected, rel=1e-3)

    search = [
        json.loads(line)
        for line in (micro_workspace / "control/0001/search.jsonl").read_text().splitlines()
    ]
    last = [line for line in search if "fitness" in line][-1]
    mean = np.mean(last["fitness"])
    told = page.section("control").text
    assert f"population mean {mean:.4g}" in told
    assert f"sigma {last['sigma']:.4g}" in told

    lines = (micro_workspace / "vision/0001/metrics.jsonl").read_text().splitlines()
    held = [json.loads(line) for line in lines][-1]
    told = page.section("vision").text
    assert f"held out {held['vision/held_out/reconstruction']:.4g}" in told
    assert f"mean image {held['vision/held_out/baseline_mean_image']:.4g}" in told
    horizon = json.loads((micro_workspace / "memory/0001/horizon.json").read_bytes())
    assert f"dreams {horizon['horizon'][-1]['error']:.4g}" in page.section("memory").text


def test_the_pipeline_names_every_artifact_with_what_it_was_made_from(made, micro_workspace):
    _, page = made
    rows = {row[0]: row for row in reversed(page.rows())}  # the first table tells
    for kind in ("rollouts", "vision", "latents", "memory", "control", "evaluations"):
        told = manifest(micro_workspace, f"{kind}/0001")
        parents = ", ".join(parent["id"] for parent in told["parents"]) or "–"
        assert rows[f"{kind}/0001"][-1] == parents
    drawings = [n for n in page.all("svg") if "pipeline" in (n.attributes.get("class") or "")]
    assert len(drawings) == 2, "one for wide pages, one for phones"
    assert "memory/0001 from latents/0001" in drawings[0].attributes["aria-label"]


def test_films_are_driven_again_with_the_returns_that_were_scored(made):
    _, page = made
    evaluation = page.section("evaluations").text
    films = page.all("video")
    assert len(films) == 3
    assert all(node.attributes["src"].startswith("data:video/mp4;base64,") for node in films)
    assert "Driven again on this machine" not in evaluation, "they agree"


def test_commands_say_how_to_do_it_again(made, micro_workspace):
    _, page = made
    whole, each = (node.text for node in page.all("pre"))
    assert whole.startswith("wm run -w DIR --recipe carracing --preset debug --seed 7 --set ")
    stored = json.loads((micro_workspace / "workspace.json").read_bytes())["settings"]["overrides"]
    assert all(word.partition("=")[0] in whole for word in stored)
    place = str(micro_workspace)
    assert each.splitlines() == [
        f"wm rollout -w {place}",
        f"wm train-vision -w {place} --from rollouts/0001",
        f"wm sample-latents -w {place} --from rollouts/0001 --from vision/0001",
        f"wm train-memory -w {place} --from latents/0001",
        f"wm train-control -w {place} --from vision/0001 --from memory/0001 --from latents/0001",
        f"wm evaluate -w {place} --from control/0001",
    ]
    for line in each.splitlines():  # each of them says that this very artifact is there
        assert run([*line.split()[1:], "--json"]) == 0


def test_two_reports_of_one_workspace_are_equal(made, micro_workspace, tmp_path):
    target, _ = made
    again = tmp_path / "again.html"
    assert run(["report", str(micro_workspace), "--out", str(again)]) == 0
    assert again.read_bytes() == target.read_bytes()


def test_a_half_done_workspace_says_what_would_come_next(micro_workspace, tmp_path, capsys):
    root = copied(micro_workspace, tmp_path / "half", before="latents")
    assert run(["report", "-w", str(root), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["path"] == str(root / "report.html")
    page = pages.read((root / "report.html").read_bytes())
    assert pages.faults(page) == []
    assert f"wm train-memory -w {root}" in page.section("memory").text
    assert f"wm train-control -w {root}" in page.section("control").text
    assert f"wm evaluate -w {root}" in page.section("evaluations").text
    for command in ("status", "verify", "clean"):
        more = ["--yes"] if command == "clean" else []
        assert run([command, "-w", str(root), *more]) == 0, "nobody minds the report"
    assert (root / "report.html").exists()
    assert "report.html" not in capsys.readouterr().out
    assert run(["report", "-w", str(root)]) == 0, "a report replaces a report"


DAMAGED = {
    "rollouts/0001/shard-00000.h5": "data",
    "vision/0001/metrics.jsonl": "vision",
    "vision/0001/traversal.png": "vision",
    "memory/0001/horizon.json": "memory",
    "memory/0001/weights.safetensors": "memory",
    "control/0001/search.jsonl": "control",
    "evaluations/0001/episodes.csv": "evaluations",
}


def test_damage_is_told_where_it_is_and_above_all(micro_workspace, tmp_path, capsys):
    root = copied(micro_workspace, tmp_path / "damaged")
    for name in DAMAGED:
        content = bytearray((root / name).read_bytes())
        content[len(content) // 2] ^= 1
        (root / name).write_bytes(content)
    assert run(["report", "-w", str(root)]) == 4
    said = capsys.readouterr().out
    page = pages.read((root / "report.html").read_bytes())
    assert pages.faults(page) == []
    for name, where in DAMAGED.items():
        assert name in said
        assert name in page.all("header")[0].text
        assert name in page.section(where).text
        assert "wm " in page.section(where).text, "what mends it"


def test_a_damaged_manifest_is_told(micro_workspace, tmp_path, capsys):
    root = copied(micro_workspace, tmp_path / "damaged")
    (root / "memory/0001/manifest.json").write_text("{}")
    assert run(["report", "-w", str(root), "--no-videos"]) == 4
    page = pages.read((root / "report.html").read_bytes())
    assert "memory/0001" in page.all("header")[0].text
    assert pages.faults(page) == []


def forged(folder, **changes):
    """Rewrite parts of a manifest with digests that are right."""
    path = folder / "manifest.json"
    told = json.loads(path.read_bytes())
    for name, value in changes.items():
        told[name] = {**told[name], **value} if isinstance(value, dict) else value
    content = json.dumps(told).encode()
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


def test_words_of_a_hostile_workspace_stay_words(micro_workspace, tmp_path):
    evil = "<script>alert(1)</script><img src=http://x.example/ onerror=a>"
    root = copied(micro_workspace, tmp_path / "<b>$x$ & 'q'")
    forged(
        root / "evaluations/0001",
        provenance={
            "processor": evil,
            "packages": {evil: evil},
            "python": [evil],
            "seconds_of_last_run": evil,
        },
    )
    forged(root / "vision/0001", summary={"reconstruction": evil, "decibels": [evil], "kl": None})
    forged(root / "rollouts/0001", summary={"policy": evil, "episodes": {evil: evil}})
    assert run(["report", "-w", str(root), "--no-videos"]) in (0, 4)
    content = (root / "report.html").read_bytes()
    page = pages.read(content)
    assert pages.faults(page) == []
    assert b"<script" not in content and b"<img src=http" not in content
    assert evil in page.section("again").text
    assert "<b>$x$ & 'q'" in page.all("h1")[0].text


def test_what_there_is_nothing_to_tell_of_is_refused(tmp_path, capsys):
    assert run(["report", "-w", str(tmp_path / "nowhere")]) == 3
    assert "no workspace at" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/workspace.json").write_text(
        json.dumps({"format": "wm-workspace", "format_version": 1, "settings": None})
    )
    assert run(["report", "-w", str(tmp_path / "empty")]) == 3
    assert "wm run -w" in capsys.readouterr().err
    assert not (tmp_path / "empty/report.html").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").write_text("mine")
    assert run(["report", "-w", str(tmp_path / "other")]) == 2


def test_nothing_of_somebody_elses_is_overwritten(micro_workspace, tmp_path, capsys):
    thesis = tmp_path / "thesis.html"
    thesis.write_text("<html>mine</html>")
    words = ["report", "-w", str(micro_workspace), "--no-videos", "--out"]
    for target, code in ((thesis, 2), (tmp_path, 2), (tmp_path / "no" / "such.html", 2)):
        assert run([*words, str(target)]) == code
        assert "--out" in capsys.readouterr().err
    assert thesis.read_text() == "<html>mine</html>"
    assert run(["report", str(micro_workspace), str(micro_workspace)]) == 2
    assert "twice" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_workspace_that_cannot_be_written_names_out(micro_workspace, tmp_path, capsys):
    root = copied(micro_workspace, tmp_path / "kept")
    root.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert run(["report", "-w", str(root), "--no-videos"]) == 6
        assert "--out" in capsys.readouterr().err
        elsewhere = tmp_path / "elsewhere.html"
        assert run(["report", "-w", str(root), "--no-videos", "--out", str(elsewhere)]) == 0
    finally:
        root.chmod(0o755)
    assert elsewhere.exists() and not (root / "report.html").exists()


def test_episodes_are_chosen_by_their_place_among_all():
    draws = np.random.default_rng(0).permutation(101)
    rows = [Episode("agent", 1000 + n, float(value), 10, 10) for n, value in enumerate(draws)]
    rows += [Episode("random", n, 1e6, 10, 10) for n in range(5)]
    found = {label: episode.total_reward for label, episode in chosen(rows)}
    ranked = np.percentile(draws, [90, 50, 10])
    assert list(found.values()) == ranked.tolist()
    assert [label for label, _ in chosen(rows[:2])] == ["a good one", "a typical one"]
    assert len(chosen(rows[:1])) == 1 and chosen(rows[-5:]) == []


def test_without_a_film_encoder_there_are_stills_and_the_way_to_films(
    micro_workspace, tmp_path, monkeypatch
):
    monkeypatch.setattr("stages.report.films.find_spec", lambda name: None)
    target = tmp_path / "stills.html"
    assert run(["report", "-w", str(micro_workspace), "--out", str(target)]) == 0
    page = pages.read(target.read_bytes())
    assert pages.faults(page) == [] and not page.all("video")
    assert 'pip install "wm-pixels[video]"' in page.section("evaluations").text


def test_the_kept_workspace_of_an_earlier_version_has_a_report(tmp_path):
    import lzma
    from pathlib import Path

    root = tmp_path / "old"
    shutil.copytree(Path(__file__).parent.parent / "formats" / "v1", root)
    for packed in root.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    assert run(["report", "-w", str(root), "--no-videos"]) == 0
    page = pages.read((root / "report.html").read_bytes())
    assert pages.faults(page) == []
    assert "evaluate --memory" in page.section("memory").text, "what measures its dreams"


def test_a_visitor_is_named_and_never_speaks_for_the_workspace(micro_workspace, tmp_path):
    """After `wm evaluate --agent` the newest evaluation is of somebody else's agent."""
    root = copied(micro_workspace, tmp_path / "visited")
    shutil.copytree(root / "evaluations/0001", root / "evaluations/0002")
    visit = [{"id": "agents/stranger", "kind": "agents", "fingerprint": "0" * 64}]
    told = manifest(root, "evaluations/0002")
    kept = [{**visit[0], **{k: v for k, v in told["parents"][0].items() if k not in visit[0]}}]
    scores = {**told["summary"]["scores"]}
    scores["agent"] = {**scores["agent"], "mean": 98765.0}
    forged(
        root / "evaluations/0002",
        id="evaluations/0002",
        parents=kept,
        summary={"mean": 98765.0, "scores": scores},
    )
    assert run(["report", "-w", str(root), "--no-videos"]) == 0
    page = pages.read((root / "report.html").read_bytes())
    assert pages.faults(page) == []
    ours = manifest(root, "evaluations/0001")["summary"]["mean"]
    header, facts = page.all("header")[0].text, page.section("evaluations").text
    assert "98,765" not in header and f"{ours:.4g}" in header
    assert "artifactevaluations/0001agentcontrol/0001" in facts
    rows = [row for row in page.rows() if row[0] == "evaluations/0002"]
    assert any(row[1] == "agent stranger" for row in rows)
    drawn = [node.attributes.get("aria-label") or "" for node in page.all("svg")]
    assert any("agent stranger: " in label for label in drawn)


def test_a_world_of_a_module_is_opened_where_one_asks_for_films(
    micro_workspace, tmp_path, monkeypatch, capsys
):
    """A manifest may name any module of the current folder: looking at it must not run it."""
    root = copied(micro_workspace, tmp_path / "w")
    (tmp_path / "evil_world.py").write_text("open('was_run', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    world = manifest(root, "evaluations/0001")["config"]["world"]
    world["env"] = "evil_world:Evil-v0"
    forged(root / "evaluations/0001", config={"world": world})
    assert run(["report", "-w", "w"]) == 0
    page = pages.read((root / "report.html").read_bytes())
    assert not (tmp_path / "was_run").exists()
    assert "wm report --videos -w w" in page.section("evaluations").text
    assert not page.all("video")
    assert run(["report", "-w", "w", "--videos", "--no-videos"]) == 2
    assert "contradict" in capsys.readouterr().err
    assert run(["report", "-w", "w", "--videos"]) == 0
    assert (tmp_path / "was_run").exists(), "the module registers no world, but it was asked"


def test_damage_is_told_once(micro_workspace, tmp_path, capsys):
    """A comparison asks the log of a search for four curves."""
    root = copied(micro_workspace, tmp_path / "damaged")
    path = root / "control/0001/search.jsonl"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    words = [str(micro_workspace), str(root), "--out", str(tmp_path / "two.html")]
    assert run(["report", *words, "--json"]) == 4
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert len(table["rows"]) == 1
