"""Opens a Gymnasium environment by its id, and says what to do when that is not possible."""

from collections.abc import Sequence
from copy import deepcopy
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any
from warnings import catch_warnings, filterwarnings

import gymnasium
from gymnasium.error import DependencyNotInstalled, Error

from stages.errors import EnvironmentLacks, UsageError
from stages.worlds.gymnasium_world import Lane
from stages.worlds.making import (
    BOX2D_AGAIN,
    BOX2D_SOURCE,
    CAR_RACING,
    DOOM,
    check_world_known,
    is_of,
    is_own,
)
from stages.worlds.own import blamed, own_spec

TAKE_COVER = "VizdoomTakeCover-v1"


def open_lane(
    env: str, *, max_frames: int = 0, culled: bool = False, random_start: bool = False
) -> Lane:
    """One lane of the environment; `max_frames` replaces its own time limit unless 0.

    With `culled` CarRacing draws the same frames with less work; with `random_start` its episodes
    begin anywhere on the track.
    """
    check_world_known(env)
    if is_of(env, CAR_RACING):
        lane = _open_car_racing(env, max_frames, culled=culled)
        if random_start:
            lane.env.unwrapped.random_start = True
            # Its rule of 95 % would end a lap where the car first meets tile 0.
            lane.env.unwrapped.lap_complete_percent = 1.0
        return lane
    if is_of(env, DOOM):
        return _open_take_cover(env, max_frames)
    _register_atari()
    return Lane(_make(_spec(env), max_frames))


def registered_limit(env: str) -> int:
    """Frames after which the environment cuts an episode; 0 where it does not say or is not here.

    Atari's count frames of the console, and say nothing here.
    """
    try:
        _register_atari()
        return _spec(env).max_episode_steps or 0
    except (UsageError, EnvironmentLacks):
        return 0


def _open_car_racing(env: str, max_frames: int, *, culled: bool) -> Lane:
    spec = deepcopy(_spec(env))
    try:
        with catch_warnings():
            # Box2D's SWIG module warns while it loads, and crashes the process if that raises.
            filterwarnings("ignore", message="builtin type .*", category=DeprecationWarning)
            from stages.worlds.car_racing import CarRacingLane, UndrawnCarRacing
            from stages.worlds.culled_car_racing import CulledCarRacing
    except DependencyNotInstalled as error:
        raise EnvironmentLacks(
            f"{env} needs Box2D and pygame.",
            why=str(error),
            fix=f"{BOX2D_AGAIN}; where that has no wheel, {BOX2D_SOURCE}",
        ) from error
    spec.entry_point = CulledCarRacing if culled else UndrawnCarRacing
    return CarRacingLane(_make(spec, max_frames))


def _open_take_cover(env: str, max_frames: int) -> Lane:
    if env != TAKE_COVER:
        raise UsageError(
            f"Of ViZDoom's environments {TAKE_COVER} is offered, not {env}.",
            why="An action must be one vector or one choice, and what a number does is agreed on.",
        )
    if find_spec("vizdoom") is None:
        raise EnvironmentLacks(
            f"{env} needs ViZDoom.", fix='Install it with: pip install "wm-pixels[doom]"'
        )
    from stages.worlds.take_cover import TakeCoverLane

    return TakeCoverLane(_make(_spec(env), max_frames, frame_skip=1))


def _spec(env: str) -> Any:
    if is_own(env):
        return own_spec(env)
    try:
        return gymnasium.spec(env)
    except Error as error:  # unknown, deprecated or malformed
        raise _unknown(env, str(error)) from error


def _make(spec: Any, max_frames: int, **options: Any) -> Any:
    limit = {"max_episode_steps": max_frames} if max_frames else {}
    with blamed(spec.id, "its constructor"), catch_warnings():
        filterwarnings("ignore", category=UserWarning, module="gymnasium")  # of missing metadata
        try:
            return gymnasium.make(spec, disable_env_checker=True, **limit, **options)
        except (DependencyNotInstalled, ImportError) as error:
            raise EnvironmentLacks(
                f"{spec.id} needs a package that is not installed.", why=str(error)
            ) from error


def _register_atari() -> None:
    """Make the `ALE/...` ids known; importing ale_py registers them."""
    if find_spec("ale_py") is not None:
        import ale_py

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner per environment
        gymnasium.register_envs(ale_py)


def _unknown(env: str, reason: str) -> UsageError | EnvironmentLacks:
    if env.startswith("ALE/") and find_spec("ale_py") is None:
        return EnvironmentLacks(
            f"{env} needs the package ale-py.", fix="Install it with: pip install ale-py"
        )
    near = _nearest(env, list(gymnasium.registry))
    return UsageError(
        f"The environment {env!r} is not known.",
        why=reason,
        fix=f"Did you mean {near}?" if near else "See `gymnasium.registry` for the known ones.",
    )


def _nearest(env: str, known: Sequence[str]) -> str:
    near = get_close_matches(env, known, n=1, cutoff=0.6)
    return near[0] if near else ""
