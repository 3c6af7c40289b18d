"""Gymnasium environments as lanes of one process: the reference for every published score."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np

from stages.contracts import Actions, ActionSpec, Frames, Mask, Step
from stages.errors import UsageError
from stages.worlds.lanes import Frame, Lanes, check_actions, check_frame, check_seeds
from stages.worlds.own import blamed
from stages.worlds.prepare import COLOURS, colour, is_picture


class Lane:
    """One Gymnasium environment, used again for episode after episode."""

    fact_types: ClassVar[Mapping[str, type]] = {}

    def __init__(self, env: Any) -> None:
        self.env = env
        self.name = env.spec.id if env.spec is not None else "of this recipe"

    def reset(self, seed: int) -> Any:
        """The first observation of the episode of this seed."""
        observation, _ = self.env.reset(seed=seed)
        return observation

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
        self._raw_shape = frame_shape_of(first.env.observation_space)
        height, width = self._raw_shape[:2]
        self.observation_shape = (height, width, COLOURS)
        self._fact_types = first.fact_types
        self.fact_names: tuple[str, ...] = tuple(first.fact_types)
        self.live: Mask = np.zeros(0, dtype=np.bool_)
        self._state: Lanes | None = None

    def reset(self, seeds: Sequence[int]) -> Frames:
        """Start one episode per seed; lanes of earlier episodes are reused."""
        plain = check_seeds(seeds)
        while len(self._lanes) < len(plain):
            self._lanes.append(self._open_lane())
        frames = [self._reset(lane, seed) for lane, seed in enumerate(plain)]
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

    def _reset(self, lane: int, seed: int) -> Frame:
        with blamed(self._lanes[lane].name, f"reset(seed={seed})"):
            frame = self._lanes[lane].reset(seed)
        return colour(check_frame(frame, self._raw_shape, lane=lane))

    def _step(self, lane: int, action: Any, *, draw: bool) -> tuple[Frame, float, bool, bool]:
        with blamed(self._lanes[lane].name, "step"):
            frame, reward, terminated, truncated = self._lanes[lane].step(action, draw=draw)
        return colour(check_frame(frame, self._raw_shape, lane=lane)), reward, terminated, truncated


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
    floats = kind == "Box" and len(space.shape) == 1 and space.dtype.kind == "f"
    if floats and space.is_bounded():
        low = tuple(float(value) for value in space.low)
        high = tuple(float(value) for value in space.high)
        return ActionSpec(kind="box", size=int(space.shape[0]), low=low, high=high)
    raise UsageError(
        f"Actions of the kind {space} are not supported.",
        why="A world's actions are one bounded vector of floats, or one choice counted from 0.",
        fix="Give the box finite bounds."
        if floats
        else "Wrap the environment, with gymnasium.wrappers.TransformAction for example.",
    )


def frame_shape_of(space: Any) -> tuple[int, ...]:
    """The shape of a frame in an image space of uint8: [H, W], or [H, W, C] of 1, 3 or 4 colours.

    Raises:
        UsageError: the space is another one.
    """
    shape = getattr(space, "shape", None)
    if getattr(space, "dtype", None) == np.uint8 and shape is not None and is_picture(shape):
        return tuple(int(size) for size in shape)
    raise UsageError(
        f"Observations of the kind {space} are not supported.",
        why="wm learns from pixels: frames of uint8, rows x columns, grey or with 1, 3 or 4 "
        "colours last.",
        fix="Choose an environment whose observations are pictures, or let it show what it "
        "renders: gymnasium.wrappers.AddRenderObservation.",
    )


def space_of(spec: ActionSpec) -> Any:
    """Gymnasium's space of these actions."""
    if spec.kind == "choice":
        return gymnasium.spaces.Discrete(spec.size)
    low, high = (np.array(side, dtype=np.float32) for side in (spec.low, spec.high))
    return gymnasium.spaces.Box(low, high, dtype=np.float32)


def picture_space(size: int) -> Any:
    """Gymnasium's space of prepared frames."""
    return gymnasium.spaces.Box(0, 255, (size, size, COLOURS), np.uint8)
