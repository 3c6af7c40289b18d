"""One search for C in progress: the strategy, its log, and the workers that drive."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial as bound
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.agents import (
    AgentFiles,
    Parameters,
    agent_files,
    check_actions,
    controller_parameters,
    known_actions,
)
from stages.artifacts.artifact import Artifact
from stages.artifacts.fitting import check_start
from stages.artifacts.metrics import METRICS
from stages.artifacts.partial import Partial
from stages.artifacts.producing import Outcome
from stages.artifacts.summaries import actions_of
from stages.artifacts.weights import pack_tensors
from stages.contracts import NO_WORLD, Job
from stages.control.config import DREAM, ORACLE, PPO, WORLD, Config
from stages.errors import keeping
from stages.events import Advanced, Doing, Monitor, OnceEach
from stages.execution.cores import resolve_workers
from stages.execution.local import LocalExecutor
from stages.families import WEIGHTS
from stages.fleet import Fleet, Lane, Terms
from stages.gathered import BASIS, dream_files, fitted_basis
from stages.training.seeding import episode_seeds, torch_seed
from stages.worlds.making import note_code

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.ascent import Ascent
    from stages.control.restarts import Restarts
    from stages.control.search_log import Row
    from stages.training.device import Holes

STATE = "search.safetensors"  # mean and step size at the end, and the vector that was selected


class Hunt:
    """One search in progress: the strategy, its log, and the workers that drive."""

    def __init__(
        self,
        partial: Partial,
        parents: Sequence[Artifact],
        config: Config,
        job: Job,
        progress: Monitor,
    ) -> None:
        from stages.control.search_log import SearchLog

        self.partial, self.config, self.job, self.progress = partial, config, job, progress
        note_code(partial, job.world.env, progress)
        self.device, self.threads = "cpu", 1
        if config.place == DREAM:
            from stages.training.session import settle, settle_device

            device = settle_device(partial, job.resources, progress=progress)
            self.device = str(device)
            self.job = job = replace(job, resources=replace(job.resources, device=device.type))
            if config.method == PPO:
                _, self.threads = settle(partial, job.resources, progress=progress)
        self.warnings, by_kind = OnceEach(progress), {parent.kind: parent for parent in parents}
        vision, memory = by_kind["vision"], by_kind.get("memory")
        self.start = by_kind.get("control")
        self.driven = {name: _driven(self.start, name) for name in ("search", "selection")}
        self.pilot = config.pilot
        self.agent: AgentFiles = agent_files(vision, memory, self.pilot)
        self.dreams_alone = job.world.env == NO_WORLD
        self.spec = known_actions(job.world, memory)
        check_actions(self.agent, self.spec)
        memory_size = memory.manifest.summary["shape"]["hidden_size"] if memory else 0
        latent_size = vision.manifest.summary["shape"]["latent_size"]
        self.shape = self.pilot.controller(latent_size, memory_size, self.spec.size)
        if self.start:
            told = {"actions": asdict(self.spec)} if actions_of(self.start.manifest) else {}
            check_start(self.start, shape=asdict(self.shape), **told)
        latents = [parent for parent in parents if parent.kind == "latents"]
        progress.emit(Doing("reading the models and how recorded episodes begin"))
        self.dream = self.whole_dream = None  # of candidates, and of the mean vector
        if config.place == DREAM and memory is not None:  # config.kinds asks for it
            self.dream, self.whole_dream = dream_files(
                partial, latents, memory, self.agent, config, job, self.spec
            )
        self.basis = None
        if config.components:
            progress.emit(Doing("finding the directions in which C's inputs vary"))
            self.basis = fitted_basis(
                partial, latents, self.agent, config.components, centred=config.bias
            )
        self.search: Ascent | Restarts
        self._advance: Callable[[], None]  # by one generation
        if config.method == PPO:
            self.search = ascent = self._ascent()
            self._advance = bound(self._climb, ascent)
        else:
            self.search = restarts = self._searcher()
            self._advance = bound(self._generation, restarts)
        self.log = SearchLog(partial, progress)

    def _ascent(self) -> "Ascent":
        """The climb, at its beginning."""
        from stages.ascent import Ascent, Dreams

        assert self.dream is not None, "plan asks for a dream"
        return Ascent(
            self.partial,
            Dreams(self.agent, self.dream, self.shape),
            self.config,
            seed=torch_seed(self.job.seed, "ascent", self.driven["search"]),
            start=controller_parameters(self.start) if self.start else None,
            progress=self.progress,
        )

    def _searcher(self) -> "Restarts":
        """The strategy, at its beginning."""
        from stages.control.restarts import Restarts
        from stages.control.search import SearchShape

        config, seed = self.config, self.job.seed
        size = self.basis.searched(self.shape) if self.basis else self.shape.num_parameters
        path = ("search", "after", self.driven["search"]) if self.start else ("search",)
        first = SearchShape(
            num_parameters=size,
            population=config.population,
            sigma=config.sigma,
            sigma_end=config.sigma_end,
            generations=config.generations,
            covariance=config.covariance,
            seed=torch_seed(seed, *path) % 2**32,
        )
        others = [torch_seed(seed, *path, n) % 2**32 for n in range(1, config.starts)]
        return Restarts(
            [first, *(replace(first, seed=other) for other in others)],
            trial=min(config.start_generations, config.generations),
            start=controller_parameters(self.start) if self.start else None,
        )

    def outcome(self) -> Outcome:
        """Run to the last generation and write the payload."""
        from stages.control.watch import watch_basis

        watch_basis(self.basis, self.warnings)
        self.progress.emit(Doing("replaying the search from its log"))
        self.search.resume()
        self.log.replay(self.search)
        with LocalExecutor(resolve_workers(self.job.resources.workers)) as executor:
            self.fleet = Fleet(
                self.job.world,
                self.agent,
                self.config.task_lanes,
                executor=executor,
                log=self.log,
                progress=self.progress,
                deadline=self.job.resources.stall_seconds,
                dream=self.dream,
                dream_lanes=self.config.dream_lanes,
                oracle=self.config.place == ORACLE,
            )
            self._show("")
            with keeping(self._kept), self._memory() as self.holes:
                self._select()
                while self.search.within < self.config.generations or self.search.awaits_score:
                    self._advance()
                    self._select()
        return self._written()

    def _memory(self) -> "AbstractContextManager[Holes | None]":
        """How this process treats what it frees: tensors of a climb are as large in every step."""
        if self.config.method != PPO:
            return nullcontext()
        from stages.training.device import memory_kept

        return memory_kept()

    def _kept(self) -> str:
        return f"The search is kept as it stood after generation {self.search.generation}."

    def _generation(self, search: "Restarts") -> None:
        """Ask, drive every candidate, tell, log."""
        from stages.control.watch import ranked, watch

        config, number = self.config, search.within
        asked = search.ask()
        fitness, frames = self.fleet.race(
            f"generation {search.generation + 1}",  # as the log will count it
            self._weights(asked),
            config.schedule.tracks(self.job.seed, number, self.driven["search"]),
            Terms(config.schedule.longest_in(number), config.patience, config.random_start),
            finalists=config.finalists,
        )
        fitness = ranked(fitness, generation=search.generation + 1, progress=self.progress)
        search.tell(fitness)
        self.log.add_generation(search, asked, fitness, frames)
        watch(search, self.log.records, self.warnings)
        self._show(f"population mean {fitness.mean():.0f}, best {fitness.max():.0f}")

    def _climb(self, ascent: "Ascent") -> None:
        """Dream, learn, log."""
        number, schedule = ascent.within, self.config.schedule
        tracks = schedule.tracks(self.job.seed, number, self.driven["search"])
        seeds = [seed for own in tracks for seed in own]
        fitness, frames, says = ascent.climb(seeds, schedule.longest_in(number))
        self.log.add_generation(ascent, ascent.mean, fitness, frames)
        self._show(says)
        if self.holes:
            self.holes.look()

    def _select(self) -> None:
        """Score the distribution's mean on held-out seeds when it is due; the start's own, too."""
        config, told, within = self.config, self.search.generation, self.search.within
        due = within % config.select_every == 0 or within == config.generations
        due = due and (within > 0 or self.start is not None)
        if (due or self.search.awaits_score) and not self.log.has_selection(told):
            self.search.hold()
            begin = self.driven["selection"]
            seeds = episode_seeds("selection", self.job.seed, begin, config.select_episodes)
            weights = self._weights(self.search.mean[None])[0]
            driver = f"the mean vector of generation {told}"
            lanes = [Lane(weights, seed, driver) for seed in seeds]
            terms = Terms(config.max_steps[-1])
            dreamt: Sequence[Row] = ()
            if self.whole_dream:
                dreamt = self.fleet.drive(f"dream {told}", lanes, terms, dream=self.whole_dream)
            if self.dreams_alone:
                self.log.add_selection(self.search, dreamt, dreamt)
                return
            rows = self.fleet.drive(f"the mean vector of generation {told}", lanes, terms)
            self.log.add_selection(self.search, rows, dreamt)

    def _weights(self, points: "NDArray[np.float64]") -> Parameters:
        """All weights [n, P] of the controllers at these points of the search."""
        weights = self.basis.expand(points, self.shape) if self.basis else points
        return weights.astype(np.float32)

    def _show(self, latest: str) -> None:
        scored = self.log.best_vector is not None
        held_out = f"mean vector held out {self.log.best_score:.0f}" if scored else ""
        self.progress.emit(
            Advanced(
                self.search.generation,
                self.search.total(self.config.generations),
                "generations",
                share=self.search.share(self.config.schedule.efforts()),
                latest=", ".join(part for part in (latest, held_out) if part),
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
        basis = [BASIS] if self.basis else []
        return Outcome(
            payload=[WEIGHTS, STATE, *basis, LOG, METRICS],
            summary=self._summary(),
            device=self.device,
            threads=self.threads,
            seeds={
                "search": self._seeds("search", self.config.schedule.num_seeds()),
                "selection": self._seeds("selection", self.config.select_episodes),
            },
        )

    def _seeds(self, purpose: str, count: int) -> dict[str, int]:
        before = self.driven[purpose]
        first = episode_seeds(purpose, self.job.seed, before, 1)[0]
        return {"first": first, "count": count, "before": before}

    def _summary(self) -> dict[str, Any]:
        return {
            "shape": asdict(self.shape),
            "actions": asdict(self.spec),
            "pilot": asdict(self.pilot),
            "parameters": self.shape.num_parameters,
            "searched": self.search.num_parameters,
            "generations": self.search.generation,
            "frames": self.log.num_frames,
            "frames_before": _frames(self.start),
            "engine": DREAM if self.dreams_alone else self.job.world.engine,
            **({} if self.config.place == WORLD else self._place()),
            "selected_generation": self.log.best_generation,
            "selected_score": self.log.best_score,
            "selected_episodes": self.config.select_episodes,
            "sigma": self.search.sigma,
        }

    def _place(self) -> dict[str, Any]:
        """Where the candidates were tried, if not in the world alone."""
        if self.dream is None:
            return {"place": self.config.place}
        real = 0 if self.dreams_alone else self.log.num_selection_frames
        dreamt = self.log.num_frames - real
        told = {"place": DREAM, "temperature": self.config.temperature}
        told |= {"selected_dreamt": self.log.best_dreamt}
        told |= {"method": PPO} if self.config.method == PPO else {}
        return {**told, "frames": real, "dreamt_frames": dreamt}


def _driven(start: Artifact | None, purpose: str) -> int:
    """How many seeds of this purpose the searches before have used: a warm one takes new ones."""
    if start is None:
        return 0
    seeds = start.manifest.seeds[purpose]
    return int((seeds.get("before") or 0) + seeds["count"])


def _frames(start: Artifact | None) -> int:
    """Engine frames of the searches before."""
    if start is None:
        return 0
    summary = start.manifest.summary
    return int((summary.get("frames_before") or 0) + summary["frames"])
