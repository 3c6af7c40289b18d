"""What computes on a GPU, on a device that is none (`elsewhere`): results are the processor's."""

import json
import shutil

import numpy as np
import pytest
from command_line import copied, manifest, python, settings, wm

pytestmark = pytest.mark.pipeline

HEADS = (
    "memory.steps=3",
    "memory.joint_mixture=true",
    "memory.reward_head=true",
    "memory.head_hidden=40",
    "memory.num_blocks=4",
)
TRAININGS = (
    ["train-vision", *settings("vision.steps=4", "vision.detail=3")],
    ["train-memory", "--from", "latents/0001", *settings(*HEADS)],
)
MODELS = ("--from", "vision/0001", "--from", "memory/0002", "--from", "latents/0001")
SHORT = settings("control.generations=2", "control.max_steps=[20]", "control.select_every=2")
ANYWHERE = settings("control.dream_starts=anywhere", "control.dream_end=expected")
CLIMB = ("control.method=ppo", "control.hidden=8", "control.sigma=0.5")
SEARCHES = (
    ["train-control", *MODELS, *SHORT, *settings("control.dream_dropout=0.1")],
    ["train-control", *MODELS, *SHORT, *ANYWHERE, *settings("control.dream_steps=10")],
    ["train-control", *MODELS, *SHORT, *ANYWHERE, *settings(*CLIMB)],
)


@pytest.fixture(scope="module")
def made(doom_workspace, tmp_path_factory):
    """Doom's debug run with V, M and three C that were trained on that device."""
    root = copied(doom_workspace, tmp_path_factory.mktemp("elsewhere") / "workspace")
    commands = [[*words, "-w", str(root), "--device", "cuda"] for words in (*TRAININGS, *SEARCHES)]
    python("-m", "elsewhere", json.dumps(commands))
    return root


def test_models_are_trained_there(made, doom_workspace, tmp_path):
    root = copied(doom_workspace, tmp_path / "workspace")
    for words in TRAININGS:
        wm(*words, "-w", root, "--device", "cpu")
    for name in ("vision/0002", "memory/0002"):
        there, here = (manifest(place, name) for place in (made, root))
        assert (there["provenance"]["device"], here["provenance"]["device"]) == ("elsewhere", "cpu")
        numbers = {key: x for key, x in here["summary"].items() if isinstance(x, float)}
        assert len(numbers) > 4
        assert {key: there["summary"][key] for key in numbers} == pytest.approx(numbers, rel=1e-3)


def test_controllers_dream_and_climb_there(made, tmp_path):
    root = copied(made, tmp_path / "workspace")
    names = [f"control/{number:04}" for number in range(2, 2 + len(SEARCHES))]
    for name in names:
        shutil.rmtree(root / name)
    for words, name in zip(SEARCHES, names, strict=True):
        assert manifest(made, name)["provenance"]["device"] == "elsewhere"
        assert wm(*words, "-w", root, "--device", "cpu", "--json").report["artifact"] == name
        there, here = (log_of(place, name) for place in (made, root))
        assert len(there) == len(here) == 3, "two generations and a score"
        for line, expected in zip(there, here, strict=True):
            assert line.keys() == expected.keys()
            for key in {"fitness", "dreamt", "selection"} & line.keys():
                np.testing.assert_allclose(line[key], expected[key], rtol=1e-5)


def log_of(root, name):
    return [json.loads(line) for line in (root / name / "search.jsonl").read_text().splitlines()]


def test_that_device_is_one():
    """What a GPU refuses it refuses, and numbers come back from it as they went."""
    assert python("-c", REFUSED).split() == ["mixed", "array", "indexed", "same", "grown"]


REFUSED = """
import torch
from elsewhere import connect
library = connect()
here, there = torch.arange(4.0), torch.arange(4.0).to("elsewhere")
def fails(name, call):
    try:
        call()
    except (RuntimeError, TypeError):
        print(name)
fails("mixed", lambda: there + here)
fails("array", lambda: there.numpy())
fails("indexed", lambda: there[torch.tensor([0, 1])])
if (there * 2).cpu().equal(here * 2) and there.device.type == "elsewhere":
    print("same")
kept = there
there += torch.ones(4, device="elsewhere")
if kept is there and kept.tolist() == [1.0, 2.0, 3.0, 4.0]:
    print("grown")
"""
