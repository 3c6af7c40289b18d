"""The one loop that drives a policy through a world: rollout, control, evaluate and play use it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.episodes import EpisodeRecord
from stages.contracts import Actions, EpisodeOutcome, Frames, Mask, Policy, Step, World
from stages.errors import NumbersBad
from stages.worlds.lanes import MEND_THE_WORLD


class Observer(Protocol):
    """Sees everything that happens during a drive."""

    def on_reset(self, observation: Frames, seeds: Sequence[int]) -> None:
        """B episodes have begun."""
        ...

    def on_step(
        self, live: Mask, observation: Frames, actions: Actions, step: Step, live_after: Mask
    ) -> None:
        """Lanes in `live` took `actions` on seeing `observation`; `live_after` go on."""
        ...


@dataclass
class StopRule:
    """Gives up lanes that earned no positive reward for `patience_steps` actions in a row."""

    patience_steps: int
    _idle_steps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def start(self, num_lanes: int) -> None:
        """Forget earlier episodes."""
        assert self.patience_steps > 0, f"patience must be positive: {self.patience_steps}"
        self._idle_steps = np.zeros(num_lanes, dtype=np.int64)

    def hopeless(self, step: Step) -> Mask:
        """The lanes to give up after this step."""
        self._idle_steps = np.where(step.reward > 0, 0, self._idle_steps + 1)
        return self._idle_steps >= self.patience_steps


class Recorder:
    """Hands over every episode as it ends: in order of ending, lanes that end together by lane."""

    def __init__(self, on_episode: Callable[[EpisodeRecord], None]) -> None:
        self._on_episode = on_episode
        self._tapes: list[Tape] = []

    def on_reset(self, observation: Frames, seeds: Sequence[int]) -> None:
        """Begin one tape per lane."""
        self._tapes = [
            Tape(int(seed), [frame.copy()]) for seed, frame in zip(seeds, observation, strict=True)
        ]

    def on_step(
        self,
        live: Mask,
        observation: Frames,  # noqa: ARG002  # it was recorded when it was new
        actions: Actions,
        step: Step,
        live_after: Mask,
    ) -> None:
        """Append what happened; hand over what ended."""
        for lane in np.flatnonzero(live):
            self._tapes[lane].append(int(lane), actions, step)
            if not live_after[lane]:
                self._on_episode(self._tapes[lane].record())
                self._tapes[lane] = Tape(self._tapes[lane].seed, [])  # frees the frames


@dataclass
class Tape:
    """One lane's episode while it goes on."""

    seed: int
    frames: list[NDArray[np.uint8]]
    rows: list[tuple[Any, float, bool, bool]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)

    def append(self, lane: int, actions: Actions, step: Step) -> None:
        """What this lane did, and what came of it."""
        self.frames.append(step.observation[lane].copy())
        self.rows.append(
            (actions[lane].copy(), step.reward[lane], step.terminated[lane], step.truncated[lane])
        )
        self.facts.append({name: values[lane] for name, values in step.facts.items()})

    def record(self) -> EpisodeRecord:
        """The episode; one whose recording was stopped counts as cut by a time limit."""
        actions, rewards, terminations, truncations = zip(*self.rows, strict=True)
        truncations = (*truncations[:-1], truncations[-1] or not terminations[-1])
        return EpisodeRecord(
            seed=self.seed,
            observations=np.stack(self.frames),
            actions=np.stack(actions),
            rewards=np.array(rewards, dtype=np.float64),
            terminations=np.array(terminations, dtype=np.bool_),
            truncations=np.array(truncations, dtype=np.bool_),
            facts={name: np.array([row[name] for row in self.facts]) for name in self.facts[0]},
        )


class _Tally:
    """Sums per lane while a drive goes on, and what its episodes are called."""

    def __init__(self, seeds: Sequence[int], drivers: Sequence[str]) -> None:
        assert len(drivers) in {0, len(seeds)}, f"{len(drivers)} drivers of {len(seeds)} lanes"
        self.step = 0  # of the drive, from 1
        self.seeds = [int(seed) for seed in seeds]
        self.drivers = drivers
        self.total_reward = np.zeros(len(seeds))
        self.num_steps = np.zeros(len(seeds), dtype=np.int64)
        self.num_frames = np.zeros(len(seeds), dtype=np.int64)

    def add(self, live: Mask, step: Step) -> None:
        """Add a step; NumbersBad when what a lane has earned so far is no finite number."""
        with np.errstate(over="ignore"):  # looked at below
            self.total_reward += step.reward
        self.num_steps += live
        self.num_frames += step.num_frames
        bad = ~np.isfinite(self.total_reward)
        if bad.any():
            lane = int(np.argmax(bad))
            raise NumbersBad(
                f"The world gave the reward {step.reward[lane]}.",
                why="The return of an episode must be a finite number.",
                fix=MEND_THE_WORLD,
                lane=lane,
            )

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Let bad numbers that are found in a lane say in which step of which episode."""
        try:
            yield
        except NumbersBad as error:
            if error.lane is None:
                raise
            where = f"step {self.step}" if self.step else "the first frame"
            who = f", driven by {self.drivers[error.lane]}" if self.drivers else ""
            episode = f"the episode of seed {self.seeds[error.lane]}{who}"
            raise NumbersBad(
                f"{error.what.rstrip('.')} in {where} of {episode}.", why=error.why, fix=error.fix
            ) from error

    def outcomes(self, last: Step | None) -> list[EpisodeOutcome]:
        return [self._outcome(lane, last) for lane in range(len(self.seeds))]

    def _outcome(self, lane: int, last: Step | None) -> EpisodeOutcome:
        terminated = last is not None and bool(last.terminated[lane])
        truncated = last is not None and bool(last.truncated[lane])
        facts = last.facts if last is not None else {}
        return EpisodeOutcome(
            seed=self.seeds[lane],
            total_reward=float(self.total_reward[lane]),
            num_steps=int(self.num_steps[lane]),
            num_frames=int(self.num_frames[lane]),
            terminated=terminated,
            truncated=truncated,
            stopped=not (terminated or truncated),
            facts={name: float(values[lane]) for name, values in facts.items()},
        )


def drive(
    world: World,
    policy: Policy,
    seeds: Sequence[int],
    *,
    observers: Sequence[Observer] = (),
    stop_rule: StopRule | None = None,
    max_steps: int | None = None,
    tick: Callable[[], None] | None = None,
    drivers: Sequence[str] = (),
) -> list[EpisodeOutcome]:
    """One episode per seed, to its end; lanes stopped early by rule or `max_steps` say so.

    `tick` is called once per step: a sign of life for whoever waits. `drivers` says who drives
    each lane.

    Raises:
        NumbersBad: a reward, an observation or an action is no finite number; it says in which
            step of which episode, and who drove it.
    """
    tally = _Tally(seeds, drivers)
    with tally.placing():
        observation = world.reset(seeds)
        policy.reset(seeds)
        for observer in observers:
            observer.on_reset(observation, seeds)
        if stop_rule is not None:
            stop_rule.start(len(seeds))
        last: Step | None = None
        while world.live.any() and tally.step != max_steps:
            tally.step += 1
            live = world.live.copy()
            actions = policy.act(observation, live)
            last = world.step(actions)
            if tick is not None:
                tick()
            tally.add(live, last)
            if stop_rule is not None:
                world.retire(stop_rule.hopeless(last))
            if tally.step == max_steps:
                world.retire(world.live)
            for observer in observers:
                observer.on_step(live, observation, actions, last, world.live)
            observation = last.observation
    return tally.outcomes(last)
