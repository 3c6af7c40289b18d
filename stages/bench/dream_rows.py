"""The rows of the dream: M, a draw from its mixture and C, many lanes at once.

`dream N` are these alone; `dream-world N` is the world that `wm train-control --in dream` steps, a
controller for every lane.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import TYPE_CHECKING, Any

from stages.bench.contest import Contest, Contestant, timed
from stages.bench.model_rows import forward_flop, matrix_ceiling
from stages.bench.plain_worlds import PlainAgent, dream_plainly
from stages.bench.worksite import SEED, Worksite
from stages.memory.fused_draw import can_compile
from stages.training.precision import native_precision
from stages.training.seeding import generator
from stages.trials import cached_dreaming

if TYPE_CHECKING:
    from stages.control.controllers import Controllers
    from stages.memory.dreaming import DreamingMemory

MAX_STARTS = 1000  # recorded beginnings of dreams
POPULATION = 64  # controllers at most; a lane belongs to one of them
TEMPERATURE = 1.15  # what Ha & Schmidhuber 2018 dreamt Doom at; it costs nothing


@dataclass(frozen=True)
class DreamTask:
    """What one worker dreams, or this process where it is not on the processor."""

    memory: str  # path of M's weights
    shape: tuple[tuple[str, Any], ...]  # of M
    num_lanes: int
    num_steps: int
    precision: str  # of M's matrix products
    compiled: bool  # whether the mixture's draw is one loop
    device: str


def dream_rows(site: Worksite) -> Iterator[Contest]:
    """One row per number of lanes."""
    shape = site.models.memory_shape
    sizes = (shape["latent_size"], shape["action_size"])
    flop = forward_flop(*sizes, shape["hidden_size"], shape["num_mixtures"])
    flop += 2 * shape["action_size"] * (shape["latent_size"] + shape["hidden_size"])  # C
    precision = native_precision(site.device.type)
    ceiling = matrix_ceiling(site, precision, flop)
    for num_lanes in site.sizes.dream_lanes:
        for row, what, work in (
            ("dream", f"M, mixture sample and C{_draws(site)}", dream),
            ("dream-world", "the dream as a world and its agents", dream_world),
        ):
            yield Contest(
                row=f"{row} {num_lanes}",
                unit="steps",
                used=(
                    f"{what}, {num_lanes} lanes on {_where(site)}, {precision}; ceiling: "
                    f"matrix product in {precision} at {flop / 1e6:.3g} MFLOP per step; plain: a "
                    f"batch of one in each of {site.cores} processes"
                ),
                ours=_ours(site, work, num_lanes, shape),
                ceiling=ceiling,
                plain=_plain(site, shape),
            )


def _draws(site: Worksite) -> str:
    compiled = site.sizes.compiled and _on_processor(site) and can_compile()
    return " (the draw compiled)" if compiled else ""


def _where(site: Worksite) -> str:
    return f"{site.cores} workers" if _on_processor(site) else site.device.type


def _on_processor(site: Worksite) -> bool:
    return site.device.type == "cpu"


def _ours(
    site: Worksite, work: Callable[["DreamTask"], int], num_lanes: int, shape: Mapping[str, Any]
) -> Contestant:
    steps = max(2, site.sizes.dream_lane_steps // num_lanes)

    def run(num_steps: int) -> float:
        tasks = _tasks(site, num_lanes, num_steps, shape)
        if _on_processor(site):
            return site.total(work, tasks)
        return float(sum(map(work, tasks)))  # as train-control: workers do not share a device

    return Contestant(lambda: timed(lambda: run(steps)), lambda: run(2))


def _tasks(
    site: Worksite, num_lanes: int, num_steps: int, shape: Mapping[str, Any]
) -> list[DreamTask]:
    each = -(-num_lanes // site.cores) if _on_processor(site) else num_lanes
    counts = [min(each, num_lanes - start) for start in range(0, num_lanes, each)]
    plain = tuple(sorted(shape.items()))
    compiled = site.sizes.compiled
    device = site.device.type
    precision = native_precision(device)
    return [
        DreamTask(site.models.memory, plain, count, num_steps, precision, compiled, device)
        for count in counts
    ]


def _plain(site: Worksite, shape: Mapping[str, Any]) -> Contestant:
    names = ("latent_size", "action_size", "hidden_size", "num_mixtures")
    agent = PlainAgent(**{name: shape[name] for name in names})

    def run(num_steps: int) -> float:
        return site.total(dream_plainly, [(agent, num_steps)] * site.cores)

    return Contestant(lambda: timed(lambda: run(site.sizes.plain_dream_steps)), lambda: run(5))


def dream(task: DreamTask) -> int:
    """Dream. Returns the steps of all lanes together."""
    import torch

    from stages.training.device import torch_generator

    memory = _memory(task, compiled=task.compiled)
    inputs = memory.shape.latent_size + memory.shape.hidden_size
    population = gcd(POPULATION, task.num_lanes)  # so that all have the same number of lanes
    controllers = _controllers(inputs, population, task.device)
    random = torch_generator(SEED, "bench-dream", device=memory.device)
    shape = (task.num_lanes, memory.shape.latent_size)
    z = torch.randn(shape, generator=random, device=memory.device)
    state = memory.model.initial_state(task.num_lanes)
    with torch.inference_mode():
        for _ in range(task.num_steps):
            known = torch.cat((z, state[0]), dim=1).view(population, -1, inputs)
            action = controllers.in_blocks(known).flatten(0, 1)
            state = memory.advance(z, action, state)
            seen = memory.seen(state[0], z, action)
            uniform = torch.rand(shape, generator=random, device=memory.device)
            noise = torch.randn(shape, generator=random, device=memory.device)
            z = memory.draw(seen, uniform=uniform, noise=noise, temperature=TEMPERATURE)
    z.cpu()  # a GPU is done when its numbers are here
    return task.num_lanes * task.num_steps


def dream_world(task: DreamTask) -> int:
    """The same by the world of dreams and its policy."""
    import numpy as np

    from stages.contracts import ActionSpec
    from stages.control.pilot import Choices, Dreamer, PilotShape
    from stages.worlds.dream import DreamTerms, DreamWorld, Starts

    memory = _memory(task, compiled=False)  # its workers do not wait for a compiler
    random = generator(SEED, "bench-dream-world")
    mu = random.standard_normal((MAX_STARTS, memory.shape.latent_size)).astype(np.float32)
    spec = ActionSpec("box", memory.shape.action_size, *_bounds(memory.shape.action_size))
    terms = DreamTerms(temperature=TEMPERATURE, max_steps=task.num_steps)
    world = DreamWorld(memory, Starts(mu, np.full_like(mu, -2.0), 1.0), spec, terms)
    inputs = memory.shape.latent_size + memory.shape.hidden_size
    controllers = _controllers(inputs, task.num_lanes, task.device)
    policy = Dreamer(world, Choices(controllers, PilotShape(), spec))
    seeds = range(task.num_lanes)
    seen = world.reset(seeds)
    policy.reset(seeds)
    while world.live.any():
        seen = world.step(policy.act(seen, world.live)).observation
    return task.num_lanes * task.num_steps


def _bounds(size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return (-1.0,) * size, (1.0,) * size


def _memory(task: DreamTask, *, compiled: bool) -> "DreamingMemory":
    return cached_dreaming("", task.memory, task.shape, task.precision, task.device, compiled)


@lru_cache(maxsize=1)
def _controllers(num_inputs: int, population: int, device: str) -> "Controllers":
    from stages.control.controllers import Controllers, ControllerShape

    shape = ControllerShape(num_inputs, 3)
    random = generator(SEED, "bench-dream-controllers")
    vectors = 0.1 * random.standard_normal((population, shape.num_parameters))
    return Controllers(shape, vectors, device=device)
