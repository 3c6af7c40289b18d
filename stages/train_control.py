"""`wm train-control`: search the controller C in the world with CMA-ES.

The log `search.jsonl` is the search: it is replayed to resume, and kept to be read.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stages import stage_named
from stages.agents import (
    BASIS,
    AgentFiles,
    Parameters,
    action_spec,
    agent_files,
    fitted_basis,
)
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
from stages.control.schedule import Schedule
from stages.errors import InputsMismatch
from stages.events import Advanced, Monitor, Report
from stages.execution.cores import resolve_workers
from stages.execution.local import LocalExecutor
from stages.families import WEIGHTS
from stages.training.seeding import episode_seeds, torch_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.control.pilot import PilotShape

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
    starts: int = setting(
        1, doc="searches that begin; the best of them after start_generations goes on", low=1
    )
    start_generations: int = setting(8, doc="generations that each of them is given", low=1)
    population: int = setting(32, doc="candidates per generation", low=4)
    episodes: tuple[int, ...] = setting(
        (2,), doc="episodes per candidate; several values share the generations equally", low=1
    )
    components: int = setting(
        0, doc="search along so many principal components of what C sees; 0: every weight", low=0
    )
    sigma: float = setting(0.1, doc="initial standard deviation", above=0.0)
    sigma_end: float = setting(
        0.0,
        doc="to where sigma falls, by the same factor each generation; 0: CMA-ES adapts it",
        low=0.0,
    )
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
        """Refuse a search whose episodes have no length or number."""
        if not self.max_steps:
            raise ValueError("max_steps is empty; [0] means to the episode's end")
        if not self.episodes:
            raise ValueError("episodes is empty; [1] means one per candidate")

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the search reads."""
        memory = () if self.features == "z" else ("memory",)
        return ("vision", *memory, *(("latents",) if self.components else ()))

    @property
    def schedule(self) -> Schedule:
        """What it does in which generation."""
        return Schedule(
            generations=self.generations,
            population=self.population,
            episodes=self.episodes,
            max_steps=self.max_steps,
            common_tracks=self.common_tracks,
        )


def plan(workspace: Workspace, config: Config, job: Job) -> Plan:
    """What this search would be: the settings, V and M, and the data that C's inputs vary in."""
    naming = _naming(workspace, job, config.kinds)
    chosen = choose_parents(workspace, STAGE, naming, kinds=config.kinds)
    models = [only(chosen[kind]) for kind in config.kinds if kind != "latents"]
    parents = [*models, *chosen.get("latents", ())]
    vision = parents[0]
    _check_engine(job.world.engine, vision)
    for parent in parents:
        check_world(asdict(job.world), parent)
        if parent is not vision:
            check_same_parent(parent, vision)
    resolved = {"world": asdict(job.world), "control": asdict(config), "seed": job.seed}
    return Plan(STAGE, ALGORITHM, job.family, resolved, tuple(parents))


def run(workspace: Workspace, config: Config, job: Job, *, progress: Monitor) -> Report:
    """Search, or go on where the log ends, and commit the best mean vector."""
    planned = plan(workspace, config, job)

    def build(partial: Partial) -> Outcome:
        return _Hunt(partial, planned.parents, config, job, progress).outcome()

    return produce(workspace, planned, job, build, progress=progress)


