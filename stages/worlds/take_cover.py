"""Doom's TakeCover as Ha & Schmidhuber 2018 play it: one number steers, every tic counts.

Fireballs come, the player moves left or right, and each of the 35 tics of a second that is survived
earns 1. The picture is ViZDoom's own, without status bar, weapon and crosshair.

ViZDoom runs a process per lane. They must not outlive this one, however it ends, nor fill the
memory of the machine: `keeper.sh` lets the kernel end them with it, and shared memory that a killed
process left is removed by the next one of the same user.
"""

import contextlib
import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import vizdoom
import vizdoom.gymnasium_wrapper  # registers the environments
from gymnasium.spaces import Box

from stages.artifacts.disk import is_alive
from stages.errors import EnvironmentLacks
from stages.execution.worker import at_the_end
from stages.worlds.gymnasium_world import Lane

NOTHING, RIGHT, LEFT = 0, 1, 2  # ViZDoom's choices
THRESHOLD = 1 / 3  # of the number that steers (the original's Doom environment)
KEEPER = Path(__file__).with_name("keeper.sh")
SHARED = Path("/dev/shm")
SEGMENTS = ("ViZDoomSM", "ViZDoomMQCtr", "ViZDoomMQDoom")  # of one engine, followed by its id


class Steered(gymnasium.Wrapper):  # type: ignore[misc]  # untyped
    """TakeCover whose action is one number in -1..1 and whose observation is the screen.

    Below -1/3 is left, above 1/3 right. At the end there is no screen; the last one is shown again,
    because the black one that ViZDoom gives would be learnt as a part of the world.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = env.observation_space["screen"]
        self.health = 0.0
        self._screen: Any = None
        self._marker: Path | None = None

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode, and with the first one the engine."""
        if self._marker is None:
            _prepare(self.env.unwrapped.game)
        observation, info = self.env.reset(**options)
        if self._marker is None:
            self._marker = _marked(self.env.unwrapped.game.get_instance_id())
        self._screen, self.health = observation["screen"], float(observation["gamevariables"][0])
        return self._screen, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One tic."""
        observation, reward, terminated, truncated, info = self.env.step(button(float(action[0])))
        self.health = float(observation["gamevariables"][0])
        if not terminated:
            self._screen = observation["screen"]
        return self._screen, reward, terminated, truncated, info

    def close(self) -> None:
        """End the engine."""
        super().close()
        if self._marker is not None:
            _forget(self._marker)
            self._marker = None


class TakeCoverLane(Lane):
    """A lane of TakeCover that knows how much health is left, 100 at first."""

    fact_types: ClassVar[Mapping[str, type]] = {"health": float}

    def __init__(self, env: Any) -> None:
        super().__init__(Steered(env))

    def facts(self) -> Mapping[str, Any]:
        """Health after the newest tic."""
        return {"health": self.env.health}


def button(steer: float) -> int:
    """What is pressed for this number."""
    if steer < -THRESHOLD:
        return LEFT
    return RIGHT if steer > THRESHOLD else NOTHING


def _prepare(game: Any) -> None:
    """Let the engine die with this process, and write nothing into the folder of the command."""
    engine = Path(vizdoom.__file__).with_name("vizdoom")
    if not engine.exists():  # it would crash this process
        raise EnvironmentLacks(
            "ViZDoom's engine is missing.",
            why=f"There is no {engine}.",
            fix="pip install --force-reinstall vizdoom",
        )
    _sweep_once()
    os.environ["WM_VIZDOOM"], os.environ["WM_VIZDOOM_FOLDER"] = str(engine), str(_folder())
    game.set_vizdoom_path(str(KEEPER))
    game.set_doom_config_path(os.devnull)


def _folder() -> Path:
    """Where engines of this user run; it holds a marker for each."""
    folder = Path(tempfile.gettempdir()) / f"wm-vizdoom-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid():
        raise EnvironmentLacks(
            f"{folder} belongs to somebody else.",
            why="ViZDoom's engines run in it.",
            fix="Set TMPDIR to a folder of your own.",
        )
    return folder


def _marked(instance: str) -> Path:
    """Write down whose engine this is."""
    marker = _folder() / f"{os.getpid()}-{instance}"
    marker.touch()
    return marker


@cache
def _sweep_once() -> None:
    """Remove the shared memory of engines whose process was killed, and of ours in the end."""
    for marker in _folder().glob("[0-9]*-*"):
        process = marker.name.partition("-")[0]
        if process.isdigit() and not is_alive(int(process)):
            _forget(marker)
    at_the_end(_forget_all)


def _forget_all() -> None:
    for marker in _folder().glob(f"{os.getpid()}-*"):
        _forget(marker)


def _forget(marker: Path) -> None:
    """Remove what an engine shares, if it is still there; one that runs keeps what it has open."""
    instance = marker.name.partition("-")[2]
    for path in (*(SHARED / f"{name}{instance}" for name in SEGMENTS), marker):
        with contextlib.suppress(OSError):
            path.unlink()
