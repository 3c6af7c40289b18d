"""EnvPool's C++ CarRacing as a world: many frames a second, with a picture of its own.

Two of its habits are kept away from the rest of the house. Only the first episode of a pool
belongs to its seeds, so every reset makes a new pool (1-5 ms). And the step after an end silently
starts another episode, so finished lanes are never stepped again.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from warnings import catch_warnings, filterwarnings

import numpy as np
from numpy.typing import NDArray

from stages.contracts import Actions, ActionSpec, Frames, Mask, Step
from stages.worlds.gymnasium_world import action_spec_of, frame_shape_of
from stages.worlds.lanes import Indices, Lanes, check_actions, check_seeds
from stages.worlds.prepare import COLOURS

FIELD_EXIT_REWARD = -100.0  # replaces the reward of the frame that leaves the field
FRAME_REWARD = -0.1
LAP_REWARD = 1000.0  # of all tiles together

FACTS: Mapping[str, type] = {
    "track_share": float,  # visited tiles as a share of the track's, derived from the rewards
    "lap_finished": bool,  # terminated otherwise than by leaving the field
}


class EnvPoolWorld:
    """B lanes in one pool, raw frames, one engine frame per step."""

    def __init__(self, env: str, *, num_threads: int = 1, max_frames: int = 0) -> None:
        import envpool

        self._make = envpool.make_gymnasium
        self._env = env
        self._num_threads = num_threads
        self._options = {"max_episode_steps": max_frames} if max_frames else {}
        with _quiet():
            spec = envpool.make_spec(env)
            self.action_spec: ActionSpec = action_spec_of(spec.gymnasium_action_space)
            height, width = frame_shape_of(spec.gymnasium_observation_space)[:2]
            self.observation_shape = (height, width, COLOURS)
        self.fact_names: tuple[str, ...] = tuple(FACTS)
        self.live: Mask = np.zeros(0, dtype=np.bool_)
        self._pool: Any = None
        self._state: Lanes | None = None

    def reset(self, seeds: Sequence[int]) -> Frames:
        """Start one episode per seed in a new pool."""
        plain = check_seeds(seeds)
        self.close()
        num_threads = min(self._num_threads, len(plain))
        with _quiet():
            self._pool = self._make(
                self._env,
                num_envs=len(plain),
                seed=plain,
                num_threads=num_threads,
                **self._options,
            )
            frames, info = self._pool.reset()
        self._state = Lanes.started(frames[np.argsort(info["env_id"])], FACTS)
        self.live = self._state.live
        return self._state.observation

    def step(self, actions: Actions) -> Step:
        """One engine frame of every live lane; finished lanes are not sent to the pool."""
        state = self._state
        assert state is not None, "reset comes first"
        checked = check_actions(actions, self.action_spec, state.live)
        lanes = np.flatnonzero(state.live)
        if not len(lanes):
            return state.idle()
        returned = self._pool.step(checked[lanes], lanes.astype(np.int32))
        step = state.advance(lanes, _rows(returned, lanes, state.facts["track_share"][lanes]))
        self.live = state.live
        return step

    def skip(self, actions: Actions) -> Step:
        """The same as `step`: EnvPool draws every frame."""
        return self.step(actions)

    def retire(self, lanes: Mask) -> None:
        """Stop stepping these lanes."""
        assert self._state is not None, "reset comes first"
        self._state.live = self._state.live & ~lanes
        self.live = self._state.live

    def close(self) -> None:
        """Free the pool and its threads."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None
        self._state = None
        self.live = np.zeros(0, dtype=np.bool_)


def _rows(returned: tuple[Any, ...], lanes: Indices, track_share: NDArray[np.float64]) -> Step:
    """EnvPool's answer in the order of `lanes`, by the names that it gives its rows."""
    frames, reward, terminated, truncated, info = returned
    if not np.array_equal(info["env_id"], lanes):
        order = np.argsort(info["env_id"])
        frames, reward = frames[order], reward[order]
        terminated, truncated = terminated[order], truncated[order]
    reward = reward.astype(np.float64)
    left_field = terminated & (reward <= FIELD_EXIT_REWARD)
    gained = np.where(left_field, 0.0, (reward - FRAME_REWARD) / LAP_REWARD)
    return Step(
        observation=frames,
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        num_frames=np.ones(len(lanes), dtype=np.int64),
        facts={"track_share": track_share + gained, "lap_finished": terminated & ~left_field},
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Gymnasium's remark that EnvPool's bounds are float64, which changes nothing."""
    with catch_warnings():
        filterwarnings("ignore", message=".*precision lowered by casting to float32.*")
        yield
