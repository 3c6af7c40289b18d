"""What a search gathers from recorded latents before it begins: its space, how dreams begin."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.agents import AgentFiles
from stages.artifacts.artifact import Artifact
from stages.artifacts.disk import digest_file
from stages.artifacts.partial import Partial
from stages.artifacts.weights import pack_tensors, unpack_tensors
from stages.contracts import ActionSpec, Job, WorldSpec
from stages.control.config import FIRST, Config
from stages.errors import InputsMismatch, UsageError
from stages.trials import DreamFiles, cached_starts, load_memory
from stages.worlds.making import time_limit

if TYPE_CHECKING:
    from stages.artifacts.latents import LatentRecord
    from stages.control.basis import Basis
    from stages.worlds.dream import DreamTerms, Starts

BASIS = "basis.safetensors"  # mean and directions of the space that a search moves in
BASIS_STEPS = 40_000  # recorded steps from which it is computed
STARTS = "starts.safetensors"  # mu and logvar of first frames, and the reward of a step
MAX_STARTS = 1000  # as many as the original kept
INSIDE = "inside.safetensors"  # the same of any frames, with M's h and c
MAX_INSIDE = 4096


def fitted_basis(
    partial: Partial,
    latents: Sequence[Artifact],
    agent: AgentFiles,
    num_components: int,
    *,
    centred: bool,
) -> "Basis | None":
    """The space that is searched, computed once and kept in the partial; None: every weight."""
    from stages.artifacts.latents import LatentSet
    from stages.control.basis import Basis, fit_basis
    from stages.control.leading import inputs_of

    if not latents:
        return None
    if not partial.has(BASIS):
        with closing(LatentSet.of(latents)) as source:
            memory, features = load_memory(agent), agent.pilot.features
            inputs = inputs_of(source, memory, features, limit=BASIS_STEPS)
        fitted = fit_basis(inputs, num_components, centred=centred)
        partial.write(BASIS, pack_tensors(asdict(fitted)))
    tensors, _ = unpack_tensors(partial.path / BASIS)
    return Basis(mean=tensors["mean"], directions=tensors["directions"])


def dream_files(
    partial: Partial,
    latents: Sequence[Artifact],
    memory: Artifact,
    agent: AgentFiles,
    config: Config,
    job: Job,
    action_spec: ActionSpec,
) -> tuple[DreamFiles, DreamFiles]:
    """What a worker needs to dream: for candidates, and for the mean vector.

    Raises:
        UsageError: nothing says how long a dream may last.
        InputsMismatch: rewards differ from step to step, and M has no head for them.
    """
    from stages.training.device import resolve_device

    max_steps = dream_limit(config, job.world)
    path, digest = dream_starts(partial, latents, memory)
    terms = dream_terms(config, memory, job.world, max_steps=max_steps)
    device = str(resolve_device(job.resources.device))
    whole = DreamFiles(str(path), digest, action_spec, terms, config.precision, device)
    if config.dream_starts == FIRST:
        return whole, whole
    reward = cached_starts(digest, str(path)).reward
    inside = _inside(partial, latents, agent, reward=reward, seed=job.seed)
    return (
        replace(whole, starts=str(inside), starts_digest=digest_file(inside)),
        replace(whole, terms=replace(terms, max_steps=whole_limit(config, job.world))),
    )


def _inside(
    partial: Partial,
    latents: Sequence[Artifact],
    agent: AgentFiles,
    *,
    reward: float | None,
    seed: int,
) -> Path:
    """Where dreams begin inside of recorded episodes."""
    from stages.artifacts.latents import LatentSet
    from stages.control.leading import places_in

    if not partial.has(INSIDE):
        model = load_memory(agent)
        assert model is not None, "config.kinds asks for M"
        with closing(LatentSet.of(latents)) as source:
            found = places_in(source, model, reward=reward, count=MAX_INSIDE, seed=seed)
        partial.write(INSIDE, _packed(found))
    return partial.path / INSIDE


def _packed(starts: "Starts") -> bytes:
    """As `trials.cached_starts` reads it."""
    told = [] if starts.reward is None else [starts.reward]
    tensors = {"mu": starts.mu, "logvar": starts.logvar, "reward": np.array(told)}
    return pack_tensors(tensors | (starts.inside._asdict() if starts.inside else {}))


def dream_limit(config: Config, world: WorldSpec) -> int:
    """Actions after which a candidate's dream is cut.

    Raises:
        UsageError: nothing says how long a dream may last.
    """
    max_steps = config.dream_steps or time_limit(world)
    if not max_steps:
        raise UsageError(
            "A dream needs an end.",
            why=f"How long an episode of {world.env} may last is not known here.",
            fix="Say after how many actions: --set control.dream_steps=1000",
        )
    return max_steps


def whole_limit(config: Config, world: WorldSpec) -> int:
    """Actions after which the dream of a whole episode is cut; 0 where nobody says.

    Dreams that begin anywhere are pieces of episodes: what cuts those does not cut this one.
    """
    if config.dream_starts == FIRST:
        return config.dream_steps or time_limit(world)
    return time_limit(world) or config.dream_steps


def dream_terms(
    config: Config, memory: Artifact, world: WorldSpec, *, max_steps: int
) -> "DreamTerms":
    """The terms of the `[control]` section for a dream of so many actions at most."""
    from stages.worlds.dream import DreamTerms

    return DreamTerms(
        temperature=config.temperature,
        max_steps=max_steps,
        end=config.dream_end,
        end_weight=memory.manifest.config["memory"]["end_weight"],
        dropout=config.dream_dropout,
        repeat=world.repeat,
    )


def dream_starts(
    partial: Partial, latents: Sequence[Artifact], memory: Artifact
) -> tuple[Path, str]:
    """How recorded episodes begin, gathered once and kept in the partial; its path and sha256.

    Raises:
        InputsMismatch: rewards differ from step to step, and M has no head for them.
    """
    if not partial.has(STARTS):
        starts, (low, high) = recorded_starts(latents)
        if starts.reward is None and not memory.manifest.summary["shape"]["reward_head"]:
            raise InputsMismatch(
                f"{memory.id} cannot be dreamt in: it does not foresee rewards.",
                why=f"Recorded steps earned {low:g} to {high:g}.",
                fix="Train one that does: wm train-memory --set memory.reward_head=true",
            )
        partial.write(STARTS, _packed(starts))
    return partial.path / STARTS, digest_file(partial.path / STARTS)


def recorded_starts(latents: Sequence[Artifact]) -> "tuple[Starts, tuple[float, float]]":
    """How the first of these episodes begin; the least and the largest reward of their steps."""
    from stages.artifacts.latents import LatentSet
    from stages.worlds.dream import Starts

    with closing(LatentSet.of(latents)) as source:
        count = min(source.num_episodes, MAX_STARTS)
        begun = [_beginning(source.episode(number)) for number in range(count)]
    mu, logvar, least, most = (np.stack(column) for column in zip(*begun, strict=True))
    low, high = float(least.min()), float(most.max())
    return Starts(mu, logvar, low if low == high else None), (low, high)


def _beginning(record: "LatentRecord") -> tuple[Any, ...]:
    """Of an episode: mu and logvar [Z] of its first frame, the least and the largest reward."""
    first = (part[0].astype(np.float32) for part in (record.mu, record.logvar))
    return (*first, record.rewards.min(), record.rewards.max())
