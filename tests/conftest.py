"""Shared by all tests; its place here puts `oracles` and `command_line` on the import path.

Workspaces made here are made once per session and read by many tests: copy one before writing
into it (`command_line.copied`).
"""

import fcntl
import os

# Before numpy loads: a replayed search equals the first one bit for bit with one BLAS thread.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from command_line import MICRO, settings, wm
from round_samples import FIRST

# The same examples every time, unless WM_EXAMPLES=20 asks for 20 times as many new ones.
LONGER = float(os.environ.get("WM_EXAMPLES", "0"))
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("longer", max_examples=int(100 * LONGER) or 1, deadline=None)
hypothesis.settings.load_profile("longer" if LONGER else "same")


def pytest_configure() -> None:
    """Of several test processes each keeps to a core, with the commands that it runs.

    By default these then start one worker, instead of fighting for the cores of the others.
    """
    number = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if number and hasattr(os, "sched_setaffinity"):  # Linux
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(number) % len(cores)]})


@pytest.fixture(scope="session")
def debug_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole debug pipeline on the real CarRacing, made by `wm run`."""
    return made_once(tmp_path_factory, "carracing", run_all)


@pytest.fixture(scope="session")
def breakout_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole debug pipeline on the real Breakout, made by `wm run`."""
    return made_once(
        tmp_path_factory, "breakout", lambda root: run_all(root, "--recipe", "breakout")
    )


@pytest.fixture(scope="session")
def doom_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole debug pipeline on the real TakeCover, made by `wm run`."""
    return made_once(tmp_path_factory, "doom", lambda root: run_all(root, "--recipe", "doom"))


@pytest.fixture(scope="session")
def micro_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole CarRacing pipeline of a few seconds, never stopped: the reference of the others."""
    words = ("--seed", 7, "--workers", 2, *settings(*MICRO))
    return made_once(tmp_path_factory, "micro", lambda root: run_all(root, *words))


@pytest.fixture(scope="session")
def two_rounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds of a small CarRacing pipeline, in one go."""
    words = (*FIRST, "--rounds", 2, "--workers", 2)
    return made_once(tmp_path_factory, "rounds", lambda root: wm("run", "-w", root, *words))


def run_all(root: Path, *words: object) -> None:
    wm("run", "-w", root, "--preset", "debug", *words)


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]
) -> Path:
    """What `make` makes, once for all processes that test side by side."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    root, done = folder / "shared" / name, folder / "shared" / f"{name}.done"
    root.parent.mkdir(exist_ok=True)
    with root.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(root)
            done.touch()
    return root
