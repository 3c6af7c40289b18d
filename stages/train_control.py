"""`wm train-control`: search the controller C in the world with CMA-ES.

The log `search.jsonl` is the search: it is replayed to resume, and kept to be read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from stages import stage_named
from stages.agents import AgentFiles, Parameters, Trial, action_spec, agent_files, run_trial
from stages.artifacts.artifact import Artifact
from stages.artifacts.partial import Partial
from stages.artifacts.producing import (
    Outcome,
    Plan,
    check_same_parent,
    check_world,
    choose_parents,
    only,
    produce,
)
from stages.artifacts.weights import pack_tensors
from stages.artifacts.workspace import Workspace
from stages.contracts import Job, setting
from stages.errors import InputsMismatch
from stages.events import Advanced, Monitor, Report
from stages.execution.cores import resolve_workers
from stages.execution.local import LocalExecutor
from stages.execution.protocol import TASK_DEADLINE, Task
from stages.families import WEIGHTS
from stages.training.seeding import episode_seeds, torch_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.control.pilot import PilotShape
    from stages.control.search_log import Row

STAGE = stage_named("train-control")
ALGORITHM = 1
STATE = "search.safetensors"  # mean and step size at the end, and the vector that was selected
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Config:
    """The `[control]` section."""

    features: str = setting(
        "zh", doc="what C sees: latent z, hidden state h, cell c", choices=("z", "zh", "zch")
    )
    hidden: int = setting(0, doc="hidden tanh units of C; 0: linear", low=0)
    bias: bool = setting(True, doc="whether C has a bias")
    latent: str = setting("mean", doc="z is mu, or drawn anew", choices=("mean", "sample"))
    squash: tuple[str, ...] = setting(
        (),
        doc="per action: stretch -1..1 over its bounds, or clip; empty: linear",
        choices=("linear", "clip"),
    )
    generations: int = setting(40, doc="generations of CMA-ES", low=1)
    population: int = setting(32, doc="candidates per generation", low=4)
    episodes: int = setting(2, doc="episodes per candidate", low=1)
    sigma: float = setting(0.1, doc="initial standard deviation", above=0.0)
    covariance: str = setting("full", doc="what CMA-ES adapts", choices=("full", "diagonal"))
    common_tracks: bool = setting(True, doc="all candidates of a generation drive the same seeds")
    patience: int = setting(
        0, doc="give an episode up after so many actions without reward; 0: never", low=0
    )
    max_steps: tuple[int, ...] = setting(
        (0,),
        doc="actions per episode at most, 0: to its end; several share the generations equally",
        low=0,
    )
    task_lanes: int = setting(32, doc="episodes that one task drives as lanes", low=1)
    select_every: int = setting(5, doc="generations between scores of the mean vector", low=1)
    select_episodes: int = setting(16, doc="held-out episodes of such a score", low=1)

    def __post_init__(self) -> None:
        """Refuse a search whose episodes have no length."""
        if not self.max_steps:
            raise ValueError("max_steps is empty; [0] means to the episode's end")


def plan(workspace: Workspace, config: Config, job: Job) -> Plan:
    """What this search would be: the settings, and the V and M that C looks through."""
    kinds = ("vision",) if config.features == "z" else STAGE.reads
    chosen = choose_parents(workspace, STAGE, _naming(job, kinds), kinds=kinds)
    vision = only(chosen["vision"])
    check_world(asdict(job.world), vision)
    _check_engine(job.world.engine, vision)
    parents = [vision]
    if "memory" in chosen:
        memory = only(chosen["memory"])
        check_world(asdict(job.world), memory)
        check_same_parent(memory, vision)
        parents.append(memory)
    resolved = {"world": asdict(job.world), "control": asdict(config), "seed": job.seed}
    return Plan(STAGE, ALGORITHM, job.family, resolved, tuple(parents))


def run(workspace: Workspace, config: Config, job: Job, *, progress: Monitor) -> Report:
    """Search, or go on where the log ends, and commit the best mean vector."""
    planned = plan(workspace, config, job)

    def build(partial: Partial) -> Outcome:
        return _Hunt(partial, planned.parents, config, job, progress).outcome()

    return produce(workspace, planned, job, build, progress=progress)


def _naming(job: Job, kinds: Sequence[str]) -> Job:
    """The job without named parents that a V-only controller does not read."""
    unread = tuple(f"{kind}/" for kind in STAGE.reads if kind not in kinds)
    kept = tuple(name for name in job.parents if not (unread and name.startswith(unread)))
    return replace(job, parents=kept)


def _check_engine(engine: str, vision: Artifact) -> None:
    from stages.worlds.making import same_pictures

    known = vision.manifest.summary["engines"]
    if not any(same_pictures(engine, other) for other in known):
        raise InputsMismatch(
            f"{vision.id} never saw pictures of the engine {engine}.",
            why=f"It was trained on pictures of {', '.join(known)}.",
            fix=f"Use --set world.engine={known[0]}, or record and train on {engine} too.",
        )


class _Hunt:
    """One search in progress: the strategy, its log, and the workers that drive."""

    def __init__(
        self,
        partial: Partial,
        parents: Sequence[Artifact],
        config: Config,
        job: Job,
        progress: Monitor,
    ) -> None:
        from stages.control.search import Search, SearchShape
        from stages.control.search_log import SearchLog

        self.partial, self.config, self.job, self.progress = partial, config, job, progress
        vision, memory = parents[0], parents[1] if len(parents) > 1 else None
        self.pilot = _pilot(config)
        self.agent: AgentFiles = agent_files(vision, memory, self.pilot)
        spec = action_spec(job.world, job.world.engine)
        memory_size = memory.manifest.summary["shape"]["hidden_size"] if memory else 0
        latent_size = vision.manifest.summary["shape"]["latent_size"]
        self.shape = self.pilot.controller(latent_size, memory_size, spec.size)
        self.search = Search(
            SearchShape(
                num_parameters=self.shape.num_parameters,
                population=config.population,
                sigma=config.sigma,
                covariance=config.covariance,
                seed=torch_seed(job.seed, "search") % 2**32,
            )
        )
        self.log = SearchLog(partial)

    def outcome(self) -> Outcome:
        """Run to the last generation and write the payload."""
        self.log.replay(self.search, progress=self.progress)
        with LocalExecutor(resolve_workers(self.job.resources.workers)) as self.executor:
            self._select()
            while self.search.generation < self.config.generations:
                self._generation()
                self._select()
        return self._written()

    def _generation(self) -> None:
        """Ask, drive every candidate, tell, log."""
        config, number = self.config, self.search.generation
        asked = self.search.ask()
        seeds = _tracks(config, self.job.seed, number)  # [population, episodes]
        lanes = [(vector, seed) for vector, own in zip(asked, seeds, strict=True) for seed in own]
        rows = self._drive(
            f"generation {number}",
            lanes,
            patience=config.patience,
            max_steps=longest_episode(config, number),
        )
        returns = np.array([row[0] for row in rows]).reshape(config.population, config.episodes)
        fitness = returns.mean(axis=1)
        self.search.tell(fitness)
        self.log.add_generation(self.search, asked, fitness, sum(row[1] for row in rows))
        self._show(fitness)

    def _select(self) -> None:
        """Score the distribution's mean on held-out seeds when it is due."""
        told, config = self.search.generation, self.config
        due = told > 0 and (told % config.select_every == 0 or told == config.generations)
        if due and not self.log.has_selection(told):
            seeds = episode_seeds("selection", self.job.seed, 0, config.select_episodes)
            lanes = [(self.search.mean, seed) for seed in seeds]
            rows = self._drive(
                f"selection {told}", lanes, patience=0, max_steps=config.max_steps[-1]
            )
            self.log.add_selection(self.search, rows)

    def _drive(
        self,
        name: str,
        lanes: Sequence[tuple[Parameters, int]],
        *,
        patience: int,
        max_steps: int,
    ) -> "list[Row]":
        """Return and frames per lane, in order; finished tasks survive a kill."""
        from stages.control.search import digest_of

        chunks = list(_chunks(lanes, self.config.task_lanes))
        name = f"{name} {digest_of(np.stack([vector for vector, _ in lanes]))}"
        rows = self.log.pending(name)  # of these very candidates
        tasks = [
            Task(key, run_lanes, self._trial(chunk, patience, max_steps))
            for key, chunk in enumerate(chunks)
            if key not in rows
        ]
        for finished in self.executor.run(tasks, monitor=self.progress, deadline=TASK_DEADLINE):
            key = int(finished.key)
            rows[key] = finished.value
            self.log.add_pending(name, key, finished.value)
        return [row for key in range(len(chunks)) for row in rows[key]]

    def _trial(
        self, lanes: Sequence[tuple[Parameters, int]], patience: int, max_steps: int
    ) -> Trial:
        return Trial(
            world=self.job.world,
            engine=self.job.world.engine,
            agent=self.agent,
            parameters=np.stack([vector for vector, _ in lanes]).astype(np.float32),
            seeds=tuple(seed for _, seed in lanes),
            patience=patience,
            max_steps=max_steps,
        )

    def _show(self, fitness: "NDArray[np.float64]") -> None:
        scored = self.log.best_vector is not None
        held_out = f", mean vector held out {self.log.best_score:.0f}" if scored else ""
        self.progress.emit(
            Advanced(
                self.search.generation,
                self.config.generations,
                "generations",
                latest=f"population mean {fitness.mean():.0f}, best {fitness.max():.0f}{held_out}",
            )
        )

    def _written(self) -> Outcome:
        from stages.control.controllers import split_parameters
        from stages.control.search_log import LOG

        vector = self.log.best_vector
        assert vector is not None, "the last generation is always scored"
        weights = split_parameters(self.shape, vector[None])
        named = {name: value[0].numpy() for name, value in weights.items()}
        self.partial.write(WEIGHTS, pack_tensors(named))
        mean, sigma = self.search.mean, np.array([self.search.sigma])
        state = {"mean": mean, "selected": vector, "sigma": sigma}
        self.partial.write(STATE, pack_tensors(state))
        self.partial.write(METRICS, "".join(self.log.metrics()).encode())
        return Outcome(
            payload=[WEIGHTS, STATE, LOG, METRICS],
            summary=self._summary(),
            seeds=_seeds(self.config, self.job.seed),
        )

    def _summary(self) -> dict[str, Any]:
        return {
            "shape": asdict(self.shape),
            "pilot": asdict(self.pilot),
            "parameters": self.shape.num_parameters,
            "generations": self.search.generation,
            "frames": self.log.num_frames,
            "engine": self.job.world.engine,
            "selected_generation": self.log.best_generation,
            "selected_score": self.log.best_score,
            "selected_episodes": self.config.select_episodes,
            "sigma": self.search.sigma,
        }


