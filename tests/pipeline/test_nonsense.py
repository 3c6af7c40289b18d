"""Numbers that go bad in the middle of a stage: where it stops, what it says, how it goes on."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import MICRO, ROOT, copied, digests, settings, wm
from safetensors.numpy import load_file

from stages.artifacts.disk import digest_bytes
from stages.artifacts.manifest import FileEntry, Manifest, digest_line, payload_digest
from stages.artifacts.weights import pack_tensors
from stages.training.seeding import episode_seeds

pytestmark = pytest.mark.pipeline
SEED = 7
TOYS = os.pathsep.join([str(ROOT / "tests/toys"), str(ROOT)])
TOY = ("--preset", "debug", "--seed", SEED, "--set", "world.env=Toy-v0")


def toy(*words, code=0, **fault):
    """`wm` with the toy environment, which goes wrong as told; one worker, task after task."""
    words = (*words, "--workers", 1)
    return wm(*words, code=code, PYTHONPATH=TOYS, TOY_FAULT=json.dumps(fault))


@pytest.fixture(scope="module")
def toy_workspace(tmp_path_factory):
    """A whole pipeline on the toy environment in which nothing goes wrong."""
    root = tmp_path_factory.mktemp("toy") / "workspace"
    done = toy("run", "-w", root, *TOY, *settings(*MICRO))
    warned = [line for line in done.err.splitlines() if "warning" in line]
    assert all("train longer" in line for line in warned), "ten steps are too few for V, no more"
    return root


def partial_of(root, kind):
    (found,) = (root / kind).glob(".partial-*")
    return found


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"reward": np.nan}, "gave the reward nan"),
        ({"frame": "nan"}, "float32 [96, 96, 3] instead of uint8 [96, 96, 3] that holds nan"),
    ],
    ids=["reward", "frame"],
)
def test_a_world_that_goes_mad_stops_the_recording(fault, said, toy_workspace, tmp_path):
    root = copied(toy_workspace, tmp_path / "w", before="rollouts")
    mad = episode_seeds("rollout", SEED, 0, 8)[3]
    done = toy("rollout", "-w", root, code=8, step=8, seed=mad, **fault)  # the 2nd action's last
    assert said in done.said
    assert f"in step 2 of the episode of seed {mad}" in done.said
    assert "3 of 8 episodes are recorded and kept" in done.said
    shards = sorted(path.name for path in partial_of(root, "rollouts").glob("shard-*"))
    assert shards == [f"shard-{number:05d}.h5" for number in range(3)]
    assert not digests(root)
    written = {name: (partial_of(root, "rollouts") / name).stat().st_mtime_ns for name in shards}
    toy("rollout", "-w", root)
    assert digests(root)["rollouts/0001"] == digests(toy_workspace)["rollouts/0001"]
    for name, when in written.items():
        assert (root / "rollouts/0001" / name).stat().st_mtime_ns == when, "it is not made again"


def test_a_world_of_floats_is_refused_before_anything_is_made(tmp_path):
    words = ("--preset", "debug", "--set", "world.env=ToyFloats-v0")
    done = toy("rollout", "-w", tmp_path / "w", *words, code=2)
    assert "uint8" in done.said
    assert not digests(tmp_path / "w")


def test_a_world_that_goes_mad_stops_the_search_and_its_log_stays_good(toy_workspace, tmp_path):
    root = copied(toy_workspace, tmp_path / "w", before="control")
    mad = episode_seeds("search", SEED, 2, 1)[0]  # a track per generation: of the third
    done = toy("train-control", "-w", root, code=8, step=3, seed=mad, reward=np.nan)
    place = f"in step 1 of the episode of seed {mad}, driven by candidate 1 of generation 3"
    assert f"gave the reward nan {place}" in done.said
    assert "kept as it stood after generation 2" in done.said
    log = (partial_of(root, "control") / "search.jsonl").read_text()
    assert [json.loads(line)["generation"] for line in log.splitlines()] == [1, 2]
    assert "nan" not in log.lower()
    toy("train-control", "-w", root)
    assert digests(root)["control/0001"] == digests(toy_workspace)["control/0001"]


def test_a_world_that_goes_mad_stops_the_evaluation(toy_workspace, tmp_path):
    root = copied(toy_workspace, tmp_path / "w", before="evaluations")
    mad = episode_seeds("evaluation", SEED, 0, 4)[2]
    done = toy("evaluate", "-w", root, code=8, step=5, seed=mad, reward=-np.inf)
    assert "gave the reward -inf in step 2 of the episode of seed" in done.said
    assert f"{mad}, driven by the agent" in done.said
    assert "2 of 6 episodes are scored and kept" in done.said
    toy("evaluate", "-w", root)
    assert digests(root)["evaluations/0001"] == digests(toy_workspace)["evaluations/0001"]


def with_weight(root: Path, name: str, key: str, value: float) -> None:
    """Change a weight of an artifact, as a stage that trained badly would have certified it."""
    folder = root / name
    tensors = load_file(folder / "weights.safetensors")
    tensors[key].flat[-1] = value
    content = pack_tensors(tensors)
    (folder / "weights.safetensors").write_bytes(content)
    old = Manifest.from_bytes((folder / "manifest.json").read_bytes(), source=name)
    entry = FileEntry("weights.safetensors", len(content), digest_bytes(content))
    files = tuple(entry if file.name == entry.name else file for file in old.files)
    written = replace(old, files=files, payload_digest=payload_digest(files)).to_bytes()
    (folder / "manifest.json").write_bytes(written)
    (folder / "manifest.sha256").write_bytes(digest_line(written))


@pytest.mark.parametrize(
    ("stage", "start", "name", "key", "value"),
    [
        ("sample-latents", False, "vision/0001", "encoder.conv1.weight", np.nan),
        ("train-memory", True, "memory/0001", "lstm.bias", -np.inf),
        ("evaluate", False, "control/0001", "layer0.bias", np.nan),
    ],
)
def test_weights_that_are_no_numbers_are_not_used(
    stage, start, name, key, value, toy_workspace, tmp_path
):
    root = copied(toy_workspace, tmp_path / "w")
    with_weight(root, name, key, value)
    before = digests(root)
    words = ("--from", name) if start else ()
    done = toy(stage, "-w", root, "--force", *words, code=8)
    assert f"{key} in " in done.said
    assert f"{name}/weights.safetensors holds {value}" in done.said
    assert digests(root) == before


def test_latents_beyond_float16_are_not_written(toy_workspace, tmp_path):
    root = copied(toy_workspace, tmp_path / "w", before="memory")
    with_weight(root, "vision/0001", "encoder.mu.bias", 1e6)
    done = toy("sample-latents", "-w", root, "--force", code=8)
    first = episode_seeds("rollout", SEED, 0, 1)[0]
    place = f"for frame 0 of the episode of seed {first}, in .*/rollouts/0001/shard-00000.h5"
    assert re.search(rf"V's mu is (999\d\d\d|1e\+06) {place}", done.said)
    assert "0 of 8 shards are encoded and kept" in done.said


def test_what_never_changes_is_told_while_it_is_recorded(toy_workspace, tmp_path):
    root = copied(toy_workspace, tmp_path / "w", before="rollouts")
    longer = settings("rollout.episodes=72", "rollout.task_episodes=12", "rollout.max_steps=40")
    done = toy("rollout", "-w", root, *longer, always="poor")
    (warned,) = (line for line in done.err.splitlines() if "warning" in line)
    assert "All 2,400 steps recorded so far earned the same reward, 0:" in warned
    assert done.err.index("same reward") < done.err.index("72/72")
    done = toy("rollout", "-w", root, *settings("rollout.episodes=16"), always="still")
    assert "In all 4 episodes recorded so far the picture never changes" in done.said
    assert done.said.count("warning") == 1


def test_a_search_that_cannot_tell_its_candidates_apart_is_told_so(toy_workspace, tmp_path):
    root = copied(toy_workspace, tmp_path / "w", before="control")
    large = settings("control.population=50", "control.starts=1", "control.generations=3")
    done = toy("train-control", "-w", root, *large, always="poor")
    assert "All candidates of the last 2 generations scored alike (0)" in done.said
    assert done.said.count("scored alike") == 1
