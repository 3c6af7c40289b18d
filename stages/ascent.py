"""C climbs by the gradient of its dreams: the steps of `control.method=ppo`, and their files.

Seen from outside it is a search: it has generations, a mean vector and a sigma, and goes on where
its log ends. A generation is one dream of many lanes and what is learnt from it. What a log cannot
restore, the weights and Adam's moments, is kept for the last two generations, and C for those that
were scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stages.agents import AgentFiles, Parameters
from stages.artifacts.partial import Partial
from stages.artifacts.plain import COUNT
from stages.artifacts.scores import parse_log
from stages.artifacts.weights import check_shapes, pack_tensors, unpack_tensors
from stages.control.actor_critic import Actor, ActorCritic, Dreamt, Learner, Terms, dream
from stages.control.config import Config
from stages.control.controllers import ControllerShape
from stages.control.search import SearchShape, digest_of, falling_sigma
from stages.control.search_log import LOG
from stages.errors import ArtifactDamaged, NumbersBad
from stages.events import Doing, Monitor
from stages.training.device import torch_generator
from stages.training.seeding import torch_seed
from stages.trials import DreamFiles, load_dream

STATE, SCORED = ".ascent.safetensors", ".scored.safetensors"  # how names end
KEPT = 2  # states
MODEL, MEAN, SQUARE, COUNTED = "model/", "adam/mean/", "adam/square/", "adam/step/"
VECTOR = "c"


@dataclass(frozen=True)
class Dreams:
    """What C climbs in."""

    agent: AgentFiles
    files: DreamFiles
    shape: ControllerShape


class Ascent:
    """One climb, with the interface of a search (`Restarts`) but for what is asked and told."""

    awaits_score = False

    def __init__(
        self,
        partial: Partial,
        dreams: Dreams,
        config: Config,
        *,
        seed: int,
        start: Parameters | None,
        progress: Monitor,
    ) -> None:
        self.generation = 0
        self._partial, self._config, self._seed, self._progress = partial, config, seed, progress
        self._features = config.features
        self.num_parameters = dreams.shape.num_parameters
        self._world = load_dream(dreams.agent, dreams.files)
        self._actor = Actor(dreams.files.action_spec, config.squash)
        model = ActorCritic(dreams.shape, seed=torch_seed(seed, "critic"))
        if start is not None:
            model.load(start)
        self._model = model.to(dreams.files.device)
        terms = Terms(config.learning_rate, config.discount, config.passes)
        self._learner = Learner(self._model, self._actor, terms)
        self._noise = SearchShape(
            num_parameters=self.num_parameters,
            population=config.population,
            sigma=config.sigma,
            sigma_end=config.sigma_end,
            generations=config.generations,
        )
        self._last = 0  # generation of the weights that are loaded

    @property
    def within(self) -> int:
        """Generations so far."""
        return self.generation

    @property
    def mean(self) -> NDArray[np.float64]:
        """C [P], after this generation."""
        if self.generation == self._last:
            return self._model.parameters_of_c()
        content = self._partial.read(_name(self.generation, SCORED))
        if content is None:
            raise self._damaged(f"C of generation {self.generation}, which was scored, is lost")
        tensors, _ = unpack_tensors(content)
        check_shapes(tensors, {VECTOR: (self.num_parameters,)}, source=SCORED)
        return tensors[VECTOR].astype(np.float64)

    @property
    def sigma(self) -> float:
        """Standard deviation of the actor's noise."""
        if not self._noise.sigma_end:
            return self._noise.sigma
        return falling_sigma(self._noise, self.generation)

    def total(self, generations: int) -> int:
        """Generations in all."""
        return generations

    def share(self, efforts: Sequence[float]) -> float:
        """Of all work, what is done."""
        return sum(efforts[: self.generation]) / sum(efforts)

    def judge(self, score: float) -> None:
        """A score changes nothing."""

    def climb(self, seeds: Sequence[int], max_steps: int) -> tuple[NDArray[np.float64], int, str]:
        """One generation on dreams of these seeds, of so many steps at most (0: to their end).

        Returns of the dreams [population] on the average of each share of lanes, the frames that
        were dreamt, and what there is to say.
        """
        self._progress.emit(Doing(f"dreaming of generation {self.generation + 1}"))
        measured = 0
        if not self.generation:
            first = self._dream(seeds, max_steps)
            self._learner.measure(first)
            measured = first.num_frames
            del first  # as large as the next one, whose inputs are scaled
        dreamt = self._dream(seeds, max_steps)
        self._progress.emit(Doing(f"learning from generation {self.generation + 1}"))
        device = torch.device("cpu")
        order = torch_generator(self._seed, "ascent", self.generation, device=device)
        explained = self._learner.learn(dreamt, self.sigma, order=order, tick=self._progress.poll)
        self._require_finite()
        self._save(self.generation + 1)
        self.generation += 1  # only now: until then the one before is kept
        self._last = self.generation
        fitness = dreamt.returns.reshape(self._config.population, -1).mean(axis=1)
        says = f"dreamt return {fitness.mean():.4g}, critic explains {explained:.0%}"
        return fitness, dreamt.num_frames + measured, says

    def _dream(self, seeds: Sequence[int], max_steps: int) -> Dreamt:
        return dream(
            self._world,
            self._model,
            self._actor,
            self._features,
            seeds,
            sigma=self.sigma,
            max_steps=max_steps,
            tick=self._progress.poll,
        )

    def hold(self) -> None:
        """Keep C as it is: it is about to be scored."""
        self._partial.write(_name(self.generation, SCORED), pack_tensors({VECTOR: self.mean}))

    def replay(self, fitness: Sequence[float], digest: str) -> None:
        """Go through a logged generation again; the last one must be that of the weights."""
        self.generation += 1
        if len(fitness) != self._config.population:
            raise self._damaged(f"Generation {self.generation} has another population")
        if self.generation == self._last and digest_of(self.mean) != digest:
            raise self._damaged(f"The weights are not those of generation {self.generation}")

    def resume(self) -> None:
        """Load the newest whole state that the log has come to, and cut the log behind it.

        Raises:
            ArtifactDamaged: there are states, and none can be gone on from.
        """
        lines = self._partial.lines(LOG)
        records = parse_log(lines, source=LOG, rules={"generation": COUNT})
        reached = [record["generation"] for record in records if "fitness" in record]
        states = self._states()
        for name in reversed(states):
            number = int(name.removesuffix(STATE))
            content = self._partial.read(name) if number in reached else None
            if content is not None:
                self._restore(content, name)
                self._last = number
                break
            self._partial.remove(name)  # or it would count as newer than what comes now
        if reached and not self._last:
            raise self._damaged("No weights of this search are what was written")
        pairs = zip(lines, records, strict=True)
        kept = [line for line, record in pairs if record["generation"] <= self._last]
        if len(kept) < len(records):
            self._partial.keep_lines(LOG, kept)

    def _save(self, generation: int) -> None:
        tensors = {MODEL + k: v.cpu().numpy() for k, v in self._model.state_dict().items()}
        for name, parameter in self._model.named_parameters():
            moments = self._learner.adam.moments(parameter)
            tensors[MEAN + name] = moments.mean.cpu().numpy()
            tensors[SQUARE + name] = moments.square.cpu().numpy()
            tensors[COUNTED + name] = np.array([float(moments.step)])
        self._partial.write(_name(generation, STATE), pack_tensors(tensors))
        for old in self._states()[:-KEPT]:
            self._partial.remove(old)

    def _states(self) -> list[str]:
        """Names of the states, the oldest first."""
        names = self._partial.names(STATE)
        return [name for name in names if name.removesuffix(STATE).isdecimal()]

    def _restore(self, content: bytes, name: str) -> None:
        tensors, _ = unpack_tensors(content)
        state = self._model.state_dict()
        expected = {MODEL + key: tuple(value.shape) for key, value in state.items()}
        for key, parameter in self._model.named_parameters():
            expected[MEAN + key] = expected[SQUARE + key] = tuple(parameter.shape)
            expected[COUNTED + key] = (1,)
        check_shapes(tensors, expected, source=name)
        loaded = {key: torch.from_numpy(tensors[MODEL + key].copy()) for key in state}
        self._model.load_state_dict(loaded)
        for key, parameter in self._model.named_parameters():
            mean, square = (torch.tensor(tensors[kind + key]) for kind in (MEAN, SQUARE))
            step = float(tensors[COUNTED + key][0])
            self._learner.adam.restore(parameter, mean, square, step)

    def _require_finite(self) -> None:
        if all(bool(torch.isfinite(one).all()) for one in self._model.parameters()):
            return
        raise NumbersBad(
            f"Actor or critic is NaN or infinite after generation {self.generation + 1}.",
            why=f"The last good state is kept: that of generation {self.generation}.",
            fix="Try a smaller rate: --set control.learning_rate="
            f"{self._config.learning_rate / 10:g}",
        )

    def _damaged(self, what: str) -> ArtifactDamaged:
        return ArtifactDamaged(
            f"{what}: the search cannot go on.",
            why=f"Files in {self._partial.path} are missing, or of another search.",
            fix=f"Start again: remove {self._partial.path}",
        )


def _name(generation: int, ending: str) -> str:
    return f"{generation:06d}{ending}"
