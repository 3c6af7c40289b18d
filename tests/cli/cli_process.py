"""What tests of the command line share: a clean environment and a tiny stage."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHOSEN = ("NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "COLUMNS", "WM_WORKSPACE", "XAUTHORITY")
TINY = (
    *("--preset", "debug", "--workers", "1"),
    *("--set", "world.engine=gymnasium", "--set", "rollout.gymnasium_episodes=0"),
    *("--set", "rollout.episodes=2", "--set", "rollout.task_episodes=1"),
    *("--set", "rollout.max_steps=3"),
)  # two episodes of three steps, in two shards


def environment(**extra: str) -> dict[str, str]:
    """The environment without what would colour, widen or redirect the output."""
    kept = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    path = os.pathsep.join(filter(None, [extra.pop("PYTHONPATH", ""), str(ROOT)]))
    return {**kept, "PYTHONPATH": path, **extra}
