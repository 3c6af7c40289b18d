"""Gymnasium environments as lanes of one process: the reference for every published score."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from stages.contracts import Actions, ActionSpec, Frames, Mask, Step
from stages.errors import UsageError
from stages.worlds.lanes import Frame, Lanes, check_actions, check_frame, check_seeds


class Lane:
    """One Gymnasium environment, used again for episode after episode."""

    fact_types: ClassVar[Mapping[str, type]] = {}

    def __init__(self, env: Any) -> None:
        self.env = env

    def step(self, action: Any, *, draw: bool) -> tuple[Any, float, bool, bool]:  # noqa: ARG002
        """One engine frame: observation, reward, terminated, truncated."""
        observation, reward, terminated, truncated, _ = self.env.step(action)
        return observation, float(reward), bool(terminated), bool(truncated)

    def facts(self) -> Mapping[str, Any]:
        """The newest value of every fact."""
        return {}


class GymnasiumWorld:
    """B lanes of one environment id, raw frames, one engine frame per step."""

    def __init__(self, open_lane: Callable[[], Lane]) -> None:
        first = open_lane()
        self._open_lane = open_lane
        self._lanes = [first]
        self.action_spec: ActionSpec = action_spec_of(first.env.action_space)
        self.observation_shape = frame_shape_of(first.env.observation_space)
        self._fact_types = first.fact_types
        self.fact_names: tuple[str, ...] = tuple(first.fact_types)
        self.live: Mask = np.zeros(0, dtype=np.bool_)
        self._state: Lanes | None = None

    def reset(self, seeds: Sequence[int]) -> Frames:
        """Start one episode per seed; lanes of earlier episodes are reused."""
        plain, shape = check_seeds(seeds), self.observation_shape
        while len(self._lanes) < len(plain):
            self._lanes.append(self._open_lane())
        frames = [
            check_frame(self._lanes[lane].env.reset(seed=seed)[0], shape, lane=lane)
            for lane, seed in enumerate(plain)
        ]
        self._state = Lanes.started(np.stack(frames), self._fact_types)
        self.live = self._state.live
        return self._state.observation

    def step(self, actions: Actions) -> Step:
        """One engine frame of every live lane."""
        return self._advance(actions, draw=True)

    def skip(self, actions: Actions) -> Step:
        """One engine frame whose picture is drawn only where the episode ended."""
        return self._advance(actions, draw=False)

    def retire(self, lanes: Mask) -> None:
        """Stop stepping these lanes."""
        assert self._state is not None, "reset comes first"
        self._state.live = self._state.live & ~lanes
        self.live = self._state.live

    def close(self) -> None:
        """Close every environment; a later reset would open new ones."""
        for lane in self._lanes:
            lane.env.close()
        self._lanes = []
        self.live = np.zeros(0, dtype=np.bool_)

    def _advance(self, actions: Actions, *, draw: bool) -> Step:
        state = self._state
        assert state is not None, "reset comes first"
        checked = check_actions(actions, self.action_spec, state.live)
        lanes = np.flatnonzero(state.live)
        if not len(lanes):
            return state.idle()
        results = [self._step(int(lane), checked[lane], draw=draw) for lane in lanes]
        facts = [self._lanes[lane].facts() for lane in lanes]
        step = state.advance(lanes, _rows(results, facts, self._fact_types))
        self.live = state.live
        return step

    def _step(self, lane: int, action: Any, *, draw: bool) -> tuple[Frame, float, bool, bool]:
        frame, reward, terminated, truncated = self._lanes[lane].step(action, draw=draw)
        frame = check_frame(frame, self.observation_shape, lane=lane)
        return frame, reward, terminated, truncated


def _rows(
    results: Sequence[tuple[Frame, float, bool, bool]],
    facts: Sequence[Mapping[str, Any]],
    fact_types: Mapping[str, type],
) -> Step:
    observations, rewards, terminated, truncated = zip(*results, strict=True)
    return Step(
        observation=np.stack(observations),
        reward=np.array(rewards, dtype=np.float64),
        terminated=np.array(terminated, dtype=np.bool_),
        truncated=np.array(truncated, dtype=np.bool_),
        num_frames=np.ones(len(results), dtype=np.int64),
        facts={
            name: np.array([row[name] for row in facts], dtype=kind)
            for name, kind in fact_types.items()
        },
    )


def action_spec_of(space: Any) -> ActionSpec:
    """The ActionSpec of a Gymnasium action space: a bounded flat Box or a Discrete from 0."""
    kind = type(space).__name__
    if kind == "Discrete" and int(space.start) == 0:
        return ActionSpec(kind="choice", size=int(space.n))
    if kind == "Box" and len(space.shape) == 1 and space.is_bounded():
        low = tuple(float(value) for value in space.low)
        high = tuple(float(value) for value in space.high)
        return ActionSpec(kind="box", size=int(space.shape[0]), low=low, high=high)
    raise UsageError(
        f"Actions of the kind {space} are not supported.",
        why="A world's actions are one bounded vector, or one choice counted from 0.",
    )


def frame_shape_of(space: Any) -> tuple[int, int, int]:
    """Height, width and channels of an image space of uint8 [H, W, C]."""
    shape = getattr(space, "shape", None)
    if getattr(space, "dtype", None) == np.uint8 and shape is not None and len(shape) == 3:
        return int(shape[0]), int(shape[1]), int(shape[2])
    raise UsageError(
        f"Observations of the kind {space} are not supported.",
        why="wm learns from pixels: colour frames of uint8, rows x columns x channels.",
        fix="Choose an environment whose observations are pictures, such as CarRacing-v3.",
    )
