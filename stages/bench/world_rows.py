"""The rows that step the engine: recording to disk and driving with V + M + C; and the disk."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import numpy as np

from stages import rollout
from stages.artifacts.disk import write_file
from stages.bench.ceilings import EnvPoolStepping, has_envpool, step_gymnasium, write_raw
from stages.bench.contest import Contest, Contestant, timed
from stages.bench.plain_worlds import PlainAgent, PlainEpisode, drive_plainly, record_plainly
from stages.bench.worksite import SEED, Worksite
from stages.training.seeding import episode_seeds, generator
from stages.trials import Trial, run_trial

SIGMA = 0.1  # of fresh controllers: the first generation of train-control


def rollout_rows(site: Worksite) -> Iterator[Contest]:
    """Recording: prepared, compressed, digested and flushed shards."""
    recording = _Recording(site)
    numbers = count()

    def plain() -> float:
        path, number = site.root / "plain", next(numbers)
        path.mkdir(exist_ok=True)
        work = [
            (_plain_episode(site, site.sizes.episode_actions, worker), str(path / f"{worker}.npz"))
            for worker in range(number, number + site.cores)
        ]
        return site.total(record_plainly, work)

    world = site.job.world
    ceiling, stepped = _raw_stepping(site)
    yield Contest(
        row="rollout",
        unit="frames",
        used=(
            f"{world.engine} at repeat {world.repeat}, {site.cores} workers x "
            f"{site.sizes.recording_lanes} lanes, {site.sizes.episode_actions} actions per episode "
            f"with its reset; ceiling: {stepped}; plain: {_plain_words(site)}, saved with numpy"
        ),
        ours=Contestant(lambda: timed(recording.run), recording.warm_up),
        ceiling=ceiling,
        plain=Contestant(lambda: timed(plain), _plain_warm_up(site)),
    )


class _Recording:
    """Lap by lap the shards of the rollout that later rows train on.

    They lie where `rollout.run` would have left them had it been stopped, so that it only commits.
    """

    def __init__(self, site: Worksite) -> None:
        config = site.config("rollout")
        planned = rollout.plan(site.workspace, config, site.job)
        with site.workspace.lock("rollouts"):
            partial = site.workspace.begin("rollouts", planned.fingerprint)
        self._site = site
        self._folder = partial.path
        self._tasks = list(rollout.recording_tasks(site.workspace, config, site.job, partial.path))
        self._next = 0

    def warm_up(self) -> None:
        """A short recording beside the others."""
        short = replace(self._tasks[0], folder=str(self._site.root), max_steps=3)
        work = [replace(short, name=f"warm-{n}.h5") for n in range(self._site.cores)]
        self._site.everywhere(rollout.record_shard, work)

    def run(self) -> float:
        """A shard per worker; the engine frames in them."""
        work = self._tasks[self._next : self._next + self._site.cores]
        self._next = (self._next + self._site.cores) % len(self._tasks)
        self._site.everywhere(rollout.record_shard, work)
        return float(sum(self._frames(task.name) for task in work))

    def _frames(self, name: str) -> int:
        """Engine frames of a shard; only an episode's last action may be cut short."""
        from stages.artifacts.episodes import EpisodeShard

        with EpisodeShard(self._folder / name) as shard:
            return int(shard.lengths.sum()) * self._site.job.world.repeat


def control_rows(site: Worksite) -> Iterator[Contest]:
    """Driving with V + M + C, as a generation of train-control does."""
    trials = _trials(site)

    def ours() -> float:
        driven = site.everywhere(run_trial, trials)
        return float(sum(outcome.num_frames for lanes in driven for outcome in lanes))

    def plain() -> float:
        agent = PlainAgent(hidden_size=site.config("train-memory").hidden_size)
        work = [
            (_plain_episode(site, site.sizes.control_actions, worker), agent)
            for worker in range(site.cores)
        ]
        return site.total(drive_plainly, work)

    world = site.job.world
    ceiling, stepped = _raw_stepping(site)
    yield Contest(
        row="control",
        unit="frames",
        used=(
            f"V + M + C, {site.sizes.control_lanes} lanes on {site.cores} workers, {world.engine} "
            f"at repeat {world.repeat}, {site.sizes.control_actions} actions per episode with its "
            f"reset; ceiling: {stepped}; plain: {_plain_words(site)}, networks on a batch of one"
        ),
        ours=Contestant(
            lambda: timed(ours),
            lambda: site.everywhere(run_trial, [replace(trial, max_steps=2) for trial in trials]),
        ),
        ceiling=ceiling,
        plain=Contestant(lambda: timed(plain), _plain_warm_up(site)),
    )


