"""CMA-ES as ask and tell over a log: the log alone restores the search exactly.

The strategy is pycma's (Hansen, "The CMA Evolution Strategy: A Tutorial"). It maximises.
`replay` feeds logged fitness to a fresh strategy and compares digests of what it asks, so that
a resumed search equals an uninterrupted one and no pickle is needed.
"""

import hashlib
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.errors import ArtifactDamaged, NumbersBad, UsageError

MAX_BAD_SHARE = 0.5  # of a generation's candidates; beyond it the search has lost its footing


@dataclass(frozen=True)
class SearchShape:
    """Settings of the strategy."""

    num_parameters: int
    population: int
    sigma: float  # initial standard deviation
    covariance: str = "full"  # full | diagonal
    sigma_end: float = 0.0  # where a falling step size arrives; 0: CMA-ES adapts it
    generations: int = 0  # of the whole search, for a falling step size
    seed: int = 0


class Search:
    """One CMA-ES run. Call ask, then tell, generation after generation."""

    def __init__(self, shape: SearchShape, start: NDArray[np.floating] | None = None) -> None:
        """`start` is the first mean [P]; without it zero."""
        if shape.population < 4:
            raise UsageError(
                f"control.population = {shape.population} is too small for CMA-ES.",
                fix="Use at least 4; the paper's is 64.",
            )
        self.shape = shape
        self.generation = 0  # generations told so far
        self._strategy = _strategy(shape, start)
        self._asked: list[NDArray[np.float64]] = []

    def ask(self) -> NDArray[np.float64]:
        """The next population [population, P]."""
        self._asked = self._strategy.ask()
        return np.stack(self._asked)

    def tell(self, fitness: NDArray[np.float64]) -> None:
        """Higher is better; [population]. NaN candidates rank last; too many stop the search."""
        ranked = check_fitness(fitness, generation=self.generation + 1)
        self._strategy.tell(self._asked, list(-ranked))
        self.generation += 1
        if self.shape.sigma_end:
            self._strategy.sigma = falling_sigma(self.shape, self.generation)

    def replay(self, fitness: Sequence[float], digest: str) -> None:
        """Ask, compare with the digest logged at that generation, and tell the logged fitness."""
        if digest_of(self.ask()) != digest or len(fitness) != self.shape.population:
            raise ArtifactDamaged(
                f"The search log does not continue this search at generation {self.generation}.",
                why="The logged population differs from the one that the settings lead to.",
                fix="Remove the partial folder named by `wm doctor` and run the command again.",
            )
        self.tell(np.asarray(fitness, dtype=np.float64))

    @property
    def mean(self) -> NDArray[np.float64]:
        """The distribution's mean [P]: the search's answer."""
        return np.array(self._strategy.mean, dtype=np.float64)

    @property
    def sigma(self) -> float:
        """The step size."""
        return float(self._strategy.sigma)

    @property
    def step(self) -> float:
        """The largest standard deviation among the coordinates, which begins as sigma."""
        return float(np.max(self._strategy.stds))


def falling_sigma(shape: SearchShape, generation: int) -> float:
    """The step size after so many generations, falling by the same factor in each."""
    share = min(1.0, generation / shape.generations)
    return float(shape.sigma * (shape.sigma_end / shape.sigma) ** share)


def digest_of(population: NDArray[np.floating]) -> str:
    """sha256 of the asked matrix, as logged."""
    return hashlib.sha256(np.ascontiguousarray(population).tobytes()).hexdigest()


def check_fitness(fitness: NDArray[np.float64], *, generation: int) -> NDArray[np.float64]:
    """Fitness with every NaN or infinity replaced by the worst finite value.

    NumbersBad when there are too many. pycma itself accepts them in silence, all of them even.
    """
    bad = ~np.isfinite(fitness)
    if bad.mean() > MAX_BAD_SHARE:
        raise NumbersBad(
            f"{int(bad.sum())} of {len(fitness)} candidates of generation {generation} have no "
            "finite score.",
            why="A search cannot rank what is no number.",
            fix="Mend the environment, or train V and M again if their losses were odd.",
        )
    return np.where(bad, fitness[~bad].min(), fitness) if bad.any() else fitness


def _pycma() -> Any:
    """The package without its plots and rank statistics, which take longer to import than it."""
    unused = [name for name in ("matplotlib", "scipy") if name not in sys.modules]
    try:
        for name in unused:  # None: as where it is not installed
            sys.modules[name] = None  # type: ignore[assignment]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycma warns about what it misses
            import cma
    finally:
        for name in unused:
            sys.modules.pop(name, None)
    return cma


def _strategy(shape: SearchShape, start: NDArray[np.floating] | None) -> Any:
    """A pycma strategy without global randomness, files, signals or stopping rules of its own."""
    options = {
        "popsize": shape.population,
        "CMA_diagonal": shape.covariance == "diagonal",
        "seed": np.nan,
        "randn": np.random.RandomState(shape.seed).randn,
        "verbose": -9,
        "verb_log": 0,
        "verb_disp": 0,
        "tolflatfitness": np.inf,
        "signals_filename": "",
    }
    mean = np.zeros(shape.num_parameters) if start is None else np.asarray(start, np.float64)
    return _pycma().CMAEvolutionStrategy(mean, shape.sigma, options)
