"""The command line as users run it: a process of its own, with a clean environment."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_process import TINY, environment

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def wm(tmp_path: Path) -> Run:
    """Run `wm` with these words in an empty folder."""

    def run(*words: object, **extra: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "wm_cli", *map(str, words)]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(**extra),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one tiny rollout of the real CarRacing. Copy it before changing it."""
    root = tmp_path_factory.mktemp("recorded") / "workspace"
    command = [sys.executable, "-m", "wm_cli", "rollout", "-w", str(root), *TINY]
    subprocess.run(command, env=environment(), check=True, capture_output=True, timeout=120)
    return root
