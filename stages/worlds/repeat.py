"""Action repeat: the time step of M and of C alike is `repeat` engine frames."""

from collections.abc import Sequence
from dataclasses import replace

from stages.contracts import Actions, Frames, Mask, Step
from stages.worlds.lanes import Engine


class Repeat:
    """A world in which every action is held for `repeat` engine frames, or until the end."""

    def __init__(self, engine: Engine, repeat: int) -> None:
        assert repeat >= 1, f"repeat must be at least 1, found {repeat}"
        self._engine = engine
        self._repeat = repeat
        self.action_spec = engine.action_spec
        self.observation_shape = engine.observation_shape
        self.fact_names = engine.fact_names
        self.live: Mask = engine.live

    def reset(self, seeds: Sequence[int]) -> Frames:
        """Start one episode per seed; the reset itself is not repeated."""
        observation = self._engine.reset(seeds)
        self.live = self._engine.live
        return observation

    def step(self, actions: Actions) -> Step:
        """Hold the actions; rewards and frames are summed, the picture is the last frame's."""
        step = self._frame(actions, last=self._repeat == 1)
        reward, num_frames = step.reward, step.num_frames
        for frame in range(1, self._repeat):
            if not self._engine.live.any():
                break
            step = self._frame(actions, last=frame == self._repeat - 1)
            reward = reward + step.reward
            num_frames = num_frames + step.num_frames
        self.live = self._engine.live
        return replace(step, reward=reward, num_frames=num_frames)

    def _frame(self, actions: Actions, *, last: bool) -> Step:
        return self._engine.step(actions) if last else self._engine.skip(actions)

    def retire(self, lanes: Mask) -> None:
        """Stop stepping these lanes."""
        self._engine.retire(lanes)
        self.live = self._engine.live

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()
        self.live = self._engine.live
