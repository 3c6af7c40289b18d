"""Ceilings and plain ways owe nothing to our code, and count what they do."""

import ast
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.bench import ceilings, plain_training, plain_worlds


@pytest.mark.parametrize("module", [ceilings, plain_worlds, plain_training])
def test_nothing_of_ours_is_imported(module):
    tree = ast.parse(Path(module.__file__).read_text())
    named = [
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [f"{'.' * node.level}{node.module or ''}"]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    ]
    assert named
    assert [name for name in named if name.split(".")[0] in {"stages", "wm_cli", ""}] == []


def test_a_matrix_product_counts_two_operations_per_multiplication(monkeypatch):
    times = iter([0.0, 0.1, 0.2, 0.3, 1.1])  # the end is at 1.0; three products fit
    monkeypatch.setattr(ceilings.time, "perf_counter", lambda: next(times))
    product = ceilings.MatrixProduct(torch.float32, torch.device("cpu"), size=8, seconds=1.0)
    assert product.run() == 3 * (2 * 8 * 8 * 8)
    wanted = product._left.double() @ product._right.double()
    assert torch.allclose(product._product.double(), wanted, atol=1e-5)


def test_a_raw_write_leaves_the_bytes(tmp_path):
    content = os.urandom(100_000)
    (tmp_path / "raw").write_bytes(b"longer" * 100_000)
    assert ceilings.write_raw(tmp_path / "raw", content) == pytest.approx(0.1)
    assert (tmp_path / "raw").read_bytes() == content


def test_the_bare_encoder_is_as_large_as_ours():
    from stages.vision.vae import Encoder

    ours = sum(parameter.numel() for parameter in Encoder(32).parameters())
    assert sum(p.numel() for p in ceilings._encoder(32).parameters()) == ours
    assert ceilings._encoder(32)(ceilings._resident()[:2]).shape == (2, 64)
    assert ceilings.encode_resident((32, 2)) == 2 * ceilings.ENCODED


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Box2D's module, while it loads
def test_the_plain_recorder_keeps_every_action_and_one_frame_more(tmp_path, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    episode = plain_worlds.PlainEpisode("CarRacing-v3", 3, (0, 84, 0, 96), 64, 4, seed=5)
    assert plain_worlds.record_plainly((episode, str(tmp_path / "one.npz"))) == 12
    with np.load(tmp_path / "one.npz") as saved:
        assert saved["obs"].shape == (5, 64, 64, 3)
        assert saved["obs"].dtype == np.uint8
        assert saved["action"].shape == (4, 3)
        assert saved["reward"].shape == (4,)
    agent = plain_worlds.PlainAgent(hidden_size=8)
    assert plain_worlds.drive_plainly((episode, agent)) == 12
    assert plain_worlds.dream_plainly((agent, 7)) == 7
