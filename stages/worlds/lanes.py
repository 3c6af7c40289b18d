"""What every engine world shares: the record of its lanes, and the guards at its door."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.contracts import Actions, ActionSpec, Frames, FrameWorld, Mask, Step
from stages.errors import NumbersBad

MAX_SEED = 2**31  # EnvPool's seeds are C++ ints
MEND_THE_WORLD = "Mend the environment, or choose another; the same command then goes on."
Indices = NDArray[np.intp]
Frame = NDArray[np.uint8]  # [H, W, C], or [H, W] as an engine may draw it


class Engine(FrameWorld, Protocol):
    """A World whose every step is one engine frame, and which may leave frames undrawn."""

    def skip(self, actions: Actions) -> Step:
        """Step as `step` does, but only lanes that ended need a fresh picture."""
        ...


@dataclass
class Lanes:
    """The newest state of B lanes. Live ones receive rows, finished ones go on repeating theirs."""

    observation: Frames  # [B, H, W, C]
    terminated: Mask  # [B]
    truncated: Mask  # [B]
    live: Mask  # [B]
    facts: Mapping[str, NDArray[Any]]  # each [B]

    @classmethod
    def started(cls, observation: Frames, facts: Mapping[str, type]) -> "Lanes":
        """Lanes that have just been reset; every fact begins at zero."""
        num_lanes = len(observation)
        return cls(
            observation=observation,
            terminated=np.zeros(num_lanes, dtype=np.bool_),
            truncated=np.zeros(num_lanes, dtype=np.bool_),
            live=np.ones(num_lanes, dtype=np.bool_),
            facts={name: np.zeros(num_lanes, dtype=kind) for name, kind in facts.items()},
        )

    def advance(self, lanes: Indices, rows: Step) -> Step:
        """Take one row per stepped lane (in the order of `lanes`) and show all B lanes."""
        assert rows.observation.dtype == np.uint8, f"frames are {rows.observation.dtype}"
        self.observation = _scatter(self.observation, lanes, rows.observation)
        self.terminated = _scatter(self.terminated, lanes, rows.terminated)
        self.truncated = _scatter(self.truncated, lanes, rows.truncated)
        self.facts = {
            name: _scatter(old, lanes, rows.facts[name]) for name, old in self.facts.items()
        }
        self.live = self.live & ~(self.terminated | self.truncated)
        blank = np.zeros(len(self.live))
        return Step(
            observation=self.observation,
            reward=_scatter(blank, lanes, rows.reward),
            terminated=self.terminated,
            truncated=self.truncated,
            num_frames=_scatter(blank.astype(np.int64), lanes, rows.num_frames),
            facts=self.facts,
        )

    def idle(self) -> Step:
        """A step in which nothing was live."""
        num_lanes = len(self.live)
        return Step(
            observation=self.observation,
            reward=np.zeros(num_lanes),
            terminated=self.terminated,
            truncated=self.truncated,
            num_frames=np.zeros(num_lanes, dtype=np.int64),
            facts=self.facts,
        )


def _scatter(old: NDArray[Any], lanes: Indices, rows: NDArray[Any]) -> NDArray[Any]:
    """`old` with new rows at `lanes` (ascending), never written in place: steps stay valid."""
    if len(lanes) == len(old):
        return rows
    new = old.copy()
    new[lanes] = rows
    return new


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """At least one seed, each of 31 bits, as plain ints."""
    plain = [int(seed) for seed in seeds]
    assert plain, "a world needs at least one seed"
    assert all(0 <= seed < MAX_SEED for seed in plain), f"seeds must be in [0, 2^31): {plain}"
    return plain


def check_actions(actions: Actions, spec: ActionSpec, live: Mask) -> Actions:
    """Actions as an array of the right type and shape, finite and inside the bounds where live.

    Engines do not check: CarRacing calls `.astype` on a list, EnvPool reads past a short one.
    """
    num_lanes = len(live)
    if spec.kind == "choice":
        choices = np.asarray(actions)
        assert choices.shape == (num_lanes,), f"expected choices [{num_lanes}]: {choices.shape}"
        inside = (choices >= 0) & (choices < spec.size)
        assert inside[live].all(), f"choices outside 0..{spec.size - 1}: {choices[live]}"
        return choices.astype(np.int64)
    floats = np.asarray(actions, dtype=np.float32)
    shape = (num_lanes, spec.size)
    assert floats.shape == shape, f"expected actions {shape}, found {floats.shape}"
    _check_finite(floats, live)
    low, high = np.array(spec.low, dtype=np.float32), np.array(spec.high, dtype=np.float32)
    outside = ((floats < low) | (floats > high)).any(axis=1) & live
    assert not outside.any(), f"actions outside {spec.low}..{spec.high}: {floats[outside]}"
    return floats


def _check_finite(actions: NDArray[np.float32], live: Mask) -> None:
    bad = ~np.isfinite(actions).all(axis=1) & live
    if bad.any():
        lane = int(np.flatnonzero(bad)[0])
        raise NumbersBad(
            f"The policy's action for lane {lane} is {actions[lane].tolist()}.",
            why="Only finite numbers can be acted on.",
            lane=lane,
        )


def check_frame(frame: Any, shape: tuple[int, ...], *, lane: int) -> Frame:
    """The engine's frame if it is uint8 of this shape, as its space says; NumbersBad if not.

    Another type would be cast without a word where lanes are put together: NaN to black.
    """
    if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.shape == shape:
        return frame
    kind, found = getattr(frame, "dtype", type(frame).__name__), getattr(frame, "shape", ())
    what = f"The world gave a frame of {kind} {list(found)} instead of uint8 {list(shape)}"
    if isinstance(frame, np.ndarray) and frame.dtype.kind == "f":
        bad = frame[~np.isfinite(frame)]
        what += f" that holds {bad[0]}" if len(bad) else ""
    raise NumbersBad(
        f"{what}.",
        why="Its own observation space promises whole numbers from 0 to 255.",
        fix=MEND_THE_WORLD,
        lane=lane,
    )
