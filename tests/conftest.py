"""Shared by all tests; its place here puts `oracles` and `command_line` on the import path.

Workspaces made here are made once per session and read by many tests: copy one before writing
into it (`command_line.copied`).
"""

import os

# Before numpy loads: a replayed search equals the first one bit for bit with one BLAS thread.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

from pathlib import Path

import hypothesis
import pytest
from command_line import MICRO, settings, wm

# The same examples every time, unless WM_EXAMPLES=20 asks for 20 times as many new ones.
LONGER = float(os.environ.get("WM_EXAMPLES", "0"))
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.register_profile("longer", max_examples=int(100 * LONGER) or 1, deadline=None)
hypothesis.settings.load_profile("longer" if LONGER else "same")


@pytest.fixture(scope="session")
def debug_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole debug pipeline on the real CarRacing, made by `wm run`."""
    root = tmp_path_factory.mktemp("debug") / "carracing"
    wm("run", "-w", root, "--preset", "debug")
    return root


@pytest.fixture(scope="session")
def breakout_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole debug pipeline on the real Breakout, made by `wm run`."""
    root = tmp_path_factory.mktemp("debug") / "breakout"
    wm("run", "-w", root, "--recipe", "breakout", "--preset", "debug")
    return root


@pytest.fixture(scope="session")
def micro_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole CarRacing pipeline of a few seconds, never stopped: the reference of the others."""
    root = tmp_path_factory.mktemp("micro") / "workspace"
    wm("run", "-w", root, "--preset", "debug", "--seed", 7, "--workers", 2, *settings(*MICRO))
    return root