def _naming(workspace: Workspace, job: Job, kinds: Sequence[str]) -> Job:
    """The job without named parents that are not read, and with the latents that M learnt from."""
    kept = tuple(name for name in job.parents if name.partition("/")[0] not in STAGE.reads)
    kept += tuple(name for name in job.parents if name.partition("/")[0] in kinds)
    wanted = "latents" in kinds and not any(name.startswith("latents/") for name in kept)
    if wanted and "memory" in kinds:
        memory = only(choose_parents(workspace, STAGE, replace(job, parents=kept))["memory"])
        named = [parent for parent in memory.manifest.parents if parent.kind == "latents"]
        kept += tuple(workspace.resolve(parent).id for parent in named)
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
        from stages.control.restarts import Restarts
        from stages.control.search import SearchShape
        from stages.control.search_log import SearchLog

        self.partial, self.config, self.job, self.progress = partial, config, job, progress
        by_kind = {parent.kind: parent for parent in parents}
        vision, memory = by_kind["vision"], by_kind.get("memory")
        self.pilot = _pilot(config)
        self.agent: AgentFiles = agent_files(vision, memory, self.pilot)
        spec = action_spec(job.world, job.world.engine)
        memory_size = memory.manifest.summary["shape"]["hidden_size"] if memory else 0
        latent_size = vision.manifest.summary["shape"]["latent_size"]
        self.shape = self.pilot.controller(latent_size, memory_size, spec.size)
        latents = [parent for parent in parents if parent.kind == "latents"]
        self.basis = fitted_basis(
            partial, latents, self.agent, config.components, centred=config.bias
        )
        size = self.basis.searched(self.shape) if self.basis else self.shape.num_parameters
        first = SearchShape(
            num_parameters=size,
            population=config.population,
            sigma=config.sigma,
            sigma_end=config.sigma_end,
            generations=config.generations,
            covariance=config.covariance,
            seed=torch_seed(job.seed, "search") % 2**32,
        )
        others = [torch_seed(job.seed, "search", n) % 2**32 for n in range(1, config.starts)]
        self.search = Restarts(
            [first, *(replace(first, seed=seed) for seed in others)],
            trial=min(config.start_generations, config.generations),
        )
        self.log = SearchLog(partial)

    def outcome(self) -> Outcome:
        """Run to the last generation and write the payload."""
        from stages.fleet import Fleet

        self.log.replay(self.search, progress=self.progress)
        with LocalExecutor(resolve_workers(self.job.resources.workers)) as executor:
            self.fleet = Fleet(
                self.job.world,
                self.agent,
                self.config.task_lanes,
                executor=executor,
                log=self.log,
                progress=self.progress,
            )
            self._select()
            while self.search.within < self.config.generations or self.search.awaits_score:
                self._generation()
                self._select()
        return self._written()

    def _generation(self) -> None:
        """Ask, drive every candidate, tell, log."""
        config, number = self.config, self.search.within
        asked = self.search.ask()
        seeds = config.schedule.tracks(self.job.seed, number)  # [population, episodes]
        owned = zip(self._weights(asked), seeds, strict=True)
        rows = self.fleet.drive(
            f"generation {self.search.generation}",
            [(weights, seed) for weights, own in owned for seed in own],
            patience=config.patience,
            max_steps=config.schedule.longest_in(number),
        )
        returns = np.array([row[0] for row in rows]).reshape(config.population, -1)
        fitness = returns.mean(axis=1)
        self.search.tell(fitness)
        self.log.add_generation(self.search, asked, fitness, sum(row[1] for row in rows))
        self._show(fitness)

    def _select(self) -> None:
        """Score the distribution's mean on held-out seeds when it is due."""
        config, told, within = self.config, self.search.generation, self.search.within
        due = within > 0 and (within % config.select_every == 0 or within == config.generations)
        if (due or self.search.awaits_score) and not self.log.has_selection(told):
            seeds = episode_seeds("selection", self.job.seed, 0, config.select_episodes)
            weights = self._weights(self.search.mean[None])[0]
            rows = self.fleet.drive(
                f"selection {told}",
                [(weights, seed) for seed in seeds],
                patience=0,
                max_steps=config.max_steps[-1],
            )
            self.log.add_selection(self.search, rows)

    def _weights(self, points: "NDArray[np.float64]") -> Parameters:
        """All weights [n, P] of the controllers at these points of the search."""
        weights = self.basis.expand(points, self.shape) if self.basis else points
        return weights.astype(np.float32)

    def _show(self, fitness: "NDArray[np.float64]") -> None:
        scored = self.log.best_vector is not None
        held_out = f", mean vector held out {self.log.best_score:.0f}" if scored else ""
        self.progress.emit(
            Advanced(
                self.search.generation,
                self.search.total(self.config.generations),
                "generations",
                latest=f"population mean {fitness.mean():.0f}, best {fitness.max():.0f}{held_out}",
            )
        )

    def _written(self) -> Outcome:
        from stages.control.controllers import split_parameters
        from stages.control.search_log import LOG

        vector = self.log.best_vector
        assert vector is not None, "the last generation is always scored"
        weights = split_parameters(self.shape, self._weights(vector[None]))
        named = {name: value[0].numpy() for name, value in weights.items()}
        self.partial.write(WEIGHTS, pack_tensors(named))
        mean, sigma = self.search.mean, np.array([self.search.sigma])
        state = {"mean": mean, "selected": vector, "sigma": sigma}
        self.partial.write(STATE, pack_tensors(state))
        self.partial.write(METRICS, "".join(self.log.metrics()).encode())
        basis = [BASIS] if self.basis else []
        return Outcome(
            payload=[WEIGHTS, STATE, *basis, LOG, METRICS],
            summary=self._summary(),
            seeds=_seeds(self.config, self.job.seed),
        )

    def _summary(self) -> dict[str, Any]:
        return {
            "shape": asdict(self.shape),
            "pilot": asdict(self.pilot),
            "parameters": self.shape.num_parameters,
            "searched": self.search.active.shape.num_parameters,
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

    names = ("features", "hidden", "bias", "latent", "squash")
    return PilotShape(**{name: getattr(config, name) for name in names})


def _seeds(config: Config, root_seed: int) -> dict[str, Any]:
    return {
        "search": {
            "first": episode_seeds("search", root_seed, 0, 1)[0],
            "count": config.schedule.num_seeds(),
        },
        "selection": {
            "first": episode_seeds("selection", root_seed, 0, 1)[0],
            "count": config.select_episodes,
        },
    }