def _pilot(config: Config) -> "PilotShape":
    from stages.control.pilot import PilotShape

    return PilotShape(
        features=config.features,
        hidden=config.hidden,
        bias=config.bias,
        latent=config.latent,
        squash=config.squash,
    )


def longest_episode(config: Config, generation: int) -> int:
    """Actions per episode at most in this generation; short ones first reward speed."""
    place = generation * len(config.max_steps) // config.generations
    return config.max_steps[place]


def _tracks(config: Config, root_seed: int, generation: int) -> list[list[int]]:
    """Seeds of every candidate's episodes: common to a generation, or each its own."""
    each = config.episodes
    own = 1 if config.common_tracks else config.population
    seeds = episode_seeds("search", root_seed, generation * each * own, each * own)
    if config.common_tracks:
        return [seeds] * config.population
    return [seeds[start : start + each] for start in range(0, len(seeds), each)]


def run_lanes(trial: Trial) -> "list[Row]":
    """Return and engine frames of every lane; runs in a worker."""
    return [(outcome.total_reward, outcome.num_frames) for outcome in run_trial(trial)]


def _chunks(
    lanes: Sequence[tuple[Parameters, int]], size: int
) -> Iterator[list[tuple[Parameters, int]]]:
    rest = iter(lanes)
    while chunk := list(islice(rest, size)):
        yield chunk


def _seeds(config: Config, root_seed: int) -> dict[str, Any]:
    tracks = 1 if config.common_tracks else config.population
    per_generation = config.episodes * tracks
    return {
        "search": {
            "first": episode_seeds("search", root_seed, 0, 1)[0],
            "count": per_generation * config.generations,
        },
        "selection": {
            "first": episode_seeds("selection", root_seed, 0, 1)[0],
            "count": config.select_episodes,
        },
    }
