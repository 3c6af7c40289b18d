"""Notices early that a search goes nowhere: scores that are all alike, a step that ran away."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.control.restarts import Restarts
from stages.control.search import check_fitness
from stages.events import Monitor, Noted, OnceEach

if TYPE_CHECKING:
    from stages.control.basis import Basis

# Candidates in a row that scored like the rest of their generation. Hansen's tutorial stops after
# 10 + 30 P / population such generations, which is longer than whole searches here; but episodes
# that are cut very short do give a few candidates equal scores (12 actions: 4 candidates, 3 times).
FLAT_CANDIDATES = 100
FLATNESS = 1e-9  # of a score: rewards are added up in another order
# Of the first step: pycma's own limit for a step that grows (tolfacupx), and its mirror image.
RUNAWAY = 1e3


def ranked(
    fitness: NDArray[np.float64], *, generation: int, progress: Monitor
) -> NDArray[np.float64]:
    """Fitness that can be told and logged: the few that are no numbers count as the worst."""
    made = check_fitness(fitness, generation=generation)
    num_bad = int((~np.isfinite(fitness)).sum())
    if num_bad:
        text = f"{num_bad} of {len(fitness)} candidates of generation {generation} have no finite "
        progress.emit(Noted(text + "score; they count as the worst.", warning=True))
    return made


def watch(search: Restarts, log: Sequence[Mapping[str, Any]], warnings: OnceEach) -> None:
    """Look at a search after a generation; `log` has its records so far."""
    flat = list(_flat_generations(log))
    if sum(len(fitness) for fitness in flat) >= FLAT_CANDIDATES:
        warnings.say(
            "flat",
            f"All candidates of the last {len(flat)} generations scored alike "
            f"({flat[0][0]:.6g}): the search has nothing to go by. Their episodes may be too short "
            "to tell them apart (control.max_steps, control.patience), or what they do earns "
            "nothing.",
        )
    shape, step = search.active.shape, search.active.step
    if shape.sigma_end:  # then the step follows a plan
        return
    if step < shape.sigma / RUNAWAY:
        warnings.say(
            "step",
            f"The search's step has fallen from {shape.sigma:g} to {step:.2g}: its candidates are "
            "all but the same, and it stands still. Scores that are mostly luck do that: try more "
            "control.episodes, a larger control.population, or a control.sigma_end.",
        )
    if step > shape.sigma * RUNAWAY:
        warnings.say(
            "step",
            f"The search's step has grown from {shape.sigma:g} to {step:.2g}: it wanders off "
            "without getting anywhere. Try a larger control.sigma to begin with, or a "
            "control.sigma_end.",
        )


def watch_basis(basis: "Basis | None", warnings: OnceEach) -> None:
    """Look at the space that will be searched."""
    if basis is not None and not len(basis.directions):
        warnings.say(
            "basis",
            "What C sees never varies in the recorded episodes: V or M has collapsed, and C can "
            "learn nothing but one action for ever. Train them again before the search.",
        )


def _flat_generations(log: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[float]]:
    """Fitness of the newest generations in which all candidates scored alike, newest first."""
    for record in reversed(log):
        if "fitness" not in record:
            continue
        fitness = np.asarray(record["fitness"])
        if np.ptp(fitness) > FLATNESS * np.abs(fitness).max():
            return
        yield record["fitness"]
