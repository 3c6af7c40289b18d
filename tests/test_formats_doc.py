"""docs/formats.md is enough to load a run: its code runs, and gives the package's own actions."""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from command_line import ROOT
from safetensors.numpy import load_file

from stages.agents import action_spec, trained_agent
from stages.artifacts.workspace import Workspace
from stages.contracts import WorldSpec
from stages.trials import load_pilot

PAGE = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
SAMPLE = ROOT / "data" / "sample"


def run_blocks(folder: Path, *, count: int) -> dict:
    """The names that the first Python blocks of the page leave, run one after the other."""
    names = {"folder": folder}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[:count]:
        exec(compile(block, "formats.md", "exec"), names)
    return names


def test_reads_the_sample_as_the_page_says():
    found = run_blocks(SAMPLE, count=1)

    assert len(found["returns"]) == 4
    # Two tiles are visited at reset (2000 / N), and every frame costs 0.1.
    with h5py.File(SAMPLE / "rollouts" / "0001" / "shard-00000.h5") as shard:
        tiles, stop = int(shard["facts/track_tiles"][0]), int(shard["step_offsets"][1])
        visited, seed = int(shard["facts/num_tiles"][stop - 1]), int(shard["seeds"][0])
    expected = 1000 * visited / tiles - 0.1 * 4 * stop
    assert found["returns"][seed] == pytest.approx(expected, abs=1e-6)


def names_of_tensors_and_datasets(path: Path) -> set[str]:
    if path.suffix == ".safetensors":
        whole = load_file(path)
        return {name.removesuffix(".weight").removesuffix(".bias") for name in whole}
    found = set()
    with h5py.File(path) as shard:
        shard.visititems(lambda name, item: found.add(name) if hasattr(item, "dtype") else None)
        return {name.removeprefix("facts/") for name in found} | set(shard.attrs)


@pytest.mark.pipeline
def test_names_every_file_dataset_tensor_and_manifest_field(micro_workspace):
    artifacts = [path.parent for path in micro_workspace.glob("*/0001/manifest.json")]
    files = [path for folder in artifacts for path in folder.iterdir()]
    names = {path.name for path in files if not path.name.startswith("shard-")}
    for path in files:
        if path.suffix in (".h5", ".safetensors"):
            names |= names_of_tensors_and_datasets(path)
        if path.name == "manifest.json":
            names |= set(json.loads(path.read_bytes()))

    assert len(artifacts) == 6
    assert sorted(name for name in names if not named(name)) == []


def named(name: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(name)}(?![\w])", PAGE) is not None


@pytest.mark.pipeline
def test_computes_the_actions_of_a_finished_run_in_numpy(micro_workspace):
    found = run_blocks(micro_workspace, count=2)

    workspace = Workspace.open(micro_workspace)
    control = workspace.get("control/0001")
    files, parameters = trained_agent(workspace, control)
    spec = action_spec(WorldSpec(), "gymnasium")
    pilot = load_pilot(files, parameters[None], spec)
    pilot.reset([0])
    live = np.ones(1, dtype=np.bool_)
    frames = found["frames"][:-1]
    expected = np.concatenate([pilot.act(frame[None], live) for frame in frames])

    assert found["answers"].shape == expected.shape == (len(frames), 3)
    np.testing.assert_allclose(found["answers"], expected, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 1e-3  # a constant would agree with much
