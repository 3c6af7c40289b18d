"""The command line as users run it: a process of its own, with a clean environment."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHOSEN = ("NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "COLUMNS", "WM_WORKSPACE", "XAUTHORITY")
TINY = ("--preset", "debug", "--workers", "1", "--set", "world.engine=gymnasium") + tuple(
    word
    for change in ("episodes=2", "gymnasium_episodes=0", "task_episodes=1", "max_steps=3")
    for word in ("--set", f"rollout.{change}")
)

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(**extra: str) -> dict[str, str]:
    """The environment without what would colour, widen or redirect the output."""
    kept = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    path = os.pathsep.join(filter(None, [extra.pop("PYTHONPATH", ""), str(ROOT)]))
    return {**kept, "PYTHONPATH": path, **extra}


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