def _trials(site: Worksite) -> list[Trial]:
    """The lanes of one generation, a controller of its own for each, cut for the workers."""
    from stages.control.pilot import PilotShape

    config = site.config("train-control")
    pilot = PilotShape(
        features=config.features,
        hidden=config.hidden,
        bias=config.bias,
        latent=config.latent,
        squash=config.squash,
    )
    sizes = (site.models.vision_shape["latent_size"], site.models.memory_shape["hidden_size"])
    shape = pilot.controller(*sizes, site.models.memory_shape["action_size"])
    lanes = site.sizes.control_lanes
    random = generator(SEED, "bench-controllers")
    vectors = SIGMA * random.standard_normal((lanes, shape.num_parameters), dtype=np.float32)
    seeds = episode_seeds("search", SEED, 0, lanes)
    each = -(-lanes // site.cores)
    return [
        Trial(
            world=site.job.world,
            engine=site.job.world.engine,
            agent=site.models.agent(pilot),
            parameters=vectors[start : start + each],
            seeds=tuple(seeds[start : start + each]),
            max_steps=site.sizes.control_actions,
        )
        for start in range(0, lanes, each)
    ]


def disk_rows(site: Worksite) -> Iterator[Contest]:
    """A file written whole, renamed and flushed, beside a bare write that is flushed."""
    content = generator(SEED, "bench-bytes").bytes(site.sizes.disk_bytes)

    def ours() -> float:
        write_file(site.root / "ours.bin", content)
        return len(content) / 1e6

    yield Contest(
        row="disk",
        unit="MB",
        used=f"{len(content) / 1e6:.0f} MB in the temporary folder (TMPDIR chooses another)",
        ours=Contestant(lambda: timed(ours), ours),
        ceiling=Contestant(lambda: timed(lambda: write_raw(site.root / "raw.bin", content))),
    )


def _raw_stepping(site: Worksite) -> tuple[Contestant, str]:
    """The ceiling of everything that steps the engine, and what it is."""
    sizes, env = site.sizes, site.job.world.env
    if has_envpool():
        pool = EnvPoolStepping(
            env, num_lanes=sizes.raw_lanes, num_threads=site.cores, num_steps=sizes.raw_steps
        )
        words = f"EnvPool alone, {sizes.raw_lanes} lanes on {site.cores} threads"
        return Contestant(lambda: timed(pool.run), pool.open), words

    def run(num_frames: int) -> float:
        return site.total(step_gymnasium, [(env, num_frames)] * site.cores)

    frames = max(1, sizes.raw_steps * sizes.raw_lanes // 16)  # a tenth of EnvPool's speed
    words = f"gymnasium alone in {site.cores} processes (the extra fast is not installed)"
    return Contestant(lambda: timed(lambda: run(frames)), lambda: run(2)), words


def _plain_episode(site: Worksite, num_actions: int, number: int) -> PlainEpisode:
    world = site.job.world
    return PlainEpisode(world.env, world.repeat, world.crop, world.size, num_actions, number)


def _plain_warm_up(site: Worksite) -> Callable[[], object]:
    def warm_up() -> object:
        agent = PlainAgent(hidden_size=site.config("train-memory").hidden_size)
        episode = _plain_episode(site, 2, 0)
        return site.everywhere(drive_plainly, [(episode, agent)] * site.cores)

    return warm_up


def _plain_words(site: Worksite) -> str:
    return f"gymnasium's own loop, {site.cores} processes of one environment"
