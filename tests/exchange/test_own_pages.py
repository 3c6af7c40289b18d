"""docs/own-environment.md and docs/own-data.md: their files are written, their commands run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import av
import minari
import numpy as np
import pytest
from command_line import ROOT, environment, manifest, wm

pytestmark = pytest.mark.pipeline
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def followed(page: str, folder: Path) -> None:
    """Do what the page says, block after block, in an empty folder."""
    folder.mkdir()
    tools = folder.parent / f"{folder.name}-bin"
    tools.mkdir()
    for name, words in (("wm", "-m wm_cli "), ("python", "")):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
        (tools / name).chmod(0o755)
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    for language, block in FENCE.findall((ROOT / "docs" / page).read_text()):
        if language != "console":
            name = block.splitlines()[0].removeprefix("# ")
            (folder / name).write_text(block)
            continue
        for line in block.splitlines():
            done = subprocess.run(
                line.removeprefix("$ "),
                shell=True,
                cwd=folder,
                env=environment(PATH=path),
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def own_environment(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "environment"
    followed("own-environment.md", folder)
    return folder


@pytest.fixture(scope="module")
def own_data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "data"
    followed("own-data.md", folder)
    return folder


def test_an_own_environment_goes_through_every_stage(own_environment):
    told = manifest(own_environment / "tiny", "evaluations/0001")["summary"]
    assert told["episodes"] == 4
    assert told["engine"] == "gymnasium"
    actions = manifest(own_environment / "tiny", "rollouts/0001")["summary"]["actions"]
    assert actions == {"kind": "choice", "size": 4, "low": [], "high": []}


def test_reading_a_workspace_runs_no_code_of_its_module(own_environment):
    """Where the module cannot be found, what only looks works; what opens the world does not."""
    elsewhere = own_environment.parent
    wm("status", "-w", own_environment / "tiny", cwd=elsewhere)
    wm("verify", "-w", own_environment / "tiny", cwd=elsewhere)
    report = elsewhere / "tiny.html"
    wm("report", "-w", own_environment / "tiny", "--out", report, cwd=elsewhere)
    assert "wm report --videos" in report.read_text()
    films = ("export", "mp4", elsewhere / "films", "--episodes", 1)
    wm(*films, "-w", own_environment / "tiny", cwd=elsewhere)
    with av.open(str(elsewhere / "films" / "episode-00000.mp4")) as film:
        assert film.streams.video[0].average_rate == 10  # as the page's render_fps
    lost = wm("rollout", "--force", "-w", own_environment / "tiny", cwd=elsewhere, code=2)
    assert "tiny_world" in lost.said
    assert "folder in which wm is called" in lost.said


def test_imported_episodes_go_through_every_stage(own_data):
    run = own_data / "ball-run"
    told = manifest(run, "rollouts/0001")
    assert (told["stage"], told["parents"], told["summary"]["policy"]) == ("import", [], "imported")
    assert told["summary"]["episodes"] == 12
    assert told["summary"]["steps"] == 480
    assert manifest(run, "memory/0001")["summary"]["actions"]["size"] == 2
    control = manifest(run, "control/0001")["summary"]
    assert control["engine"] == control["place"] == "dream"
    assert control["frames"] == 0 < control["dreamt_frames"]


def test_imported_rewards_are_those_of_the_files(own_data):
    paths = sorted((own_data / "ball").glob("*.npz"))
    returns = [float(np.load(path)["rewards"].sum()) for path in paths]
    told = manifest(own_data / "ball-run", "rollouts/0001")["summary"]
    assert told["mean_return"] == pytest.approx(np.mean(returns))


def test_stages_without_their_world_say_what_to_give(own_data, own_environment):
    run = own_data / "ball-run"
    for words in (("evaluate",), ("train-control", "--in", "world"), ("rollout", "--force")):
        refused = wm(*words, "-w", run, code=2)
        assert "--set world.env=module:EnvId" in refused.said
    foreign = ("--set", "world.env=tiny_world:Tiny-v0")
    refused = wm("evaluate", "-w", run, *foreign, cwd=own_environment, code=5)
    assert "size: 2 there, 4 here" in refused.said


def test_an_export_is_a_data_set_of_the_real_package(own_data):
    """It holds what the npz export of the same episodes holds, bit for bit."""
    found = minari.MinariDataset(own_data / "ball-v0" / "data")
    assert found.spec.dataset_id == "ball-v0"
    assert (found.total_episodes, found.total_steps) == (12, 480)
    assert found.observation_space.shape == (64, 64, 3)
    assert int(found.action_space.n) == 2
    for number, episode in enumerate(found.iterate_episodes()):
        beside = np.load(own_data / "ball-again" / f"episode-{number:05d}.npz")
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            ours, theirs = beside[name], getattr(episode, name)
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
            np.testing.assert_array_equal(ours, theirs)


def test_what_was_exported_comes_back_as_it_was(own_data):
    """The same shards, byte for byte: frames of this size are not touched again."""
    one, other = own_data / "ball-run", own_data / "minari-run"
    shards = [(run / "rollouts/0001/shard-00000.h5").read_bytes() for run in (one, other)]
    assert shards[0] == shards[1]


def test_films_teach_vision_alone(own_data):
    run = own_data / "film-run"
    assert manifest(run, "rollouts/0001")["summary"]["actions"]["kind"] == "none"
    wm("sample-latents", "-w", run)
    refused = wm("train-memory", "-w", run, code=5)
    assert "has no actions" in refused.said
